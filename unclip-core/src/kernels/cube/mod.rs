//! Kernels for GPUs, in CubeCL.
//!
//! Without tuning, which takes minutes, Burn's convolutions are direct sums, the gradients of their
//! weights direct sums over whole pictures, and its other sums one unit's work for each result. Here
//! convolutions and linear layers are matrix products whose long sums are cut into parts, and a group
//! norm is two passes over memory. Products are f32 unless
//! [`set_precision`](super::set_precision) says TF32, which Burn's are wherever there are matrix units.

mod activation;
mod attention;
#[cfg(feature = "train")]
mod gradients;
mod norm;
#[cfg(feature = "train")]
mod norm_gradient;
mod ops;
mod patches;
mod product;
mod resample;
#[cfg(feature = "train")]
mod step;
mod sums;

use burn::{
    backend::{Backend, Dispatch, DispatchDevice, backend_extension, tensor::FloatTensor},
    tensor::{Device, Tensor},
};
use burn_cubecl::CubeDevice;

use super::shape::{AttentionShape, ConvShape, Gelu, LinearShape, NormShape, Resample};
#[cfg(feature = "train")]
use super::step::AdamForm;

/// Most cubes of a launch in the dimensions that have least.
const CUBES: usize = u16::MAX as usize;

/// Whether a device is one of these GPUs.
pub(super) fn is_cube(device: &Device) -> bool {
    cube(device).is_some()
}

fn cube(device: &Device) -> Option<&CubeDevice> {
    match device.as_dispatch() {
        DispatchDevice::Cube(device) => Some(device),
        #[cfg(feature = "train")]
        DispatchDevice::Autodiff(device) => match &**device {
            DispatchDevice::Cube(device) => Some(device),
            #[allow(unreachable_patterns)]
            _ => None,
        },
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

impl ConvShape {
    /// Whether a launch may have as many cubes as this convolution needs, and a sample's patches have
    /// room in a buffer.
    pub(super) fn fits_cubes(&self, device: &Device) -> bool {
        let page = |device: &CubeDevice| device.client().properties().memory.max_page_size;
        let patches = self.rows() * self.pixels_out();
        let largest = self.dims_in().iter().product::<usize>();
        [self.rows(), self.channels_out, self.batch]
            .iter()
            .all(|n| *n <= CUBES)
            && largest.max(self.dims_out().iter().product()).max(patches) <= u32::MAX as usize
            && (self.is_pointwise() || cube(device).is_some_and(|d| 4 * patches as u64 <= page(d)))
    }
}

impl NormShape {
    /// Whether a launch may have as many cubes as this norm needs.
    pub(super) fn fits_cubes(&self) -> bool {
        let planes = self.batch * self.channels;
        [self.batch * self.groups, self.channels, self.batch]
            .iter()
            .all(|n| *n <= CUBES)
            && planes * self.pixels <= u32::MAX as usize
    }
}

impl AttentionShape {
    /// Whether a launch may have as many cubes as this attention needs.
    pub(super) fn fits_cubes(&self) -> bool {
        self.pairs().max(self.queries) <= CUBES
            && self.pairs() * self.queries * self.keys <= u32::MAX as usize
    }

    /// Heads of all samples.
    fn pairs(&self) -> usize {
        self.batch * self.heads
    }
}

/// Whether a launch may have as many cubes as pictures of twice these sizes need.
pub(super) fn fits_resample(dims: [usize; 4]) -> bool {
    let [batch, channels, height, width] = dims;
    batch.max(channels) <= CUBES && 4 * batch * channels * height * width <= u32::MAX as usize
}

/// Sizes after a change.
#[cfg(feature = "fusion")]
fn resampled([batch, channels, size @ ..]: [usize; 4], way: Resample) -> [usize; 4] {
    let [height, width] = way.output(size);
    [batch, channels, height, width]
}

/// What Burn does not have as one operation, or not fast enough.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"), Autodiff: cfg(feature = "train"))]
pub(super) trait CubeKernels: Backend {
    /// A convolution.
    #[fusion(dtype = x, shape = shape.dims_out().into())]
    fn cube_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        has_bias: bool,
        shape: ConvShape,
    ) -> FloatTensor<Self>;

    /// A linear layer.
    #[fusion(dtype = x, shape = [shape.rows, shape.outputs].into())]
    fn cube_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        has_bias: bool,
        shape: LinearShape,
    ) -> FloatTensor<Self>;

    /// A group norm; `scale_shift` is `[b, 2c]`.
    #[fusion(dtype = x, shape = x)]
    fn cube_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self>;

    /// Attention; `mask` is 1 where a key must not be seen.
    #[fusion(dtype = query, shape = query)]
    fn cube_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;

    /// A form of GELU.
    #[fusion(dtype = x, shape = x)]
    fn cube_gelu(x: FloatTensor<Self>, gelu: Gelu) -> FloatTensor<Self>;

    /// Pictures, of sizes `dims`, of half or twice their size.
    #[fusion(dtype = x, shape = resampled(*dims, *way).into())]
    fn cube_resample(x: FloatTensor<Self>, way: Resample, dims: [usize; 4]) -> FloatTensor<Self>;
}

/// What the gradients are made of.
#[cfg(feature = "train")]
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(super) trait CubeGradients: Backend {
    /// `[b, in, h, w]`.
    #[fusion(dtype = gradient, shape = shape.dims_in().into())]
    fn conv2d_input_gradient(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;

    /// `[out, in, kernel_h, kernel_w]`.
    #[fusion(dtype = x, shape = shape.dims_weight().into())]
    fn conv2d_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self>;

    /// `[out]`.
    #[fusion(dtype = gradient, shape = [shape.channels_out].into())]
    fn conv2d_bias_gradient(gradient: FloatTensor<Self>, shape: ConvShape) -> FloatTensor<Self>;

    /// `[rows, in]`.
    #[fusion(dtype = gradient, shape = [shape.rows, shape.inputs].into())]
    fn linear_input_gradient(
        gradient: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        shape: LinearShape,
    ) -> FloatTensor<Self>;

    /// `[in, out]`.
    #[fusion(dtype = x, shape = [shape.inputs, shape.outputs].into())]
    fn linear_weight_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        shape: LinearShape,
    ) -> FloatTensor<Self>;

    /// `[out]`.
    #[fusion(dtype = gradient, shape = [shape.outputs].into())]
    fn linear_bias_gradient(gradient: FloatTensor<Self>, shape: LinearShape) -> FloatTensor<Self>;

    /// The shares of each query's values, `[b · heads, queries, keys]`.
    #[fusion(dtype = query, shape = [shape.pairs(), shape.queries, shape.keys].into())]
    fn attention_shares(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;

    /// For the products of queries and keys, `[b · heads, queries, keys]`.
    #[fusion(dtype = shares, shape = shares)]
    fn attention_score_gradient(
        shares: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;

    /// Each query's sum of `rows` (keys) by `weights`, `[b · heads, queries, keys]`; or each key's, of
    /// queries.
    #[fusion(dtype = rows, shape = [
        shape.batch, if *of_keys { shape.queries } else { shape.keys }, shape.row()
    ].into())]
    fn attention_sums(
        weights: FloatTensor<Self>,
        rows: FloatTensor<Self>,
        of_keys: bool,
        shape: AttentionShape,
    ) -> FloatTensor<Self>;

    /// As the input.
    #[fusion(dtype = x, shape = x)]
    fn gelu_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        gelu: Gelu,
    ) -> FloatTensor<Self>;

    /// As the input, whose sizes are `dims`.
    #[fusion(dtype = gradient, shape = (*dims).into())]
    fn resample_gradient(
        gradient: FloatTensor<Self>,
        way: Resample,
        dims: [usize; 4],
    ) -> FloatTensor<Self>;

    /// Mean and inverse deviation of each group, `[b · groups, 2]`.
    #[fusion(dtype = x, shape = [shape.batch * shape.groups, 2].into())]
    fn norm_moments(x: FloatTensor<Self>, shape: NormShape) -> FloatTensor<Self>;

    /// The group norm, given its moments.
    #[fusion(dtype = x, shape = x)]
    fn norm_forward(
        x: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self>;

    /// Two sums of each plane, `[2, b, c]`.
    #[fusion(dtype = x, shape = [2, shape.batch, shape.channels].into())]
    fn norm_sums(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self>;

    /// `[b, c, h, w]`.
    #[allow(clippy::too_many_arguments)]
    #[fusion(dtype = x, shape = x)]
    fn norm_input_gradient(
        x: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self>;

    /// Those of gamma and beta, which have their sizes.
    #[fusion(meta = |_, gamma, beta, _, _| (gamma.clone(), beta.clone()))]
    fn norm_affine_gradient(
        sums: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        shape: NormShape,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// That of scale and shift, `[b, 2c]`.
    #[fusion(dtype = sums, shape = [shape.batch, 2 * shape.channels].into())]
    fn norm_time_gradient(
        sums: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self>;
}

/// What a step of training does beside the gradients.
#[cfg(feature = "train")]
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(super) trait CubeSteps: Backend {
    /// Values, moments and average after a step of AdamW, in the memory that they have where nothing else
    /// holds it; `numbers` are [`AdamNumbers::row`](super::step::AdamNumbers::row).
    #[fusion(meta = |value, _, _, _, _, _, _| {
        (value.clone(), value.clone(), value.clone(), value.clone())
    })]
    fn cube_adam(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        average: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
        form: AdamForm,
    ) -> (
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
        FloatTensor<Self>,
    );

    /// Puts other values into a tensor's memory, whoever holds it.
    #[fusion(dtype = into, shape = into)]
    fn cube_write(into: FloatTensor<Self>, values: Vec<f32>) -> FloatTensor<Self>;

    /// `sums` with the squares of `x` added.
    #[fusion(dtype = sums, shape = sums)]
    fn cube_add_squares(x: FloatTensor<Self>, sums: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// For an operation that takes no optional tensors: one that is there or, without a launch, one that
/// nobody reads.
fn given<const D: usize>(tensor: Option<Tensor<D>>, device: &Device) -> Tensor<D> {
    tensor.unwrap_or_else(|| Tensor::empty([1; D], device))
}

pub(super) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    shape: ConvShape,
) -> Tensor<4> {
    let (has_bias, bias) = (bias.is_some(), given(bias, &x.device()));
    Tensor::from_dispatch(Dispatch::cube_conv2d(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        has_bias,
        shape,
    ))
}

pub(super) fn linear(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    shape: LinearShape,
) -> Tensor<2> {
    let (has_bias, bias) = (bias.is_some(), given(bias, &x.device()));
    Tensor::from_dispatch(Dispatch::cube_linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        has_bias,
        shape,
    ))
}

pub(super) fn group_norm(
    x: Tensor<4>,
    [gamma, beta]: [Tensor<1>; 2],
    scale_shift: Option<Tensor<2>>,
    shape: NormShape,
) -> Tensor<4> {
    let scale_shift = given(scale_shift, &x.device());
    Tensor::from_dispatch(Dispatch::cube_group_norm(
        x.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        scale_shift.into_dispatch(),
        shape,
    ))
}

pub(super) fn attention(
    [query, key, value]: [&Tensor<3>; 3],
    mask: Tensor<4>,
    shape: AttentionShape,
) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::cube_attention(
        query.clone().into_dispatch(),
        key.clone().into_dispatch(),
        value.clone().into_dispatch(),
        mask.into_dispatch(),
        shape,
    ))
}

pub(super) fn resample(x: Tensor<4>, way: Resample) -> Tensor<4> {
    let dims = x.dims();
    Tensor::from_dispatch(Dispatch::cube_resample(x.into_dispatch(), way, dims))
}

pub(super) fn gelu<const D: usize>(x: Tensor<D>, gelu: Gelu) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::cube_gelu(x.into_dispatch(), gelu))
}

#[cfg(feature = "train")]
pub(super) fn adam(
    value: Tensor<1>,
    gradient: Tensor<1>,
    [first, second]: [Tensor<1>; 2],
    average: Tensor<1>,
    numbers: Tensor<1>,
    form: AdamForm,
) -> [Tensor<1>; 4] {
    let (value, first, second, average) = Dispatch::cube_adam(
        value.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        average.into_dispatch(),
        numbers.into_dispatch(),
        form,
    );
    [value, first, second, average].map(Tensor::from_dispatch)
}

#[cfg(feature = "train")]
pub(super) fn write(into: &Tensor<1>, values: Vec<f32>) {
    let _ = Dispatch::cube_write(into.clone().into_dispatch(), values);
}

#[cfg(feature = "train")]
pub(super) fn add_squares<const D: usize>(x: &Tensor<D>, sums: Option<Tensor<1>>) -> Tensor<1> {
    let sums = sums.unwrap_or_else(|| Tensor::zeros([step::SUMS], &x.device()));
    Tensor::from_dispatch(Dispatch::cube_add_squares(
        x.clone().into_dispatch(),
        sums.into_dispatch(),
    ))
}
