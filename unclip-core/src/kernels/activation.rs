//! GELU, in its two forms, and their gradients.

#![allow(unsafe_code)]

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    scratch::{Shared, written},
    shape::Gelu,
    simd::{dispatch, exp, sigmoid},
};

/// Values that are a task of their own.
const TASK: usize = 16 << 10;

/// It of every value.
pub(super) fn forward(x: &[f32], gelu: Gelu) -> Vec<f32> {
    in_tasks(x.len(), |range, out| {
        dispatch(Forward {
            x: &x[range],
            gelu,
            out,
        });
    })
}

/// The gradient for the input, given the one for the output.
pub(super) fn backward(x: &[f32], gradient: &[f32], gelu: Gelu) -> Vec<f32> {
    in_tasks(x.len(), |range, out| {
        dispatch(Backward {
            x: &x[range.clone()],
            gradient: &gradient[range],
            gelu,
            out,
        });
    })
}

fn in_tasks(len: usize, compute: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let compute = |out: &Shared<'_>| {
        (0..len.div_ceil(TASK)).into_par_iter().for_each(|task| {
            let range = task * TASK..len.min((task + 1) * TASK);
            // SAFETY: no two tasks have the same values.
            compute(range.clone(), unsafe {
                out.zeros(range.start, range.len())
            });
        });
    };
    // SAFETY: the tasks are all values.
    unsafe { written(len, compute) }
}

struct Forward<'a> {
    x: &'a [f32],
    gelu: Gelu,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, x_tail) = S::as_simd_f32s(self.x);
        let (out, out_tail) = S::as_mut_simd_f32s(self.out);
        for (x, out) in x.iter().zip(out) {
            *out = simd.mul_f32s(*x, share(simd, *x, self.gelu).0);
        }
        if !x_tail.is_empty() {
            let x = simd.partial_load_f32s(x_tail);
            let y = simd.mul_f32s(x, share(simd, x, self.gelu).0);
            simd.partial_store_f32s(out_tail, y);
        }
    }
}

struct Backward<'a> {
    x: &'a [f32],
    gradient: &'a [f32],
    gelu: Gelu,
    out: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, x_tail) = S::as_simd_f32s(self.x);
        let (gradient, gradient_tail) = S::as_simd_f32s(self.gradient);
        let (out, out_tail) = S::as_mut_simd_f32s(self.out);
        for ((x, gradient), out) in x.iter().zip(gradient).zip(out) {
            *out = simd.mul_f32s(*gradient, slope(simd, *x, self.gelu));
        }
        if !x_tail.is_empty() {
            let x = simd.partial_load_f32s(x_tail);
            let gradient = simd.partial_load_f32s(gradient_tail);
            let found = simd.mul_f32s(gradient, slope(simd, x, self.gelu));
            simd.partial_store_f32s(out_tail, found);
        }
    }
}

/// What x is multiplied with, and the derivative of that.
#[inline(always)]
fn share<S: Simd>(simd: S, x: S::f32s, gelu: Gelu) -> (S::f32s, S::f32s) {
    let splat = |v: f32| simd.splat_f32s(v);
    match gelu {
        Gelu::Quick => {
            let share = sigmoid(simd, simd.mul_f32s(x, splat(1.702)));
            let rest = simd.sub_f32s(splat(1.0), share);
            let slope = simd.mul_f32s(simd.mul_f32s(share, rest), splat(1.702));
            (share, slope)
        }
        Gelu::Exact => {
            // Abramowitz and Stegun 7.1.26 for the error function, to 1.5e-7; at x / √2.
            let size = simd.abs_f32s(x);
            let denominator = simd.mul_add_e_f32s(size, splat(0.231_641_88), splat(1.0));
            let t = simd.div_f32s(splat(1.0), denominator);
            let mut p = splat(1.061_405_4);
            for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_73, 0.254_829_6] {
                p = simd.mul_add_e_f32s(p, t, splat(coefficient));
            }
            let square = simd.mul_f32s(simd.mul_f32s(x, x), splat(-0.5));
            let density = exp(simd, square);
            // Φ(-|x|); by symmetry the rest.
            let tail = simd.mul_f32s(simd.mul_f32s(p, t), density);
            let tail = simd.mul_f32s(tail, splat(0.5));
            let is_negative = simd.less_than_f32s(x, splat(0.0));
            let share = simd.select_f32s(is_negative, tail, simd.sub_f32s(splat(1.0), tail));
            (share, simd.mul_f32s(density, splat(0.398_942_3)))
        }
    }
}

#[inline(always)]
fn slope<S: Simd>(simd: S, x: S::f32s, gelu: Gelu) -> S::f32s {
    let (share, change) = share(simd, x, gelu);
    simd.mul_add_e_f32s(x, change, share)
}
