//! The gradients of a convolution's weights on matrix units: products of bf16, sums of f32.

#![allow(unsafe_code)]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::ConvShape;
use crate::kernels::{
    bf16::{Pair, pair, single},
    scratch::Scratch,
    simd::dispatch,
    tiles::{BLOCK, DEPTH, Product, Steps, Tiles},
};

/// Most parts that a batch is divided into, each with sums of its own.
const PARTS: usize = 8;
/// Pixels that a part should have at least.
const PIXELS: usize = 1024;
/// Pixels that are added up before the next sums are taken: what is read for them should stay close.
const STRETCH: usize = 512;
/// Values of all parts' sums, at most.
const SUMS: usize = 16 << 20;

/// The gradients for weights and bias, given the one for the output.
pub(in crate::kernels) fn weight_gradient(
    x: &[f32],
    gradient: &[f32],
    shape: &ConvShape,
) -> (Vec<f32>, Vec<f32>) {
    let [from, to] = [shape.channels_in, shape.channels_out].map(|n| n.next_multiple_of(BLOCK));
    let taps = shape.taps();
    let sums = taps * from * to;
    let pixels = shape.pixels_out();
    let parts = PARTS.min(SUMS / sums).max(1);
    let pictures = shape.batch.div_ceil(parts).max(PIXELS / pixels);
    let parts: Vec<_> = (0..shape.batch)
        .step_by(pictures)
        .map(|first| first..(first + pictures).min(shape.batch))
        .collect();
    let part = |pictures| {
        dispatch(Part {
            x,
            gradient,
            shape,
            from,
            to,
            pictures,
        })
    };
    let parts: Vec<_> = parts.into_par_iter().map(part).collect();
    let at = |channel: usize| {
        let (block, row) = (channel / BLOCK, channel % BLOCK);
        (block, row)
    };
    // Sums are [blocks of from, blocks of to, taps, 32 of from, 32 of to].
    let mut weights = vec![0.0; shape.channels_out * shape.channels_in * taps];
    let rows = weights.par_chunks_exact_mut(shape.channels_in * taps);
    rows.enumerate().for_each(|(channel, row)| {
        let (block_to, column) = at(channel);
        for (channel, values) in row.chunks_exact_mut(taps).enumerate() {
            let (block_from, row) = at(channel);
            let block = (block_from * (to / BLOCK) + block_to) * taps;
            for (tap, value) in values.iter_mut().enumerate() {
                let place = ((block + tap) * BLOCK + row) * BLOCK + column;
                *value = parts.iter().map(|(sums, _)| sums[place]).sum();
            }
        }
    });
    let bias = (0..shape.channels_out)
        .map(|channel| parts.iter().map(|(_, bias)| bias[channel]).sum::<f64>() as f32)
        .collect();
    (weights, bias)
}

/// Some pictures' share of all sums.
struct Part<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    shape: &'a ConvShape,
    /// Channels, with those that are only there to fill a block.
    from: usize,
    to: usize,
    pictures: Range<usize>,
}

impl WithSimd for Part<'_> {
    type Output = (Vec<f32>, Vec<f64>);

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let shape = self.shape;
        let taps = shape.taps();
        // Even, so that pairs of pixels lie in one row.
        let pitch = (shape.output[1] + shape.kernel[1] - 1).next_multiple_of(2);
        let plane = ((shape.output[0] + shape.kernel[0] - 1) * pitch).next_multiple_of(DEPTH);
        let run = self.pictures.len() * plane;
        // Taps of the last pixels read beyond it.
        let beyond = (shape.kernel[0] - 1) * pitch + shape.kernel[1] - 1;
        // An odd number of cache lines of 32 values each.
        let left_pitch = (run + beyond).next_multiple_of(32) | 32;
        let mut scratch = Scratch::take(self.from * left_pitch / 2 + run / 2 * self.to);
        let (left, right) = scratch.values().split_at_mut(self.from * left_pitch / 2);
        let left: &mut [u16] = pulp::bytemuck::cast_slice_mut(left);
        let right: &mut [Pair] = pulp::bytemuck::cast_slice_mut(right);
        // Channels that only fill a block keep what the memory held: their sums are not used.
        for (channel, left) in left.chunks_exact_mut(left_pitch).enumerate() {
            if channel < shape.channels_in {
                self.fill(channel, pitch, plane, left);
            }
        }
        let bias = self.transpose(pitch, plane, right);

        let tiles = Tiles::take();
        let mut sums = vec![0.0_f32; taps * self.from * self.to];
        for first in (0..run).step_by(STRETCH) {
            let count = STRETCH.min(run - first) / DEPTH;
            let steps = (0..count).map(|s| [s * DEPTH, s * (DEPTH / 2) * self.to]);
            let steps = Steps::new(steps.collect());
            let mut blocks = sums.chunks_exact_mut(BLOCK * BLOCK);
            for from in (0..self.from).step_by(BLOCK) {
                for to in (0..self.to).step_by(BLOCK) {
                    for tap in 0..taps {
                        let Some(block) = blocks.next() else { break };
                        let tap = tap / shape.kernel[1] * pitch + tap % shape.kernel[1];
                        let product = Product {
                            left: &left[from * left_pitch + first + tap..],
                            left_pitch,
                            right: &right[first / 2 * self.to + to..],
                            right_pitch: self.to,
                            steps: &steps,
                        };
                        product.add_to(&tiles, block, BLOCK, first == 0);
                    }
                }
            }
        }
        (sums, bias)
    }
}

impl Part<'_> {
    /// An input channel of all pictures, between zeros.
    #[inline(always)]
    fn fill(&self, channel: usize, pitch: usize, plane: usize, left: &mut [u16]) {
        let shape = self.shape;
        let [height, width] = shape.input;
        let [top, before] = shape.padding;
        let (planes, beyond) = left.split_at_mut(self.pictures.len() * plane);
        beyond.fill(0);
        for (picture, plane) in self.pictures.clone().zip(planes.chunks_exact_mut(plane)) {
            let start = (picture * shape.channels_in + channel) * height * width;
            let x = &self.x[start..start + height * width];
            // With much padding the last rows and columns may lie where nothing is seen.
            let (above, plane) = plane.split_at_mut((top * pitch).min(plane.len()));
            let (lines, below) = plane.split_at_mut((height * pitch).min(plane.len()));
            above.fill(0);
            below.fill(0);
            for (x, line) in x.chunks_exact(width).zip(lines.chunks_mut(pitch)) {
                let (first, line) = line.split_at_mut(before.min(line.len()));
                let (line, last) = line.split_at_mut(width.min(line.len()));
                first.fill(0);
                last.fill(0);
                for (to, value) in line.iter_mut().zip(x) {
                    *to = single(*value);
                }
            }
        }
    }

    /// The gradient as pairs of pixels, channels innermost; returns its sums.
    #[inline(always)]
    fn transpose(&self, pitch: usize, plane: usize, right: &mut [Pair]) -> Vec<f64> {
        let shape = self.shape;
        let [height, width] = shape.output;
        let mut sums = vec![0.0; shape.channels_out];
        let planes = right.chunks_exact_mut(plane / 2 * self.to);
        for (picture, right) in self.pictures.clone().zip(planes) {
            let (lines, below) = right.split_at_mut(height * pitch / 2 * self.to);
            below.fill(0);
            for (y, line) in lines.chunks_exact_mut(pitch / 2 * self.to).enumerate() {
                line[width / 2 * self.to..].fill(0);
                for (channel, sum) in sums.iter_mut().enumerate() {
                    let start = ((picture * shape.channels_out + channel) * height + y) * width;
                    let from = &self.gradient[start..start + width];
                    let pairs = from.chunks_exact(2);
                    let last = pairs.remainder();
                    let mut line = line[channel..].iter_mut().step_by(self.to);
                    for (values, to) in pairs.zip(&mut line) {
                        *to = pair(values[0], values[1]);
                    }
                    if let ([value], Some(to)) = (last, line.next()) {
                        *to = pair(*value, 0.0);
                    }
                    *sum += f64::from(total(from));
                }
            }
        }
        sums
    }
}

/// The sum of some values, in sixteen sums that can be computed side by side.
#[inline(always)]
fn total(values: &[f32]) -> f32 {
    let mut sums = [0.0; 16];
    let vectors = values.chunks_exact(16);
    let rest: f32 = vectors.remainder().iter().sum();
    for vector in vectors {
        for (sum, value) in sums.iter_mut().zip(vector) {
            *sum += value;
        }
    }
    sums.iter().sum::<f32>() + rest
}
