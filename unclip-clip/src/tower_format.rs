//! What the files of both towers have in common: names in a block, and what is asked of a
//! configuration.

use unclip_core::{
    error::{Error, Result},
    nn::Activation,
};

/// Renames from a transformer block to transformers' `CLIPEncoderLayer`.
pub(crate) const BLOCK_KEYS: [(&str, &str); 6] = [
    ("norm1", "layer_norm1"),
    ("norm2", "layer_norm2"),
    ("attn.to_q", "self_attn.q_proj"),
    ("attn.to_k", "self_attn.k_proj"),
    ("attn.to_v", "self_attn.v_proj"),
    ("attn.to_out", "self_attn.out_proj"),
];

/// Most positions and channels that a configuration may ask for.
const LARGEST: usize = 1 << 24;

/// That the file is of this class and kind. Old files lack `architectures`.
pub(crate) fn check_class(
    origin: &str,
    architectures: Option<&[String]>,
    class: &str,
    model_type: &str,
    kind: &str,
) -> Result<()> {
    if let Some(names) = architectures
        && !names.iter().any(|name| name == class)
    {
        let expected = format!("expected {class}");
        return Err(Error::config(
            origin,
            "architectures",
            names.join(", "),
            expected,
        ));
    }
    if model_type != kind {
        let expected = format!("expected {kind}");
        return Err(Error::config(origin, "model_type", model_type, expected));
    }
    Ok(())
}

/// The non-linearity that the file calls `name`.
pub(crate) fn activation(origin: &str, name: &str) -> Result<Activation> {
    Activation::from_name(name)
        .ok_or_else(|| Error::config(origin, "hidden_act", name, "expected gelu or quick_gelu"))
}

/// That each of these keys is a size.
pub(crate) fn check_sizes(origin: &str, sizes: &[(&str, usize)]) -> Result<()> {
    match sizes
        .iter()
        .find(|(_, value)| !(1..=LARGEST).contains(value))
    {
        Some((key, value)) => Err(Error::config(
            origin,
            key,
            value,
            "expected a positive number",
        )),
        None => Ok(()),
    }
}

/// That a transformer of these sizes can be made.
pub(crate) fn check_transformer(
    origin: &str,
    layers: usize,
    width: usize,
    heads: usize,
) -> Result<()> {
    if layers > 1024 {
        return Err(Error::config(
            origin,
            "num_hidden_layers",
            layers,
            "expected at most 1024",
        ));
    }
    if !width.is_multiple_of(heads) {
        return Err(Error::config(
            origin,
            "hidden_size",
            width,
            "expected a multiple of num_attention_heads",
        ));
    }
    Ok(())
}
