//! Group norm, what time makes of it, and SiLU, in one pass over memory.

#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    scratch::{Shared, written},
    shape::NormShape,
    simd::{dispatch, sigmoid, total},
};

/// gamma and beta, and scale and shift of each sample.
#[derive(Clone, Copy)]
pub(super) struct Affine<'a> {
    pub(super) gamma: &'a [f32],
    pub(super) beta: &'a [f32],
    pub(super) scale_shift: &'a [f32],
}

/// A group's mean and the inverse of its deviation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    mean: f32,
    inverse: f32,
}

/// The gradients of a group norm's inputs.
pub(super) struct NormGradients {
    pub(super) x: Vec<f32>,
    pub(super) gamma: Vec<f32>,
    pub(super) beta: Vec<f32>,
    pub(super) scale_shift: Vec<f32>,
}

impl Affine<'_> {
    /// Factor and addend of a channel of a sample.
    fn of(&self, shape: &NormShape, sample: usize, channel: usize) -> (f32, f32) {
        let (gamma, beta) = (self.gamma[channel], self.beta[channel]);
        let row = &self.scale_shift[sample * 2 * shape.channels..][..2 * shape.channels];
        let (scale, shift) = (1.0 + row[channel], row[shape.channels + channel]);
        (gamma * scale, beta * scale + shift)
    }
}

/// The result, and each group's moments for the gradient.
pub(super) fn forward(
    x: &[f32],
    affine: Affine<'_>,
    shape: &NormShape,
) -> (Vec<f32>, Vec<Moments>) {
    let (size, mut moments) = (shape.group(), Vec::new());
    let compute = |out: &Shared<'_>| {
        let groups = x.par_chunks_exact(size).enumerate().map(|(index, x)| {
            dispatch(Forward {
                x,
                affine,
                shape,
                index,
                // SAFETY: no two groups overlap.
                out: unsafe { out.zeros(index * size, size) },
            })
        });
        groups.collect_into_vec(&mut moments);
    };
    // SAFETY: the groups are the whole.
    let out = unsafe { written(x.len(), compute) };
    (out, moments)
}

/// The gradients, given the one for the output.
pub(super) fn backward(
    x: &[f32],
    gradient: &[f32],
    affine: Affine<'_>,
    moments: &[Moments],
    shape: &NormShape,
) -> NormGradients {
    let (channels, size) = (shape.channels, shape.group());
    // Of each sample's channels: Σ dz · normed, Σ dz.
    let mut sums = vec![[0.0_f32; 2]; shape.batch * channels];
    let compute = |out: &Shared<'_>| {
        let groups = sums.par_chunks_exact_mut(shape.per_group()).enumerate();
        groups.for_each(|(index, sums)| {
            dispatch(Backward {
                x: &x[index * size..][..size],
                gradient: &gradient[index * size..][..size],
                affine,
                moments: moments[index],
                shape,
                index,
                // SAFETY: no two groups overlap.
                out: unsafe { out.zeros(index * size, size) },
                sums,
            });
        });
    };
    // SAFETY: the groups are the whole.
    let out = unsafe { written(x.len(), compute) };
    let (mut gamma, mut beta) = (vec![0.0; channels], vec![0.0; channels]);
    let mut scale_shift = vec![0.0; affine.scale_shift.len()];
    for (at, [by_normed, plain]) in sums.into_iter().enumerate() {
        let (sample, channel) = (at / channels, at % channels);
        let row = sample * 2 * channels + channel;
        scale_shift[row] = by_normed * affine.gamma[channel] + plain * affine.beta[channel];
        scale_shift[row + channels] = plain;
        let scale = 1.0 + affine.scale_shift[row];
        gamma[channel] += by_normed * scale;
        beta[channel] += plain * scale;
    }
    NormGradients {
        x: out,
        gamma,
        beta,
        scale_shift,
    }
}

struct Forward<'a> {
    x: &'a [f32],
    affine: Affine<'a>,
    shape: &'a NormShape,
    index: usize,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = Moments;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Moments {
        let shape = self.shape;
        let moments = moments(simd, self.x, shape.epsilon);
        let (sample, group) = (self.index / shape.groups, self.index % shape.groups);
        let mean = simd.splat_f32s(moments.mean);
        let planes = self.x.chunks_exact(shape.pixels);
        for (k, (x, out)) in planes
            .zip(self.out.chunks_exact_mut(shape.pixels))
            .enumerate()
        {
            let channel = group * shape.per_group() + k;
            let (factor, addend) = self.affine.of(shape, sample, channel);
            let factor = simd.splat_f32s(factor * moments.inverse);
            let addend = simd.splat_f32s(addend);
            let (x, x_tail) = S::as_simd_f32s(x);
            let (out, out_tail) = S::as_mut_simd_f32s(out);
            if shape.silu {
                for (x, out) in x.iter().zip(out) {
                    let z = simd.mul_add_e_f32s(simd.sub_f32s(*x, mean), factor, addend);
                    *out = simd.mul_f32s(z, sigmoid(simd, z));
                }
            } else {
                for (x, out) in x.iter().zip(out) {
                    *out = simd.mul_add_e_f32s(simd.sub_f32s(*x, mean), factor, addend);
                }
            }
            if !x_tail.is_empty() {
                let x = simd.partial_load_f32s(x_tail);
                let z = simd.mul_add_e_f32s(simd.sub_f32s(x, mean), factor, addend);
                let y = if shape.silu {
                    simd.mul_f32s(z, sigmoid(simd, z))
                } else {
                    z
                };
                simd.partial_store_f32s(out_tail, y);
            }
        }
        moments
    }
}

/// Two passes: differences from the mean are what keeps its precision where it is large.
#[inline(always)]
fn moments<S: Simd>(simd: S, x: &[f32], epsilon: f32) -> Moments {
    let zero = simd.splat_f32s(0.0);
    let count = x.len() as f64;
    let (head, tail) = S::as_simd_f32s(x);
    let mut sums = [zero; 4];
    for (at, x) in head.iter().enumerate() {
        sums[at % 4] = simd.add_f32s(sums[at % 4], *x);
    }
    let mut sum = total(simd, &sums);
    for x in tail {
        sum += f64::from(*x);
    }
    let mean = (sum / count) as f32;
    let about = simd.splat_f32s(mean);
    let mut sums = [zero; 4];
    for (at, x) in head.iter().enumerate() {
        let apart = simd.sub_f32s(*x, about);
        sums[at % 4] = simd.mul_add_e_f32s(apart, apart, sums[at % 4]);
    }
    let mut sum = total(simd, &sums);
    for x in tail {
        sum += f64::from((x - mean) * (x - mean));
    }
    Moments {
        mean,
        inverse: (1.0 / (sum / count + f64::from(epsilon)).sqrt()) as f32,
    }
}

struct Backward<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    affine: Affine<'a>,
    moments: Moments,
    shape: &'a NormShape,
    index: usize,
    out: &'a mut [f32],
    sums: &'a mut [[f32; 2]],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let shape = self.shape;
        let (sample, group) = (self.index / shape.groups, self.index % shape.groups);
        let affine = |k| self.affine.of(shape, sample, group * shape.per_group() + k);
        let Moments { mean, inverse } = self.moments;
        let (about, scale) = (simd.splat_f32s(mean), simd.splat_f32s(inverse));
        let zero = simd.splat_f32s(0.0);

        // dz into `out`, with its sums.
        let (mut all, mut all_normed) = (0.0_f64, 0.0_f64);
        for (k, sums) in self.sums.iter_mut().enumerate() {
            let plane = k * shape.pixels..(k + 1) * shape.pixels;
            let (factor, addend) = affine(k);
            let (x, x_tail) = S::as_simd_f32s(&self.x[plane.clone()]);
            let (gradient, gradient_tail) = S::as_simd_f32s(&self.gradient[plane.clone()]);
            let (out, out_tail) = S::as_mut_simd_f32s(&mut self.out[plane]);
            let (mut plain, mut by_normed) = (zero, zero);
            let (f, a) = (simd.splat_f32s(factor), simd.splat_f32s(addend));
            for ((x, gradient), out) in x.iter().zip(gradient).zip(out) {
                let xn = normed(simd, *x, about, scale);
                let dz = if shape.silu {
                    silu_gradient(simd, simd.mul_add_e_f32s(xn, f, a), *gradient)
                } else {
                    *gradient
                };
                *out = dz;
                plain = simd.add_f32s(plain, dz);
                by_normed = simd.mul_add_e_f32s(dz, xn, by_normed);
            }
            if !x_tail.is_empty() {
                // Beyond the end the gradient is zero, so nothing is added.
                let xn = normed(simd, simd.partial_load_f32s(x_tail), about, scale);
                let gradient = simd.partial_load_f32s(gradient_tail);
                let dz = if shape.silu {
                    silu_gradient(simd, simd.mul_add_e_f32s(xn, f, a), gradient)
                } else {
                    gradient
                };
                simd.partial_store_f32s(out_tail, dz);
                plain = simd.add_f32s(plain, dz);
                by_normed = simd.mul_add_e_f32s(dz, xn, by_normed);
            }
            let (plain, by_normed) = (total(simd, &[plain]), total(simd, &[by_normed]));
            *sums = [by_normed as f32, plain as f32];
            all += plain * f64::from(factor);
            all_normed += by_normed * f64::from(factor);
        }

        let count = self.x.len() as f64;
        let all = simd.splat_f32s((all / count * f64::from(inverse)) as f32);
        let all_normed = simd.splat_f32s((all_normed / count * f64::from(inverse)) as f32);
        for k in 0..shape.per_group() {
            let plane = k * shape.pixels..(k + 1) * shape.pixels;
            let factor = simd.splat_f32s(affine(k).0 * inverse);
            let (x, x_tail) = S::as_simd_f32s(&self.x[plane.clone()]);
            let (out, out_tail) = S::as_mut_simd_f32s(&mut self.out[plane]);
            for (x, out) in x.iter().zip(out) {
                let common = simd.mul_add_e_f32s(normed(simd, *x, about, scale), all_normed, all);
                *out = simd.sub_f32s(simd.mul_f32s(*out, factor), common);
            }
            if !x_tail.is_empty() {
                let (x, dz) = (
                    simd.partial_load_f32s(x_tail),
                    simd.partial_load_f32s(out_tail),
                );
                let common = simd.mul_add_e_f32s(normed(simd, x, about, scale), all_normed, all);
                let dx = simd.sub_f32s(simd.mul_f32s(dz, factor), common);
                simd.partial_store_f32s(out_tail, dx);
            }
        }
    }
}

// No closures in these kernels: they would not be compiled for the vectors of the function around.

/// (x - mean) · inverse.
#[inline(always)]
fn normed<S: Simd>(simd: S, x: S::f32s, mean: S::f32s, inverse: S::f32s) -> S::f32s {
    simd.mul_f32s(simd.sub_f32s(x, mean), inverse)
}

/// `gradient` times the derivative of z · sigmoid(z).
#[inline(always)]
fn silu_gradient<S: Simd>(simd: S, z: S::f32s, gradient: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let s = sigmoid(simd, z);
    let slope = simd.mul_add_e_f32s(z, simd.sub_f32s(one, s), one);
    simd.mul_f32s(gradient, simd.mul_f32s(s, slope))
}
