//! Convolutions in two dimensions: f32, `[b, c, h, w]`, one group, no dilation.
//!
//! Direct, not through a matrix of columns: for the channel counts of small networks, writing that
//! matrix takes longer than the products. A picture's rows are copied once between zeros, so that a
//! stretch of output pixels, several rows long, is one run of vectors for each tap of the kernel; what
//! is computed for the columns between rows is dropped.

mod bf16;
mod bf16_weights;
mod forward;
mod layout;
mod part;
mod weight_gradient;
mod winograd;

use super::shape::ConvShape;

/// The convolution of `x` with `weight`.
pub(super) fn forward(x: &[f32], weight: &[f32], bias: &[f32], shape: &ConvShape) -> Vec<f32> {
    if shape.is_bf16 {
        bf16::forward(x, weight, bias, shape)
    } else if winograd::takes(shape) {
        winograd::forward(x, weight, bias, shape)
    } else {
        forward::forward(x, weight, bias, shape)
    }
}

/// The gradient for the input, given the one for the output.
#[cfg(feature = "train")]
pub(super) fn input_gradient(gradient: &[f32], weight: &[f32], shape: &ConvShape) -> Vec<f32> {
    if shape.is_bf16 {
        bf16::input_gradient(gradient, weight, shape)
    } else if winograd::takes(shape) {
        winograd::input_gradient(gradient, weight, shape)
    } else {
        forward::input_gradient(gradient, weight, shape)
    }
}

/// The gradients for weights and bias, given the one for the output.
#[cfg(feature = "train")]
pub(super) fn weight_gradient(
    x: &[f32],
    gradient: &[f32],
    shape: &ConvShape,
) -> (Vec<f32>, Vec<f32>) {
    if shape.is_bf16 {
        bf16_weights::weight_gradient(x, gradient, shape)
    } else if winograd::takes(shape) {
        winograd::weight_gradient(x, gradient, shape)
    } else {
        weight_gradient::weight_gradient(x, gradient, shape)
    }
}
