//! A given picture at the sizes the stages work at.

use burn::tensor::{Device, Tensor};
use image::{RgbImage, imageops};
use unclip_core::{
    error::{Error, Result},
    image::from_images,
    mask::Mask,
    resample::resize_bicubic,
    stage::{Canvas, Stage},
};

use super::chain::Chain;

/// At which size a picture is worked on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fit {
    /// Its longer side scaled to what the stages make.
    #[default]
    Trained,
    /// As it is.
    Own,
}

/// A picture, with its mask if it has one, at the size of finished pictures: padded at the right
/// and below to what the stages can make.
pub(super) struct Fitted {
    picture: RgbImage,
    repaint: Option<Mask>,
    /// Height and width without padding.
    shown: [usize; 2],
    pub strength: f64,
    pub rounds: usize,
}

/// Height and width.
///
/// # Errors
/// [`Error::Setting`] for a picture without pixels.
pub(super) fn size_of(picture: &RgbImage) -> Result<[usize; 2]> {
    let size = [picture.height() as usize, picture.width() as usize];
    match size.contains(&0) {
        false => Ok(size),
        true => {
            let found = format!("{} × {}", size[1], size[0]);
            Err(Error::setting("picture", found, "at least one pixel"))
        }
    }
}

/// Height and width of `size` with the longer side at `longer`.
pub(super) fn scaled(size: [usize; 2], longer: usize) -> [usize; 2] {
    let from = size[0].max(size[1]).max(1);
    size.map(|n| ((n * longer) as f64 / from as f64).round().max(1.0) as usize)
}

/// `picture` at another size.
pub(super) fn resized(picture: &RgbImage, [height, width]: [usize; 2]) -> RgbImage {
    match [picture.height() as usize, picture.width() as usize] == [height, width] {
        true => picture.clone(),
        false => {
            let filter = imageops::FilterType::CatmullRom;
            imageops::resize(picture, width as u32, height as u32, filter)
        }
    }
}

impl Fitted {
    /// Fits a picture, and a mask of its size, to the stages of `chain`.
    ///
    /// # Errors
    /// [`Error::Setting`] for a picture without pixels, [`Error::Shape`] for a mask of another
    /// size.
    pub(super) fn new(
        chain: &Chain<'_>,
        picture: &RgbImage,
        repaint: Option<Mask>,
        fit: Fit,
    ) -> Result<Self> {
        let own = size_of(picture)?;
        if let Some(mask) = &repaint
            && [mask.height(), mask.width()] != own
        {
            let expected = format!("[{}, {}], the picture's height and width", own[0], own[1]);
            return Err(Error::shape(
                "the mask",
                &[mask.height(), mask.width()],
                expected,
            ));
        }
        let frames = chain.frames()?;
        let trained = frames[frames.len() - 1].size;
        let shown = match fit {
            Fit::Own => own,
            Fit::Trained => scaled(own, trained[0].max(trained[1])),
        };
        let multiple = chain.size_multiple()?;
        let padded = shown.map(|n| n.next_multiple_of(multiple));
        let picture = pad(&resized(picture, shown), padded);
        let repaint = repaint.map(|mask| {
            let mask = match own == shown {
                true => mask,
                false => mask.resized(shown[1], shown[0]),
            };
            mask.placed(padded[1], padded[0], [0, 0], false)
        });
        Ok(Self {
            picture,
            repaint,
            shown,
            strength: 1.0,
            rounds: 1,
        })
    }

    /// Height and width with padding: of finished pictures before they are cropped.
    pub(super) fn size(&self) -> [usize; 2] {
        [
            self.picture.height() as usize,
            self.picture.width() as usize,
        ]
    }

    /// Checks the settings.
    pub(super) fn check(&self) -> Result<()> {
        Canvas::check_settings(self.strength, self.rounds, Stage::Decoder)
    }

    pub(super) fn keeps_pixels(&self) -> bool {
        self.repaint.is_some()
    }

    /// The picture in [-1, 1] at a stage's height and width, `[1, 3, h, w]`.
    pub(super) fn pixels(&self, size: [usize; 2], device: &Device) -> Result<Tensor<4>> {
        let pixels = from_images(std::slice::from_ref(&self.picture), device)?;
        Ok(match size == self.size() {
            true => pixels,
            false => resize_bicubic(pixels, size[0], size[1]).clamp(-1.0, 1.0),
        })
    }

    /// The canvas of a stage that works at this height and width.
    pub(super) fn at(&self, size: [usize; 2], device: Device) -> Result<Canvas> {
        let repaint = self.repaint.as_ref().map(|mask| {
            let mask = match size == self.size() {
                true => mask.clone(),
                false => mask.resized(size[1], size[0]),
            };
            mask.tensor(&device)
        });
        Ok(Canvas {
            repaint,
            strength: self.strength,
            rounds: self.rounds,
            ..Canvas::new(self.pixels(size, &device)?)
        })
    }

    /// Finished pictures without the padding.
    pub(super) fn crop(&self, pixels: Tensor<4>) -> Tensor<4> {
        let [_, _, height, width] = pixels.dims();
        let [h, w] = self.size();
        // Without upsampling the pictures are smaller than the canvas.
        let shown = |n: usize, of: usize, full: usize| (n * of).div_ceil(full).min(of);
        pixels.narrow(2, 0, shown(self.shown[0], height, h)).narrow(
            3,
            0,
            shown(self.shown[1], width, w),
        )
    }
}

/// Repeats the last row and column up to `size`.
fn pad(picture: &RgbImage, [height, width]: [usize; 2]) -> RgbImage {
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        *picture.get_pixel(x.min(picture.width() - 1), y.min(picture.height() - 1))
    })
}
