//! The convolution, and its gradient for the input, on matrix units: products of bf16, sums of f32.

#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::ConvShape;
use crate::kernels::{
    bf16::{Pair, pair, single},
    scratch::{Scratch, Shared, written},
    simd::dispatch,
    tiles::{BLOCK, DEPTH, Product, Steps, Tiles},
};

/// Sums of one channel that are computed before they are written to the result, about.
const RUN: usize = 1024;
/// Pairs that a band's copy may have, about: it should stay in the second-level cache.
const BAND: usize = 128 << 10;

/// The convolution of `x` with `weight`.
pub(in crate::kernels) fn forward(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let (taps, channels_in) = (shape.taps(), shape.channels_in);
    let at = |to: usize, from: usize, tap: usize| weight[(to * channels_in + from) * taps + tap];
    Convolution {
        x,
        bias: Some(bias),
        batch: shape.batch,
        from: channels_in,
        to: shape.channels_out,
        input: shape.input,
        output: shape.output,
        kernel: shape.kernel,
        lead: shape.padding,
    }
    .run(&at)
}

/// The gradient for the input: the convolution of the output's with the weights turned round.
pub(in crate::kernels) fn input_gradient(
    gradient: &[f32],
    weight: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let (taps, to) = (shape.taps(), shape.channels_in);
    let at = |i: usize, o: usize, tap: usize| weight[(o * to + i) * taps + taps - 1 - tap];
    Convolution {
        x: gradient,
        bias: None,
        batch: shape.batch,
        from: shape.channels_out,
        to,
        input: shape.output,
        output: shape.input,
        kernel: shape.kernel,
        lead: [0, 1].map(|i| shape.kernel[i] - 1 - shape.padding[i]),
    }
    .run(&at)
}

struct Convolution<'a> {
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    batch: usize,
    from: usize,
    to: usize,
    input: [usize; 2],
    output: [usize; 2],
    kernel: [usize; 2],
    /// Zeros before the first row and column.
    lead: [usize; 2],
}

impl Convolution<'_> {
    fn run(&self, weight: &(dyn Fn(usize, usize, usize) -> f32 + Sync)) -> Vec<f32> {
        let packed = self.pack(weight);
        let [height, width] = self.output;
        let pitch = width + self.kernel[1] - 1;
        let pairs = self.from.next_multiple_of(DEPTH) / 2;
        let fitting = (BAND / pairs / pitch).saturating_sub(self.kernel[0] - 1);
        let rows = RUN.div_ceil(pitch).min(fitting).clamp(1, height);
        let bands = height.div_ceil(rows);
        let compute = |out: &Shared<'_>| {
            (0..self.batch * bands).into_par_iter().for_each(|part| {
                let first = part % bands * rows;
                dispatch(Band {
                    convolution: self,
                    weights: &packed,
                    picture: part / bands,
                    first,
                    rows: rows.min(height - first),
                    pitch,
                    pairs,
                    out,
                });
            });
        };
        // SAFETY: the bands are all rows of all channels of all pictures.
        unsafe { written(self.batch * self.to * height * width, compute) }
    }

    /// Weights in the order they are read: for each block of output channels all taps, all blocks of
    /// input channels, then a row for each output channel; zeros for channels that are not there.
    fn pack(&self, weight: &(dyn Fn(usize, usize, usize) -> f32 + Sync)) -> Vec<u16> {
        let taps = self.kernel[0] * self.kernel[1];
        let size = taps * self.from.next_multiple_of(DEPTH) * BLOCK;
        let mut packed = vec![0; self.to.div_ceil(BLOCK) * size];
        let blocks = packed.par_chunks_exact_mut(size).enumerate();
        blocks.for_each(|(block, packed)| {
            let mut steps = packed.chunks_exact_mut(BLOCK * DEPTH);
            for tap in 0..taps {
                for first in (0..self.from).step_by(DEPTH) {
                    let Some(step) = steps.next() else { return };
                    for (to, row) in (block * BLOCK..self.to).zip(step.chunks_exact_mut(DEPTH)) {
                        for (from, value) in (first..self.from).zip(row) {
                            *value = single(weight(to, from, tap));
                        }
                    }
                }
            }
        });
        packed
    }
}

/// Some rows of a picture's result, all channels.
struct Band<'a> {
    convolution: &'a Convolution<'a>,
    weights: &'a [u16],
    picture: usize,
    first: usize,
    rows: usize,
    pitch: usize,
    /// Pairs of input channels, with those that are only there to fill a step.
    pairs: usize,
    out: &'a Shared<'a>,
}

impl WithSimd for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let c = self.convolution;
        let taps = c.kernel[0] * c.kernel[1];
        let run = ((self.rows - 1) * self.pitch + c.output[1]).next_multiple_of(BLOCK);
        let beyond = (c.kernel[0] - 1) * self.pitch + c.kernel[1] - 1;
        // An odd number of cache lines, or lines of all channels would compete for the same places.
        let plane = (run + beyond).next_multiple_of(16) | 16;
        let mut scratch = Scratch::take(self.pairs * plane + BLOCK * run);
        let (input, sums) = scratch.values().split_at_mut(self.pairs * plane);
        let input: &mut [Pair] = pulp::bytemuck::cast_slice_mut(input);
        for (number, plane) in input.chunks_exact_mut(plane).enumerate() {
            self.fill(number, plane);
        }
        let tap = |tap: usize| tap / c.kernel[1] * self.pitch + tap % c.kernel[1];
        let depth = self.pairs / (DEPTH / 2);
        let steps = (0..taps * depth)
            .map(|step| {
                let right = step % depth * (DEPTH / 2) * plane + tap(step / depth);
                [step * BLOCK * DEPTH, right]
            })
            .collect();
        let steps = Steps::new(steps);
        let tiles = Tiles::take();
        let size = taps * depth * BLOCK * DEPTH;
        for (block, weights) in self.weights.chunks_exact(size).enumerate() {
            for column in (0..run).step_by(BLOCK) {
                let product = Product {
                    left: weights,
                    left_pitch: DEPTH,
                    right: &input[column..],
                    right_pitch: plane,
                    steps: &steps,
                };
                product.add_to(&tiles, &mut sums[column..], run, true);
            }
            self.write(block, run, sums);
        }
    }
}

impl Band<'_> {
    /// Two input channels as pairs between zeros.
    #[inline(always)]
    fn fill(&self, number: usize, plane: &mut [Pair]) {
        let c = self.convolution;
        let [height, width] = c.input;
        let channel = |channel: usize| {
            let start = (self.picture * c.from + channel) * height * width;
            (channel < c.from).then(|| &c.x[start..start + height * width])
        };
        let Some(first) = channel(2 * number) else {
            plane.fill(0);
            return;
        };
        let second = channel(2 * number + 1);
        let (lines, rest) = plane.split_at_mut((self.rows + c.kernel[0] - 1) * self.pitch);
        rest.fill(0);
        for (row, line) in lines.chunks_exact_mut(self.pitch).enumerate() {
            let y = (self.first + row).wrapping_sub(c.lead[0]);
            if y >= height {
                line.fill(0);
                continue;
            }
            let (before, line) = line.split_at_mut(c.lead[1].min(self.pitch));
            let (line, after) = line.split_at_mut(width.min(line.len()));
            before.fill(0);
            after.fill(0);
            let first = &first[y * width..][..line.len()];
            match second {
                Some(second) => {
                    let second = &second[y * width..][..line.len()];
                    for ((to, a), b) in line.iter_mut().zip(first).zip(second) {
                        *to = pair(*a, *b);
                    }
                }
                None => {
                    for (to, a) in line.iter_mut().zip(first) {
                        *to = pair(*a, 0.0);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn write(&self, block: usize, run: usize, sums: &[f32]) {
        let c = self.convolution;
        let [height, width] = c.output;
        for (channel, sums) in (block * BLOCK..c.to).zip(sums.chunks_exact(run)) {
            let bias = c.bias.map_or(0.0, |bias| bias[channel]);
            let start = ((self.picture * c.to + channel) * height + self.first) * width;
            // SAFETY: these rows of this channel are in no other band.
            let out = unsafe { self.out.part(start, self.rows * width) };
            for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks(self.pitch)) {
                for (out, sum) in out.iter_mut().zip(sums) {
                    out.write(sum + bias);
                }
            }
        }
    }
}
