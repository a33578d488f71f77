//! From image embedding and caption to what the decoder's U-Net is told.

use burn::{
    config::Config,
    module::{Module, Param},
    nn::{Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig},
    tensor::{Bool, DType, Device, Tensor},
};
use unclip_core::nn::{as_compute, linear};

/// Configuration of [`TextProjection`].
#[derive(Config, Debug)]
pub struct TextProjectionConfig {
    /// Width of the CLIP embeddings and of the caption's tokens.
    pub embedding: usize,
    /// Width of the U-Net's time embedding.
    pub time: usize,
    /// Width of the U-Net's context tokens.
    pub context: usize,
    /// Tokens made of the image embedding. Default: 4
    #[config(default = 4)]
    pub extra_tokens: usize,
}

/// Adds the image embedding to the time embedding and turns it into four extra tokens before the
/// caption's (unCLIP §2.1).
///
/// Parameter names are those of diffusers' `UnCLIPTextProjModel`.
/// Should be created with [`TextProjectionConfig`].
#[derive(Module, Debug)]
pub struct TextProjection {
    learned_classifier_free_guidance_embeddings: Param<Tensor<1>>,
    embedding_proj: Linear,
    clip_image_embeddings_project_to_time_embeddings: Linear,
    clip_extra_context_tokens_proj: Linear,
    encoder_hidden_states_proj: Linear,
    text_encoder_hidden_states_norm: LayerNorm,
    extra_tokens: usize,
}

/// What the decoder's U-Net is told.
#[derive(Clone, Debug)]
pub struct DecoderCondition {
    /// Added to the time embedding, `[b, time]`.
    pub added_time: Tensor<2>,
    /// Context tokens, `[b, extra + n, context]`.
    pub context: Tensor<3>,
    /// Which of them count, `[b, extra + n]`, true = keep.
    pub mask: Tensor<2, Bool>,
}

impl DecoderCondition {
    /// The rows of `first`, then those of `second`.
    pub fn cat(first: Self, second: Self) -> Self {
        Self {
            added_time: Tensor::cat(vec![first.added_time, second.added_time], 0),
            context: Tensor::cat(vec![first.context, second.context], 0),
            mask: Tensor::cat(vec![first.mask, second.mask], 0),
        }
    }
}

impl TextProjectionConfig {
    /// Karlo's: 7,878,400 parameters.
    pub fn karlo() -> Self {
        Self::new(768, 1280, 1536)
    }

    /// A new layer on `device`.
    pub fn init(&self, device: &Device) -> TextProjection {
        let project = |to| LinearConfig::new(self.embedding, to).init(device);
        TextProjection {
            learned_classifier_free_guidance_embeddings: Initializer::Zeros
                .init([self.embedding], device),
            embedding_proj: project(self.time),
            clip_image_embeddings_project_to_time_embeddings: project(self.time),
            clip_extra_context_tokens_proj: project(self.extra_tokens * self.context),
            encoder_hidden_states_proj: project(self.context),
            text_encoder_hidden_states_norm: LayerNormConfig::new(self.context).init(device),
            extra_tokens: self.extra_tokens,
        }
    }
}

impl TextProjection {
    /// The learned embedding that stands for "no image embedding", `[rows, embedding]`.
    pub fn null_embedding(&self, rows: usize) -> Tensor<2> {
        let null = self.learned_classifier_free_guidance_embeddings.val();
        as_compute(null, DType::F32)
            .unsqueeze::<2>()
            .repeat_dim(0, rows)
    }

    /// Projects image embeddings and captions. Input and output are f32.
    ///
    /// # Shapes
    /// - `image_embedding`, `text_embedding`: `[b, embedding]`
    /// - `tokens`: `[b, n, embedding]`; `mask`: `[b, n]`, true = keep
    pub fn forward(
        &self,
        image_embedding: Tensor<2>,
        text_embedding: Tensor<2>,
        tokens: Tensor<3>,
        mask: Tensor<2, Bool>,
    ) -> DecoderCondition {
        let compute = self.text_encoder_hidden_states_norm.gamma.val().dtype();
        let image = as_compute(image_embedding, compute);
        let [batch, _] = image.dims();
        let added_time = linear(
            &self.clip_image_embeddings_project_to_time_embeddings,
            image.clone(),
        ) + linear(&self.embedding_proj, as_compute(text_embedding, compute));

        let extra = linear(&self.clip_extra_context_tokens_proj, image);
        let [_, features] = extra.dims();
        // Feature c · extra + k is channel c of token k: a transpose, not a plain reshape.
        let extra = extra
            .reshape([batch, features / self.extra_tokens, self.extra_tokens])
            .swap_dims(1, 2);
        let caption = linear(
            &self.encoder_hidden_states_proj,
            as_compute(tokens, compute),
        );
        let caption = self.text_encoder_hidden_states_norm.forward(caption);

        let seen = Tensor::<2, Bool>::ones([batch, self.extra_tokens], &mask.device());
        DecoderCondition {
            added_time: as_compute(added_time, DType::F32),
            context: as_compute(Tensor::cat(vec![extra, caption], 1), DType::F32),
            mask: Tensor::cat(vec![seen, mask], 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn karlo_has_the_published_size() {
        let model = TextProjectionConfig::karlo().init(&Device::flex());
        assert_eq!(model.num_params(), 7_878_400);
    }
}
