//! What jobs promise: pixels that are kept, latents that lead back, seeds, progress, cancelling.

#![allow(missing_docs, unreachable_pub)]

mod candidates;
mod dataset;
mod editing;
mod every_job;
mod latents;

use std::path::Path;

use unclip::{
    Decoder, ImageEncoder, Result, UnClip,
    burn::tensor::{Device, Tensor, TensorData},
    image::{DynamicImage, RgbImage, imageops},
};

/// A picture's colours on a coarse grid, as a stand-in for CLIP.
struct Colours {
    width: usize,
}

impl ImageEncoder for Colours {
    fn encode_images(&self, images: &[DynamicImage]) -> Result<Tensor<2>> {
        let mut values = Vec::new();
        for image in images {
            let small = imageops::thumbnail(&image.to_rgb8(), 4, 4);
            let mut colours = small
                .into_raw()
                .into_iter()
                .map(|v| f32::from(v) / 64.0 - 2.0);
            values.extend((0..self.width).map(|_| colours.next().unwrap_or(0.1)));
        }
        let data = TensorData::new(values, [images.len(), self.width]);
        Ok(Tensor::from_data(data, &Device::flex()))
    }
}

fn fixture() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/unclip")
}

/// The fixtures' checkpoint with an image encoder.
fn unclip() -> UnClip {
    let width = UnClip::load(fixture(), &Device::flex())
        .unwrap()
        .text_encoder()
        .unwrap()
        .encode_text(&[""])
        .unwrap()
        .embedding
        .dims()[1];
    UnClip::builder(&Device::flex())
        .checkpoint(fixture())
        .image_encoder(Colours { width })
        .build()
        .unwrap()
}

/// Height and width that the decoder and the last upsampler were trained for.
fn sizes(unclip: &UnClip) -> [usize; 2] {
    let decoder: &dyn Decoder = unclip.decoder().unwrap();
    let last = unclip.upsamplers().last().unwrap();
    [
        decoder.frame().unwrap().size[0],
        last.frame().unwrap().size[0],
    ]
}

/// A picture with something everywhere.
fn picture(width: usize, height: usize) -> DynamicImage {
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let wave = |k: f32, n: u32| ((n as f32 * k).sin() * 90.0 + 128.0) as u8;
        unclip::image::Rgb([wave(0.21, x), wave(0.13, y), wave(0.08, x + y)])
    })
    .into()
}
