//! The operations as the backend for GPUs has them.

use burn::backend::ops::FloatTensorOps;
use burn_cubecl::{
    CubeBackend,
    kernel::into_contiguous,
    ops::{numeric, reshape},
    tensor::CubeTensor,
};

use super::{
    CubeKernels, activation, attention, norm, norm::Affine, patches::patches, product::product,
    resample,
};
use crate::kernels::shape::{AttentionShape, ConvShape, Gelu, LinearShape, NormShape, Resample};

/// Most values of what is only made to be summed up: patches, and parts of a weight's gradient.
const VALUES: usize = 1 << 28;

impl ConvShape {
    /// Whether a picture is its matrix of patches.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    /// Rows of the matrix of patches.
    pub(super) fn rows(&self) -> usize {
        self.channels_in * self.taps()
    }

    /// The first and the number of samples that are computed at once: what `each` of them needs room for,
    /// in values, beside its patches, stays within bounds.
    pub(super) fn runs(
        &self,
        beside: &CubeTensor,
        each: usize,
    ) -> impl Iterator<Item = (usize, usize)> + use<> {
        let page = beside.client.properties().memory.max_page_size / 4;
        let values = VALUES.min(page as usize);
        let patches = match self.is_pointwise() {
            true => 1,
            false => self.rows() * self.pixels_out(),
        };
        let each = (values / patches.max(each)).clamp(1, self.batch);
        let batch = self.batch;
        (0..batch)
            .step_by(each)
            .map(move |first| (first, each.min(batch - first)))
    }

    /// The matrices of patches of some samples, `[samples, rows, pixels]`.
    pub(super) fn columns(&self, x: &CubeTensor, first: usize, samples: usize) -> CubeTensor {
        match self.is_pointwise() {
            true => {
                let x = self::samples(x, first, samples);
                reshape(x, [samples, self.rows(), self.pixels_out()].into())
            }
            false => patches(x, self, first, samples),
        }
    }

    /// The weights as one matrix, `[1, out, rows]`.
    pub(super) fn matrix(&self, weight: CubeTensor) -> CubeTensor {
        let weight = into_contiguous(weight);
        reshape(weight, [1, self.channels_out, self.rows()].into())
    }
}

/// Some samples of a contiguous tensor.
pub(super) fn samples(x: &CubeTensor, first: usize, samples: usize) -> CubeTensor {
    if x.meta.shape()[0] == samples {
        return x.clone();
    }
    let range = burn::tensor::Slice::from(first..first + samples);
    into_contiguous(CubeBackend::float_slice(x.clone(), &[range]))
}

impl CubeKernels for CubeBackend {
    fn cube_conv2d(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        has_bias: bool,
        shape: ConvShape,
    ) -> CubeTensor {
        let x = into_contiguous(x);
        let weight = shape.matrix(weight);
        let mut parts: Vec<CubeTensor> = shape
            .runs(&x, 1)
            .map(|(first, samples)| product(weight.clone(), shape.columns(&x, first, samples)))
            .collect();
        let out = match parts.len() {
            1 => parts.swap_remove(0),
            _ => CubeBackend::float_cat(parts, 0),
        };
        let out = reshape(out, shape.dims_out().into());
        if !has_bias {
            return out;
        }
        let bias = reshape(into_contiguous(bias), [1, shape.channels_out, 1, 1].into());
        numeric::add(out, bias)
    }

    fn cube_linear(
        x: CubeTensor,
        weight: CubeTensor,
        bias: CubeTensor,
        has_bias: bool,
        shape: LinearShape,
    ) -> CubeTensor {
        let x = reshape(into_contiguous(x), [1, shape.rows, shape.inputs].into());
        let weight = reshape(weight, [1, shape.inputs, shape.outputs].into());
        let out = reshape(product(x, weight), [shape.rows, shape.outputs].into());
        if !has_bias {
            return out;
        }
        let bias = reshape(into_contiguous(bias), [1, shape.outputs].into());
        numeric::add(out, bias)
    }

    fn cube_group_norm(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        scale_shift: CubeTensor,
        shape: NormShape,
    ) -> CubeTensor {
        let x = into_contiguous(x);
        let moments = norm::moments(&x, &shape);
        norm::forward(&x, &moments, &affine(gamma, beta, scale_shift), &shape)
    }

    fn cube_attention(
        query: CubeTensor,
        key: CubeTensor,
        value: CubeTensor,
        mask: CubeTensor,
        shape: AttentionShape,
    ) -> CubeTensor {
        let shares = attention::shares(query, key, mask, &shape);
        attention::sums(shares, value, true, &shape)
    }

    fn cube_gelu(x: CubeTensor, gelu: Gelu) -> CubeTensor {
        activation::forward(&into_contiguous(x), gelu)
    }

    fn cube_resample(x: CubeTensor, way: Resample, _dims: [usize; 4]) -> CubeTensor {
        resample::forward(&into_contiguous(x), way)
    }
}

pub(super) fn affine(gamma: CubeTensor, beta: CubeTensor, scale_shift: CubeTensor) -> Affine {
    Affine {
        gamma: into_contiguous(gamma),
        beta: into_contiguous(beta),
        scale_shift: into_contiguous(scale_shift),
    }
}

#[cfg(feature = "train")]
mod gradients {
    use super::*;
    use crate::kernels::cube::{
        CubeGradients, norm_gradient,
        patches::sum_of_patches,
        product::{empty, transposed},
        sums::{channel_sums, column_sums},
    };

    /// Rows that a part of a linear layer's gradient has at least.
    const ROWS: usize = 32;
    /// Parts of it at most.
    const PARTS: usize = 128;

    impl CubeGradients for CubeBackend {
        fn conv2d_input_gradient(
            gradient: CubeTensor,
            weight: CubeTensor,
            shape: ConvShape,
        ) -> CubeTensor {
            let gradient = as_rows(gradient, &shape);
            let weight = transposed(shape.matrix(weight));
            if shape.is_pointwise() {
                return reshape(product(weight, gradient), shape.dims_in().into());
            }
            let x = empty(shape.dims_in().into(), &gradient);
            for (first, count) in shape.runs(&x, 1) {
                let columns = product(weight.clone(), samples(&gradient, first, count));
                sum_of_patches(columns, &x, &shape, first, count);
            }
            x
        }

        fn conv2d_weight_gradient(
            x: CubeTensor,
            gradient: CubeTensor,
            shape: ConvShape,
        ) -> CubeTensor {
            let (x, gradient) = (into_contiguous(x), as_rows(gradient, &shape));
            let size = shape.channels_out * shape.rows();
            let sums = shape.runs(&x, size).map(|(first, count)| {
                let columns = transposed(shape.columns(&x, first, count));
                let each = product(samples(&gradient, first, count), columns);
                column_sums(each, count, size)
            });
            let sum = sums.reduce(numeric::add);
            // There is at least one sample.
            reshape(sum.expect("a sum"), shape.dims_weight().into())
        }

        fn conv2d_bias_gradient(gradient: CubeTensor, shape: ConvShape) -> CubeTensor {
            let dims = [shape.batch, shape.channels_out, shape.pixels_out()];
            channel_sums(into_contiguous(gradient), dims)
        }

        fn linear_input_gradient(
            gradient: CubeTensor,
            weight: CubeTensor,
            shape: LinearShape,
        ) -> CubeTensor {
            let gradient = into_contiguous(gradient);
            let gradient = reshape(gradient, [1, shape.rows, shape.outputs].into());
            let weight = reshape(weight, [1, shape.inputs, shape.outputs].into());
            let found = product(gradient, transposed(weight));
            reshape(found, [shape.rows, shape.inputs].into())
        }

        fn linear_weight_gradient(
            x: CubeTensor,
            gradient: CubeTensor,
            shape: LinearShape,
        ) -> CubeTensor {
            let LinearShape {
                rows,
                inputs,
                outputs,
            } = shape;
            // One product would leave all but a few multiprocessors idle.
            let most = PARTS
                .min(rows / ROWS)
                .min(VALUES / (inputs * outputs))
                .max(1);
            let parts = (1..=most).rev().find(|n| rows % n == 0).unwrap_or(1);
            let each = rows / parts;
            let x = reshape(into_contiguous(x), [parts, each, inputs].into());
            let gradient = reshape(into_contiguous(gradient), [parts, each, outputs].into());
            let found = product(transposed(x), gradient);
            let sums = column_sums(found, parts, inputs * outputs);
            reshape(sums, [inputs, outputs].into())
        }

        fn linear_bias_gradient(gradient: CubeTensor, shape: LinearShape) -> CubeTensor {
            column_sums(into_contiguous(gradient), shape.rows, shape.outputs)
        }

        fn attention_shares(
            query: CubeTensor,
            key: CubeTensor,
            mask: CubeTensor,
            shape: AttentionShape,
        ) -> CubeTensor {
            attention::shares(query, key, mask, &shape)
        }

        fn attention_score_gradient(
            shares: CubeTensor,
            value: CubeTensor,
            mask: CubeTensor,
            gradient: CubeTensor,
            shape: AttentionShape,
        ) -> CubeTensor {
            attention::score_gradient(shares, value, mask, gradient, &shape)
        }

        fn attention_sums(
            weights: CubeTensor,
            rows: CubeTensor,
            of_keys: bool,
            shape: AttentionShape,
        ) -> CubeTensor {
            attention::sums(weights, rows, of_keys, &shape)
        }

        fn gelu_gradient(x: CubeTensor, gradient: CubeTensor, gelu: Gelu) -> CubeTensor {
            activation::backward(&into_contiguous(x), &into_contiguous(gradient), gelu)
        }

        fn resample_gradient(gradient: CubeTensor, way: Resample, _dims: [usize; 4]) -> CubeTensor {
            resample::backward(&into_contiguous(gradient), way)
        }

        fn norm_moments(x: CubeTensor, shape: NormShape) -> CubeTensor {
            norm::moments(&into_contiguous(x), &shape)
        }

        fn norm_forward(
            x: CubeTensor,
            moments: CubeTensor,
            gamma: CubeTensor,
            beta: CubeTensor,
            scale_shift: CubeTensor,
            shape: NormShape,
        ) -> CubeTensor {
            let affine = affine(gamma, beta, scale_shift);
            norm::forward(&into_contiguous(x), &moments, &affine, &shape)
        }

        fn norm_sums(
            x: CubeTensor,
            gradient: CubeTensor,
            moments: CubeTensor,
            gamma: CubeTensor,
            beta: CubeTensor,
            scale_shift: CubeTensor,
            shape: NormShape,
        ) -> CubeTensor {
            let [x, gradient] = [x, gradient].map(into_contiguous);
            let affine = affine(gamma, beta, scale_shift);
            norm_gradient::sums(&x, &gradient, &moments, &affine, &shape)
        }

        fn norm_input_gradient(
            x: CubeTensor,
            gradient: CubeTensor,
            moments: CubeTensor,
            gamma: CubeTensor,
            beta: CubeTensor,
            scale_shift: CubeTensor,
            sums: CubeTensor,
            shape: NormShape,
        ) -> CubeTensor {
            let [x, gradient] = [x, gradient].map(into_contiguous);
            let affine = affine(gamma, beta, scale_shift);
            norm_gradient::input_gradient(&x, &gradient, &moments, &affine, &sums, &shape)
        }

        fn norm_affine_gradient(
            sums: CubeTensor,
            _gamma: CubeTensor,
            _beta: CubeTensor,
            scale_shift: CubeTensor,
            shape: NormShape,
        ) -> (CubeTensor, CubeTensor) {
            norm_gradient::affine_gradient(&sums, &into_contiguous(scale_shift), &shape)
        }

        fn norm_time_gradient(
            sums: CubeTensor,
            gamma: CubeTensor,
            beta: CubeTensor,
            shape: NormShape,
        ) -> CubeTensor {
            let [gamma, beta] = [gamma, beta].map(into_contiguous);
            norm_gradient::time_gradient(&sums, &gamma, &beta, &shape)
        }
    }

    /// The gradient for a convolution's output as `[b, out, pixels]`.
    fn as_rows(gradient: CubeTensor, shape: &ConvShape) -> CubeTensor {
        let dims = [shape.batch, shape.channels_out, shape.pixels_out()];
        reshape(into_contiguous(gradient), dims.into())
    }
}
