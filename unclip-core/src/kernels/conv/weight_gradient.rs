//! The gradients of a convolution's weights and bias.

#![allow(unsafe_code)]
// Loops over registers, which are arrays of arrays, read best with indices.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{ConvShape, layout::Layout};
use crate::kernels::{
    scratch::{Scratch, Shared, written},
    simd::{dispatch, load, store},
};

/// Values of the copy of a band of the input.
const BAND: usize = 64 << 10;
/// Values of the sums that a part keeps.
const SUMS: usize = 64 << 10;
/// Most vectors of output channels in a part.
const SPAN: usize = 6;
/// Pixels that are added up before the next few sums are taken: what is read of the gradient for
/// them should stay in the first-level cache.
const PIXELS: usize = 128;
/// Pixels of a part of the transposition.
const STRETCH: usize = 256;

/// The gradients for weights and bias, given the one for the output.
///
/// With output channels innermost, a vector of them times one input value adds to sums that are
/// already in the order of the result: nothing is added across a vector.
pub(in crate::kernels) fn weight_gradient(
    x: &[f32],
    gradient: &[f32],
    shape: &ConvShape,
) -> (Vec<f32>, Vec<f32>) {
    let lanes = dispatch(Lanes);
    let width = shape.channels_out.next_multiple_of(lanes);
    let (transposed, bias) = transposed(gradient, width, shape);
    let layout = Layout::new(
        shape.input,
        shape.output[1],
        shape.kernel,
        shape.stride,
        shape.padding,
        [1, 1],
    );
    let compute = |out: &Shared<'_>| {
        let parts = parts(shape, width / lanes).into_par_iter();
        parts.for_each(|part| {
            dispatch(Run {
                x,
                gradient: &transposed,
                width,
                layout: &layout,
                shape,
                part,
                out,
            });
        });
    };
    let count = shape.channels_out * shape.channels_in * shape.taps();
    // SAFETY: the parts are all pairs of input and output channels.
    (unsafe { written(count, compute) }, bias)
}

pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// The gradient as `[b, pixels, width]`, and its sum over all pixels.
pub(super) fn transposed(
    gradient: &[f32],
    width: usize,
    shape: &ConvShape,
) -> (Vec<f32>, Vec<f32>) {
    let (pixels, channels) = (shape.pixels_out(), shape.channels_out);
    let stretches = pixels.div_ceil(STRETCH);
    let tasks = shape.batch * stretches;
    let mut sums = vec![0.0; tasks * width];
    let compute = |out: &Shared<'_>| {
        sums.par_chunks_mut(width)
            .enumerate()
            .for_each(|(task, sums)| {
                let (picture, first) = (task / stretches, task % stretches * STRETCH);
                let count = STRETCH.min(pixels - first);
                // SAFETY: no two tasks have the same pixels.
                let out = unsafe { out.zeros((picture * pixels + first) * width, count * width) };
                dispatch(Transpose {
                    from: &gradient[picture * channels * pixels + first..],
                    pitch: pixels,
                    channels,
                    width,
                    out,
                    sums,
                });
            });
    };
    // SAFETY: the tasks are all pixels of all pictures.
    let out = unsafe { written(shape.batch * pixels * width, compute) };
    let mut bias = vec![0.0_f64; channels];
    for sums in sums.chunks_exact(width) {
        for (bias, sum) in bias.iter_mut().zip(sums) {
            *bias += f64::from(*sum);
        }
    }
    (out, bias.into_iter().map(|b| b as f32).collect())
}

struct Transpose<'a> {
    from: &'a [f32],
    pitch: usize,
    channels: usize,
    width: usize,
    out: &'a mut [f32],
    sums: &'a mut [f32],
}

impl WithSimd for Transpose<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // A few pixels at a time, so that the lines written to stay in the cache.
        for (block, out) in self.out.chunks_mut(16 * self.width).enumerate() {
            let count = out.len() / self.width;
            for channel in 0..self.channels {
                let from = &self.from[channel * self.pitch + block * 16..][..count];
                for (value, out) in from
                    .iter()
                    .zip(out[channel..].iter_mut().step_by(self.width))
                {
                    *out = *value;
                }
            }
            for pixel in out.chunks_exact(self.width) {
                for (sum, value) in self.sums.iter_mut().zip(pixel) {
                    *sum += value;
                }
            }
        }
    }
}

/// What a thread computes: the weights between some input and some vectors of output channels, over
/// all pictures.
struct Part {
    from: Range<usize>,
    vectors: Range<usize>,
}

fn parts(shape: &ConvShape, vectors: usize) -> Vec<Part> {
    let wanted = 2 * rayon::current_num_threads();
    let mut span = vectors.min(SPAN);
    let fitting = (SUMS / (shape.taps() * span * 16)).max(1);
    let mut count = fitting.min(shape.channels_in.div_ceil(wanted)).max(1);
    if shape.channels_in < wanted {
        count = 1;
        span = vectors
            .div_ceil(wanted.div_ceil(shape.channels_in))
            .min(span);
    }
    let mut parts = Vec::new();
    for from in (0..shape.channels_in).step_by(count) {
        for first in (0..vectors).step_by(span) {
            parts.push(Part {
                from: from..(from + count).min(shape.channels_in),
                vectors: first..(first + span).min(vectors),
            });
        }
    }
    parts
}

struct Run<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    width: usize,
    layout: &'a Layout,
    shape: &'a ConvShape,
    part: Part,
    out: &'a Shared<'a>,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.add_all::<S, 8>(simd);
        } else {
            self.add_all::<S, 4>(simd);
        }
    }
}

impl Run<'_> {
    /// Sums of all pictures; `M` pairs of input channel and tap are taken together.
    #[inline(always)]
    fn add_all<S: Simd, const M: usize>(&self, simd: S) {
        let (shape, layout, channels) = (self.shape, self.layout, self.part.from.len());
        let [height, width] = shape.output;
        let taps = shape.taps();
        let pairs = (channels * taps).next_multiple_of(M);
        let span = self.part.vectors.len() * S::F32_LANES;

        let per_row = layout.plane(2) - layout.plane(1);
        let beyond = layout.plane(1) - per_row;
        let fitting = (BAND / channels).saturating_sub(beyond) / per_row;
        let at_once = (PIXELS / width).max(1);
        let bands = height.div_ceil(fitting.max(at_once));
        let rows = height.div_ceil(bands).next_multiple_of(at_once);

        let mut scratch = Scratch::take(pairs * span + channels * layout.plane(rows));
        let scratch = scratch.values();
        let (sums, input) = scratch.split_at_mut(pairs * span);
        sums.fill(0.0);
        for picture in 0..shape.batch {
            for first in (0..height).step_by(rows) {
                let rows = rows.min(height - first);
                let plane = layout.plane(rows);
                for (channel, input) in self.part.from.clone().zip(input.chunks_exact_mut(plane)) {
                    let channel = picture * shape.channels_in + channel;
                    let x = &self.x[channel * shape.pixels_in()..][..shape.pixels_in()];
                    layout.fill(x, first, rows, input);
                }
                let taps = layout.taps(rows);
                let mut offsets: Vec<usize> = (0..channels)
                    .flat_map(|c| taps.iter().map(move |tap| c * plane + tap))
                    .collect();
                // The last few pairs may not be there: anything is added up in their place.
                offsets.resize(pairs, 0);
                for row in (0..rows).step_by(at_once) {
                    let band = Band {
                        input: &input[row * layout.pitch..channels * plane],
                        pitch: layout.pitch,
                        gradient: &self.gradient
                            [(picture * height + first + row) * width * self.width..],
                        gradient_width: self.width,
                        rows: at_once.min(rows - row),
                        width,
                        span,
                    };
                    let mut vector = self.part.vectors.start;
                    while vector < self.part.vectors.end {
                        let column = vector * S::F32_LANES;
                        let at = (vector - self.part.vectors.start) * S::F32_LANES;
                        vector += match self.part.vectors.end - vector {
                            1 => band.add::<S, M, 1>(simd, &offsets, column, at, sums),
                            2 | 4 => band.add::<S, M, 2>(simd, &offsets, column, at, sums),
                            _ => band.add::<S, M, 3>(simd, &offsets, column, at, sums),
                        };
                    }
                }
            }
        }
        self.write::<S>(span, sums);
    }

    #[inline(always)]
    fn write<S: Simd>(&self, span: usize, sums: &[f32]) {
        let (shape, taps) = (self.shape, self.shape.taps());
        let count = self.part.from.len() * taps;
        let first = self.part.vectors.start * S::F32_LANES;
        for (at, channel) in (first..shape.channels_out.min(first + span)).enumerate() {
            let start = (channel * shape.channels_in + self.part.from.start) * taps;
            // SAFETY: the weights of these channels are in no other part.
            let out = unsafe { self.out.part(start, count) };
            for (out, sums) in out.iter_mut().zip(sums.chunks_exact(span)) {
                out.write(sums[at]);
            }
        }
    }
}

/// A few rows of a picture, with what is known of the output there.
pub(super) struct Band<'a> {
    pub(super) input: &'a [f32],
    pub(super) pitch: usize,
    pub(super) gradient: &'a [f32],
    pub(super) gradient_width: usize,
    pub(super) rows: usize,
    pub(super) width: usize,
    pub(super) span: usize,
}

impl Band<'_> {
    /// Adds to the sums of `N` vectors of output channels, from `column` of the gradient and `at` of
    /// the sums; gives `N`.
    #[inline(always)]
    pub(super) fn add<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        offsets: &[usize],
        column: usize,
        at: usize,
        sums: &mut [f32],
    ) -> usize {
        let last = offsets.iter().max().copied().unwrap_or(0);
        assert!(self.input.len() >= last + (self.rows - 1) * self.pitch + self.width);
        assert!(self.gradient.len() >= self.rows * self.width * self.gradient_width);
        assert!(column + N * S::F32_LANES <= self.gradient_width);
        assert!(at + N * S::F32_LANES <= self.span && sums.len() >= offsets.len() * self.span);
        let blocks = offsets
            .chunks_exact(M)
            .zip(sums.chunks_exact_mut(M * self.span));
        for (offsets, sums) in blocks {
            // SAFETY: every pixel of every offset is within the input, and as many of the gradient
            // and the sums are there, as was asserted.
            unsafe {
                let sums = sums.as_mut_ptr().add(at);
                let mut from = [self.input.as_ptr(); M];
                let mut acc = [[simd.splat_f32s(0.0); N]; M];
                for m in 0..M {
                    from[m] = from[m].add(offsets[m]);
                    for n in 0..N {
                        acc[m][n] = load(simd, sums.add(m * self.span + n * S::F32_LANES));
                    }
                }
                let mut gradient = self.gradient.as_ptr().add(column);
                for row in 0..self.rows {
                    for pixel in row * self.pitch..row * self.pitch + self.width {
                        let mut vectors = [simd.splat_f32s(0.0); N];
                        for n in 0..N {
                            vectors[n] = load(simd, gradient.add(n * S::F32_LANES));
                        }
                        for m in 0..M {
                            let value = simd.splat_f32s(*from[m].add(pixel));
                            for n in 0..N {
                                acc[m][n] = simd.mul_add_e_f32s(value, vectors[n], acc[m][n]);
                            }
                        }
                        gradient = gradient.wrapping_add(self.gradient_width);
                    }
                }
                for m in 0..M {
                    for n in 0..N {
                        store(simd, sums.add(m * self.span + n * S::F32_LANES), acc[m][n]);
                    }
                }
            }
        }
        N
    }
}
