//! Convolutions in two dimensions: f32, `[b, c, h, w]`, one group, no dilation.
//!
//! Direct, not through a matrix of columns: for the channel counts of small networks, writing that
//! matrix takes longer than the products. A picture's rows are copied once between zeros, so that a
//! stretch of output pixels, several rows long, is one run of vectors for each tap of the kernel; what
//! is computed for the columns between rows is dropped.

mod forward;
mod layout;
mod shape;
mod weight_gradient;

pub(super) use forward::{forward, input_gradient};
pub(super) use shape::ConvShape;
pub(super) use weight_gradient::weight_gradient;
