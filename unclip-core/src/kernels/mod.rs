//! Kernels of our own for the CPU backend Flex and for GPUs, forward and backward.
//!
//! Flex's convolution copies layouts and repacks weights on one thread and multiplies thin matrices;
//! its group norm passes over memory seven times, its gradients more often still. These kernels do
//! each in one parallel pass, and training on a CPU becomes several times faster. What GPUs lack, the
//! room `cube` says.
//!
//! The choice is made here and nowhere else (CLIP's patches, one product of matrices, are always Burn's):
//! the functions take f32 tensors on Flex and on GPUs, with gradients or without, to the kernels, and
//! all else to Burn's operations. `UNCLIP_KERNELS=off` in the environment turns the kernels off, to
//! compare.
//!
//! Results do not depend on the number of threads: work is divided into parts that are computed
//! whole, and sums over parts are taken in a fixed order. Training relies on it to resume exactly.

// The ways back stand beside the ways there, and only training takes them.
#![cfg_attr(not(feature = "train"), allow(dead_code))]

#[cfg(feature = "flex")]
mod activation;
#[cfg(feature = "flex")]
mod attention;
#[cfg(feature = "flex")]
mod bf16;
#[cfg(feature = "flex")]
mod conv;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
#[cfg(all(feature = "flex", feature = "train"))]
mod gradients;
#[cfg(feature = "flex")]
mod linear;
#[cfg(feature = "flex")]
mod matrix;
#[cfg(feature = "flex")]
mod norm;
mod precision;
#[cfg(feature = "flex")]
mod resample;
#[cfg(feature = "flex")]
mod scratch;
#[cfg(any(feature = "flex", feature = "cube"))]
mod shape;
#[cfg(feature = "flex")]
mod simd;
#[cfg(feature = "flex")]
mod softmax;
#[cfg(feature = "train")]
pub(crate) mod step;
#[cfg(feature = "flex")]
mod tiles;
#[cfg(all(feature = "train", any(feature = "flex", feature = "cube")))]
mod tracked;

#[cfg(all(feature = "flex", feature = "train"))]
pub(crate) use flex::is_flex;
pub use precision::{Precision, set_precision};

use std::f64::consts::FRAC_1_SQRT_2;
#[cfg(any(feature = "flex", feature = "cube"))]
use std::sync::OnceLock;

#[cfg(any(feature = "flex", feature = "cube"))]
use burn::tensor::DType;
use burn::{
    nn::GroupNorm,
    tensor::{
        Bool, Tensor, module,
        ops::{AvgPoolOptions, ConvOptions, InterpolateMode, InterpolateOptions},
    },
};
#[cfg(any(feature = "flex", feature = "cube"))]
use shape::{AttentionShape, ConvShape, Gelu, LinearShape, NormShape, Resample};

/// Where kernels are.
#[cfg(any(feature = "flex", feature = "cube"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    #[cfg(feature = "flex")]
    Flex,
    #[cfg(feature = "cube")]
    Cube,
}

/// Whether kernels are wanted.
#[cfg(any(feature = "flex", feature = "cube"))]
fn are_on() -> bool {
    static ARE_ON: OnceLock<bool> = OnceLock::new();
    *ARE_ON.get_or_init(|| std::env::var_os("UNCLIP_KERNELS").is_none_or(|v| v != "off"))
}

/// The kernels for a tensor, and for what it is combined with, if there are any.
#[cfg(any(feature = "flex", feature = "cube"))]
fn room<const D: usize>(x: &Tensor<D>, others: &[DType]) -> Option<Room> {
    let is_f32 = x.dtype() == DType::F32 && others.iter().all(|dtype| *dtype == DType::F32);
    if !is_f32 || x.shape().num_elements() == 0 || !are_on() {
        return None;
    }
    let device = x.device();
    #[cfg(feature = "flex")]
    if flex::is_flex(&device) {
        return Some(Room::Flex);
    }
    #[cfg(feature = "cube")]
    if cube::is_cube(&device) {
        return Some(Room::Cube);
    }
    let _ = device;
    None
}

/// A two-dimensional convolution.
///
/// # Shapes
/// - `x`: `[b, in, h, w]`; `weight`: `[out, in / groups, kernel_h, kernel_w]`; `bias`: `[out]`
/// - output: `[b, out, h', w']`
///
/// # Panics
/// If the shapes do not fit.
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions<2>,
) -> Tensor<4> {
    #[cfg(any(feature = "flex", feature = "cube"))]
    {
        let mut types = vec![weight.dtype()];
        types.extend(bias.iter().map(Tensor::dtype));
        if let Some(shape) = ConvShape::of(x.dims(), weight.dims(), &options) {
            match room(&x, &types) {
                #[cfg(feature = "flex")]
                Some(Room::Flex) => {
                    // Extensions take no optional tensors; zeros cost nothing beside a convolution.
                    let zeros = || Tensor::zeros([weight.dims()[0]], &x.device());
                    let bias = bias.unwrap_or_else(zeros);
                    return flex::conv2d(x, weight, bias, shape);
                }
                #[cfg(feature = "cube")]
                Some(Room::Cube) if shape.fits_cubes(&x.device()) => {
                    return cube::conv2d(x, weight, bias, shape);
                }
                _ => {}
            }
        }
    }
    module::conv2d(x, weight, bias, options)
}

/// A linear layer.
///
/// # Shapes
/// - `x`: `[.., in]`; `weight`: `[in, out]`; `bias`: `[out]`
/// - output: `[.., out]`
///
/// # Panics
/// If the shapes do not fit.
pub fn linear<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
) -> Tensor<D> {
    #[cfg(any(feature = "flex", feature = "cube"))]
    {
        let mut types = vec![weight.dtype()];
        types.extend(bias.iter().map(Tensor::dtype));
        let ([inputs, outputs], mut dims) = (weight.dims(), x.dims());
        let fits = dims[D - 1] == inputs
            && inputs * outputs > 0
            && bias.as_ref().is_none_or(|bias| bias.dims() == [outputs]);
        if fits && let Some(room) = room(&x, &types) {
            let shape = LinearShape {
                rows: dims[..D - 1].iter().product(),
                inputs,
                outputs,
            };
            dims[D - 1] = outputs;
            let x: Tensor<2> = x.reshape([shape.rows, inputs]);
            let out = match room {
                #[cfg(feature = "flex")]
                Room::Flex => {
                    let bias = bias.unwrap_or_else(|| Tensor::zeros([outputs], &x.device()));
                    flex::linear(x, weight, bias, shape)
                }
                #[cfg(feature = "cube")]
                Room::Cube => cube::linear(x, weight, bias, shape),
            };
            return out.reshape(dims);
        }
    }
    module::linear(x, weight, bias)
}

/// `layer`; then, where given, scale and shift of each sample's channels; then SiLU if `silu`.
///
/// # Shapes
/// - `x`: `[b, c, h, w]`, also the output
/// - `scale_shift`: `[b, 2c]`, first s, then t; the result is normed · (1 + s) + t
///
/// # Panics
/// If the shapes do not fit.
pub fn group_norm(
    layer: &GroupNorm,
    x: Tensor<4>,
    scale_shift: Option<Tensor<2>>,
    silu: bool,
) -> Tensor<4> {
    let [batch, channels, ..] = x.dims();
    #[cfg(any(feature = "flex", feature = "cube"))]
    {
        let affine = [&layer.gamma, &layer.beta].into_iter().flatten();
        let mut types: Vec<_> = affine.map(|p| p.val().dtype()).collect();
        types.extend(scale_shift.iter().map(Tensor::dtype));
        if channels == layer.num_channels
            && let Some(room) = room(&x, &types)
        {
            let (device, [.., height, width]) = (x.device(), x.dims());
            let shape = NormShape {
                batch,
                channels,
                pixels: height * width,
                groups: layer.num_groups,
                epsilon: layer.epsilon as f32,
                silu,
                #[cfg(feature = "cube")]
                is_timed: scale_shift.is_some(),
            };
            let value = |param: &Option<burn::module::Param<Tensor<1>>>, default: f32| match param {
                Some(param) => param.val(),
                None => Tensor::full([channels], default, &device),
            };
            let affine = [value(&layer.gamma, 1.0), value(&layer.beta, 0.0)];
            match room {
                #[cfg(feature = "flex")]
                Room::Flex => {
                    // Extensions take no optional tensors.
                    let zeros = || Tensor::zeros([batch, 2 * channels], &device);
                    let scale_shift = scale_shift.unwrap_or_else(zeros);
                    return flex::group_norm(x, affine, scale_shift, shape);
                }
                #[cfg(feature = "cube")]
                Room::Cube if shape.fits_cubes() => {
                    return cube::group_norm(x, affine, scale_shift, shape);
                }
                #[allow(unreachable_patterns)]
                _ => {}
            }
        }
    }
    let mut y = layer.forward(x);
    if let Some(scale_shift) = scale_shift {
        let scale_shift = scale_shift.reshape([batch, 2 * channels, 1, 1]);
        let scale = scale_shift.clone().narrow(1, 0, channels);
        y = y * (scale + 1.0) + scale_shift.narrow(1, channels, channels);
    }
    if silu {
        burn::tensor::activation::silu(y)
    } else {
        y
    }
}

/// The exact GELU, x · Φ(x), of every value.
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(any(feature = "flex", feature = "cube"))]
    match room(&x, &[]) {
        #[cfg(feature = "flex")]
        Some(Room::Flex) => return flex::gelu(x, Gelu::Exact),
        #[cfg(feature = "cube")]
        Some(Room::Cube) => return cube::gelu(x, Gelu::Exact),
        None => {}
    }
    // Burn's own backward pass is the tanh form's on every backend but Flex, which moves gradients by
    // 3e-4.
    if x.is_autodiff() {
        let share = (x.clone() * FRAC_1_SQRT_2).erf() * 0.5 + 0.5;
        return x * share;
    }
    burn::tensor::activation::gelu(x)
}

/// x · sigmoid(1.702 x) of every value.
pub fn quick_gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(any(feature = "flex", feature = "cube"))]
    match room(&x, &[]) {
        #[cfg(feature = "flex")]
        Some(Room::Flex) => return flex::gelu(x, Gelu::Quick),
        #[cfg(feature = "cube")]
        Some(Room::Cube) => return cube::gelu(x, Gelu::Quick),
        None => {}
    }
    x.clone() * burn::tensor::activation::sigmoid(x * 1.702)
}

/// A picture of half the size: of each 2 × 2 pixels the mean.
///
/// # Shapes
/// `[b, c, h, w]` → `[b, c, h / 2, w / 2]`
pub fn halve(x: Tensor<4>) -> Tensor<4> {
    #[cfg(any(feature = "flex", feature = "cube"))]
    if let [.., height, width] = x.dims()
        && height % 2 == 0
        && width % 2 == 0
        && let Some(room) = room(&x, &[])
        && let Some(found) = resampled(&x, room, Resample::Halve)
    {
        return found;
    }
    module::avg_pool2d(x, AvgPoolOptions::new([2, 2]))
}

/// A picture of twice the size: each pixel four times.
///
/// # Shapes
/// `[b, c, h, w]` → `[b, c, 2h, 2w]`
pub fn double(x: Tensor<4>) -> Tensor<4> {
    #[cfg(any(feature = "flex", feature = "cube"))]
    if let Some(room) = room(&x, &[])
        && let Some(found) = resampled(&x, room, Resample::Double)
    {
        return found;
    }
    let options = InterpolateOptions::new(InterpolateMode::Nearest)
        .with_align_corners(false)
        .with_scale_factor([2.0, 2.0]);
    module::interpolate(x, options)
}

/// A picture of another size, where the kernels do it.
#[cfg(any(feature = "flex", feature = "cube"))]
fn resampled(x: &Tensor<4>, room: Room, way: Resample) -> Option<Tensor<4>> {
    match room {
        #[cfg(feature = "flex")]
        Room::Flex => Some(flex::resample(x.clone(), way)),
        #[cfg(feature = "cube")]
        Room::Cube => cube::fits_resample(x.dims()).then(|| cube::resample(x.clone(), way)),
    }
}

/// Attention as [`attend`](crate::nn::attend) has it, where the kernels do it.
pub(crate) fn attention(
    query: &Tensor<3>,
    key: &Tensor<3>,
    value: &Tensor<3>,
    heads: usize,
    mask: Option<&Tensor<4, Bool>>,
    is_causal: bool,
) -> Option<Tensor<3>> {
    #[cfg(any(feature = "flex", feature = "cube"))]
    {
        let [batch, queries, width] = query.dims();
        let keys = key.dims()[1];
        let mask_rows = mask.map_or(0, |mask| mask.dims()[2]);
        let shape = AttentionShape {
            batch,
            heads,
            width: width / heads,
            queries,
            keys,
            mask_rows,
            is_causal,
        };
        let is_whole = [key.dims(), value.dims()] == [[batch, keys, width]; 2]
            && (!is_causal || queries == keys)
            && mask.is_none_or(|mask| mask.dims() == [batch, 1, mask_rows, keys])
            && [batch, queries, keys, width].iter().all(|n| *n > 0);
        if !is_whole {
            return None;
        }
        let room = room(query, &[key.dtype(), value.dtype()])?;
        // Extensions take no optional tensors; without a mask this one is not read.
        let mask = match mask {
            Some(mask) => mask.clone().float(),
            None => Tensor::empty([1, 1, 1, 1], &query.device()),
        };
        match room {
            #[cfg(feature = "flex")]
            Room::Flex => Some(flex::attention([query, key, value], mask, shape)),
            #[cfg(feature = "cube")]
            Room::Cube => shape
                .fits_cubes()
                .then(|| cube::attention([query, key, value], mask, shape)),
        }
    }
    #[cfg(not(any(feature = "flex", feature = "cube")))]
    {
        let _ = (query, key, value, heads, mask, is_causal);
        None
    }
}
