//! The decoder's networks together.

use burn::{config::Config, module::Module, tensor::Device};
use unclip_core::nn::{UNet, UNetConfig};

use crate::{
    TextProjection, TextProjectionConfig,
    stage::{INPAINTING, PICTURE},
};

/// Configuration of [`DecoderModel`].
#[derive(Config, Debug)]
pub struct DecoderConfig {
    /// What turns image embedding and caption into conditions.
    pub projection: TextProjectionConfig,
    /// The U-Net.
    pub unet: UNetConfig,
    /// Height and width of the pictures.
    pub size: usize,
}

/// Text projection and U-Net. Should be created with [`DecoderConfig`].
#[derive(Module, Debug)]
pub struct DecoderModel {
    /// What turns image embedding and caption into conditions.
    pub projection: TextProjection,
    /// The U-Net.
    pub unet: UNet,
}

impl DecoderConfig {
    /// Karlo's decoder: a U-Net of 885,439,686 parameters, text projection 7,878,400.
    pub fn karlo() -> Self {
        let unet = UNetConfig::new(
            3,
            6,
            vec![320, 640, 960, 1280],
            3,
            vec![false, true, true, true],
            vec![true, true, true, false],
            true,
            1536,
            true,
        );
        Self::new(TextProjectionConfig::karlo(), unet, 64)
    }

    /// The decoder of unCLIP's table 3 on ViT-H/16 embeddings, without the caption transformer
    /// (24 × 2048, 1.2 billion parameters) that the paper counts into its 3.5 billion.
    pub fn paper() -> Self {
        let unet = UNetConfig::new(
            3,
            6,
            vec![512, 1024, 1536, 2048],
            3,
            vec![false, true, true, true],
            vec![true, true, true, false],
            true,
            2048,
            true,
        );
        Self::new(TextProjectionConfig::new(1024, 2048, 2048), unet, 64)
    }

    /// New networks on `device`. Parameters take memory when they are first used.
    pub fn init(&self, device: &Device) -> DecoderModel {
        DecoderModel {
            projection: self.projection.init(device),
            unet: self.unet.init(device),
        }
    }
}

impl DecoderModel {
    /// The network with the four input channels of one for inpainting: the kept pixels and which they
    /// are (GLIDE §2.4). Their weights are 0: it begins as it was, and is fine-tuned from there. One
    /// that has them already stays as it is.
    pub fn for_inpainting(self, config: &DecoderConfig) -> (Self, DecoderConfig) {
        let mut config = config.clone();
        if config.unet.in_channels > PICTURE {
            return (self, config);
        }
        config.unet.in_channels += INPAINTING;
        let unet = self.unet.with_more_inputs(INPAINTING);
        (Self { unet, ..self }, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn karlo_has_the_published_size() {
        let model = DecoderConfig::karlo().init(&Device::flex());
        assert_eq!(model.unet.num_params(), 885_439_686);
    }

    #[test]
    fn the_papers_decoder_has_glides_2_3_billion_beside_its_text_transformer() {
        let count = DecoderConfig::paper().init(&Device::flex()).num_params() as f64;
        assert!((2.3e9 * 0.9..2.3e9 * 1.1).contains(&count), "{count}");
    }
}
