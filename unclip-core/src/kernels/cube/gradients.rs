//! The operations with gradients.

use burn::backend::{
    Autodiff,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops},
    },
    tensor::FloatTensor,
};

use super::{CubeGradients, CubeKernels};
use crate::kernels::{
    shape::{AttentionShape, ConvShape, Gelu, LinearShape, NormShape, Resample},
    tracked::tracked,
};

/// Parents: input, weight and bias.
#[derive(Debug)]
struct ConvBackward;

impl<B: CubeGradients> Backward<B, 3> for ConvBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, ConvShape);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight, shape) = ops.state;
        let parent = |i: usize| ops.parents[i].as_ref();
        if let Some(node) = parent(0) {
            let found = B::conv2d_input_gradient(gradient.clone(), weight, shape);
            grads.register::<B>(node.id, found);
        }
        if let Some(node) = parent(1) {
            let found = B::conv2d_weight_gradient(x, gradient.clone(), shape);
            grads.register::<B>(node.id, found);
        }
        if let Some(node) = parent(2) {
            grads.register::<B>(node.id, B::conv2d_bias_gradient(gradient, shape));
        }
    }
}

/// Parents: input, weight and bias.
#[derive(Debug)]
struct LinearBackward;

impl<B: CubeGradients> Backward<B, 3> for LinearBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, LinearShape);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight, shape) = ops.state;
        let parent = |i: usize| ops.parents[i].as_ref();
        if let Some(node) = parent(0) {
            let found = B::linear_input_gradient(gradient.clone(), weight, shape);
            grads.register::<B>(node.id, found);
        }
        if let Some(node) = parent(1) {
            let found = B::linear_weight_gradient(x, gradient.clone(), shape);
            grads.register::<B>(node.id, found);
        }
        if let Some(node) = parent(2) {
            grads.register::<B>(node.id, B::linear_bias_gradient(gradient, shape));
        }
    }
}

/// Parents: input, gamma, beta, and scale with shift.
#[derive(Debug)]
struct NormBackward;

/// What the gradient of a group norm needs.
#[derive(Clone, Debug)]
struct NormState<T> {
    x: T,
    moments: T,
    gamma: T,
    beta: T,
    scale_shift: T,
    shape: NormShape,
}

impl<B: CubeGradients> Backward<B, 4> for NormBackward {
    type State = NormState<FloatTensor<B>>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let NormState {
            x,
            moments,
            gamma,
            beta,
            scale_shift,
            shape,
        } = ops.state;
        let parent = |i: usize| ops.parents[i].as_ref();
        let sums = B::norm_sums(
            x.clone(),
            gradient.clone(),
            moments.clone(),
            gamma.clone(),
            beta.clone(),
            scale_shift.clone(),
            shape,
        );
        if parent(1).is_some() || parent(2).is_some() {
            let (of_gamma, of_beta) = B::norm_affine_gradient(
                sums.clone(),
                gamma.clone(),
                beta.clone(),
                scale_shift.clone(),
                shape,
            );
            for (index, found) in [(1, of_gamma), (2, of_beta)] {
                if let Some(node) = parent(index) {
                    grads.register::<B>(node.id, found);
                }
            }
        }
        if let Some(node) = parent(3) {
            let found = B::norm_time_gradient(sums.clone(), gamma.clone(), beta.clone(), shape);
            grads.register::<B>(node.id, found);
        }
        if let Some(node) = parent(0) {
            let found =
                B::norm_input_gradient(x, gradient, moments, gamma, beta, scale_shift, sums, shape);
            grads.register::<B>(node.id, found);
        }
    }
}

/// Parents: query, key, value, and the mask, which needs no gradient.
#[derive(Debug)]
struct AttentionBackward;

impl<B: CubeGradients> Backward<B, 4> for AttentionBackward {
    /// Query, key, value, mask and the shares.
    type State = ([FloatTensor<B>; 5], AttentionShape);

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let ([query, key, value, mask, shares], shape) = ops.state;
        let parent = |i: usize| ops.parents[i].as_ref();
        if let Some(node) = parent(2) {
            let found = B::attention_sums(shares.clone(), gradient.clone(), false, shape);
            grads.register::<B>(node.id, found);
        }
        if parent(0).is_none() && parent(1).is_none() {
            return;
        }
        let scores = B::attention_score_gradient(shares, value, mask, gradient, shape);
        if let Some(node) = parent(0) {
            let found = B::attention_sums(scores.clone(), key, true, shape);
            grads.register::<B>(node.id, found);
        }
        if let Some(node) = parent(1) {
            let found = B::attention_sums(scores, query, false, shape);
            grads.register::<B>(node.id, found);
        }
    }
}

#[derive(Debug)]
struct GeluBackward;

impl<B: CubeGradients> Backward<B, 1> for GeluBackward {
    /// The input.
    type State = (FloatTensor<B>, Gelu);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, gelu) = ops.state;
        if let Some(node) = ops.parents[0].as_ref() {
            grads.register::<B>(node.id, B::gelu_gradient(x, gradient, gelu));
        }
    }
}

#[derive(Debug)]
struct ResampleBackward;

impl<B: CubeGradients> Backward<B, 1> for ResampleBackward {
    /// The input's sizes.
    type State = (Resample, [usize; 4]);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let (way, dims) = ops.state;
        if let Some(node) = ops.parents[0].as_ref() {
            grads.register::<B>(node.id, B::resample_gradient(gradient, way, dims));
        }
    }
}

impl<B: CubeKernels + CubeGradients, C: CheckpointStrategy> CubeKernels for Autodiff<B, C> {
    fn cube_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self> {
        let [q, k, v, m] = [&query, &key, &value, &mask].map(|t| t.primitive().clone());
        let shares = B::attention_shares(q.clone(), k.clone(), m.clone(), shape);
        let out = B::attention_sums(shares.clone(), v.clone(), true, shape);
        let nodes = [query.node(), key.node(), value.node(), mask.node()];
        let state = ([q, k, v, m, shares], shape);
        tracked::<B, _, C, 4>(AttentionBackward, nodes, state, out)
    }

    fn cube_gelu(x: FloatTensor<Self>, gelu: Gelu) -> FloatTensor<Self> {
        let input = x.primitive().clone();
        let out = B::cube_gelu(input.clone(), gelu);
        tracked::<B, _, C, 1>(GeluBackward, [x.node()], (input, gelu), out)
    }

    fn cube_resample(x: FloatTensor<Self>, way: Resample, dims: [usize; 4]) -> FloatTensor<Self> {
        let out = B::cube_resample(x.primitive().clone(), way, dims);
        tracked::<B, _, C, 1>(ResampleBackward, [x.node()], (way, dims), out)
    }

    fn cube_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        has_bias: bool,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        let [input, kernel, added] = [&x, &weight, &bias].map(|t| t.primitive().clone());
        let out = B::cube_conv2d(input.clone(), kernel.clone(), added, has_bias, shape);
        let nodes = [x.node(), weight.node(), bias.node()];
        tracked::<B, _, C, 3>(ConvBackward, nodes, (input, kernel, shape), out)
    }

    fn cube_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        has_bias: bool,
        shape: LinearShape,
    ) -> FloatTensor<Self> {
        let [input, factor, added] = [&x, &weight, &bias].map(|t| t.primitive().clone());
        let out = B::cube_linear(input.clone(), factor.clone(), added, has_bias, shape);
        let nodes = [x.node(), weight.node(), bias.node()];
        tracked::<B, _, C, 3>(LinearBackward, nodes, (input, factor, shape), out)
    }

    fn cube_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self> {
        let given = [&x, &gamma, &beta, &scale_shift].map(|t| t.primitive().clone());
        let [input, factor, addend, time] = given;
        let moments = B::norm_moments(input.clone(), shape);
        let out = B::norm_forward(
            input.clone(),
            moments.clone(),
            factor.clone(),
            addend.clone(),
            time.clone(),
            shape,
        );
        let state = NormState {
            x: input,
            moments,
            gamma: factor,
            beta: addend,
            scale_shift: time,
            shape,
        };
        let nodes = [x.node(), gamma.node(), beta.node(), scale_shift.node()];
        tracked::<B, _, C, 4>(NormBackward, nodes, state, out)
    }
}
