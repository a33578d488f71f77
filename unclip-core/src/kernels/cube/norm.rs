//! Group norm, what time makes of it, and SiLU.

#![allow(unsafe_code)]

use burn_cubecl::{cubecl, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    product::empty,
    sums::{UNITS, cube_sum},
};
use crate::kernels::shape::NormShape;

/// What makes the output of normed values: gamma and beta of channels, `[c]`, scale and shift of each
/// sample, `[b, 2c]`.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) gamma: CubeTensor,
    pub(super) beta: CubeTensor,
    pub(super) scale_shift: CubeTensor,
}

#[cube(launch_unchecked)]
fn group_moments(x: &[f32], moments: &mut [f32], size: u32, epsilon: f32, #[comptime] units: u32) {
    let mut shared = Shared::new_slice(units as usize);
    let start = CUBE_POS_X * size;
    let mut sum = f32::new(0.0);
    let mut at = UNIT_POS;
    while at < size {
        sum += x[(start + at) as usize];
        at += CUBE_DIM;
    }
    let mean = cube_sum(sum, &mut shared) / size as f32;
    let mut squares = f32::new(0.0);
    let mut at = UNIT_POS;
    while at < size {
        let difference = x[(start + at) as usize] - mean;
        squares += difference * difference;
        at += CUBE_DIM;
    }
    let variance = cube_sum(squares, &mut shared) / size as f32;
    if UNIT_POS == 0 {
        moments[(2 * CUBE_POS_X) as usize] = mean;
        moments[(2 * CUBE_POS_X + 1) as usize] = 1.0 / (variance + epsilon).sqrt();
    }
}

/// Mean and inverse deviation of each group, `[b · groups, 2]`.
pub(super) fn moments(x: &CubeTensor, shape: &NormShape) -> CubeTensor {
    let groups = shape.batch * shape.groups;
    let moments = empty([groups, 2].into(), x);
    // SAFETY: a cube reads the values of its group, which `x` has, and writes its two moments.
    unsafe {
        group_moments::launch_unchecked(
            &x.client,
            CubeCount::new_1d(groups as u32),
            CubeDim::new_1d(UNITS),
            x.clone().into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            shape.group() as u32,
            shape.epsilon,
            UNITS,
        );
    }
    moments
}

/// 1 + scale of a sample's channel.
#[cube]
pub(super) fn scale_at(scale_shift: &[f32], at: u32, #[comptime] is_timed: bool) -> f32 {
    let mut scale = f32::new(1.0);
    if comptime!(is_timed) {
        scale += scale_shift[at as usize];
    }
    scale
}

/// Shift of a sample's channel.
#[cube]
pub(super) fn shift_at(scale_shift: &[f32], at: u32, #[comptime] is_timed: bool) -> f32 {
    let mut shift = f32::new(0.0);
    if comptime!(is_timed) {
        shift += scale_shift[at as usize];
    }
    shift
}

#[cube(launch_unchecked)]
fn apply(
    x: &[f32],
    moments: &[f32],
    gamma: &[f32],
    beta: &[f32],
    scale_shift: &[f32],
    y: &mut [f32],
    pixels: u32,
    per_group: u32,
    #[comptime] silu: bool,
    #[comptime] is_timed: bool,
) {
    let pixel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if pixel >= pixels {
        terminate!();
    }
    let (channel, channels) = (CUBE_POS_Y, CUBE_COUNT_Y);
    let plane = CUBE_POS_Z * channels + channel;
    let group = 2 * (plane / per_group);
    let time = CUBE_POS_Z * 2 * channels + channel;
    let scale = scale_at(scale_shift, time, is_timed);
    let shift = shift_at(scale_shift, time + channels, is_timed);
    let at = (plane * pixels + pixel) as usize;
    let normed = (x[at] - moments[group as usize]) * moments[(group + 1) as usize];
    let value = normed * gamma[channel as usize] * scale + beta[channel as usize] * scale + shift;
    if comptime!(silu) {
        y[at] = value / (1.0 + (-value).exp());
    } else {
        y[at] = value;
    }
}

/// Cubes for every pixel of every plane, with the units of a cube.
pub(super) fn pixelwise(shape: &NormShape) -> (CubeCount, CubeDim) {
    let pixels = shape.pixels as u32;
    let units = UNITS.min(pixels.next_multiple_of(32));
    let count = CubeCount::new_3d(
        pixels.div_ceil(units),
        shape.channels as u32,
        shape.batch as u32,
    );
    (count, CubeDim::new_1d(units))
}

/// The result, given the moments.
pub(super) fn forward(
    x: &CubeTensor,
    moments: &CubeTensor,
    affine: &Affine,
    shape: &NormShape,
) -> CubeTensor {
    let y = empty(x.meta.shape().clone(), x);
    let (count, units) = pixelwise(shape);
    // SAFETY: a unit reads and writes one pixel, below `pixels`, of its plane; the others have a value
    // for each group, channel, and sample and channel.
    unsafe {
        apply::launch_unchecked(
            &x.client,
            count,
            units,
            x.clone().into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            affine.gamma.clone().into_buffer_arg(),
            affine.beta.clone().into_buffer_arg(),
            affine.scale_shift.clone().into_buffer_arg(),
            y.clone().into_buffer_arg(),
            shape.pixels as u32,
            shape.per_group() as u32,
            shape.silu,
            shape.is_timed,
        );
    }
    y
}
