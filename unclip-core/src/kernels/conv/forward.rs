//! The convolution and its gradient for the input, which is a convolution as well.

#![allow(unsafe_code)]
// Loops over registers, which are arrays of arrays, read best with indices.
#![allow(clippy::needless_range_loop)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{ConvShape, layout::Layout, part::Part};
use crate::kernels::{
    scratch::{Scratch, Shared, copy, written},
    simd::{dispatch, load, store},
};

/// Values that a band's copy may have: it is read once for every few output channels, so it should
/// stay in the second-level cache.
const BAND: usize = 160 << 10;
/// Bytes of weights that are read for every few output pixels: they should stay in the first level.
const WEIGHTS: usize = 20 << 10;

/// The convolution of `x` with `weight`.
pub(in crate::kernels) fn forward(
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let layout = Layout::new(
        shape.input,
        shape.output[1],
        shape.kernel,
        shape.stride,
        shape.padding,
        [1, 1],
    );
    let (taps, channels_in) = (shape.taps(), shape.channels_in);
    let at = |to: usize, from: usize, tap: usize| weight[(to * channels_in + from) * taps + tap];
    Convolution {
        x,
        bias: Some(bias),
        layout,
        batch: shape.batch,
        from: channels_in,
        to: shape.channels_out,
        pixels_in: shape.pixels_in(),
        output: shape.output,
        taps,
    }
    .run(&at)
}

/// The gradient for `x`, given the one for the output: the convolution of that with the weights
/// turned round.
pub(in crate::kernels) fn input_gradient(
    gradient: &[f32],
    weight: &[f32],
    shape: &ConvShape,
) -> Vec<f32> {
    let layout = Layout::new(
        shape.output,
        shape.input[1],
        shape.kernel,
        [1, 1],
        [0, 1].map(|i| shape.kernel[i] - 1 - shape.padding[i]),
        shape.stride,
    );
    let (taps, to) = (shape.taps(), shape.channels_in);
    let at = |i: usize, o: usize, tap: usize| weight[(o * to + i) * taps + taps - 1 - tap];
    Convolution {
        x: gradient,
        bias: None,
        layout,
        batch: shape.batch,
        from: shape.channels_out,
        to,
        pixels_in: shape.pixels_out(),
        output: shape.input,
        taps,
    }
    .run(&at)
}

struct Convolution<'a> {
    x: &'a [f32],
    bias: Option<&'a [f32]>,
    layout: Layout,
    batch: usize,
    from: usize,
    to: usize,
    pixels_in: usize,
    output: [usize; 2],
    taps: usize,
}

impl Convolution<'_> {
    fn run(self, weight: &(dyn Fn(usize, usize, usize) -> f32 + Sync)) -> Vec<f32> {
        let block = dispatch(BlockSize);
        let packed = self.pack(weight, block);
        let pixels = self.output[0] * self.output[1];
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
        // SAFETY: the parts are all pictures, all rows and all channels.
        unsafe { written(self.batch * self.to * pixels, compute) }
    }

    /// Weights in the order they are read: for each block of output channels all inputs, all taps,
    /// then the block's channels, with zeros for those that are not there.
    fn pack(&self, weight: &(dyn Fn(usize, usize, usize) -> f32 + Sync), block: usize) -> Vec<f32> {
        let size = self.from * self.taps * block;
        let mut packed = vec![0.0; self.to.div_ceil(block) * size];
        packed
            .par_chunks_mut(size)
            .enumerate()
            .for_each(|(b, packed)| {
                let mut slots = packed.chunks_exact_mut(block);
                for from in 0..self.from {
                    for tap in 0..self.taps {
                        let Some(slot) = slots.next() else { return };
                        for (to, slot) in (b * block..self.to).zip(slot) {
                            *slot = weight(to, from, tap);
                        }
                    }
                }
            });
        packed
    }

    /// How the work is divided: into bands that fit, and small pictures together.
    fn parts(&self, block: usize) -> Vec<Part> {
        let wanted = 2 * rayon::current_num_threads();
        let height = self.output[0];
        let per_row = self.layout.plane(2) - self.layout.plane(1);
        let beyond = self.layout.plane(1) - per_row;
        let fitting = (BAND / self.from).saturating_sub(beyond) / per_row;
        let bands = height.div_ceil(fitting.max(48_usize.div_ceil(self.output[1])));
        let rows = height.div_ceil(bands);
        let together = match bands {
            1 => (BAND / (self.from * self.layout.plane(height)))
                .clamp(1, self.batch.div_ceil(wanted)),
            _ => 1,
        };
        let pictures = [self.batch, together];
        Part::all(pictures, [height, rows], self.to.div_ceil(block), wanted)
    }
}

/// Output channels that are computed at once: as many as leave registers for three vectors of
/// pixels.
pub(super) struct BlockSize;

impl WithSimd for BlockSize {
    type Output = usize;

    fn with_simd<S: Simd>(self, _: S) -> usize {
        if S::REGISTER_COUNT >= 32 { 8 } else { 4 }
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
        let plane = c.layout.plane(rows.len());
        let taps = c.layout.taps(rows.len());
        let run = ((rows.len() - 1) * c.layout.pitch + c.output[1]).next_multiple_of(S::F32_LANES);
        // The last vectors of the last plane read beyond it.
        let input = pictures.len() * c.from * plane + run;
        let chunk = (WEIGHTS / (4 * M * c.taps)).clamp(1, c.from);
        let mut scratch = Scratch::take(input + M * run);
        let scratch = scratch.values();
        let (input, sums) = scratch.split_at_mut(input);
        for (at, channel) in (pictures.start * c.from..pictures.end * c.from).enumerate() {
            let picture = &c.x[channel * c.pixels_in..][..c.pixels_in];
            c.layout.fill(
                picture,
                rows.start,
                rows.len(),
                &mut input[at * plane..][..plane],
            );
        }
        for block in self.part.blocks.clone() {
            let weights = &self.weights[block * c.from * c.taps * M..][..c.from * c.taps * M];
            for at in 0..pictures.len() {
                for first in (0..c.from).step_by(chunk) {
                    let channels = chunk.min(c.from - first);
                    let tile = Tile {
                        input: &input[(at * c.from + first) * plane..],
                        plane,
                        taps: &taps,
                        channels,
                        weights: &weights[first * c.taps * M..],
                    };
                    if first == 0 {
                        self.start::<M>(block, run, sums);
                    }
                    tile.add_run::<S, M>(simd, run, sums, false);
                }
                self.write::<M>(pictures.start + at, block, run, sums);
            }
        }
    }

    /// Sums start with the bias.
    #[inline(always)]
    fn start<const M: usize>(&self, block: usize, run: usize, sums: &mut [f32]) {
        for (m, sums) in sums.chunks_exact_mut(run).enumerate() {
            let bias = self
                .convolution
                .bias
                .and_then(|bias| bias.get(block * M + m));
            sums.fill(bias.copied().unwrap_or(0.0));
        }
    }

    #[inline(always)]
    fn write<const M: usize>(&self, picture: usize, block: usize, run: usize, sums: &[f32]) {
        let c = self.convolution;
        let [height, width] = c.output;
        for (channel, sums) in (block * M..c.to).zip(sums.chunks_exact(run)) {
            let start = ((picture * c.to + channel) * height + self.part.rows.start) * width;
            // SAFETY: these rows of this channel are in no other part.
            let out = unsafe { self.out.part(start, self.part.rows.len() * width) };
            for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks(c.layout.pitch)) {
                copy(&sums[..width], out);
            }
        }
    }
}

/// Some input channels' share of a run of output pixels.
pub(super) struct Tile<'a> {
    pub(super) input: &'a [f32],
    pub(super) plane: usize,
    pub(super) taps: &'a [usize],
    pub(super) channels: usize,
    pub(super) weights: &'a [f32],
}

impl Tile<'_> {
    /// Adds to sums of `M` channels, or begins them.
    #[inline(always)]
    pub(super) fn add_run<S: Simd, const M: usize>(
        &self,
        simd: S,
        run: usize,
        sums: &mut [f32],
        begin: bool,
    ) {
        let last = self.taps.iter().max().copied().unwrap_or(0);
        assert!(self.input.len() >= (self.channels - 1) * self.plane + last + run);
        assert!(self.weights.len() >= self.channels * self.taps.len() * M);
        assert!(sums.len() >= M * run);
        let mut at = 0;
        while at < run {
            let left = (run - at) / S::F32_LANES;
            // SAFETY: the vectors end within the run, and what they read was asserted above.
            let count = unsafe {
                match left {
                    1 => self.add::<S, M, 1>(simd, at, run, sums, begin),
                    2 | 4 => self.add::<S, M, 2>(simd, at, run, sums, begin),
                    _ => self.add::<S, M, 3>(simd, at, run, sums, begin),
                }
            };
            at += count * S::F32_LANES;
        }
    }

    /// Adds to `N` vectors of pixels from `at`, of `M` channels; gives `N`.
    ///
    /// # Safety
    /// They must end within the run, and `input` and `sums` be long enough for it.
    #[inline(always)]
    unsafe fn add<S: Simd, const M: usize, const N: usize>(
        &self,
        simd: S,
        at: usize,
        run: usize,
        sums: &mut [f32],
        begin: bool,
    ) -> usize {
        let mut acc = [[simd.splat_f32s(0.0); N]; M];
        // SAFETY: by the caller, for every pointer below.
        unsafe {
            let sums = sums.as_mut_ptr().add(at);
            if !begin {
                for m in 0..M {
                    for n in 0..N {
                        acc[m][n] = load(simd, sums.add(m * run + n * S::F32_LANES));
                    }
                }
            }
            let mut weights = self.weights.as_ptr();
            let mut input = self.input.as_ptr().add(at);
            for _ in 0..self.channels {
                for tap in self.taps {
                    let from = input.add(*tap);
                    let mut pixels = [simd.splat_f32s(0.0); N];
                    for n in 0..N {
                        pixels[n] = load(simd, from.add(n * S::F32_LANES));
                    }
                    for m in 0..M {
                        let weight = simd.splat_f32s(*weights.add(m));
                        for n in 0..N {
                            acc[m][n] = simd.mul_add_e_f32s(weight, pixels[n], acc[m][n]);
                        }
                    }
                    weights = weights.add(M);
                }
                input = input.add(self.plane);
            }
            for m in 0..M {
                for n in 0..N {
                    store(simd, sums.add(m * run + n * S::F32_LANES), acc[m][n]);
                }
            }
        }
        N
    }
}
