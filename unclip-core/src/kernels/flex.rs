//! The kernels as operations of Burn's backend Flex.

use burn::{
    backend::{
        Backend, Dispatch, DispatchDevice, Flex, TensorMetadata, backend_extension,
        tensor::FloatTensor,
    },
    tensor::{Device, Tensor, TensorData},
};
use burn_flex::FlexTensor;

use super::{
    activation,
    attention::{self, Given},
    conv,
    linear::forward as linear_forward,
    norm::{self, Affine, Moments},
    shape::{AttentionShape, ConvShape, Gelu, LinearShape, NormShape, Resample},
};

#[cfg(feature = "train")]
pub(crate) fn is_flex(device: &Device) -> bool {
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::Flex(_)),
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

#[cfg(not(feature = "train"))]
pub(crate) fn is_flex(device: &Device) -> bool {
    matches!(device.as_dispatch(), DispatchDevice::Flex(_))
}

/// What Burn does not have as one operation, or not fast enough.
#[backend_extension(Flex, Autodiff: cfg(feature = "train"))]
pub(super) trait Kernels: Backend {
    /// A convolution.
    fn kernel_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;

    /// A linear layer.
    fn kernel_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: LinearShape,
    ) -> FloatTensor<Self>;

    /// Attention; `mask` is 1 where a key must not be seen.
    fn kernel_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;

    /// A form of GELU.
    fn kernel_gelu(x: FloatTensor<Self>, gelu: Gelu) -> FloatTensor<Self>;

    /// Pictures of half or twice their size.
    fn kernel_resample(x: FloatTensor<Self>, way: Resample) -> FloatTensor<Self>;

    /// A group norm; `scale_shift` is `[b, 2c]`.
    fn kernel_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self>;
}

pub(super) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Tensor<1>,
    shape: ConvShape,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::kernel_conv2d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        shape,
    ))
}

pub(super) fn linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    shape: LinearShape,
) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::kernel_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        shape,
    ))
}

pub(super) fn attention(
    [query, key, value]: [&Tensor<3>; 3],
    mask: Tensor<4>,
    shape: AttentionShape,
) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::kernel_attention(
        query.clone().into_dispatch(),
        key.clone().into_dispatch(),
        value.clone().into_dispatch(),
        mask.into_dispatch(),
        shape,
    ))
}

pub(super) fn gelu<const D: usize>(x: Tensor<D>, gelu: Gelu) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::kernel_gelu(x.into_dispatch(), gelu))
}

pub(super) fn resample(x: Tensor<4>, way: Resample) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::kernel_resample(x.into_dispatch(), way))
}

pub(super) fn group_norm(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    scale_shift: Tensor<2>,
    shape: NormShape,
) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::kernel_group_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        scale_shift.into_dispatch(),
        shape,
    ))
}

impl Kernels for Flex {
    fn kernel_conv2d(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        shape: ConvShape,
    ) -> FlexTensor {
        let (x, weight, bias) = (contiguous(x), contiguous(weight), contiguous(bias));
        let out = conv::forward(values(&x), values(&weight), values(&bias), &shape);
        tensor(out, shape.dims_out())
    }

    fn kernel_linear(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        shape: LinearShape,
    ) -> FlexTensor {
        let [x, weight, bias] = [x, weight, bias].map(contiguous);
        let out = linear_forward(values(&x), values(&weight), values(&bias), &shape);
        tensor(out, [shape.rows, shape.outputs])
    }

    fn kernel_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        mask: FlexTensor,
        shape: AttentionShape,
    ) -> FlexTensor {
        let dims = query.shape();
        let [query, key, value, mask] = [query, key, value, mask].map(contiguous);
        let given = Given {
            query: values(&query),
            key: values(&key),
            value: values(&value),
            mask: values(&mask),
        };
        let out = attention::forward(given, &shape);
        FlexTensor::from_data(TensorData::new(out, dims))
    }

    fn kernel_gelu(x: FlexTensor, gelu: Gelu) -> FlexTensor {
        let x = contiguous(x);
        let out = activation::forward(values(&x), gelu);
        FlexTensor::from_data(TensorData::new(out, x.shape()))
    }

    fn kernel_resample(x: FlexTensor, way: Resample) -> FlexTensor {
        let x = contiguous(x);
        let [batch, channels, size @ ..] = picture_dims(&x);
        let out = way.forward(values(&x), batch * channels, size);
        let [height, width] = way.output(size);
        tensor(out, [batch, channels, height, width])
    }

    fn kernel_group_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        scale_shift: FlexTensor,
        shape: NormShape,
    ) -> FlexTensor {
        group_norm_forward(x, gamma, beta, scale_shift, shape).0
    }
}

/// The group norm with the moments that its gradient needs.
pub(super) fn group_norm_forward(
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    scale_shift: FlexTensor,
    shape: NormShape,
) -> (FlexTensor, Vec<Moments>) {
    let dims = x.shape();
    let (x, gamma, beta) = (contiguous(x), contiguous(gamma), contiguous(beta));
    let scale_shift = contiguous(scale_shift);
    let affine = Affine {
        gamma: values(&gamma),
        beta: values(&beta),
        scale_shift: values(&scale_shift),
    };
    let (out, moments) = norm::forward(values(&x), affine, &shape);
    (FlexTensor::from_data(TensorData::new(out, dims)), moments)
}

/// Batch, channels, height and width.
pub(super) fn picture_dims(x: &FlexTensor) -> [usize; 4] {
    x.shape().dims()
}

/// A tensor whose values are in order, at no cost where they are.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The values of a contiguous f32 tensor.
///
/// # Panics
/// If it is not that.
pub(super) fn values(tensor: &FlexTensor) -> &[f32] {
    match tensor.as_slice() {
        Some(values) => values,
        None => unreachable!("a contiguous f32 tensor"),
    }
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, dims: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, dims))
}
