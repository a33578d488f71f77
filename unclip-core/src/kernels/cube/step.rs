//! AdamW, and the length of gradients: one launch for each parameter.

#![allow(unsafe_code)]

use burn::tensor::Bytes;
use burn_cubecl::{CubeBackend, cubecl, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::{
    CubeSteps,
    product::empty,
    sums::{UNITS, cube_sum},
};
use crate::kernels::step::AdamForm;

/// Sums of squares that are kept apart.
pub(super) const SUMS: usize = 256;

/// The numbers are what [`AdamNumbers::row`](crate::kernels::step::AdamNumbers::row) gives.
#[cube(launch_unchecked)]
fn adam_of_each(
    values: &mut [f32],
    gradients: &[f32],
    first_moments: &mut [f32],
    second_moments: &mut [f32],
    averages: &mut [f32],
    numbers: &[f32],
    #[comptime] decays: bool,
    #[comptime] begins: bool,
) {
    let at = ABSOLUTE_POS;
    if at >= values.len() {
        terminate!();
    }
    let gradient = gradients[at] * numbers[0];
    let first = first_moments[at] * numbers[1] + gradient * numbers[2];
    let second = second_moments[at] * numbers[3] + gradient * gradient * numbers[4];
    let root = (second / numbers[5]).sqrt() + numbers[6];
    let mut value = values[at];
    if comptime!(decays) {
        value *= numbers[8];
    }
    value -= first / root * numbers[7];
    first_moments[at] = first;
    second_moments[at] = second;
    values[at] = value;
    if comptime!(begins) {
        averages[at] = value;
    } else {
        averages[at] = averages[at] * numbers[9] + value * numbers[10];
    }
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
        numbers: CubeTensor,
        form: AdamForm,
    ) -> (CubeTensor, CubeTensor, CubeTensor, CubeTensor) {
        let [gradient, numbers] = [gradient, numbers].map(into_contiguous);
        let own = |x: CubeTensor| match form.is_in_place || x.can_mut() {
            true => into_contiguous(x),
            false => into_contiguous(x.copy()),
        };
        let [value, first, second, average] = [value, first, second, average].map(own);
        let client = value.client.clone();
        let units = CubeDim::new_1d(UNITS);
        let count = calculate_cube_count_elemwise(&client, value.meta.num_elements(), units);
        // SAFETY: all but the numbers, which are as many as are read, have as many values; a unit reads
        // and writes at its own place, below their number.
        unsafe {
            adam_of_each::launch_unchecked(
                &client,
                count,
                units,
                value.clone().into_buffer_arg(),
                gradient.into_buffer_arg(),
                first.clone().into_buffer_arg(),
                second.clone().into_buffer_arg(),
                average.clone().into_buffer_arg(),
                numbers.into_buffer_arg(),
                form.decays,
                form.begins,
            );
        }
        (value, first, second, average)
    }

    fn cube_write(into: CubeTensor, values: Vec<f32>) -> CubeTensor {
        into.client.write(&into.handle, Bytes::from_elems(values));
        into
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
