//! Softmax over the last dimension, and its gradient.

#![allow(unsafe_code)]

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{
    scratch::{Shared, written},
    simd::{dispatch, exp, total},
};

/// Values that are a task of their own.
const TASK: usize = 16 << 10;

/// The softmax of each row of `row` values.
pub(super) fn forward(x: &[f32], row: usize) -> Vec<f32> {
    by_rows(x.len(), row, |range, out| {
        let x = &x[range];
        dispatch(Forward { x, row, out });
    })
}

/// The gradient for the input, given the softmax and the gradient for it.
pub(super) fn backward(y: &[f32], gradient: &[f32], row: usize) -> Vec<f32> {
    by_rows(y.len(), row, |range, out| {
        dispatch(Backward {
            y: &y[range.clone()],
            gradient: &gradient[range],
            row,
            out,
        });
    })
}

fn by_rows(
    len: usize,
    row: usize,
    compute: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) -> Vec<f32> {
    let size = (TASK / row).max(1) * row;
    let compute = |out: &Shared<'_>| {
        (0..len.div_ceil(size)).into_par_iter().for_each(|task| {
            let range = task * size..len.min((task + 1) * size);
            // SAFETY: no two tasks have the same rows.
            compute(range.clone(), unsafe {
                out.zeros(range.start, range.len())
            });
        });
    };
    // SAFETY: the tasks are all rows.
    unsafe { written(len, compute) }
}

struct Forward<'a> {
    x: &'a [f32],
    row: usize,
    out: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (x, out) in self
            .x
            .chunks_exact(self.row)
            .zip(self.out.chunks_exact_mut(self.row))
        {
            let (x, x_tail) = S::as_simd_f32s(x);
            let (out, out_tail) = S::as_mut_simd_f32s(out);
            let mut most = simd.splat_f32s(f32::NEG_INFINITY);
            for x in x {
                most = simd.max_f32s(most, *x);
            }
            let mut largest = simd.reduce_max_f32s(most);
            for x in x_tail {
                largest = largest.max(*x);
            }
            let most = simd.splat_f32s(largest);
            let mut sum = simd.splat_f32s(0.0);
            for (x, out) in x.iter().zip(&mut *out) {
                *out = share(simd, simd.sub_f32s(*x, most));
                sum = simd.add_f32s(sum, *out);
            }
            let mut sum = total(simd, &[sum]);
            if !x_tail.is_empty() {
                let apart = simd.sub_f32s(simd.partial_load_f32s(x_tail), most);
                simd.partial_store_f32s(out_tail, share(simd, apart));
                for value in &*out_tail {
                    sum += f64::from(*value);
                }
            }
            let factor = (1.0 / sum) as f32;
            let factors = simd.splat_f32s(factor);
            for out in out {
                *out = simd.mul_f32s(*out, factors);
            }
            for out in out_tail {
                *out *= factor;
            }
        }
    }
}

/// e^x of an x up to 0; 0 for what is so small that its share would be denormal, with which processors
/// reckon a hundred times as long. What is not a number stays that, which `exp` alone would hide.
#[inline(always)]
fn share<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let is_small = simd.less_than_f32s(x, simd.splat_f32s(-75.0));
    let is_number = simd.sub_f32s(x, x);
    let share = simd.add_f32s(exp(simd, x), is_number);
    simd.select_f32s(is_small, simd.splat_f32s(0.0), share)
}

struct Backward<'a> {
    y: &'a [f32],
    gradient: &'a [f32],
    row: usize,
    out: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let rows = self
            .y
            .chunks_exact(self.row)
            .zip(self.gradient.chunks_exact(self.row));
        for ((y, gradient), out) in rows.zip(self.out.chunks_exact_mut(self.row)) {
            let (y, y_tail) = S::as_simd_f32s(y);
            let (gradient, gradient_tail) = S::as_simd_f32s(gradient);
            let (out, out_tail) = S::as_mut_simd_f32s(out);
            let mut sum = simd.splat_f32s(0.0);
            for (y, gradient) in y.iter().zip(gradient) {
                sum = simd.mul_add_e_f32s(*y, *gradient, sum);
            }
            let mut sum = total(simd, &[sum]);
            for (y, gradient) in y_tail.iter().zip(gradient_tail) {
                sum += f64::from(y * gradient);
            }
            let mean = simd.splat_f32s(sum as f32);
            for ((y, gradient), out) in y.iter().zip(gradient).zip(out) {
                *out = simd.mul_f32s(*y, simd.sub_f32s(*gradient, mean));
            }
            for ((y, gradient), out) in y_tail.iter().zip(gradient_tail).zip(out_tail) {
                *out = y * (gradient - sum as f32);
            }
        }
    }
}
