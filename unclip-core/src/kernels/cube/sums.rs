//! Sums over rows, over pixels, and within a cube.

#![allow(unsafe_code)]

use burn_cubecl::{cubecl, ops::reshape, tensor::CubeTensor};
use cubecl::prelude::*;

use super::product::empty;

/// Units of a cube.
pub(super) const UNITS: u32 = 256;

/// Rows that a unit sums in one pass, where there are many: a second pass takes longer to start.
const ROWS: usize = 128;

/// Columns with which one pass has a GPU at work, whatever the rows.
const COLUMNS: usize = 1 << 14;

/// The sum of a value of each unit, in one order.
#[cube]
pub(super) fn cube_sum(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut active = CUBE_DIM / 2;
    while active > 0 {
        if UNIT_POS < active {
            let other = shared[(UNIT_POS + active) as usize];
            shared[UNIT_POS as usize] += other;
        }
        sync_cube();
        active /= 2;
    }
    let sum = shared[0];
    // Nobody writes the next value before all have read this.
    sync_cube();
    sum
}

/// The largest of a value of each unit.
#[cube]
pub(super) fn cube_max(value: f32, shared: &mut Shared<[f32]>) -> f32 {
    shared[UNIT_POS as usize] = value;
    sync_cube();
    let mut active = CUBE_DIM / 2;
    while active > 0 {
        if UNIT_POS < active {
            let other = shared[(UNIT_POS + active) as usize];
            shared[UNIT_POS as usize] = max(shared[UNIT_POS as usize], other);
        }
        sync_cube();
        active /= 2;
    }
    let most = shared[0];
    sync_cube();
    most
}

#[cube(launch_unchecked)]
fn sum_of_rows(x: &[f32], sums: &mut [f32], rows: u32, columns: u32, rows_each: u32) {
    let first = CUBE_POS_Y * rows_each;
    let last = min(first + rows_each, rows);
    let mut column = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    while column < columns {
        let mut sum = f32::new(0.0);
        for row in first..last {
            sum += x[(row * columns + column) as usize];
        }
        sums[(CUBE_POS_Y * columns + column) as usize] = sum;
        column += CUBE_DIM_X * CUBE_COUNT_X;
    }
}

/// Of `[rows, columns]` the sum of all rows, in two passes where rows are many and columns few.
pub(super) fn column_sums(x: CubeTensor, rows: usize, columns: usize) -> CubeTensor {
    let parts = match rows <= ROWS || columns >= COLUMNS {
        true => 1,
        // As long as the sums of the second pass.
        false => rows.isqrt().min(u16::MAX as usize),
    };
    let rows_each = rows.div_ceil(parts);
    let parts = rows.div_ceil(rows_each);
    let sums = empty([parts, columns].into(), &x);
    let cubes = (columns as u32).div_ceil(UNITS).min(u16::MAX.into());
    let count = CubeCount::new_2d(cubes, parts as u32);
    // SAFETY: a unit reads rows below `rows` of columns below `columns`, which `x` has, and writes the
    // sums of its part and columns.
    unsafe {
        sum_of_rows::launch_unchecked(
            &x.client.clone(),
            count,
            CubeDim::new_1d(UNITS),
            x.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            rows as u32,
            columns as u32,
            rows_each as u32,
        );
    }
    match parts {
        1 => reshape(sums, [columns].into()),
        _ => column_sums(sums, parts, columns),
    }
}

#[cube(launch_unchecked)]
fn sum_of_plane(x: &[f32], sums: &mut [f32], pixels: u32, #[comptime] units: u32) {
    let mut shared = Shared::new_slice(units as usize);
    let plane = CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X;
    let mut sum = f32::new(0.0);
    let mut pixel = UNIT_POS;
    while pixel < pixels {
        sum += x[(plane * pixels + pixel) as usize];
        pixel += CUBE_DIM;
    }
    let sum = cube_sum(sum, &mut shared);
    if UNIT_POS == 0 {
        sums[plane as usize] = sum;
    }
}

/// Of `[b, c, pixels]` the sums over samples and pixels, `[c]`.
pub(super) fn channel_sums(x: CubeTensor, [batch, channels, pixels]: [usize; 3]) -> CubeTensor {
    let sums = empty([batch, channels].into(), &x);
    // SAFETY: a cube reads the pixels of its plane, which `x` has, and writes the one sum of it.
    unsafe {
        sum_of_plane::launch_unchecked(
            &x.client.clone(),
            CubeCount::new_2d(channels as u32, batch as u32),
            CubeDim::new_1d(UNITS),
            x.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            pixels as u32,
            UNITS,
        );
    }
    column_sums(sums, batch, channels)
}
