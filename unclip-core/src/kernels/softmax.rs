//! The softmax of a row.

use pulp::Simd;

use super::simd::{exp, total};

/// The softmax of some values, in their place.
#[inline(always)]
pub(super) fn softmax_row<S: Simd>(simd: S, row: &mut [f32]) {
    let (row, tail) = S::as_mut_simd_f32s(row);
    let mut most = simd.splat_f32s(f32::NEG_INFINITY);
    for x in &*row {
        most = simd.max_f32s(most, *x);
    }
    let mut largest = simd.reduce_max_f32s(most);
    for x in &*tail {
        largest = largest.max(*x);
    }
    let most = simd.splat_f32s(largest);
    let mut sum = simd.splat_f32s(0.0);
    for x in &mut *row {
        *x = share(simd, simd.sub_f32s(*x, most));
        sum = simd.add_f32s(sum, *x);
    }
    let mut sum = total(simd, &[sum]);
    if !tail.is_empty() {
        let apart = simd.sub_f32s(simd.partial_load_f32s(tail), most);
        simd.partial_store_f32s(tail, share(simd, apart));
        for x in &*tail {
            sum += f64::from(*x);
        }
    }
    let factor = (1.0 / sum) as f32;
    let factors = simd.splat_f32s(factor);
    for x in row {
        *x = simd.mul_f32s(*x, factors);
    }
    for x in tail {
        *x *= factor;
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
