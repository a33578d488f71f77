//! Pictures → the pixel values that a vision tower takes.

use std::{ops::Range, path::Path};

use burn::tensor::{DType, Device, Tensor, TensorData};
use image::{DynamicImage, RgbImage, imageops::replace};
use unclip_core::error::{Error, Result};

use crate::{
    image_processor_format::TransformersClipImageProcessor,
    pillow_resize::{Filter, resize_part},
};

/// Most pixels of a picture that is not cropped.
const LARGEST_AREA: u64 = 4096 * 4096;

/// To which size a picture is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeTo {
    /// The shorter side to so many pixels, the other in proportion.
    ShorterSide(u32),
    /// To this height and width, whatever the proportions.
    Exactly {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
}

/// transformers' `CLIPImageProcessor`: resize, crop the middle, rescale, normalise.
///
/// Every picture is converted to red, green and blue first: grey is repeated, an alpha channel is
/// dropped (not composited), more than 8 bits are scaled to 8.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipImageProcessor {
    /// Size and filter, if pictures are resized.
    pub resize: Option<(ResizeTo, Filter)>,
    /// Height and width of the middle that is kept, if pictures are cropped. What a picture lacks
    /// is black.
    pub crop: Option<[u32; 2]>,
    /// Factor on bytes.
    pub rescale: Option<f64>,
    /// Mean and standard deviation of each channel, after the factor.
    pub normalize: Option<([f64; 3], [f64; 3])>,
}

impl ClipImageProcessor {
    /// OpenAI's preprocessing for a tower of `size` pixels: 224 for ViT-L/14.
    pub fn openai(size: u32) -> Self {
        Self {
            resize: Some((ResizeTo::ShorterSide(size), Filter::Bicubic)),
            crop: Some([size; 2]),
            rescale: Some(1.0 / 255.0),
            normalize: Some((
                [0.481_454_66, 0.457_827_5, 0.408_210_73],
                [0.268_629_54, 0.261_302_58, 0.275_777_11],
            )),
        }
    }

    /// Reads `preprocessor_config.json` in `folder`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Config`] for a value not supported.
    pub fn load(folder: &Path) -> Result<Self> {
        TransformersClipImageProcessor::load(folder)
    }

    /// Resizes and crops: the bytes that Pillow and transformers give.
    ///
    /// # Errors
    /// [`Error::Shape`] for a picture without pixels, or for one that is not cropped and would
    /// have more than 16 million; [`Error::Setting`] for a size of 0.
    pub fn crop(&self, image: &DynamicImage) -> Result<RgbImage> {
        let dims = [image.height() as usize, image.width() as usize];
        if dims.contains(&0) {
            return Err(Error::shape("a picture", &dims, "at least one pixel"));
        }
        let [height, width] = self.resized(image.height(), image.width());
        let [crop_h, crop_w] = match self.crop {
            Some(crop) => crop.map(u64::from),
            None => [height, width],
        };
        if [height, width, crop_h, crop_w].contains(&0) {
            let expected = "resizing and cropping leave at least one pixel";
            return Err(Error::setting("size of the preprocessor", 0, expected));
        }
        if crop_h.saturating_mul(crop_w) > LARGEST_AREA {
            let expected = format!(
                "at most {LARGEST_AREA} pixels after resizing, and this one would be {crop_w} × \
                 {crop_h}; crop it, or use a preprocessor that does"
            );
            return Err(Error::shape("a picture", &dims, expected));
        }
        let (rows, top) = middle(height, crop_h);
        let (columns, left) = middle(width, crop_w);
        let filter = self.resize.map_or(Filter::Nearest, |(_, filter)| filter);
        let part = resize_part(&image.to_rgb8(), [width, height], columns, rows, filter);
        if part.dimensions() == (crop_w as u32, crop_h as u32) {
            return Ok(part);
        }
        let mut cropped = RgbImage::new(crop_w as u32, crop_h as u32);
        replace(&mut cropped, &part, left, top);
        Ok(cropped)
    }

    /// Pixel values of one picture, channel by channel, with height and width.
    ///
    /// # Errors
    /// Those of [`crop`](Self::crop).
    pub fn values(&self, image: &DynamicImage) -> Result<(Vec<f32>, [usize; 2])> {
        let picture = self.crop(image)?;
        let mut values = Vec::with_capacity(picture.as_raw().len());
        for (channel, levels) in self.levels().iter().enumerate() {
            let bytes = picture.as_raw().iter().skip(channel).step_by(3);
            values.extend(bytes.map(|byte| levels[usize::from(*byte)]));
        }
        Ok((
            values,
            [picture.height() as usize, picture.width() as usize],
        ))
    }

    /// Pixel values of `images`, f32 `[b, 3, h, w]` on `device`.
    ///
    /// # Errors
    /// [`Error::Setting`] without pictures, those of [`crop`](Self::crop), and [`Error::Shape`] if
    /// pictures that are not cropped differ in size.
    pub fn pixel_values(&self, images: &[DynamicImage], device: &Device) -> Result<Tensor<4>> {
        let mut size = None;
        let mut values = Vec::new();
        for image in images {
            let (found, [height, width]) = self.values(image)?;
            let expected = *size.get_or_insert([height, width]);
            if expected != [height, width] {
                let expected = format!("{expected:?}, the size of the first");
                return Err(Error::shape("a picture", &[height, width], expected));
            }
            values.extend(found);
        }
        let Some([height, width]) = size else {
            return Err(Error::setting("pictures", 0, "at least 1 is needed"));
        };
        let shape = [images.len(), 3, height, width];
        Ok(Tensor::from_data(
            TensorData::new(values, shape),
            (device, DType::F32),
        ))
    }

    /// Height and width after resizing.
    fn resized(&self, height: u32, width: u32) -> [u64; 2] {
        let [height, width] = [height, width].map(u64::from);
        match self.resize {
            None => [height, width],
            Some((ResizeTo::Exactly { height, width }, _)) => [height, width].map(u64::from),
            Some((ResizeTo::ShorterSide(side), _)) => {
                let side = u64::from(side);
                // The long side is cut off, not rounded, as in the reference.
                if width <= height {
                    [side.saturating_mul(height) / width, side]
                } else {
                    [side, side.saturating_mul(width) / height]
                }
            }
        }
    }

    /// The value of each byte, for each channel, with the reference's roundings: the factor in
    /// f64, mean and deviation in f32.
    fn levels(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            std::array::from_fn(|byte| {
                let value = (byte as f64 * self.rescale.unwrap_or(1.0)) as f32;
                match &self.normalize {
                    Some((mean, std)) => (value - mean[channel] as f32) / std[channel] as f32,
                    None => value,
                }
            })
        })
    }
}

/// Which pixels of `size` are in the middle `crop`, and how many of the crop lie before them.
fn middle(size: u64, crop: u64) -> (Range<u64>, i64) {
    match size.checked_sub(crop) {
        Some(surplus) => (surplus / 2..surplus / 2 + crop, 0),
        None => (0..size, (crop - size).div_ceil(2) as i64),
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, Rgb, Rgba, RgbaImage};

    use super::*;

    fn gradient(width: u32, height: u32) -> DynamicImage {
        RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8])
        })
        .into()
    }

    #[test]
    fn pictures_that_are_too_small_lie_in_the_middle_of_black() {
        assert_eq!(middle(4, 4), (0..4, 0));
        assert_eq!(middle(7, 4), (1..5, 0));
        assert_eq!(middle(4, 7), (0..4, 2));
        let processor = ClipImageProcessor {
            resize: None,
            crop: Some([5, 4]),
            ..ClipImageProcessor::openai(4)
        };
        let white = RgbImage::from_pixel(1, 2, Rgb([255; 3]));
        let cropped = processor.crop(&white.into()).unwrap();
        assert_eq!(cropped.dimensions(), (4, 5));
        for (x, y, pixel) in cropped.enumerate_pixels() {
            let is_white = x == 2 && (2..4).contains(&y);
            assert_eq!(pixel.0, [255 * u8::from(is_white); 3], "{x} {y}");
        }
    }

    #[test]
    fn every_mode_is_read_as_rgb() {
        let processor = ClipImageProcessor::openai(8);
        let red = |mode: DynamicImage| processor.crop(&mode).unwrap().get_pixel(3, 3).0;
        let grey = GrayImage::from_pixel(9, 9, Luma([77]));
        assert_eq!(red(grey.into()), [77; 3]);
        // Not composited: nothing of the background shows.
        let clear = RgbaImage::from_pixel(9, 9, Rgba([10, 20, 30, 0]));
        assert_eq!(red(clear.into()), [10, 20, 30]);
        let deep = image::ImageBuffer::from_pixel(9, 9, Rgb([65_535u16, 257 * 40, 0]));
        assert_eq!(red(DynamicImage::ImageRgb16(deep)), [255, 40, 0]);
        let float = image::ImageBuffer::from_pixel(9, 9, Rgb([f32::NAN, 2.0, -1.0]));
        assert_eq!(red(DynamicImage::ImageRgb32F(float))[1..], [255, 0]);
    }

    #[test]
    fn a_picture_of_one_column_costs_no_more_than_its_crop() {
        // 224 · 60,000 rows of 224 pixels would be 9 GB.
        let processor = ClipImageProcessor::openai(224);
        for (width, height) in [(1, 60_000), (60_000, 1), (1, 1), (3, 2)] {
            let cropped = processor.crop(&gradient(width, height)).unwrap();
            assert_eq!(cropped.dimensions(), (224, 224));
        }
        let all = ClipImageProcessor {
            crop: None,
            ..processor
        };
        let error = all.crop(&gradient(1, 60_000)).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        let nothing = ClipImageProcessor::openai(0);
        let error = nothing.crop(&gradient(3, 3)).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        let error = all.crop(&DynamicImage::new_rgb8(0, 3)).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }

    #[test]
    fn batches_need_pictures_of_one_size() {
        let device = Device::flex();
        let processor = ClipImageProcessor::openai(16);
        let values = processor
            .pixel_values(&[gradient(40, 20), gradient(16, 90)], &device)
            .unwrap();
        assert_eq!(values.dims(), [2, 3, 16, 16]);
        let error = processor.pixel_values(&[], &device).unwrap_err();
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        let uncropped = ClipImageProcessor {
            crop: None,
            ..processor
        };
        let pictures = [gradient(40, 20), gradient(16, 90)];
        let error = uncropped.pixel_values(&pictures, &device).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
}
