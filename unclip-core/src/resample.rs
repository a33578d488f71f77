//! Antialiased bicubic resampling as two matrix products.
//!
//! The filter is Pillow's and PyTorch's `antialias=True`: cubic with a = −0.5, widened when
//! shrinking, taps outside the picture dropped and the rest renormalised. Burn's `interpolate`
//! has a = −0.75 and no antialiasing, which gives other pictures. As products with constant
//! matrices it runs on every backend and differentiates.

use burn::tensor::{Device, Tensor, TensorData};

use crate::kernels::linear;

/// Keys' cubic convolution kernel, a = −0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        A * (((x - 5.0) * x + 8.0) * x - 4.0)
    } else {
        0.0
    }
}

/// Weights of each input for each output, `[to][from]` row-major. Rows sum to 1.
pub fn bicubic_weights(from: usize, to: usize) -> Vec<f64> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let mut weights = vec![0.0; from * to];
    for (i, row) in weights.chunks_exact_mut(from.max(1)).enumerate() {
        let center = (i as f64 + 0.5) * scale;
        // Truncation towards zero, like the reference's integer conversion.
        let first = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as i64).clamp(0, from as i64) as usize;
        for (j, weight) in row.iter_mut().enumerate().take(end).skip(first) {
            *weight = cubic((j as f64 + 0.5 - center) / stretch);
        }
        let sum: f64 = row.iter().sum();
        for weight in row {
            *weight /= sum;
        }
    }
    weights
}

/// Resizes pictures.
///
/// # Shapes
/// `[b, c, h, w]` → `[b, c, height, width]`
///
/// # Panics
/// If a size is zero.
pub fn resize_bicubic(x: Tensor<4>, height: usize, width: usize) -> Tensor<4> {
    let [.., h, w] = x.dims();
    assert!(
        h * w * height * width > 0,
        "a picture has at least one pixel"
    );
    let device = x.device();
    let matrices = [matrix(h, height, &device), matrix(w, width, &device)];
    resize_by(x, matrices)
}

/// Resizes pictures by matrices for the two axes, such as [`bicubic_weights`].
///
/// # Shapes
/// - `x`: `[b, c, h, w]`; `matrices`: `[height, h]` and `[width, w]`
/// - output: `[b, c, height, width]`
///
/// # Panics
/// If the shapes do not fit.
pub fn resize_by(x: Tensor<4>, [rows, columns]: [Tensor<2>; 2]) -> Tensor<4> {
    let [batch, channels, h, w] = x.dims();
    let (height, width) = (rows.dims()[0], columns.dims()[0]);
    // Horizontal first, as the reference does; by the kernels, as Burn's products are TF32 on some GPUs.
    let x = x.reshape([batch * channels, h, w]);
    let x = linear(x, columns.transpose(), None);
    let x = linear(x.swap_dims(1, 2), rows.transpose(), None);
    x.swap_dims(1, 2).reshape([batch, channels, height, width])
}

/// The weights, `[to, from]`.
fn matrix(from: usize, to: usize, device: &Device) -> Tensor<2> {
    let weights: Vec<f32> = bicubic_weights(from, to)
        .into_iter()
        .map(|w| w as f32)
        .collect();
    let f32 = burn::tensor::DType::F32;
    Tensor::from_data(TensorData::new(weights, [to, from]), (device, f32))
}
