//! CLIP's vision transformer (arXiv 2103.00020) with its projection.

use burn::{
    config::Config,
    module::{Module, Param},
    nn::{
        Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{DType, Device, Tensor, module::conv2d, ops::ConvOptions},
};
use unclip_core::{
    error::{Error, Result},
    nn::{Activation, TransformerBlock, TransformerBlockConfig, as_compute, linear},
    weights::KeyMap,
};

use crate::tower_format::BLOCK_KEYS;

/// Configuration of [`VisionTower`].
#[derive(Config, Debug)]
pub struct VisionTowerConfig {
    /// Side of the picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Width of the tokens.
    pub width: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLPs.
    pub hidden: usize,
    /// Width of the embedding.
    pub projection: usize,
    /// Non-linearity of the MLPs.
    pub activation: Activation,
    /// Epsilon of the norms. Default: 1e-5
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// CLIP's vision transformer with its projection.
///
/// Should be created with [`VisionTowerConfig`].
#[derive(Module, Debug)]
pub struct VisionTower {
    patch_embedding: Conv2d,
    class_embedding: Param<Tensor<1>>,
    position_embedding: Embedding,
    pre_layer_norm: LayerNorm,
    layers: Vec<TransformerBlock>,
    post_layer_norm: LayerNorm,
    visual_projection: Linear,
    image_size: usize,
}

/// What a [`VisionTower`] says. All f32.
#[derive(Clone, Debug)]
pub struct VisionOutput {
    /// Last hidden states, before the last norm, `[b, 1 + patches, width]`; the class token first.
    pub tokens: Tensor<3>,
    /// The class token after the last norm, `[b, width]`.
    pub pooled: Tensor<2>,
    /// Its projection, not normalised, `[b, projection]`.
    pub embedding: Tensor<2>,
}

impl VisionTowerConfig {
    /// OpenAI's ViT-L/14 vision tower, which Karlo uses.
    pub fn vit_l_14() -> Self {
        Self::new(224, 14, 1024, 24, 16, 4096, 768, Activation::QuickGelu)
    }

    /// Tokens of a picture: the class token and the patches.
    pub fn tokens(&self) -> usize {
        1 + (self.image_size / self.patch_size).pow(2)
    }

    /// A new tower on `device`. Parameters take memory when they are first used.
    ///
    /// # Panics
    /// If the width is not a multiple of the heads, or a patch is larger than the picture.
    pub fn init(&self, device: &Device) -> VisionTower {
        assert!(
            (1..=self.image_size).contains(&self.patch_size),
            "a patch of {} pixels does not fit a picture of {}",
            self.patch_size,
            self.image_size
        );
        assert!(
            self.width.is_multiple_of(self.heads),
            "a width of {} does not split into {} heads",
            self.width,
            self.heads
        );
        let block = TransformerBlockConfig::new(
            self.width,
            self.heads,
            self.width / self.heads,
            self.hidden,
            self.activation,
        )
        .with_epsilon(self.epsilon);
        let norm = || {
            LayerNormConfig::new(self.width)
                .with_epsilon(self.epsilon)
                .init(device)
        };
        let patch = [self.patch_size; 2];
        VisionTower {
            patch_embedding: Conv2dConfig::new([3, self.width], patch)
                .with_stride(patch)
                .with_bias(false)
                .init(device),
            class_embedding: Initializer::Normal {
                mean: 0.0,
                std: (self.width as f64).powf(-0.5),
            }
            .init([self.width], device),
            position_embedding: EmbeddingConfig::new(self.tokens(), self.width).init(device),
            pre_layer_norm: norm(),
            layers: (0..self.layers).map(|_| block.init(device)).collect(),
            post_layer_norm: norm(),
            visual_projection: LinearConfig::new(self.width, self.projection)
                .with_bias(false)
                .init(device),
            image_size: self.image_size,
        }
    }
}

/// Renames from [`VisionTower`] to transformers' `CLIPVisionModelWithProjection`.
pub fn vision_tower_keys() -> KeyMap {
    let tower = [
        ("patch_embedding", "vision_model.embeddings.patch_embedding"),
        ("class_embedding", "vision_model.embeddings.class_embedding"),
        (
            "position_embedding",
            "vision_model.embeddings.position_embedding",
        ),
        // The format's spelling.
        ("pre_layer_norm", "vision_model.pre_layrnorm"),
        ("post_layer_norm", "vision_model.post_layernorm"),
        ("layers", "vision_model.encoder.layers"),
    ];
    KeyMap::new(&[&tower[..], &BLOCK_KEYS].concat())
        // A buffer that counts 0, 1, 2, …
        .ignoring(&["embeddings.position_ids"])
}

impl VisionTower {
    /// Side of the pictures it takes, in pixels.
    pub fn image_size(&self) -> usize {
        self.image_size
    }

    /// Encodes pictures that have been resized and normalised, `[b, 3, side, side]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another size or no pictures.
    pub fn forward(&self, pixel_values: Tensor<4>) -> Result<VisionOutput> {
        let side = self.image_size;
        let dims @ [batch, ..] = pixel_values.dims();
        if batch == 0 || dims[1..] != [3, side, side] {
            let expected = format!("[pictures, 3, {side}, {side}]");
            return Err(Error::shape("the pixel values", &dims, expected));
        }

        let compute = self.post_layer_norm.gamma.val().dtype();
        let patches = self.patches(as_compute(pixel_values, compute));
        let [_, _, width] = patches.dims();
        let class = as_compute(self.class_embedding.val(), compute);
        let class = class.reshape([1, 1, width]).expand([batch, 1, width]);
        let positions = as_compute(self.position_embedding.weight.val(), compute);
        let x = Tensor::cat(vec![class, patches], 1) + positions.unsqueeze();

        let mut tokens = self.pre_layer_norm.forward(x);
        for layer in &self.layers {
            tokens = layer.forward(tokens, None, false);
        }
        let class = tokens.clone().narrow(1, 0, 1).reshape([batch, width]);
        let pooled = self.post_layer_norm.forward(class);
        let embedding = linear(&self.visual_projection, pooled.clone());
        Ok(VisionOutput {
            tokens: as_compute(tokens, DType::F32),
            pooled: as_compute(pooled, DType::F32),
            embedding: as_compute(embedding, DType::F32),
        })
    }

    /// `[b, 3, side, side]` → `[b, patches, width]`, row after row of patches.
    fn patches(&self, pixels: Tensor<4>) -> Tensor<3> {
        let layer = &self.patch_embedding;
        let weight = as_compute(layer.weight.val(), pixels.dtype());
        let options = ConvOptions::new(layer.stride, [0, 0], [1, 1], 1);
        conv2d(pixels, weight, None, options)
            .flatten::<3>(2, 3)
            .swap_dims(1, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vit_l_has_the_published_size() {
        let config = VisionTowerConfig::vit_l_14();
        assert_eq!(config.tokens(), 257);
        assert_eq!(config.init(&Device::flex()).num_params(), 303_966_208);
    }

    #[test]
    fn pictures_of_another_size_are_refused() {
        let device = Device::flex();
        // 10 is not a multiple of 4: the last pixels are in no patch, as in the reference.
        let config = VisionTowerConfig::new(10, 4, 6, 1, 2, 8, 5, Activation::Gelu);
        let tower = config.init(&device);
        let output = tower
            .forward(Tensor::zeros([2, 3, 10, 10], &device))
            .unwrap();
        assert_eq!(output.tokens.dims(), [2, 5, 6]);
        assert_eq!(output.pooled.dims(), [2, 6]);
        assert_eq!(output.embedding.dims(), [2, 5]);
        for shape in [[1, 1, 10, 10], [1, 3, 10, 8], [1, 3, 12, 12]] {
            let error = tower.forward(Tensor::zeros(shape, &device)).unwrap_err();
            assert!(matches!(error, Error::Shape { .. }), "{error}");
        }
    }
}
