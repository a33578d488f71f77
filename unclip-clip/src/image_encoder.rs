//! Image preprocessing and vision tower as a stage.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use image::DynamicImage;
use unclip_core::{
    error::{Error, Result},
    resident::Resident,
    stage::ImageEncoder,
    weights::{Checkpoint, LoadOptions, load},
};

use crate::{
    image_processor::ClipImageProcessor,
    vision_format::TransformersClipVision,
    vision_tower::{VisionTower, vision_tower_keys},
};

/// CLIP's image encoder: pictures → embeddings.
#[derive(Debug)]
pub struct ClipImageEncoder {
    /// The preprocessing.
    pub processor: ClipImageProcessor,
    /// The network.
    pub tower: Resident<VisionTower>,
    device: Device,
}

impl ClipImageEncoder {
    /// A stage of parts; the tower is on `device`.
    pub fn new(
        processor: ClipImageProcessor,
        tower: Resident<VisionTower>,
        device: &Device,
    ) -> Self {
        Self {
            processor,
            tower,
            device: device.clone(),
        }
    }

    /// Embeddings of pictures that have been resized and normalised:
    /// `[b, 3, side, side]` → `[b, d]`, not normalised.
    ///
    /// # Errors
    /// [`Error::Shape`] for another size, or a network that cannot be loaded.
    pub fn embed_pixels(&self, pixel_values: Tensor<4>) -> Result<Tensor<2>> {
        let pixel_values = pixel_values.to_device(&self.device);
        Ok(self.tower.hold()?.forward(pixel_values)?.embedding)
    }

    /// The embedding of pixel values that are all 0, `rows` times, `[rows, d]`. Kandinsky's
    /// negative image embedding is this.
    ///
    /// # Errors
    /// [`Error::Setting`] for no rows, or a network that cannot be loaded.
    pub fn zero_image_embedding(&self, rows: usize) -> Result<Tensor<2>> {
        if rows == 0 {
            return Err(Error::setting("rows", rows, "at least 1 is needed"));
        }
        let tower = self.tower.hold()?;
        let side = tower.image_size();
        let embedding = tower
            .forward(Tensor::zeros([1, 3, side, side], &self.device))?
            .embedding;
        let [_, width] = embedding.dims();
        Ok(embedding.expand([rows, width]))
    }
}

/// Loads a `CLIPVisionModelWithProjection` from its folder.
///
/// # Errors
/// Missing or damaged files, unsupported settings, weights that do not fit.
pub fn load_vision_tower(
    folder: &Path,
    variant: Option<&str>,
    device: &Device,
    options: LoadOptions,
) -> Result<VisionTower> {
    let config = TransformersClipVision::load(folder)?;
    let checkpoint = Checkpoint::open(folder, variant)?;
    load(
        config.init(device),
        &checkpoint,
        &vision_tower_keys(),
        options,
    )
}

impl ImageEncoder for ClipImageEncoder {
    fn encode_images(&self, images: &[DynamicImage]) -> Result<Tensor<2>> {
        let pixel_values = self.processor.pixel_values(images, &self.device)?;
        Ok(self.tower.hold()?.forward(pixel_values)?.embedding)
    }
}

#[cfg(test)]
mod tests {
    use unclip_core::nn::Activation;

    use super::*;
    use crate::vision_tower::VisionTowerConfig;

    #[test]
    fn pictures_and_their_pixel_values_have_one_embedding() {
        let device = Device::flex();
        let tower = VisionTowerConfig::new(8, 4, 6, 1, 2, 8, 5, Activation::QuickGelu);
        let encoder = ClipImageEncoder::new(
            ClipImageProcessor::openai(8),
            Resident::Kept(tower.init(&device)),
            &device,
        );
        // A picture whose bytes are the mean is close to pixel values of 0.
        let mean = image::RgbImage::from_pixel(20, 9, image::Rgb([123, 117, 104]));
        let images = [DynamicImage::from(mean.clone()), mean.into()];
        let found = encoder.encode_images(&images).unwrap();
        assert_eq!(found.dims(), [2, 5]);
        let zero = encoder.zero_image_embedding(2).unwrap();
        assert_eq!(zero.dims(), [2, 5]);
        let pixels = encoder.processor.pixel_values(&images, &device).unwrap();
        let again = encoder.embed_pixels(pixels).unwrap();
        assert_eq!((found - again).abs().max().into_scalar::<f32>(), 0.0);
        let zeros = Tensor::zeros([2, 3, 8, 8], &device);
        let zeros = encoder.embed_pixels(zeros).unwrap();
        assert!((zeros - zero).abs().max().into_scalar::<f32>() < 1e-6);
        assert!(encoder.zero_image_embedding(0).is_err());
        assert!(encoder.encode_images(&[]).is_err());
    }
}
