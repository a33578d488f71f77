//! Pillow's `Image.resize` on bytes, to the last bit.
//!
//! CLIP was trained on pictures that Pillow had resized. Its filters are widened when a picture
//! shrinks, its weights have 22 binary places, and each of its two passes rounds to bytes: resizing
//! in floats moves up to a fifth of the bytes. Only the part that is asked for is computed, so that
//! a picture one pixel wide costs no more than its crop.

use std::{f64::consts::PI, ops::Range};

use image::RgbImage;

/// Binary places of Pillow's weights.
const PLACES: u32 = 22;

/// Pillow's resampling filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The nearest pixel, with no antialiasing.
    Nearest,
    /// Windowed sinc with 3 lobes.
    Lanczos,
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = −0.5.
    Bicubic,
    /// The mean of the covered pixels.
    Box,
    /// Windowed sinc with 1 lobe.
    Hamming,
}

impl Filter {
    /// The filter of Pillow's number, which is what `resample` in a preprocessor's file is.
    pub fn from_number(number: u64) -> Option<Self> {
        let all = [
            Self::Nearest,
            Self::Lanczos,
            Self::Bilinear,
            Self::Bicubic,
            Self::Box,
            Self::Hamming,
        ];
        all.get(usize::try_from(number).ok()?).copied()
    }

    /// Half the width outside of which [`value`](Self::value) is 0.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn value(self, x: f64) -> f64 {
        let sinc = |x: f64| {
            if x == 0.0 {
                1.0
            } else {
                (x * PI).sin() / (x * PI)
            }
        };
        match self {
            // Open on one side only, so that a pixel on the edge counts once.
            Self::Nearest | Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Hamming if x.abs() < 1.0 => sinc(x) * (0.54 + 0.46 * (x * PI).cos()),
            Self::Lanczos | Self::Hamming => 0.0,
        }
    }
}

/// The inputs of one output: weights with [`PLACES`] binary places from input `first` on.
struct Taps {
    first: usize,
    weights: Vec<i64>,
}

impl Taps {
    /// One input as it is.
    fn copy(first: usize) -> Self {
        let weights = vec![1 << PLACES];
        Self { first, weights }
    }

    fn end(&self) -> usize {
        self.first + self.weights.len()
    }
}

/// The part `columns` × `rows` of `image` resized to `width` × `height`.
///
/// # Panics
/// If a size is zero, or the part empty or outside the resized picture.
pub(crate) fn resize_part(
    image: &RgbImage,
    [width, height]: [u64; 2],
    columns: Range<u64>,
    rows: Range<u64>,
    filter: Filter,
) -> RgbImage {
    let (from_w, from_h) = (image.width() as usize, image.height() as usize);
    assert!(
        from_w > 0 && from_h > 0 && !columns.is_empty() && !rows.is_empty(),
        "a picture has at least one pixel"
    );
    assert!(
        columns.end <= width && rows.end <= height,
        "the part has to lie in the picture"
    );
    let across = taps(from_w, width, columns, filter);
    let down = taps(from_h, height, rows, filter);

    let half = 1 << (PLACES - 1);
    let to_byte = |sum: i64| (sum >> PLACES).clamp(0, 255) as u8;
    let stride = 3 * across.len();
    // Sums of the second pass for all outputs, so that the first pass needs to keep one row only.
    let mut sums = vec![half; stride * down.len()];
    let mut line = vec![0; stride];
    // Windows begin and end in the order of their outputs: each row meets a run of them.
    let mut open = 0;
    for y in down[0].first..down[down.len() - 1].end() {
        let source = &image.as_raw()[y * 3 * from_w..(y + 1) * 3 * from_w];
        for (pixel, taps) in line.chunks_exact_mut(3).zip(&across) {
            let mut sum = [half; 3];
            let inputs = source[3 * taps.first..].chunks_exact(3);
            for (input, weight) in inputs.zip(&taps.weights) {
                for (sum, byte) in sum.iter_mut().zip(input) {
                    *sum += i64::from(*byte) * weight;
                }
            }
            pixel.copy_from_slice(&sum.map(to_byte));
        }
        while down[open].end() <= y {
            open += 1;
        }
        for (i, taps) in down.iter().enumerate().skip(open) {
            let Some(at) = y.checked_sub(taps.first) else {
                break;
            };
            let Some(weight) = taps.weights.get(at) else {
                continue;
            };
            let sums = &mut sums[i * stride..(i + 1) * stride];
            for (sum, byte) in sums.iter_mut().zip(&line) {
                *sum += i64::from(*byte) * weight;
            }
        }
    }
    RgbImage::from_raw(
        across.len() as u32,
        down.len() as u32,
        sums.into_iter().map(to_byte).collect(),
    )
    .expect("three bytes a pixel")
}

/// The taps of the outputs `wanted`, of `to` outputs from `from` inputs.
fn taps(from: usize, to: u64, wanted: Range<u64>, filter: Filter) -> Vec<Taps> {
    if from as u64 == to {
        return wanted.map(|i| Taps::copy(i as usize)).collect();
    }
    let scale = from as f64 / to as f64;
    if filter == Filter::Nearest {
        // Pillow adds the step up, with its rounding errors.
        let mut at = scale * 0.5;
        let mut found = Vec::with_capacity((wanted.end - wanted.start) as usize);
        for i in 0..wanted.end {
            if i >= wanted.start {
                found.push(Taps::copy((at as usize).min(from - 1)));
            }
            at += scale;
        }
        return found;
    }
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    wanted
        .map(|i| {
            let center = (i as f64 + 0.5) * scale;
            // Truncation towards zero, like Pillow's.
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(from as i64) as usize;
            let weights: Vec<f64> = (first..end)
                .map(|j| filter.value((j as f64 - center + 0.5) * (1.0 / stretch)))
                .collect();
            let sum: f64 = weights.iter().sum();
            let weights = weights
                .into_iter()
                .map(|weight| {
                    let weight = if sum == 0.0 { weight } else { weight / sum };
                    (weight * f64::from(1 << PLACES)).round() as i64
                })
                .collect();
            Taps { first, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// 7 × 5 pixels to 3 × 4 and to 9 × 2, with Pillow 11.0.0.
    #[test]
    fn every_filter_gives_pillows_bytes() {
        let image = RgbImage::from_fn(7, 5, |x, y| Rgb([(x * 53 + y * 91) as u8; 3]));
        let goldens: [(Filter, [u8; 12], [u8; 18]); 6] = [
            (
                Filter::Nearest,
                [53, 159, 9, 144, 250, 100, 70, 176, 26, 161, 11, 117],
                [
                    91, 144, 144, 197, 250, 47, 100, 100, 153, 17, 70, 70, 123, 176, 229, 26, 26,
                    79,
                ],
            ),
            (
                Filter::Lanczos,
                [50, 172, 64, 175, 131, 157, 94, 137, 142, 128, 113, 99],
                [
                    75, 115, 125, 131, 187, 154, 93, 102, 144, 92, 130, 155, 124, 98, 137, 118,
                    118, 161,
                ],
            ),
            (
                Filter::Bilinear,
                [68, 152, 80, 151, 144, 146, 108, 136, 134, 130, 105, 116],
                [
                    79, 114, 130, 139, 180, 140, 106, 106, 141, 87, 122, 138, 128, 106, 138, 118,
                    114, 149,
                ],
            ),
            (
                Filter::Bicubic,
                [56, 163, 71, 162, 138, 152, 101, 138, 137, 130, 106, 110],
                [
                    77, 115, 128, 135, 184, 144, 99, 102, 144, 88, 127, 146, 128, 100, 139, 118,
                    114, 156,
                ],
            ),
            (
                Filter::Box,
                [27, 159, 36, 164, 125, 173, 44, 176, 53, 135, 96, 144],
                [
                    91, 144, 144, 112, 165, 132, 100, 100, 153, 63, 116, 116, 169, 94, 147, 72, 72,
                    125,
                ],
            ),
            (
                Filter::Hamming,
                [48, 159, 61, 150, 154, 144, 100, 145, 116, 138, 83, 125],
                [
                    75, 119, 131, 140, 190, 125, 97, 93, 137, 77, 121, 134, 137, 104, 152, 112, 95,
                    139,
                ],
            ),
        ];
        for (number, (filter, shrunk, mixed)) in goldens.into_iter().enumerate() {
            assert_eq!(Filter::from_number(number as u64), Some(filter));
            let resized =
                |width, height| resize_part(&image, [width, height], 0..width, 0..height, filter);
            let red = |image: RgbImage| image.pixels().map(|p| p.0[0]).collect::<Vec<_>>();
            assert_eq!(red(resized(3, 4)), shrunk, "{filter:?}");
            assert_eq!(red(resized(9, 2)), mixed, "{filter:?}");
        }
        assert_eq!(Filter::from_number(6), None);
    }

    #[test]
    fn a_part_is_a_part_of_the_whole() {
        let image = RgbImage::from_fn(17, 11, |x, y| Rgb([(x * 53) as u8, (y * 91) as u8, 7]));
        for filter in [Filter::Nearest, Filter::Bicubic, Filter::Box] {
            for size @ [width, height] in [[6, 4], [40, 33], [17, 30], [1, 1]] {
                let whole = resize_part(&image, size, 0..width, 0..height, filter);
                let (x, y) = (width / 3, height / 4);
                let part = resize_part(&image, size, x..width, y..height, filter);
                let (x, y) = (x as u32, y as u32);
                let expected =
                    image::imageops::crop_imm(&whole, x, y, width as u32 - x, height as u32 - y);
                assert_eq!(part, expected.to_image(), "{filter:?} {size:?}");
            }
        }
    }
}
