//! Winograd's convolution with kernels of 3 × 3 and stride 1: for each tile of 2 × 2 output pixels 16
//! products where the direct one has 36 (Lavin and Gray, [arXiv 1509.09308](https://arxiv.org/abs/1509.09308)).
//!
//! A tile of 4 × 4 input pixels `d`, overlapping its neighbours by two, and a kernel `g` are brought to
//! 4 × 4 values each, `Bᵀ d B` and `G g Gᵀ`, which are multiplied one by one; these products are summed over
//! the input channels, and the sum `m` brought back, `Aᵀ m A`. The gradient for the weights is the same
//! read backwards. The factors of B and A are 0 and ±1, those of G also ½, so that hardly any precision
//! is lost.

mod forward;
mod tiles;
#[cfg(feature = "train")]
mod weights;

pub(super) use forward::forward;
#[cfg(feature = "train")]
pub(super) use forward::input_gradient;
#[cfg(feature = "train")]
pub(super) use weights::weight_gradient;

use super::ConvShape;

/// Values of a tile: products of one output channel and one input channel.
const TILE: usize = 16;

/// With fewer channels than this on either side, bringing tiles there and back takes longer than it saves.
const CHANNELS: usize = 12;

/// Whether it is faster for a convolution.
pub(super) fn takes(shape: &ConvShape) -> bool {
    shape.kernel == [3, 3]
        && shape.stride == [1, 1]
        && shape.channels_in.min(shape.channels_out) >= CHANNELS
}

/// `G g Gᵀ` of a kernel of nine.
fn kernel_transform(g: [f32; 9]) -> [f32; TILE] {
    let column = |[a, b, c]: [f32; 3]| [a, (a + b + c) * 0.5, (a - b + c) * 0.5, c];
    let columns = [0, 1, 2].map(|x| column([g[x], g[3 + x], g[6 + x]]));
    let rows = [0, 1, 2, 3].map(|y| column([columns[0][y], columns[1][y], columns[2][y]]));
    std::array::from_fn(|k| rows[k / 4][k % 4])
}
