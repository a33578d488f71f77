//! Burn's layers, applied in the type of the activations.

use burn::{
    nn::{Linear, conv::Conv2d},
    tensor::{DType, Tensor, ops::ConvOptions},
};

use crate::kernels;

/// `tensor` in the type of the activations it is about to meet; free when it is of that type.
pub fn as_compute<const D: usize>(tensor: Tensor<D>, dtype: DType) -> Tensor<D> {
    if tensor.dtype() == dtype {
        tensor
    } else {
        tensor.cast(dtype)
    }
}

/// `layer` on `x`, in the type of `x`.
///
/// # Shapes
/// `[.., in]` → `[.., out]`
///
/// # Panics
/// If the last axis of `x` is not the layer's input width.
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let dtype = x.dtype();
    kernels::linear(
        x,
        as_compute(layer.weight.val(), dtype),
        layer.bias.as_ref().map(|b| as_compute(b.val(), dtype)),
    )
}

/// `layer` on `x`, in the type of `x`, padded by half the kernel on every side.
///
/// # Shapes
/// `[b, in, h, w]` → `[b, out, h / stride, w / stride]`
///
/// # Panics
/// If `x` has another number of channels than the layer.
pub fn conv2d(layer: &Conv2d, x: Tensor<4>) -> Tensor<4> {
    let dtype = x.dtype();
    let [kernel_h, kernel_w] = layer.kernel_size;
    kernels::conv2d(
        x,
        as_compute(layer.weight.val(), dtype),
        layer.bias.as_ref().map(|b| as_compute(b.val(), dtype)),
        ConvOptions::new(
            layer.stride,
            [kernel_h / 2, kernel_w / 2],
            layer.dilation,
            layer.groups,
        ),
    )
}
