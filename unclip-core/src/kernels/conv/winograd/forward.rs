//! The convolution and its gradient for the input, which is a convolution as well.

#![allow(unsafe_code)]
// Indices run over two arrays at once; closures would not be compiled for the vectors' width.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    super::{
        ConvShape,
        forward::{BlockSize, Tile},
        part::Part,
    },
    TILE, kernel_transform,
    tiles::{Grid, back},
};
use crate::kernels::{
    scratch::{Scratch, Shared, written},
    simd::{dispatch, load, store},
};

/// Values that a part's tiles may have, all input channels: they are read once for every few output
/// channels, so they should stay in the second-level cache.
const TILES: usize = 160 << 10;
/// Tiles that a part should have at least, or weights are read too often.
const FEWEST: usize = 48;

/// The convolution of `x` with `weight`.
pub(in crate::kernels) fn forward(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let from = shape.channels_in;
    let kernel = |to: usize, channel: usize| {
        let start = (to * from + channel) * 9;
        std::array::from_fn(|tap| weight[start + tap])
    };
    Convolution {
        x,
        bias: Some(bias),
        grid: Grid::new(shape.input, shape.output, shape.padding),
        batch: shape.batch,
        from,
        to: shape.channels_out,
        output: shape.output,
    }
    .run(&kernel)
}

/// The gradient for the input: the convolution of the output's with the weights turned round.
#[cfg(feature = "train")]
pub(in crate::kernels) fn input_gradient(
    gradient: &[f32],
    weight: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let to = shape.channels_in;
    let kernel = |channel: usize, from: usize| {
        let start = (from * to + channel) * 9;
        std::array::from_fn(|tap| weight[start + 8 - tap])
    };
    let lead = shape.padding.map(|padding| 2 - padding);
    Convolution {
        x: gradient,
        bias: None,
        grid: Grid::new(shape.output, shape.input, lead),
        batch: shape.batch,
        from: shape.channels_out,
        to,
        output: shape.input,
    }
    .run(&kernel)
}

struct Convolution<'a> {
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    grid: Grid,
    batch: usize,
    from: usize,
    to: usize,
    output: [usize; 2],
}

impl Convolution<'_> {
    fn run(self, kernel: &(dyn Fn(usize, usize) -> [f32; 9] + Sync)) -> Vec<f32> {
        let block = dispatch(BlockSize);
        let packed = self.pack(kernel, block);
        let compute = |out: &Shared<'_>| {
            self.parts(block).into_par_iter().for_each(|part| {
                dispatch(Run {
                    convolution: &self,
                    weights: &packed,
                    part,
                    out,
                });
            });
        };
        let pixels = self.output[0] * self.output[1];
        // SAFETY: the parts are all pictures, all rows and all channels.
        unsafe { written(self.batch * self.to * pixels, compute) }
    }

    /// Weights in the order they are read: for each block of output channels all values of a tile, all
    /// inputs, then the block's channels, with zeros for those that are not there.
    fn pack(&self, kernel: &(dyn Fn(usize, usize) -> [f32; 9] + Sync), block: usize) -> Vec<f32> {
        let size = TILE * self.from * block;
        let mut packed = vec![0.0; self.to.div_ceil(block) * size];
        let blocks = packed.par_chunks_exact_mut(size).enumerate();
        blocks.for_each(|(number, packed)| {
            for (slot, to) in (number * block..self.to).take(block).enumerate() {
                for from in 0..self.from {
                    let values = kernel_transform(kernel(to, from));
                    for (k, value) in values.into_iter().enumerate() {
                        packed[(k * self.from + from) * block + slot] = value;
                    }
                }
            }
        });
        packed
    }

    /// How the work is divided: into rows of tiles that fit, and small pictures together.
    fn parts(&self, block: usize) -> Vec<Part> {
        let wanted = 2 * rayon::current_num_threads();
        let height = self.grid.tiles[0];
        let fitting = (TILES / (TILE * self.from)).max(FEWEST);
        let rows = (fitting / self.grid.pitch()).clamp(1, height);
        let rows = height.div_ceil(height.div_ceil(rows));
        let together = match rows == height {
            true => (fitting / (height * self.grid.pitch())).clamp(1, self.batch.div_ceil(wanted)),
            false => 1,
        };
        let pictures = [self.batch, together];
        Part::all(pictures, [height, rows], self.to.div_ceil(block), wanted)
    }
}

struct Run<'a> {
    convolution: &'a Convolution<'a>,
    weights: &'a [f32],
    part: Part,
    out: &'a Shared<'a>,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 {
            self.blocks::<S, 8>(simd);
        } else {
            self.blocks::<S, 4>(simd);
        }
    }
}

impl Run<'_> {
    #[inline(always)]
    fn blocks<S: Simd, const M: usize>(&self, simd: S) {
        let c = self.convolution;
        let (pictures, rows) = (&self.part.pictures, &self.part.rows);
        let grid = &c.grid;
        // A picture's tiles follow those of the one before; what its last vector has beyond them is
        // written over by the next picture's.
        let each = rows.len() * grid.pitch();
        let whole = each.next_multiple_of(S::F32_LANES);
        let run = (pictures.len() * each).next_multiple_of(S::F32_LANES);
        // An odd number of cache lines, or lines of all channels would compete for the same places.
        let step = (run + S::F32_LANES).next_multiple_of(16) | 16;
        let planes = grid.planes(rows.len(), whole);
        let mut scratch =
            Scratch::take(TILE * (c.from * step + M * run) + 4 * run + planes + 2 * grid.pitch());
        let (tiles, rest) = scratch.values().split_at_mut(TILE * c.from * step);
        let (sums, rest) = rest.split_at_mut(TILE * M * run);
        let (pixels, rest) = rest.split_at_mut(4 * run);
        let (planes, line) = rest.split_at_mut(planes);
        let size = c.grid.input[0] * c.grid.input[1];
        for channel in 0..c.from {
            for (at, picture) in pictures.clone().enumerate() {
                let picture = &c.x[(picture * c.from + channel) * size..][..size];
                grid.fill(picture, rows.start, rows.len(), line, planes);
                let out = &mut tiles[channel * step + at * each..];
                grid.transform(simd, planes, rows.len(), whole, out, c.from * step);
            }
        }
        for block in self.part.blocks.clone() {
            let weights = &self.weights[block * TILE * c.from * M..][..TILE * c.from * M];
            for k in 0..TILE {
                let tile = Tile {
                    input: &tiles[k * c.from * step..],
                    plane: step,
                    taps: &[0],
                    channels: c.from,
                    weights: &weights[k * c.from * M..],
                };
                tile.add_run::<S, M>(simd, run, &mut sums[k * M * run..], true);
            }
            for (slot, channel) in (block * M..c.to).take(M).enumerate() {
                self.bring_back(simd, &sums[slot * run..], M * run, run, channel, pixels);
                for (at, picture) in pictures.clone().enumerate() {
                    self.write(picture, channel, run, &pixels[at * each..]);
                }
            }
        }
    }

    /// `Aᵀ m A` and the bias: four planes of pixels, for even and odd rows and columns.
    #[inline(always)]
    fn bring_back<S: Simd>(
        &self,
        simd: S,
        sums: &[f32],
        step: usize,
        run: usize,
        channel: usize,
        pixels: &mut [f32],
    ) {
        assert!(sums.len() >= (TILE - 1) * step + run && pixels.len() >= 4 * run);
        let bias = self.convolution.bias.map_or(0.0, |bias| bias[channel]);
        let bias = simd.splat_f32s(bias);
        let (sums, pixels) = (sums.as_ptr(), pixels.as_mut_ptr());
        for at in (0..run).step_by(S::F32_LANES) {
            let mut columns = [[bias; 4]; 2];
            for x in 0..4 {
                let mut m = [bias; 4];
                for y in 0..4 {
                    // SAFETY: the last of these vectors ends where was asserted.
                    m[y] = unsafe { load(simd, sums.add((4 * y + x) * step + at)) };
                }
                let [even, odd] = back(simd, m);
                columns[0][x] = even;
                columns[1][x] = odd;
            }
            for y in 0..2 {
                let [even, odd] = back(simd, columns[y]);
                // SAFETY: as above.
                unsafe {
                    let to = pixels.add(2 * y * run + at);
                    store(simd, to, simd.add_f32s(even, bias));
                    store(simd, to.add(run), simd.add_f32s(odd, bias));
                }
            }
        }
    }

    #[inline(always)]
    fn write(&self, picture: usize, channel: usize, run: usize, pixels: &[f32]) {
        let c = self.convolution;
        let [height, width] = c.output;
        let rows = 2 * self.part.rows.start..height.min(2 * self.part.rows.end);
        let start = ((picture * c.to + channel) * height + rows.start) * width;
        // SAFETY: these rows of this channel are in no other part.
        let out = unsafe { self.out.part(start, rows.len() * width) };
        let pitch = c.grid.pitch();
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            let even = &pixels[y % 2 * 2 * run + y / 2 * pitch..];
            let odd = &even[run..][..width / 2];
            let even = &even[..width.div_ceil(2)];
            let mut pairs = out.chunks_exact_mut(2);
            for ((pair, even), odd) in (&mut pairs).zip(even).zip(odd) {
                pair[0].write(*even);
                pair[1].write(*odd);
            }
            if let ([last], Some(even)) = (pairs.into_remainder(), even.last()) {
                last.write(*even);
            }
        }
    }
}
