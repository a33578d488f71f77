//! Vectors of f32, as wide as the processor has them.

#![allow(unsafe_code)]

use pulp::{Arch, Simd, WithSimd};

/// Runs `kernel` compiled for the widest vectors of this processor.
pub(super) fn dispatch<K: WithSimd>(kernel: K) -> K::Output {
    Arch::new().dispatch(kernel)
}

/// A vector from memory.
///
/// # Safety
/// As many values as the vector has must be readable from `from`; it need not be aligned.
#[inline(always)]
pub(super) unsafe fn load<S: Simd>(_: S, from: *const f32) -> S::f32s {
    // SAFETY: by the caller; any bits are a vector.
    unsafe { from.cast::<S::f32s>().read_unaligned() }
}

/// A vector to memory.
///
/// # Safety
/// As many values as the vector has must be writable from `to`; it need not be aligned.
#[inline(always)]
pub(super) unsafe fn store<S: Simd>(_: S, to: *mut f32, value: S::f32s) {
    // SAFETY: by the caller.
    unsafe { to.cast::<S::f32s>().write_unaligned(value) }
}

/// The sum of the lanes of some vectors, in f64.
#[inline(always)]
pub(super) fn total<S: Simd>(_: S, vectors: &[S::f32s]) -> f64 {
    let lanes: &[f32] = pulp::bytemuck::cast_slice(vectors);
    let mut sum = 0.0;
    for lane in lanes {
        sum += f64::from(*lane);
    }
    sum
}

/// e^x to 2e-7 of it, for x in [-87, 88]; beyond, the value at the end of that range.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let splat = |v: f32| simd.splat_f32s(v);
    let x = simd.min_f32s(simd.max_f32s(x, splat(-87.0)), splat(88.0));
    // Adding 1.5 · 2^23 rounds to an integer, which then stands in the lowest bits.
    let magic = splat(12_582_912.0);
    let shifted = simd.mul_add_e_f32s(x, splat(std::f32::consts::LOG2_E), magic);
    let n = simd.sub_f32s(shifted, magic);
    // ln 2 in two parts, the first exact in few bits.
    let r = simd.mul_add_e_f32s(n, splat(-0.693_359_4), x);
    let r = simd.mul_add_e_f32s(n, splat(2.121_944_4e-4), r);
    let mut p = splat(1.987_569_1e-4);
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_66,
        0.5,
    ] {
        p = simd.mul_add_e_f32s(p, r, splat(coefficient));
    }
    let square = simd.mul_f32s(r, r);
    let p = simd.add_f32s(simd.mul_add_e_f32s(p, square, r), splat(1.0));
    let exponent =
        simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(p), exponent))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let e = exp(simd, simd.sub_f32s(simd.splat_f32s(0.0), x));
    simd.div_f32s(one, simd.add_f32s(one, e))
}

/// The sum of the products of values at the same places.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, one: &[f32], other: &[f32]) -> f32 {
    let (one, one_tail) = S::as_simd_f32s(one);
    let (other, other_tail) = S::as_simd_f32s(other);
    let mut sum = simd.splat_f32s(0.0);
    for (a, b) in one.iter().zip(other) {
        sum = simd.mul_add_e_f32s(*a, *b, sum);
    }
    let mut sum = total(simd, &[sum]);
    for (a, b) in one_tail.iter().zip(other_tail) {
        sum += f64::from(a * b);
    }
    sum as f32
}
