//! The gradients of a group norm: first two sums of each plane, then all from these.

#![allow(unsafe_code)]

use burn_cubecl::{cubecl, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    norm::{Affine, pixelwise, scale_at, shift_at},
    product::empty,
    sums::{UNITS, cube_sum},
};
use crate::kernels::shape::NormShape;

/// The gradient for a value before SiLU.
#[cube]
fn before_silu(value: f32, gradient: f32, #[comptime] silu: bool) -> f32 {
    if comptime!(silu) {
        let share = 1.0 / (1.0 + (-value).exp());
        gradient * share * (1.0 + value * (1.0 - share))
    } else {
        gradient
    }
}

#[cube(launch_unchecked)]
fn plane_sums(
    x: &[f32],
    gradient: &[f32],
    moments: &[f32],
    gamma: &[f32],
    beta: &[f32],
    scale_shift: &[f32],
    sums: &mut [f32],
    pixels: u32,
    per_group: u32,
    #[comptime] silu: bool,
    #[comptime] is_timed: bool,
    #[comptime] units: u32,
) {
    let mut shared = Shared::new_slice(units as usize);
    let (channel, channels) = (CUBE_POS_X, CUBE_COUNT_X);
    let plane = CUBE_POS_Y * channels + channel;
    let group = 2 * (plane / per_group);
    let (mean, inverse) = (moments[group as usize], moments[(group + 1) as usize]);
    let time = CUBE_POS_Y * 2 * channels + channel;
    let scale = scale_at(scale_shift, time, is_timed);
    let shift = shift_at(scale_shift, time + channels, is_timed);
    let factor = gamma[channel as usize] * scale;
    let addend = beta[channel as usize] * scale + shift;
    let mut plain = f32::new(0.0);
    let mut weighted = f32::new(0.0);
    let mut pixel = UNIT_POS;
    while pixel < pixels {
        let at = (plane * pixels + pixel) as usize;
        let normed = (x[at] - mean) * inverse;
        let change = before_silu(normed * factor + addend, gradient[at], silu);
        plain += change;
        weighted += change * normed;
        pixel += CUBE_DIM;
    }
    let plain = cube_sum(plain, &mut shared);
    let weighted = cube_sum(weighted, &mut shared);
    if UNIT_POS == 0 {
        sums[plane as usize] = plain;
        sums[(CUBE_COUNT_X * CUBE_COUNT_Y + plane) as usize] = weighted;
    }
}

#[cube(launch_unchecked)]
fn input_change(
    x: &[f32],
    gradient: &[f32],
    moments: &[f32],
    gamma: &[f32],
    beta: &[f32],
    scale_shift: &[f32],
    sums: &[f32],
    found: &mut [f32],
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
    let group = plane / per_group;
    let (mean, inverse) = (
        moments[(2 * group) as usize],
        moments[(2 * group + 1) as usize],
    );
    let time = CUBE_POS_Z * 2 * channels;
    let mut plain = f32::new(0.0);
    let mut weighted = f32::new(0.0);
    let first = channel / per_group * per_group;
    for other in first..first + per_group {
        let factor = gamma[other as usize] * scale_at(scale_shift, time + other, is_timed);
        let plane = CUBE_POS_Z * channels + other;
        plain += factor * sums[plane as usize];
        weighted += factor * sums[(CUBE_COUNT_Z * channels + plane) as usize];
    }
    let size = (per_group * pixels) as f32;
    let scale = scale_at(scale_shift, time + channel, is_timed);
    let factor = gamma[channel as usize] * scale;
    let shift = shift_at(scale_shift, time + channels + channel, is_timed);
    let addend = beta[channel as usize] * scale + shift;
    let at = (plane * pixels + pixel) as usize;
    let normed = (x[at] - mean) * inverse;
    let change = before_silu(normed * factor + addend, gradient[at], silu);
    found[at] = inverse * (factor * change - plain / size - normed * weighted / size);
}

#[cube(launch_unchecked)]
fn affine_change(
    sums: &[f32],
    scale_shift: &[f32],
    gamma: &mut [f32],
    beta: &mut [f32],
    batch: u32,
    channels: u32,
    #[comptime] is_timed: bool,
) {
    let channel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if channel >= channels {
        terminate!();
    }
    let mut weighted = f32::new(0.0);
    let mut plain = f32::new(0.0);
    for sample in 0..batch {
        let scale = scale_at(scale_shift, sample * 2 * channels + channel, is_timed);
        let plane = sample * channels + channel;
        plain += scale * sums[plane as usize];
        weighted += scale * sums[(batch * channels + plane) as usize];
    }
    gamma[channel as usize] = weighted;
    beta[channel as usize] = plain;
}

#[cube(launch_unchecked)]
fn time_change(
    sums: &[f32],
    gamma: &[f32],
    beta: &[f32],
    found: &mut [f32],
    batch: u32,
    channels: u32,
) {
    let plane = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if plane >= batch * channels {
        terminate!();
    }
    let (sample, channel) = (plane / channels, plane % channels);
    let plain = sums[plane as usize];
    let weighted = sums[(batch * channels + plane) as usize];
    let at = sample * 2 * channels + channel;
    found[at as usize] = gamma[channel as usize] * weighted + beta[channel as usize] * plain;
    found[(at + channels) as usize] = plain;
}

/// Of each plane the sums, `[2, b, c]`, of the gradient before SiLU and of the same times the normed
/// values.
pub(super) fn sums(
    x: &CubeTensor,
    gradient: &CubeTensor,
    moments: &CubeTensor,
    affine: &Affine,
    shape: &NormShape,
) -> CubeTensor {
    let sums = empty([2, shape.batch, shape.channels].into(), x);
    // SAFETY: a cube reads the pixels of its plane and writes its two sums; the others have a value for
    // each group, channel, and sample and channel.
    unsafe {
        plane_sums::launch_unchecked(
            &x.client,
            CubeCount::new_2d(shape.channels as u32, shape.batch as u32),
            CubeDim::new_1d(UNITS),
            x.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            affine.gamma.clone().into_buffer_arg(),
            affine.beta.clone().into_buffer_arg(),
            affine.scale_shift.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            shape.pixels as u32,
            shape.per_group() as u32,
            shape.silu,
            shape.is_timed,
            UNITS,
        );
    }
    sums
}

/// The gradient for the input.
pub(super) fn input_gradient(
    x: &CubeTensor,
    gradient: &CubeTensor,
    moments: &CubeTensor,
    affine: &Affine,
    sums: &CubeTensor,
    shape: &NormShape,
) -> CubeTensor {
    let found = empty(x.meta.shape().clone(), x);
    let (count, units) = pixelwise(shape);
    // SAFETY: as of `sums`; a unit writes its one pixel.
    unsafe {
        input_change::launch_unchecked(
            &x.client,
            count,
            units,
            x.clone().into_buffer_arg(),
            gradient.clone().into_buffer_arg(),
            moments.clone().into_buffer_arg(),
            affine.gamma.clone().into_buffer_arg(),
            affine.beta.clone().into_buffer_arg(),
            affine.scale_shift.clone().into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            found.clone().into_buffer_arg(),
            shape.pixels as u32,
            shape.per_group() as u32,
            shape.silu,
            shape.is_timed,
        );
    }
    found
}

/// The gradients for gamma and beta, `[c]` each.
pub(super) fn affine_gradient(
    sums: &CubeTensor,
    scale_shift: &CubeTensor,
    shape: &NormShape,
) -> (CubeTensor, CubeTensor) {
    let (gamma, beta) = (
        empty([shape.channels].into(), sums),
        empty([shape.channels].into(), sums),
    );
    // SAFETY: a unit reads the sums of its channel and writes its two gradients.
    unsafe {
        affine_change::launch_unchecked(
            &sums.client,
            CubeCount::new_1d((shape.channels as u32).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS),
            sums.clone().into_buffer_arg(),
            scale_shift.clone().into_buffer_arg(),
            gamma.clone().into_buffer_arg(),
            beta.clone().into_buffer_arg(),
            shape.batch as u32,
            shape.channels as u32,
            shape.is_timed,
        );
    }
    (gamma, beta)
}

/// The gradient for scale and shift, `[b, 2c]`.
pub(super) fn time_gradient(
    sums: &CubeTensor,
    gamma: &CubeTensor,
    beta: &CubeTensor,
    shape: &NormShape,
) -> CubeTensor {
    let found = empty([shape.batch, 2 * shape.channels].into(), sums);
    let planes = (shape.batch * shape.channels) as u32;
    // SAFETY: a unit reads the sums of its plane and writes its two gradients.
    unsafe {
        time_change::launch_unchecked(
            &sums.client,
            CubeCount::new_1d(planes.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS),
            sums.clone().into_buffer_arg(),
            gamma.clone().into_buffer_arg(),
            beta.clone().into_buffer_arg(),
            found.clone().into_buffer_arg(),
            shape.batch as u32,
            shape.channels as u32,
        );
    }
    found
}
