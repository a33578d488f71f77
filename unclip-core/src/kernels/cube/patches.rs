//! Pictures as matrices of patches, and back: with these a convolution is a matrix product.

#![allow(unsafe_code)]

use burn_cubecl::{cubecl, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{product::empty, sums::UNITS};
use crate::kernels::shape::ConvShape;

/// What is known of a convolution when its kernels are compiled; pairs are height and width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Window {
    kernel: [u32; 2],
    stride: [u32; 2],
    padding: [u32; 2],
}

impl Window {
    fn of(shape: &ConvShape) -> Self {
        let pair = |pair: [usize; 2]| pair.map(|n| n as u32);
        Self {
            kernel: pair(shape.kernel),
            stride: pair(shape.stride),
            padding: pair(shape.padding),
        }
    }
}

#[cube(launch_unchecked)]
fn gather(
    x: &[f32],
    columns: &mut [f32],
    first: u32,
    channels: u32,
    height: u32,
    width: u32,
    out_width: u32,
    pixels: u32,
    #[comptime] window: Window,
) {
    let pixel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if pixel >= pixels {
        terminate!();
    }
    let [kernel_h, kernel_w] = comptime!(window.kernel);
    let [stride_h, stride_w] = comptime!(window.stride);
    let [padding_h, padding_w] = comptime!(window.padding);
    let channel = CUBE_POS_Y / comptime!(kernel_h * kernel_w);
    let tap = CUBE_POS_Y % comptime!(kernel_h * kernel_w);
    // Counted from the padding's edge.
    let row = (pixel / out_width) * stride_h + tap / kernel_w;
    let column = (pixel % out_width) * stride_w + tap % kernel_w;
    let is_inside = row >= padding_h
        && row < height + padding_h
        && column >= padding_w
        && column < width + padding_w;
    let mut value = f32::new(0.0);
    if is_inside {
        let plane = (first + CUBE_POS_Z) * channels + channel;
        value = x[((plane * height + row - padding_h) * width + column - padding_w) as usize];
    }
    columns[((CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) * pixels + pixel) as usize] = value;
}

/// For each output pixel of `samples` samples from `first` on the input that it is made of:
/// `[samples, c · taps, pixels]`.
pub(super) fn patches(
    x: &CubeTensor,
    shape: &ConvShape,
    first: usize,
    samples: usize,
) -> CubeTensor {
    let (rows, pixels) = (shape.channels_in * shape.taps(), shape.pixels_out());
    let columns = empty([samples, rows, pixels].into(), x);
    let units = UNITS.min((pixels as u32).next_multiple_of(32));
    let count = CubeCount::new_3d((pixels as u32).div_ceil(units), rows as u32, samples as u32);
    // SAFETY: a unit reads a pixel only where it is inside its plane, of a sample that `x` has, and
    // writes one value, below `pixels`, of its row.
    unsafe {
        gather::launch_unchecked(
            &x.client,
            count,
            CubeDim::new_1d(units),
            x.clone().into_buffer_arg(),
            columns.clone().into_buffer_arg(),
            first as u32,
            shape.channels_in as u32,
            shape.input[0] as u32,
            shape.input[1] as u32,
            shape.output[1] as u32,
            pixels as u32,
            Window::of(shape),
        );
    }
    columns
}

#[cube(launch_unchecked)]
fn scatter(
    columns: &[f32],
    x: &mut [f32],
    first: u32,
    height: u32,
    width: u32,
    out_height: u32,
    out_width: u32,
    #[comptime] window: Window,
) {
    let pixel = CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X;
    if pixel >= height * width {
        terminate!();
    }
    let [kernel_h, kernel_w] = comptime!(window.kernel);
    let [stride_h, stride_w] = comptime!(window.stride);
    let [padding_h, padding_w] = comptime!(window.padding);
    let row = pixel / width + padding_h;
    let column = pixel % width + padding_w;
    // The first of this channel's rows of patches.
    let tap = (CUBE_POS_Z * CUBE_COUNT_Y + CUBE_POS_Y) * comptime!(kernel_h * kernel_w);
    let mut sum = f32::new(0.0);
    #[unroll]
    for tap_h in 0..kernel_h {
        #[unroll]
        for tap_w in 0..kernel_w {
            if row >= tap_h && column >= tap_w {
                let (down, right) = (row - tap_h, column - tap_w);
                let is_tap = down % stride_h == 0
                    && right % stride_w == 0
                    && down / stride_h < out_height
                    && right / stride_w < out_width;
                if is_tap {
                    let tap = tap + tap_h * kernel_w + tap_w;
                    let at = (tap * out_height + down / stride_h) * out_width + right / stride_w;
                    sum += columns[at as usize];
                }
            }
        }
    }
    let plane = (first + CUBE_POS_Z) * CUBE_COUNT_Y + CUBE_POS_Y;
    x[(plane * height * width + pixel) as usize] = sum;
}

/// Writes to each input pixel of the samples from `first` on the sum of what patches have of it.
pub(super) fn sum_of_patches(
    columns: CubeTensor,
    x: &CubeTensor,
    shape: &ConvShape,
    first: usize,
    samples: usize,
) {
    let units = UNITS.min((shape.pixels_in() as u32).next_multiple_of(32));
    let count = CubeCount::new_3d(
        (shape.pixels_in() as u32).div_ceil(units),
        shape.channels_in as u32,
        samples as u32,
    );
    // SAFETY: a unit reads patches of output pixels that there are, and writes its one input pixel of a
    // sample that `x` has.
    unsafe {
        scatter::launch_unchecked(
            &x.client,
            count,
            CubeDim::new_1d(units),
            columns.into_buffer_arg(),
            x.clone().into_buffer_arg(),
            first as u32,
            shape.input[0] as u32,
            shape.input[1] as u32,
            shape.output[0] as u32,
            shape.output[1] as u32,
            Window::of(shape),
        );
    }
}
