//! diffusers' U-Net configurations, as far as unCLIP and GLIDE checkpoints use them.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::UNetConfig;
use crate::{
    error::{Error, Result},
    json,
};

/// `config.json` of a `UNet2DModel` or `UNet2DConditionModel`; missing keys have the reference's
/// defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct DiffusersUNet {
    /// `UNet2DModel` or `UNet2DConditionModel`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Height and width the network was trained at.
    pub sample_size: Option<usize>,
    in_channels: usize,
    out_channels: usize,
    block_out_channels: Vec<usize>,
    layers_per_block: usize,
    down_block_types: Vec<String>,
    up_block_types: Vec<String>,
    mid_block_type: Option<String>,
    cross_attention_dim: Option<usize>,
    attention_head_dim: Option<Value>,
    add_attention: bool,
    resnet_time_scale_shift: String,
    norm_num_groups: usize,
    norm_eps: f64,
    act_fn: String,
    time_embedding_type: String,
    time_embedding_dim: Option<usize>,
    flip_sin_to_cos: bool,
    freq_shift: f64,
    mid_block_scale_factor: f64,
    center_input_sample: bool,
    class_embed_type: Option<String>,
    /// Everything else. Some of it must be at its default.
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

impl Default for DiffusersUNet {
    fn default() -> Self {
        Self {
            class_name: String::new(),
            sample_size: None,
            in_channels: 0,
            out_channels: 0,
            block_out_channels: Vec::new(),
            layers_per_block: 2,
            down_block_types: Vec::new(),
            up_block_types: Vec::new(),
            mid_block_type: None,
            cross_attention_dim: None,
            attention_head_dim: None,
            add_attention: true,
            resnet_time_scale_shift: "default".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            act_fn: "silu".into(),
            time_embedding_type: "positional".into(),
            time_embedding_dim: None,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            mid_block_scale_factor: 1.0,
            center_input_sample: false,
            class_embed_type: None,
            others: serde_json::Map::new(),
        }
    }
}

/// Switches that change the network and have to be at the value beside them (or absent or null).
const FIXED: [(&str, &str); 15] = [
    ("dropout", "0.0"),
    ("addition_embed_type", "null"),
    ("class_embeddings_concat", "false"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
    ("cross_attention_norm", "null"),
    ("dual_cross_attention", "false"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("num_class_embeds", "null"),
    ("only_cross_attention", "false"),
    ("resnet_out_scale_factor", "1.0"),
    ("resnet_skip_time_act", "false"),
    ("time_embedding_act_fn", "null"),
    ("timestep_post_act", "null"),
];

impl UNetConfig {
    /// The `config.json` that diffusers reads for this network, trained at `size` × `size`; a
    /// `UNet2DConditionModel` where it attends, else a `UNet2DModel`.
    pub fn diffusers(&self, size: usize) -> Value {
        let kinds = |attending: &[bool], plain: &str, other: &str| -> Vec<String> {
            let kind = |attends: &bool| if *attends { other } else { plain };
            attending.iter().map(|a| kind(a).to_owned()).collect()
        };
        let down = kinds(
            &self.down_attention,
            "ResnetDownsampleBlock2D",
            "SimpleCrossAttnDownBlock2D",
        );
        let up = kinds(
            &self.up_attention,
            "ResnetUpsampleBlock2D",
            "SimpleCrossAttnUpBlock2D",
        );
        let shift = if self.scale_shift {
            "scale_shift"
        } else {
            "default"
        };
        let mut config = json!({
            "_class_name": "UNet2DModel", "sample_size": size, "in_channels": self.in_channels,
            "out_channels": self.out_channels, "block_out_channels": self.channels,
            "layers_per_block": self.layers, "down_block_types": down, "up_block_types": up,
            "resnet_time_scale_shift": shift, "norm_num_groups": self.groups,
            "norm_eps": self.epsilon, "act_fn": "silu", "time_embedding_type": "positional",
            "flip_sin_to_cos": self.cos_first, "freq_shift": self.freq_shift,
            "mid_block_scale_factor": self.mid_scale, "center_input_sample": self.center_input,
            "attention_head_dim": self.head_dim,
        });
        let more = match self.mid_attention {
            false => json!({ "add_attention": false }),
            true => json!({
                "_class_name": "UNet2DConditionModel", "class_embed_type": "identity",
                "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
                "cross_attention_dim": self.context,
            }),
        };
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
            if self.time != 0 {
                config.insert("time_embedding_dim".into(), json!(self.time));
            }
        }
        config
    }
}

impl DiffusersUNet {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<(UNetConfig, Self)> {
        let path = folder.join("config.json");
        let config: Self = json::read(&path)?;
        let unet = config.unet(&path.display().to_string())?;
        Ok((unet, config))
    }

    /// The network this describes; `origin` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] for a class, block type or switch that is not supported.
    pub fn unet(&self, origin: &str) -> Result<UNetConfig> {
        let refuse =
            |key: &str, value: String, expected: &str| Error::config(origin, key, value, expected);
        let is_conditional = match self.class_name.as_str() {
            "UNet2DConditionModel" => true,
            "UNet2DModel" => false,
            other => {
                return Err(refuse(
                    "_class_name",
                    other.to_owned(),
                    "expected UNet2DConditionModel or UNet2DModel",
                ));
            }
        };
        self.check_switches(is_conditional, &refuse)?;
        let attention = |key, types: &[String], plain, attending| {
            types
                .iter()
                .map(|kind| match kind.as_str() {
                    k if k == plain => Ok(false),
                    k if k == attending && is_conditional => Ok(true),
                    other => Err(refuse(
                        key,
                        other.to_owned(),
                        "expected blocks of unCLIP (Resnet…Block2D, SimpleCrossAttn…Block2D)",
                    )),
                })
                .collect::<Result<Vec<bool>>>()
        };
        let down = attention(
            "down_block_types",
            &self.down_block_types,
            "ResnetDownsampleBlock2D",
            "SimpleCrossAttnDownBlock2D",
        )?;
        let up = attention(
            "up_block_types",
            &self.up_block_types,
            "ResnetUpsampleBlock2D",
            "SimpleCrossAttnUpBlock2D",
        )?;
        let levels = self.block_out_channels.len();
        if levels == 0 || levels > 16 || down.len() != levels || up.len() != levels {
            return Err(refuse(
                "block_out_channels",
                format!("{:?}", self.block_out_channels),
                "expected one entry for each of down_block_types and up_block_types",
            ));
        }
        let context = self.cross_attention_dim.unwrap_or(1280);
        let head_dim = self.head_dim(&refuse)?;
        self.check_sizes(head_dim, &refuse)?;
        let config = UNetConfig::new(
            self.in_channels,
            self.out_channels,
            self.block_out_channels.clone(),
            self.layers_per_block,
            down,
            up,
            is_conditional,
            if is_conditional { context } else { 0 },
            self.resnet_time_scale_shift == "scale_shift",
        );
        Ok(config
            .with_head_dim(head_dim)
            .with_groups(self.norm_num_groups)
            .with_epsilon(self.norm_eps)
            .with_time(self.time_embedding_dim.unwrap_or(0))
            .with_cos_first(self.flip_sin_to_cos)
            .with_freq_shift(self.freq_shift)
            .with_mid_scale(self.mid_block_scale_factor)
            .with_center_input(self.center_input_sample))
    }

    fn check_switches(
        &self,
        is_conditional: bool,
        refuse: &dyn Fn(&str, String, &str) -> Error,
    ) -> Result<()> {
        let expect = |key: &str, value: &str, wanted: &[&str]| {
            if wanted.contains(&value) {
                Ok(())
            } else {
                let wanted = format!("supported is {}", wanted.join(", "));
                Err(refuse(key, value.to_owned(), &wanted))
            }
        };
        expect("act_fn", &self.act_fn, &["silu", "swish"])?;
        expect(
            "time_embedding_type",
            &self.time_embedding_type,
            &["positional"],
        )?;
        expect(
            "resnet_time_scale_shift",
            &self.resnet_time_scale_shift,
            &["default", "scale_shift"],
        )?;
        let class_embed = self.class_embed_type.as_deref().unwrap_or("null");
        if is_conditional {
            expect("class_embed_type", class_embed, &["identity"])?;
            let mid = self
                .mid_block_type
                .as_deref()
                .unwrap_or("UNetMidBlock2DCrossAttn");
            expect("mid_block_type", mid, &["UNetMidBlock2DSimpleCrossAttn"])?;
        } else {
            expect("class_embed_type", class_embed, &["null"])?;
            expect("add_attention", &self.add_attention.to_string(), &["false"])?;
        }
        for (key, wanted) in FIXED {
            let wanted: Value = serde_json::from_str(wanted).unwrap_or(Value::Null);
            match self.others.get(key) {
                None | Some(Value::Null) => {}
                Some(found) if *found == wanted => {}
                Some(found) if found.as_f64().is_some() && found.as_f64() == wanted.as_f64() => {}
                Some(found) => {
                    return Err(refuse(
                        key,
                        found.to_string(),
                        &format!("supported is {wanted}"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// diffusers calls the width of a head `attention_head_dim` in these blocks, one for all
    /// levels or the same for each.
    fn head_dim(&self, refuse: &dyn Fn(&str, String, &str) -> Error) -> Result<usize> {
        let uniform = match &self.attention_head_dim {
            None | Some(Value::Null) => Some(8),
            Some(Value::Array(each)) => match &each[..] {
                [first, rest @ ..] if rest.iter().all(|v| v == first) => first.as_u64(),
                _ => None,
            },
            Some(value) => value.as_u64(),
        };
        uniform
            .filter(|d| *d > 0)
            .map(|d| d as usize)
            .ok_or_else(|| {
                refuse(
                    "attention_head_dim",
                    format!("{:?}", self.attention_head_dim),
                    "expected one positive number for all levels",
                )
            })
    }

    fn check_sizes(
        &self,
        head_dim: usize,
        refuse: &dyn Fn(&str, String, &str) -> Error,
    ) -> Result<()> {
        // A config comes from outside: it must not make us build without end.
        const MOST: usize = 1 << 16;
        if self.layers_per_block > 256 {
            let value = self.layers_per_block.to_string();
            return Err(refuse("layers_per_block", value, "expected at most 256"));
        }
        for (key, value) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.out_channels),
            ("layers_per_block", self.layers_per_block),
            ("norm_num_groups", self.norm_num_groups),
        ] {
            if !(1..=MOST).contains(&value) {
                return Err(refuse(key, value.to_string(), "expected a positive number"));
            }
        }
        for (level, &channels) in self.block_out_channels.iter().enumerate() {
            let up = self.up_block_types.len().saturating_sub(1 + level);
            let is_attending = [
                self.down_block_types.get(level),
                self.up_block_types.get(up),
            ]
            .into_iter()
            .flatten()
            .any(|kind| kind.contains("Attn"));
            if !(1..=MOST).contains(&channels)
                || !channels.is_multiple_of(self.norm_num_groups)
                || (is_attending && !channels.is_multiple_of(head_dim))
            {
                return Err(refuse(
                    "block_out_channels",
                    channels.to_string(),
                    "expected a multiple of norm_num_groups and attention_head_dim",
                ));
            }
        }
        Ok(())
    }
}
