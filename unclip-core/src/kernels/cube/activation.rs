//! GELU in its two forms, and their gradients.

#![allow(unsafe_code)]

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use burn_cubecl::{cubecl, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::{product::empty, sums::UNITS};
use crate::kernels::shape::Gelu;

/// The factor of the quick form.
const QUICK: f32 = 1.702;
/// Of the square in the normal density's exponent.
const HALF: f32 = -0.5;
/// Of the normal density at 0: 1 / √(2π).
const DENSITY: f32 = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI / 2.0;

#[cube(launch_unchecked)]
fn forward_of_each(x: &[f32], y: &mut [f32], #[comptime] gelu: Gelu) {
    if ABSOLUTE_POS >= x.len() {
        terminate!();
    }
    let value = x[ABSOLUTE_POS];
    if comptime!(gelu == Gelu::Exact) {
        y[ABSOLUTE_POS] = value * (Erf::erf(value * FRAC_1_SQRT_2) * 0.5 + 0.5);
    } else {
        y[ABSOLUTE_POS] = value / (1.0 + (value * -QUICK).exp());
    }
}

#[cube(launch_unchecked)]
fn gradient_of_each(x: &[f32], gradient: &[f32], found: &mut [f32], #[comptime] gelu: Gelu) {
    if ABSOLUTE_POS >= x.len() {
        terminate!();
    }
    let value = x[ABSOLUTE_POS];
    if comptime!(gelu == Gelu::Exact) {
        let share = Erf::erf(value * FRAC_1_SQRT_2) * 0.5 + 0.5;
        let slope = value * DENSITY * (value * value * HALF).exp();
        found[ABSOLUTE_POS] = gradient[ABSOLUTE_POS] * (share + slope);
    } else {
        let share = 1.0 / (1.0 + (value * -QUICK).exp());
        let slope = value * QUICK * share * (1.0 - share);
        found[ABSOLUTE_POS] = gradient[ABSOLUTE_POS] * (share + slope);
    }
}

/// It of every value.
pub(super) fn forward(x: &CubeTensor, gelu: Gelu) -> CubeTensor {
    let y = empty(x.meta.shape().clone(), x);
    let units = CubeDim::new_1d(UNITS);
    let count = calculate_cube_count_elemwise(&x.client, x.meta.num_elements(), units);
    // SAFETY: a unit reads and writes at its own place, below the number of values.
    unsafe {
        forward_of_each::launch_unchecked(
            &x.client,
            count,
            units,
            x.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            gelu,
        );
    }
    y
}

/// The gradient for the input, given the one for the output.
pub(super) fn backward(x: &CubeTensor, gradient: &CubeTensor, gelu: Gelu) -> CubeTensor {
    let found = empty(x.meta.shape().clone(), x);
    let units = CubeDim::new_1d(UNITS);
    let count = calculate_cube_count_elemwise(&x.client, x.meta.num_elements(), units);
    // SAFETY: a unit reads and writes at its own place, below the number of values.
    unsafe {
        gradient_of_each::launch_unchecked(
            &x.client,
            count,
            units,
            x.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            found.clone().into_buffer_arg(),
            gelu,
        );
    }
    found
}
