//! AdamW, and the length of gradients: one launch for each parameter.

#![allow(unsafe_code)]

use burn_cubecl::{CubeBackend, cubecl, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::{
    CubeSteps,
    product::empty,
    sums::{UNITS, cube_sum},
};
use crate::kernels::AdamNumbers;

/// Sums of squares that are kept apart.
pub(super) const SUMS: usize = 256;

#[cube(launch_unchecked)]
fn adam_of_each(
    value: &[f32],
    gradient: &[f32],
    first: &[f32],
    second: &[f32],
    average: &[f32],
    new_value: &mut [f32],
    new_first: &mut [f32],
    new_second: &mut [f32],
    new_average: &mut [f32],
    scale: f32,
    beta1: f32,
    one_less_beta1: f32,
    beta2: f32,
    one_less_beta2: f32,
    correction2: f32,
    epsilon: f32,
    rate: f32,
    kept: f32,
    ema: f32,
    one_less_ema: f32,
) {
    let at = ABSOLUTE_POS;
    if at >= value.len() {
        terminate!();
    }
    let gradient = gradient[at] * scale;
    let first = first[at] * beta1 + gradient * one_less_beta1;
    let second = second[at] * beta2 + gradient * gradient * one_less_beta2;
    let root = (second / correction2).sqrt() + epsilon;
    let value = value[at] * kept - first / root * rate;
    new_first[at] = first;
    new_second[at] = second;
    new_value[at] = value;
    new_average[at] = average[at] * ema + value * one_less_ema;
}

#[cube(launch_unchecked)]
fn squares_added(
    x: &[f32],
    sums: &[f32],
    new_sums: &mut [f32],
    count: u32,
    #[comptime] units: u32,
) {
    let mut shared = Shared::new_slice(units as usize);
    let mut sum = f32::new(0.0);
    let mut at = CUBE_POS_X * CUBE_DIM + UNIT_POS;
    while at < count {
        sum += x[at as usize] * x[at as usize];
        at += CUBE_DIM * CUBE_COUNT_X;
    }
    let sum = cube_sum(sum, &mut shared);
    if UNIT_POS == 0 {
        new_sums[CUBE_POS_X as usize] = sums[CUBE_POS_X as usize] + sum;
    }
}

impl CubeSteps for CubeBackend {
    fn cube_adam(
        value: CubeTensor,
        gradient: CubeTensor,
        first: CubeTensor,
        second: CubeTensor,
        average: CubeTensor,
        numbers: AdamNumbers,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let given = [value, gradient, first, second, average].map(into_contiguous);
        let [value, gradient, first, second, average] = given;
        let new: [CubeTensor; 4] =
            std::array::from_fn(|_| empty(value.meta.shape().clone(), &value));
        let client = value.client.clone();
        let units = CubeDim::new_1d(UNITS);
        let count = calculate_cube_count_elemwise(&client, value.meta.num_elements(), units);
        let [beta1, beta2] = numbers.betas;
        let [correction1, correction2] = numbers.corrections;
        let [new_value, new_first, new_second, new_average] =
            [0, 1, 2, 3].map(|i: usize| new[i].clone().into_buffer_arg());
        // SAFETY: all have as many values; a unit reads and writes at its own place, below their number.
        unsafe {
            adam_of_each::launch_unchecked(
                &client,
                count,
                units,
                value.into_buffer_arg(),
                gradient.into_buffer_arg(),
                first.into_buffer_arg(),
                second.into_buffer_arg(),
                average.into_buffer_arg(),
                new_value,
                new_first,
                new_second,
                new_average,
                numbers.scale as f32,
                beta1 as f32,
                (1.0 - beta1) as f32,
                beta2 as f32,
                (1.0 - beta2) as f32,
                correction2 as f32,
                numbers.epsilon as f32,
                (numbers.rate / correction1) as f32,
                (1.0 - numbers.rate * numbers.decay) as f32,
                numbers.ema as f32,
                (1.0 - numbers.ema) as f32,
            );
        }
        let [value, first, second, average] = new;
        (value, first, second, average)
    }

    fn cube_add_squares(x: CubeTensor, sums: CubeTensor) -> CubeTensor {
        let [x, sums] = [x, sums].map(into_contiguous);
        let found = empty([SUMS].into(), &x);
        let count = x.meta.num_elements() as u32;
        // SAFETY: a unit reads values below their number; a cube writes its one sum of as many as there
        // are cubes.
        unsafe {
            squares_added::launch_unchecked(
                &x.client.clone(),
                CubeCount::new_1d(SUMS as u32),
                CubeDim::new_1d(UNITS),
                x.into_buffer_arg(),
                sums.into_buffer_arg(),
                found.clone().into_buffer_arg(),
                count,
                UNITS,
            );
        }
        found
    }
}
