//! Our own layout of an autoregressive prior: there is no open checkpoint to follow.

use std::path::Path;

use burn::{
    module::{Module, Param},
    nn::Initializer,
    tensor::{Device, FloatDType, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use unclip_core::{
    error::{Error, Result},
    image::to_host,
    json,
    resident::Resident,
    weights::{Checkpoint, KeyMap, LoadOptions, load, save, write_whole},
};

use super::{AutoregressiveConfig, AutoregressiveModel, AutoregressivePrior};
use crate::{EmbeddingCodec, Pca};

const CLASS: &str = "UnclipAutoregressivePrior";

#[derive(Serialize, Deserialize)]
struct Layout {
    #[serde(rename = "_class_name")]
    class_name: String,
    model: AutoregressiveConfig,
}

/// Everything in the folder's `model.safetensors`.
#[derive(Module, Debug)]
struct Contents {
    model: AutoregressiveModel,
    pca_mean: Param<Tensor<1>>,
    pca_components: Param<Tensor<2>>,
    pca_variances: Param<Tensor<1>>,
    bucket_low: Param<Tensor<1>>,
    bucket_high: Param<Tensor<1>>,
    dot_edges: Param<Tensor<1>>,
}

/// Reads a folder that [`save_autoregressive_prior`] wrote.
///
/// # Errors
/// Missing or damaged files, settings out of range, weights that do not fit.
pub fn load_autoregressive_prior(
    folder: &Path,
    device: &Device,
    options: LoadOptions,
) -> Result<AutoregressivePrior> {
    let path = folder.join("config.json");
    let layout: Layout = json::read(&path)?;
    let wrong = |key: &str, value: &dyn std::fmt::Display, expected: &str| {
        Err(Error::config(path.display(), key, value, expected))
    };
    if layout.class_name != CLASS {
        return wrong(
            "_class_name",
            &layout.class_name,
            &format!("expected {CLASS}"),
        );
    }
    let config = layout.model;
    for (key, value) in [
        ("embedding", config.embedding),
        ("context", config.context),
        ("codes", config.codes),
        ("heads", config.heads),
        ("head_dim", config.head_dim),
    ] {
        if !(1..=1 << 20).contains(&value) {
            return wrong(key, &value, "expected a positive number");
        }
    }
    for (key, value) in [
        ("buckets", config.buckets),
        ("dot_buckets", config.dot_buckets),
    ] {
        if !(2..=1 << 20).contains(&value) {
            return wrong(key, &value, "expected at least 2");
        }
    }
    if config.layers > 1024 {
        return wrong("layers", &config.layers, "expected at most 1024");
    }
    if config.codes > config.embedding {
        return wrong(
            "codes",
            &config.codes,
            "expected at most the embedding's width",
        );
    }
    let empty = contents(&config, config.init(device), device);
    let checkpoint = Checkpoint::open(folder, None)?;
    // A component or a bucket that is not a number would spoil every sample silently.
    let options = LoadOptions {
        check_finite: true,
        ..options
    };
    let filled = load(empty, &checkpoint, &KeyMap::default(), options)?;
    let host =
        |param: &Param<Tensor<1>>| -> Result<Vec<f64>> { Ok(wide(to_host(param.val(), "prior")?)) };
    let components = wide(to_host(filled.pca_components.val(), "prior")?);
    let pca = Pca::from_parts(
        host(&filled.pca_mean)?,
        components,
        host(&filled.pca_variances)?,
    )?;
    let (low, high) = (host(&filled.bucket_low)?, host(&filled.bucket_high)?);
    let codec = EmbeddingCodec::from_parts(pca, config.buckets, low, high)?;
    let edges = to_host(filled.dot_edges.val(), "prior")?;
    AutoregressivePrior::new(&config, Resident::Kept(filled.model), codec, edges, device)
}

/// Writes a prior's network, components, buckets and edges into `folder`, which is made:
/// `config.json` and `model.safetensors`, floats as `dtype` or as they are kept.
///
/// # Errors
/// [`Error::Io`], or what loading a network that is not resident gives.
pub fn save_autoregressive_prior(
    prior: &AutoregressivePrior,
    config: &AutoregressiveConfig,
    folder: &Path,
    dtype: Option<FloatDType>,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        path: folder.to_owned(),
        source,
    })?;
    let model = prior.model.hold()?.clone();
    let device = model
        .devices()
        .into_iter()
        .next()
        .unwrap_or_else(|| prior.device().clone());
    let (codec, pca) = (prior.codec(), prior.codec().pca());
    let mut all = contents(config, model, &device);
    let row = |values: &[f64]| {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        let count = values.len();
        Param::from_tensor(Tensor::<1>::from_data(
            TensorData::new(values, [count]),
            &device,
        ))
    };
    let components: Vec<f32> = pca.components().iter().map(|v| *v as f32).collect();
    let shape = [pca.dims(), pca.width()];
    all.pca_components = Param::from_tensor(Tensor::from_data(
        TensorData::new(components, shape),
        &device,
    ));
    all.pca_mean = row(pca.mean());
    all.pca_variances = row(pca.variances());
    let (low, high) = codec.ranges();
    (all.bucket_low, all.bucket_high) = (row(low), row(high));
    all.dot_edges = row(&wide(prior.dot_edges().to_vec()));
    save(
        &all,
        &folder.join("model.safetensors"),
        &KeyMap::default(),
        dtype,
    )?;
    let layout = Layout {
        class_name: CLASS.into(),
        model: config.clone(),
    };
    let text = serde_json::to_vec_pretty(&layout).unwrap_or_default();
    write_whole(&folder.join("config.json"), &text)
}

fn contents(
    config: &AutoregressiveConfig,
    model: AutoregressiveModel,
    device: &Device,
) -> Contents {
    let row = |count: usize| Initializer::Zeros.init([count], device);
    Contents {
        model,
        pca_mean: row(config.embedding),
        pca_components: Initializer::Zeros.init([config.codes, config.embedding], device),
        pca_variances: row(config.codes),
        bucket_low: row(config.codes),
        bucket_high: row(config.codes),
        dot_edges: row(config.dot_buckets - 1),
    }
}

fn wide(values: Vec<f32>) -> Vec<f64> {
    values.into_iter().map(f64::from).collect()
}
