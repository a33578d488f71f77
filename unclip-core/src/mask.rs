//! Which pixels of a picture are painted anew.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use image::{DynamicImage, GrayImage, Luma};

use crate::error::{Error, Result};

/// A mask of a picture's size; true means repaint, false means keep.
///
/// ```
/// use unclip_core::mask::Mask;
/// let mask = Mask::rectangle(64, 48, [8, 8], [20, 10]);
/// assert_eq!(mask.count(), 200);
/// assert!(mask.get(8, 8) && !mask.get(7, 8));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    repaint: Vec<bool>,
}

impl Mask {
    /// Everything (true) or nothing (false) is repainted.
    pub fn filled(width: usize, height: usize, repaint: bool) -> Self {
        Self {
            width,
            height,
            repaint: vec![repaint; width * height],
        }
    }

    /// Repaint where `of(x, y)`.
    pub fn from_fn(width: usize, height: usize, of: impl Fn(usize, usize) -> bool) -> Self {
        let repaint = (0..width * height)
            .map(|i| of(i % width, i / width))
            .collect();
        Self {
            width,
            height,
            repaint,
        }
    }

    /// Repaint where the picture is light (at least half), keep where it is dark. Of a picture with
    /// alpha that is not opaque everywhere, repaint where it is transparent (less than half).
    pub fn from_image(image: &DynamicImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let alpha = image.to_luma_alpha8();
        let by_alpha = alpha.pixels().any(|pixel| pixel.0[1] < 255);
        Self::from_fn(width, height, |x, y| {
            let [luma, alpha] = alpha.get_pixel(x as u32, y as u32).0;
            if by_alpha { alpha < 128 } else { luma >= 128 }
        })
    }

    /// Repaint inside a rectangle whose upper left corner is at `from` (x, y) and which is `size`
    /// (width, height) large; what lies outside the picture is ignored.
    pub fn rectangle(width: usize, height: usize, from: [usize; 2], size: [usize; 2]) -> Self {
        let inside = |at: usize, axis: usize| at >= from[axis] && at - from[axis] < size[axis];
        Self::from_fn(width, height, |x, y| inside(x, 0) && inside(y, 1))
    }

    /// Repaint the pixels whose middle lies inside a polygon of (x, y) corners, by the even-odd
    /// rule.
    ///
    /// # Errors
    /// [`Error::Setting`] for less than three corners, or one that is not finite.
    pub fn polygon(width: usize, height: usize, corners: &[[f64; 2]]) -> Result<Self> {
        if corners.len() < 3 || corners.iter().flatten().any(|c| !c.is_finite()) {
            let found = format!("{corners:?}");
            return Err(Error::setting(
                "polygon",
                found,
                "at least 3 finite corners",
            ));
        }
        let edges = || corners.iter().zip(corners.iter().cycle().skip(1));
        Ok(Self::from_fn(width, height, |x, y| {
            let (x, y) = (x as f64 + 0.5, y as f64 + 0.5);
            let crossings = edges().filter(|([ax, ay], [bx, by])| {
                (*ay > y) != (*by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax)
            });
            crossings.count() % 2 == 1
        }))
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Whether the pixel is repainted.
    ///
    /// # Panics
    /// If there is no such pixel.
    pub fn get(&self, x: usize, y: usize) -> bool {
        assert!(x < self.width, "x is {x} of {}", self.width);
        self.repaint[y * self.width + x]
    }

    /// Number of pixels that are repainted.
    pub fn count(&self) -> usize {
        self.repaint.iter().filter(|r| **r).count()
    }

    /// Repaint and keep exchanged.
    pub fn inverted(&self) -> Self {
        Self::from_fn(self.width, self.height, |x, y| !self.get(x, y))
    }

    /// Larger by `pixels` on every side, so that shadows and edges may change with what they
    /// belong to.
    pub fn grown(&self, pixels: usize) -> Self {
        // Rows, then columns: a square neighbourhood in two passes.
        let near = |at: usize, end: usize| {
            let last = at.saturating_add(pixels).saturating_add(1);
            at.saturating_sub(pixels)..last.min(end)
        };
        let (width, height) = (self.width, self.height);
        let rows = Self::from_fn(width, height, |x, y| near(x, width).any(|x| self.get(x, y)));
        Self::from_fn(width, height, |x, y| {
            near(y, height).any(|y| rows.get(x, y))
        })
    }

    /// The same at another size. A pixel is repainted if any part of what it covers is: what is
    /// kept at a small size is kept throughout.
    ///
    /// # Panics
    /// If a size is 0.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        assert!(
            self.width * self.height * width * height > 0,
            "a mask has at least one pixel"
        );
        let covered = |at: usize, to: usize, from: usize| {
            at * from / to..((at + 1) * from).div_ceil(to).min(from)
        };
        Self::from_fn(width, height, |x, y| {
            covered(y, height, self.height)
                .any(|y| covered(x, width, self.width).any(|x| self.get(x, y)))
        })
    }

    /// On a larger canvas, its upper left corner at (x, y); the rest is `outside`.
    pub fn placed(&self, width: usize, height: usize, at: [usize; 2], outside: bool) -> Self {
        Self::from_fn(width, height, |x, y| {
            match (x.checked_sub(at[0]), y.checked_sub(at[1])) {
                (Some(x), Some(y)) if x < self.width && y < self.height => self.get(x, y),
                _ => outside,
            }
        })
    }

    /// As a tensor, `[1, 1, h, w]`.
    pub fn tensor(&self, device: &Device) -> Tensor<4, Bool> {
        let shape = [1, 1, self.height, self.width];
        Tensor::from_data(TensorData::new(self.repaint.clone(), shape), device)
    }

    /// As a picture: white is repainted.
    pub fn image(&self) -> GrayImage {
        GrayImage::from_fn(self.width as u32, self.height as u32, |x, y| {
            Luma([if self.get(x as usize, y as usize) {
                255
            } else {
                0
            }])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polygons_are_filled() {
        let corners = [[1.0, 1.0], [5.0, 1.0], [5.0, 4.0], [1.0, 4.0]];
        let mask = Mask::polygon(8, 6, &corners).unwrap();
        assert_eq!(mask, Mask::rectangle(8, 6, [1, 1], [4, 3]));
        let triangle = Mask::polygon(10, 10, &[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).unwrap();
        assert_eq!(triangle.count(), 45);
        assert!(Mask::polygon(8, 6, &corners[..2]).is_err());
        assert!(Mask::polygon(8, 6, &[[f64::NAN, 0.0]; 3]).is_err());
    }

    #[test]
    fn a_single_pixel_survives_every_size() {
        let mask = Mask::rectangle(65, 33, [64, 32], [1, 1]);
        for (width, height) in [(1, 1), (2, 2), (16, 8), (64, 64), (130, 66)] {
            let small = mask.resized(width, height);
            assert!(small.get(width - 1, height - 1));
            assert!(small.count() <= 4, "{}", small.count());
        }
        assert_eq!(Mask::filled(65, 33, false).resized(7, 9).count(), 0);
        assert_eq!(Mask::filled(65, 33, true).resized(7, 9).count(), 63);
    }

    #[test]
    fn masks_grow_and_turn() {
        let mask = Mask::rectangle(9, 9, [4, 4], [1, 1]);
        assert_eq!(mask.grown(2), Mask::rectangle(9, 9, [2, 2], [5, 5]));
        assert_eq!(mask.inverted().count(), 80);
        assert_eq!(mask.placed(20, 20, [3, 5], false).count(), 1);
        assert!(mask.placed(20, 20, [3, 5], false).get(7, 9));
        assert_eq!(mask.placed(20, 20, [3, 5], true).count(), 400 - 80);
    }

    #[test]
    fn pictures_are_masks_by_light_or_by_alpha() {
        let light = GrayImage::from_fn(4, 1, |x, _| Luma([[0, 127, 128, 255][x as usize]]));
        let mask = Mask::from_image(&light.into());
        assert_eq!(
            (0..4).map(|x| mask.get(x, 0)).collect::<Vec<_>>(),
            [false, false, true, true]
        );
        let holes = image::RgbaImage::from_fn(2, 1, |x, _| {
            image::Rgba([255, 255, 255, [0, 255][x as usize]])
        });
        let mask = Mask::from_image(&holes.into());
        assert!(mask.get(0, 0) && !mask.get(1, 0));
    }
}
