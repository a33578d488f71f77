//! A whole CLIP (arXiv 2103.00020): both towers and the loss that trains them.

use std::path::Path;

use burn::{
    config::Config,
    module::{Module, Param},
    nn::{Initializer, loss::CrossEntropyLossConfig},
    tensor::{Bool, DType, Device, Int, Tensor},
};
use unclip_core::{
    error::{Error, Result},
    kernels::linear,
    nn::as_compute,
    weights::{Checkpoint, KeyMap, LoadOptions, load},
};

use crate::{
    contrastive_format::TransformersClip,
    text_tower::{TextTower, TextTowerConfig, text_tower_keys},
    vision_tower::{VisionTower, VisionTowerConfig, vision_tower_keys},
};

/// Configuration of [`ClipModel`].
#[derive(Config, Debug)]
pub struct ClipModelConfig {
    /// The text tower.
    pub text: TextTowerConfig,
    /// The vision tower, with the text tower's projection.
    pub vision: VisionTowerConfig,
    /// Logarithm of the factor on cosines at the start of training. Default: 2.6592, ln(1 / 0.07)
    #[config(default = 2.6592)]
    pub logit_scale: f64,
}

/// CLIP's two towers and the factor on their cosines.
///
/// Should be created with [`ClipModelConfig`].
#[derive(Module, Debug)]
pub struct ClipModel {
    /// The text tower.
    pub text: TextTower,
    /// The vision tower.
    pub vision: VisionTower,
    /// Logarithm of the factor on cosines, `[1]`.
    pub logit_scale: Param<Tensor<1>>,
}

/// What a [`ClipModel`] says of texts and pictures. All f32.
#[derive(Clone, Debug)]
pub struct ClipOutput {
    /// Text embeddings of length 1, `[texts, d]`.
    pub text_embeddings: Tensor<2>,
    /// Image embeddings of length 1, `[images, d]`.
    pub image_embeddings: Tensor<2>,
    /// exp(logit_scale) · cosine, `[texts, images]`.
    pub logits_per_text: Tensor<2>,
    /// The same, `[images, texts]`.
    pub logits_per_image: Tensor<2>,
}

impl ClipModelConfig {
    /// OpenAI's ViT-L/14: 427,616,513 parameters.
    pub fn vit_l_14() -> Self {
        Self::new(TextTowerConfig::vit_l_14(), VisionTowerConfig::vit_l_14())
    }

    /// A new model on `device`. Parameters take memory when they are first used.
    ///
    /// # Panics
    /// If the towers' embeddings differ in width, or a tower cannot be made.
    pub fn init(&self, device: &Device) -> ClipModel {
        assert_eq!(
            self.text.projection, self.vision.projection,
            "both towers' embeddings have one width"
        );
        ClipModel {
            text: self.text.init(device),
            vision: self.vision.init(device),
            logit_scale: Initializer::Constant {
                value: self.logit_scale,
            }
            .init([1], device),
        }
    }
}

/// Renames from [`ClipModel`] to transformers' `CLIPModel`.
pub fn clip_model_keys() -> KeyMap {
    KeyMap::default()
        .with_part("text", text_tower_keys())
        .with_part("vision", vision_tower_keys())
}

/// Loads a `CLIPModel` from its folder.
///
/// # Errors
/// Missing or damaged files, unsupported settings, weights that do not fit.
pub fn load_clip_model(
    folder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<ClipModel> {
    let config = TransformersClip::load(folder)?;
    let checkpoint = Checkpoint::open(folder, variant)?;
    load(
        config.init(device),
        &checkpoint,
        &clip_model_keys(),
        options,
    )
}

impl ClipModel {
    /// Logarithm of the factor on cosines, f32 `[1]`.
    pub fn logit_scale(&self) -> Tensor<1> {
        as_compute(self.logit_scale.val(), DType::F32)
    }

    /// Encodes texts and pictures and compares each with each. Their numbers need not agree.
    ///
    /// `ids`, `rows` and `mask` are for [`TextTower::forward`], `pixel_values` for
    /// [`VisionTower::forward`].
    ///
    /// # Errors
    /// Those of the towers.
    pub fn forward(
        &self,
        ids: &[u32],
        rows: usize,
        mask: Option<Tensor<2, Bool>>,
        pixel_values: Tensor<4>,
    ) -> Result<ClipOutput> {
        let text = self.text.forward(ids, rows, mask)?.embedding;
        let image = self.vision.forward(pixel_values)?.embedding;
        let logits = similarity_logits(text.clone(), image.clone(), self.logit_scale());
        Ok(ClipOutput {
            text_embeddings: normalize(text),
            image_embeddings: normalize(image),
            logits_per_image: logits.clone().transpose(),
            logits_per_text: logits,
        })
    }

    /// The factor on cosines as a number.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the weights are damaged.
    pub fn logit_factor(&self) -> Result<f32> {
        let scale = unclip_core::image::to_host(self.logit_scale(), "logit_scale")?[0].exp();
        if scale.is_finite() {
            return Ok(scale);
        }
        Err(Error::NotFinite {
            stage: "logit_scale".into(),
            hint: "the weights are damaged".into(),
        })
    }
}

/// Each row scaled to length 1; a row of zeros stays one.
///
/// # Shapes
/// `[b, d]`, also the output
pub fn normalize(embeddings: Tensor<2>) -> Tensor<2> {
    let length = embeddings.clone().square().sum_dim(1).sqrt();
    embeddings / length.clamp_min(1e-12)
}

/// Cosine of each text with each picture.
///
/// # Shapes
/// `[texts, d]`, `[images, d]` → `[texts, images]`
///
/// # Panics
/// If the embeddings differ in width.
pub fn cosine_similarity(text_embeddings: Tensor<2>, image_embeddings: Tensor<2>) -> Tensor<2> {
    // By the kernels: Burn's own products are TF32 on some GPUs.
    let pictures = normalize(image_embeddings).transpose();
    linear(normalize(text_embeddings), pictures, None)
}

/// exp(logit_scale) · cosine of each text with each picture. Embeddings may have any length.
///
/// # Shapes
/// `[texts, d]`, `[images, d]`, `[1]` → `[texts, images]`
///
/// # Panics
/// If the embeddings differ in width.
pub fn similarity_logits(
    text_embeddings: Tensor<2>,
    image_embeddings: Tensor<2>,
    logit_scale: Tensor<1>,
) -> Tensor<2> {
    let scale = logit_scale.exp().reshape([1, 1]);
    cosine_similarity(text_embeddings, image_embeddings) * scale
}

/// CLIP's symmetric contrastive loss (InfoNCE): the mean of the cross-entropies of finding each
/// text's picture and each picture's text in the batch. Differentiates in all three arguments.
///
/// # Shapes
/// `[b, d]`, `[b, d]` (of any length, row i of one belongs to row i of the other), `[1]` → `[1]`
///
/// # Panics
/// If the embeddings differ in shape.
pub fn contrastive_loss(
    text_embeddings: Tensor<2>,
    image_embeddings: Tensor<2>,
    logit_scale: Tensor<1>,
) -> Tensor<1> {
    assert_eq!(
        text_embeddings.dims(),
        image_embeddings.dims(),
        "each text has its picture"
    );
    let [batch, _] = text_embeddings.dims();
    let device = text_embeddings.device();
    let logits = similarity_logits(text_embeddings, image_embeddings, logit_scale);
    let own = Tensor::<1, Int>::arange(0..batch as i64, &device);
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let of_texts = cross_entropy.forward(logits.clone(), own.clone());
    let of_images = cross_entropy.forward(logits.transpose(), own);
    (of_texts + of_images) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vit_l_has_the_published_size() {
        let model = ClipModelConfig::vit_l_14().init(&Device::flex());
        assert_eq!(model.num_params(), 427_616_513);
    }

    #[test]
    fn loss_of_perfect_and_of_equal_pairs() {
        let device = Device::flex();
        let eye = Tensor::<2>::eye(4, &device);
        let scale = |value: f32| Tensor::<1>::from_floats([value], &device);
        // Length does not matter.
        let loss = contrastive_loss(eye.clone() * 3.0, eye.clone(), scale(100f32.ln()));
        assert!(loss.into_scalar::<f32>() < 1e-6);
        let ones = Tensor::<2>::ones([4, 4], &device);
        let loss = contrastive_loss(ones.clone(), ones, scale(1.0)).into_scalar::<f32>();
        assert!((loss - 4f32.ln()).abs() < 1e-6, "{loss}");
        // No embedding at all is like nothing.
        let cosines = cosine_similarity(eye.zeros_like(), eye);
        assert_eq!(cosines.abs().max().into_scalar::<f32>(), 0.0);
    }
}
