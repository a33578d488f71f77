//! The gradients of weights and bias.

#![allow(unsafe_code)]
// Indices run over two arrays at once; closures would not be compiled for the vectors' width.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    super::{
        ConvShape,
        weight_gradient::{Band, Lanes, transposed},
    },
    TILE,
    tiles::{Grid, spread},
};
use crate::kernels::{
    scratch::{Scratch, Shared, written},
    simd::{dispatch, load, store},
};

/// Input channels of a part, about.
const SPAN: usize = 40;
/// Parts that there should be. It is a number and not that of threads, on which the order of sums must
/// not depend.
const PARTS: usize = 8;
/// Values of tiles that are brought there before they are multiplied: they should stay in the
/// second-level cache.
const TILES: usize = 128 << 10;

/// The gradients for weights and bias, given the one for the output.
pub(in crate::kernels) fn weight_gradient(
    x: &[f32],
    gradient: &[f32],
    shape: &ConvShape,
) -> (Vec<f32>, Vec<f32>) {
    let lanes = dispatch(Lanes);
    let width = shape.channels_out.next_multiple_of(lanes);
    let (transposed, bias) = transposed(gradient, width, shape);
    let ranges = shape.channels_in.div_ceil(SPAN);
    let span = shape.channels_in.div_ceil(ranges).next_multiple_of(BLOCK);
    let pictures = shape.batch.div_ceil(PARTS.div_ceil(ranges));
    let grid = Grid::new(shape.input, shape.output, shape.padding);
    let mut parts = Vec::new();
    for from in (0..shape.channels_in).step_by(span) {
        for first in (0..shape.batch).step_by(pictures) {
            parts.push(Part {
                x,
                gradient: &transposed,
                width,
                grid,
                shape,
                span,
                from: from..(from + span).min(shape.channels_in),
                pictures: first..(first + pictures).min(shape.batch),
            });
        }
    }
    let sums: Vec<Vec<f32>> = parts.into_par_iter().map(dispatch).collect();
    let groups = shape.batch.div_ceil(pictures);
    let count = shape.channels_out * shape.channels_in * 9;
    let compute = |out: &Shared<'_>| {
        (0..width / lanes).into_par_iter().for_each(|vector| {
            dispatch(Finish {
                sums: &sums,
                groups,
                span,
                width,
                shape,
                vector,
                out,
            });
        });
    };
    // SAFETY: the vectors are all output channels.
    (unsafe { written(count, compute) }, bias)
}

/// Input channels that are taken together, at most.
const BLOCK: usize = 8;

/// What a thread sums up: some input channels and all output channels, over some pictures. It gives
/// `[16, span, width]`.
struct Part<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    width: usize,
    grid: Grid,
    shape: &'a ConvShape,
    span: usize,
    from: Range<usize>,
    pictures: Range<usize>,
}

impl WithSimd for Part<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        if S::REGISTER_COUNT >= 32 {
            self.add_all::<S, BLOCK>(simd)
        } else {
            self.add_all::<S, { BLOCK / 2 }>(simd)
        }
    }
}

impl Part<'_> {
    #[inline(always)]
    fn add_all<S: Simd, const M: usize>(&self, simd: S) -> Vec<f32> {
        let (grid, width) = (&self.grid, self.width);
        let fitting = TILES / (TILE * (self.span + width)) / grid.tiles[1];
        let most = fitting.clamp(1, grid.tiles[0]);
        let together = (fitting / grid.tiles[0]).clamp(1, self.pictures.len());
        // All tiles, and what the last picture's last vector has beyond them; an odd number of cache lines, or
        // lines of all channels would compete for the same places.
        let tiles = together * most * grid.pitch();
        let step = (tiles + S::F32_LANES).next_multiple_of(16) | 16;
        let tiles = TILE * self.span * step;
        let spreads = together * most * grid.tiles[1] * width;
        let planes = grid.planes(most, step);
        let mut scratch = Scratch::take(tiles + TILE * spreads + planes + 2 * grid.pitch());
        let (tiles, rest) = scratch.values().split_at_mut(tiles);
        let (spreads, rest) = rest.split_at_mut(TILE * spreads);
        let (planes, line) = rest.split_at_mut(planes);
        let offsets: Vec<usize> = (0..self.span).map(|channel| channel * step).collect();
        let mut sums = vec![0.0; TILE * self.span * width];
        let size = self.shape.pixels_in();
        for picture in self.pictures.clone().step_by(together) {
            let pictures = picture..(picture + together).min(self.pictures.end);
            for first in (0..grid.tiles[0]).step_by(most) {
                let rows = first..(first + most).min(grid.tiles[0]);
                let run = grid.run(rows.len(), S::F32_LANES);
                // Channels that only fill a block keep what the memory held: their sums are not used.
                for (at, channel) in self.from.clone().enumerate() {
                    for (number, picture) in pictures.clone().enumerate() {
                        let start = (picture * self.shape.channels_in + channel) * size;
                        let x = &self.x[start..start + size];
                        grid.fill(x, first, rows.len(), line, planes);
                        let place = at * step + number * rows.len() * grid.pitch();
                        let out = &mut tiles[place..];
                        grid.transform(simd, planes, rows.len(), run, out, self.span * step);
                    }
                }
                self.spread(simd, pictures.clone(), rows.clone(), spreads);
                let rows = pictures.len() * rows.len();
                let count = rows * grid.tiles[1] * width;
                for k in 0..TILE {
                    let band = Band {
                        input: &tiles[k * self.span * step..][..self.span * step],
                        pitch: grid.pitch(),
                        gradient: &spreads[k * count..][..count],
                        gradient_width: width,
                        rows,
                        width: grid.tiles[1],
                        span: width,
                    };
                    let sums = &mut sums[k * self.span * width..][..self.span * width];
                    let vectors = width / S::F32_LANES;
                    let mut vector = 0;
                    while vector < vectors {
                        let at = vector * S::F32_LANES;
                        vector += match vectors - vector {
                            1 => band.add::<S, M, 1>(simd, &offsets, at, at, sums),
                            2 | 4 => band.add::<S, M, 2>(simd, &offsets, at, at, sums),
                            _ => band.add::<S, M, 3>(simd, &offsets, at, at, sums),
                        };
                    }
                }
            }
        }
        sums
    }

    /// `A y Aᵀ` of the gradient of some rows of tiles: `[16, tiles, width]`.
    #[inline(always)]
    fn spread<S: Simd>(
        &self,
        simd: S,
        pictures: Range<usize>,
        rows: Range<usize>,
        out: &mut [f32],
    ) {
        let [height, width] = self.shape.output;
        let (columns, channels) = (self.grid.tiles[1], self.width);
        let step = pictures.len() * rows.len() * columns * channels;
        assert!(out.len() >= TILE * step);
        assert!(self.gradient.len() >= pictures.end * height * width * channels);
        let mut out = out.as_mut_ptr();
        for picture in pictures {
            for row in rows.clone() {
                for column in 0..columns {
                    for at in (0..channels).step_by(S::F32_LANES) {
                        let mut pixels = [[simd.splat_f32s(0.0); 2]; 2];
                        for y in 0..2 {
                            for x in 0..2 {
                                let [py, px] = [2 * row + y, 2 * column + x];
                                if py < height && px < width {
                                    let pixel = (picture * height + py) * width + px;
                                    // SAFETY: the picture's pixels are there, as was asserted.
                                    pixels[y][x] = unsafe {
                                        let from = self.gradient.as_ptr();
                                        load(simd, from.add(pixel * channels + at))
                                    };
                                }
                            }
                        }
                        let left = spread(simd, [pixels[0][0], pixels[1][0]]);
                        let right = spread(simd, [pixels[0][1], pixels[1][1]]);
                        for y in 0..4 {
                            let row = spread(simd, [left[y], right[y]]);
                            for (x, value) in row.into_iter().enumerate() {
                                // SAFETY: within sixteen times `step` values, all tiles' together.
                                unsafe { store(simd, out.add((4 * y + x) * step + at), value) };
                            }
                        }
                    }
                    out = out.wrapping_add(channels);
                }
            }
        }
    }
}

/// A vector of output channels: what all parts summed up, brought back to kernels of nine.
struct Finish<'a> {
    sums: &'a [Vec<f32>],
    /// Parts that have the same input channels.
    groups: usize,
    span: usize,
    width: usize,
    shape: &'a ConvShape,
    vector: usize,
    out: &'a Shared<'a>,
}

impl WithSimd for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let first = self.vector * S::F32_LANES;
        let count = (self.shape.channels_out - first).min(S::F32_LANES);
        let row = self.shape.channels_in * 9;
        // SAFETY: these output channels are in no other vector.
        let out = unsafe { self.out.part(first * row, count * row) };
        for from in 0..self.shape.channels_in {
            let parts = &self.sums[from / self.span * self.groups..][..self.groups];
            let mut totals = [simd.splat_f32s(0.0); TILE];
            for (k, total) in totals.iter_mut().enumerate() {
                let start = (k * self.span + from % self.span) * self.width + first;
                for sums in parts {
                    let sums = &sums[start..start + S::F32_LANES];
                    // SAFETY: they are as many as a vector has.
                    *total = simd.add_f32s(*total, unsafe { load(simd, sums.as_ptr()) });
                }
            }
            let kernel = kernel_gradient(simd, totals);
            let kernel: &[f32] = pulp::bytemuck::cast_slice(&kernel);
            for (slot, out) in out.chunks_exact_mut(row).enumerate() {
                let out = &mut out[from * 9..][..9];
                for (out, values) in out.iter_mut().zip(kernel.chunks_exact(S::F32_LANES)) {
                    out.write(values[slot]);
                }
            }
        }
    }
}

/// `Gᵀ s G` of the products of kernels' gradients.
#[inline(always)]
fn kernel_gradient<S: Simd>(simd: S, s: [S::f32s; TILE]) -> [S::f32s; 9] {
    let mut columns = [[s[0]; 4]; 3];
    for x in 0..4 {
        let [a, b, c] = gather(simd, [s[x], s[4 + x], s[8 + x], s[12 + x]]);
        (columns[0][x], columns[1][x], columns[2][x]) = (a, b, c);
    }
    let mut out = [s[0]; 9];
    for y in 0..3 {
        let [a, b, c] = gather(simd, columns[y]);
        (out[3 * y], out[3 * y + 1], out[3 * y + 2]) = (a, b, c);
    }
    out
}

/// `Gᵀ` of four values.
#[inline(always)]
fn gather<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 3] {
    let half = simd.splat_f32s(0.5);
    let sum = simd.mul_f32s(simd.add_f32s(b, c), half);
    let difference = simd.mul_f32s(simd.sub_f32s(b, c), half);
    [simd.add_f32s(a, sum), difference, simd.add_f32s(sum, d)]
}
