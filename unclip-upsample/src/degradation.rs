//! What upsamplers learn to undo: the decoder's pictures are never as good as real ones made small.

use image::{Rgb, RgbImage, imageops};
use unclip_core::{error::Result, noise::Noise};

/// How a small picture is made worse before an upsampler learns from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Degradation {
    /// Nothing.
    None,
    /// A Gaussian blur of 3 × 3 pixels, σ = 0.6, as unCLIP's 64 → 256.
    ///
    /// A network that saw nothing else takes every picture for one so blurred, and draws bright rims
    /// around what is sharp.
    Blur,
    /// The same with σ drawn evenly from 0, which is no blur, to 0.9.
    AnyBlur,
    /// In random order and strength: blur, smaller and larger again, noise, JPEG; after BSR
    /// (arXiv 2103.14006), which unCLIP took for 256 → 1024.
    Bsr,
    /// Normal noise of this σ, in values from -1 to 1.
    Noise(f32),
}

impl Degradation {
    /// The worse picture.
    ///
    /// # Errors
    /// What [`Noise::normal_vec`] says of recorded noise.
    pub fn apply(self, picture: &RgbImage, noise: &mut Noise) -> Result<RgbImage> {
        match self {
            Self::None => Ok(picture.clone()),
            Self::Blur => Ok(blurred(picture, 0.6)),
            Self::AnyBlur => Ok(blurred(picture, 0.9 * noise.uniform_vec(1)[0])),
            Self::Noise(sigma) => noisy(picture, sigma, noise),
            Self::Bsr => {
                let draws = noise.uniform_vec(8);
                let mut order: Vec<usize> = (0..4).collect();
                order.sort_by(|a, b| draws[*a].total_cmp(&draws[*b]));
                let mut picture = picture.clone();
                for step in order {
                    picture = match (step, draws[4 + step]) {
                        (0, u) => blurred(&picture, 0.2 + 0.8 * u),
                        (1, u) => resized_twice(&picture, 0.5 + 0.5 * u),
                        (2, u) => noisy(&picture, 0.06 * u, noise)?,
                        (_, u) => compressed(&picture, 50 + (u * 45.0) as u8),
                    };
                }
                Ok(picture)
            }
        }
    }
}

/// A Gaussian of three pixels, borders repeated; as it is for σ = 0.
fn blurred(picture: &RgbImage, sigma: f32) -> RgbImage {
    let side = (-0.5 / (sigma * sigma)).exp();
    let weights = [side, 1.0, side].map(|w| w / (1.0 + 2.0 * side));
    let (width, height) = picture.dimensions();
    RgbImage::from_fn(width, height, |x, y| {
        let mut sum = [0.0; 3];
        for (j, wy) in weights.iter().enumerate() {
            for (i, wx) in weights.iter().enumerate() {
                let near = |at: u32, step: usize, end: u32| {
                    (at + step as u32).saturating_sub(1).min(end - 1)
                };
                let Rgb(value) = picture.get_pixel(near(x, i, width), near(y, j, height));
                for (sum, value) in sum.iter_mut().zip(value) {
                    *sum += wx * wy * f32::from(*value);
                }
            }
        }
        Rgb(sum.map(|v| v.round() as u8))
    })
}

fn noisy(picture: &RgbImage, sigma: f32, noise: &mut Noise) -> Result<RgbImage> {
    let draws = noise.normal_vec(picture.as_raw().len())?;
    let mut picture = picture.clone();
    for (byte, draw) in picture.iter_mut().zip(draws) {
        // From -1 to 1 there are 255 bytes: one is 127.5 of them.
        *byte = (f32::from(*byte) + 127.5 * sigma * draw)
            .round()
            .clamp(0.0, 255.0) as u8;
    }
    Ok(picture)
}

fn resized_twice(picture: &RgbImage, share: f32) -> RgbImage {
    let (width, height) = picture.dimensions();
    let smaller = |side: u32| ((side as f32 * share) as u32).max(1);
    let filter = imageops::FilterType::CatmullRom;
    let small = imageops::resize(picture, smaller(width), smaller(height), filter);
    imageops::resize(&small, width, height, filter)
}

/// Through JPEG and back; as it is if that fails, which only memory can cause.
fn compressed(picture: &RgbImage, quality: u8) -> RgbImage {
    let mut bytes = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
    match picture.write_with_encoder(encoder) {
        Ok(()) => image::load_from_memory(&bytes)
            .map_or_else(|_| picture.clone(), |found| found.to_rgb8()),
        Err(_) => picture.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripes() -> RgbImage {
        RgbImage::from_fn(16, 12, |x, _| Rgb([if x % 2 == 0 { 0 } else { 255 }; 3]))
    }

    fn difference(a: &RgbImage, b: &RgbImage) -> u64 {
        let pairs = a.as_raw().iter().zip(b.as_raw());
        pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
    }

    #[test]
    fn every_kind_keeps_the_size_and_follows_the_seed() {
        let picture = stripes();
        for kind in [
            Degradation::Blur,
            Degradation::AnyBlur,
            Degradation::Bsr,
            Degradation::Noise(0.2),
        ] {
            let make = |seed| kind.apply(&picture, &mut Noise::from_seed(seed)).unwrap();
            assert_eq!(make(1).dimensions(), (16, 12));
            assert_eq!(make(1), make(1));
            assert!(difference(&make(1), &picture) > 0);
        }
        let none = Degradation::None.apply(&picture, &mut Noise::from_seed(1));
        assert_eq!(none.unwrap(), picture);
    }

    #[test]
    fn a_blur_keeps_flat_pictures_and_none_keeps_all() {
        let flat = RgbImage::from_pixel(9, 9, Rgb([17, 130, 255]));
        assert_eq!(blurred(&flat, 0.6), flat);
        assert_eq!(blurred(&stripes(), 0.0), stripes());
        // Inside, stripes of 0 and 255 come closer by the weight of the neighbours.
        let side = (-0.5_f32 / 0.36).exp();
        let expected = 255.0 * 2.0 * side / (1.0 + 2.0 * side);
        let found = blurred(&stripes(), 0.6).get_pixel(4, 6).0[0];
        assert!((f32::from(found) - expected).abs() <= 1.0);
    }
}
