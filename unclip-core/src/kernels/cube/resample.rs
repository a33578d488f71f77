//! Pictures of half the size and of twice it, each the other's gradient.

#![allow(unsafe_code)]

use burn_cubecl::{cubecl, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{product::empty, sums::UNITS};
use crate::kernels::shape::Resample;

#[cube(launch_unchecked)]
fn sums_of_four(x: &[f32], y: &mut [f32], width: u32, pixels: u32, factor: f32) {
    let pixel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if pixel >= pixels {
        terminate!();
    }
    let plane = CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y;
    let corner = plane * pixels * 4 + pixel / width * width * 4 + pixel % width * 2;
    let below = corner + 2 * width;
    let sum =
        x[corner as usize] + x[(corner + 1) as usize] + x[below as usize] + x[(below + 1) as usize];
    y[(plane * pixels + pixel) as usize] = sum * factor;
}

#[cube(launch_unchecked)]
fn one_for_four(x: &[f32], y: &mut [f32], width: u32, pixels: u32, factor: f32) {
    let pixel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if pixel >= pixels {
        terminate!();
    }
    let plane = CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y;
    let from = pixel / width / 2 * (width / 2) + pixel % width / 2;
    y[(plane * pixels + pixel) as usize] = x[(plane * (pixels / 4) + from) as usize] * factor;
}

/// The change of a contiguous `x`, times `factor`.
fn run(x: &CubeTensor, way: Resample, factor: f32) -> CubeTensor {
    let [batch, channels, size @ ..]: [usize; 4] = x.meta.shape().dims();
    let [height, width] = way.output(size);
    let y = empty([batch, channels, height, width].into(), x);
    let pixels = (height * width) as u32;
    let units = UNITS.min(pixels.next_multiple_of(32));
    let count = CubeCount::new_3d(pixels.div_ceil(units), channels as u32, batch as u32);
    let (units, width) = (CubeDim::new_1d(units), width as u32);
    let (from, to) = (x.clone().into_buffer_arg(), y.clone().into_buffer_arg());
    // SAFETY: a unit writes one pixel, below `pixels`, of its plane, and reads of the same plane the four
    // that it is made of, or the one that it is a part of.
    unsafe {
        match way {
            Resample::Halve => sums_of_four::launch_unchecked(
                &x.client, count, units, from, to, width, pixels, factor,
            ),
            Resample::Double => one_for_four::launch_unchecked(
                &x.client, count, units, from, to, width, pixels, factor,
            ),
        }
    }
    y
}

/// Of a contiguous `x`.
pub(super) fn forward(x: &CubeTensor, way: Resample) -> CubeTensor {
    match way {
        Resample::Halve => run(x, way, 0.25),
        Resample::Double => run(x, way, 1.0),
    }
}

/// The gradient for the input, given the contiguous one for the output.
#[cfg(feature = "train")]
pub(super) fn backward(gradient: &CubeTensor, way: Resample) -> CubeTensor {
    match way {
        Resample::Halve => run(gradient, Resample::Double, 0.25),
        Resample::Double => run(gradient, Resample::Halve, 1.0),
    }
}
