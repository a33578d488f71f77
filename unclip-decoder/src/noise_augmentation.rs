//! Noise on image embeddings, with which Stable unCLIP conditions its decoder.

use std::path::Path;

use burn::{
    config::Config,
    module::{Module, Param},
    nn::Initializer,
    tensor::{DType, Device, Tensor, TensorData},
};
use serde::Deserialize;
use unclip_core::{
    diffusion::Process,
    error::{Error, Result},
    json,
    nn::{as_compute, sinusoid},
    weights::{Checkpoint, KeyMap, LoadOptions, load},
};

/// Configuration of [`EmbeddingNormalizer`].
#[derive(Config, Debug)]
pub struct EmbeddingNormalizerConfig {
    /// Width of the embeddings.
    pub embedding: usize,
}

/// Mean and deviation of CLIP image embeddings (diffusers' `StableUnCLIPImageNormalizer`).
///
/// Should be created with [`EmbeddingNormalizerConfig`].
#[derive(Module, Debug)]
pub struct EmbeddingNormalizer {
    mean: Param<Tensor<2>>,
    std: Param<Tensor<2>>,
}

impl EmbeddingNormalizerConfig {
    /// A new normaliser that changes nothing.
    pub fn init(&self, device: &Device) -> EmbeddingNormalizer {
        EmbeddingNormalizer {
            mean: Initializer::Zeros.init([1, self.embedding], device),
            std: Initializer::Ones.init([1, self.embedding], device),
        }
    }
}

#[derive(Deserialize)]
#[serde(default)]
struct DiffusersNormalizer {
    #[serde(rename = "_class_name")]
    class_name: String,
    embedding_dim: usize,
}

impl Default for DiffusersNormalizer {
    fn default() -> Self {
        Self {
            class_name: "StableUnCLIPImageNormalizer".into(),
            embedding_dim: 768,
        }
    }
}

/// Loads a `StableUnCLIPImageNormalizer` from its folder.
///
/// # Errors
/// Missing or damaged files, another class, weights that do not fit.
pub fn load_embedding_normalizer(
    folder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<EmbeddingNormalizer> {
    let path = folder.join("config.json");
    let config: DiffusersNormalizer = json::read(&path)?;
    let wrong =
        |key, value: String, expected| Err(Error::config(path.display(), key, value, expected));
    if config.class_name != "StableUnCLIPImageNormalizer" {
        let expected = "expected StableUnCLIPImageNormalizer";
        return wrong("_class_name", config.class_name, expected);
    }
    if !(1..=1 << 20).contains(&config.embedding_dim) {
        let expected = "expected a positive number";
        return wrong("embedding_dim", config.embedding_dim.to_string(), expected);
    }
    let checkpoint = Checkpoint::open(folder, variant)?;
    let module = EmbeddingNormalizerConfig::new(config.embedding_dim).init(device);
    load(module, &checkpoint, &KeyMap::default(), options)
}

impl EmbeddingNormalizer {
    fn statistics(&self) -> (Tensor<2>, Tensor<2>) {
        let f32 = |p: &Param<Tensor<2>>| as_compute(p.val(), DType::F32);
        (f32(&self.mean), f32(&self.std))
    }

    /// (x − mean) / std, `[b, d]`.
    pub fn normalize(&self, embedding: Tensor<2>) -> Tensor<2> {
        let (mean, std) = self.statistics();
        (embedding - mean) / std
    }

    /// x · std + mean, `[b, d]`.
    pub fn denormalize(&self, embedding: Tensor<2>) -> Tensor<2> {
        let (mean, std) = self.statistics();
        embedding * std + mean
    }

    /// `embedding` with the noise of timestep `level` of `process`, followed by that level's
    /// sinusoid: `[b, d]` → `[b, 2 d]`. The higher the level, the more the pictures vary.
    ///
    /// # Errors
    /// [`Error::Setting`] if the process has no such timestep, [`Error::Shape`] if `noise` is not
    /// of the embedding's shape.
    pub fn augment(
        &self,
        embedding: Tensor<2>,
        noise: Tensor<2>,
        level: usize,
        process: &Process,
    ) -> Result<Tensor<2>> {
        let [rows, width] = embedding.dims();
        if level >= process.steps() {
            let expected = format!("less than {}", process.steps());
            return Err(Error::setting("noise level", level, expected));
        }
        if noise.dims() != [rows, width] {
            let expected = format!("[{rows}, {width}]");
            return Err(Error::shape("the noise", &noise.dims(), expected));
        }
        let device = embedding.device();
        let levels = vec![level; rows];
        let noised = process.add_noise(self.normalize(embedding), noise, &levels);
        let features = sinusoid(&vec![level as f32; rows], width, true, 0.0);
        let features = TensorData::new(features, [rows, width]);
        let features = Tensor::from_data(features, (&device, DType::F32));
        Ok(Tensor::cat(vec![self.denormalize(noised), features], 1))
    }
}
