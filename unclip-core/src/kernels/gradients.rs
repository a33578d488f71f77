//! The kernels' gradients.

use std::sync::Arc;

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops},
    },
    tensor::FloatTensor,
};
use burn::tensor::TensorData;
use burn_flex::FlexTensor;

use super::{
    activation,
    attention::{self, Given},
    conv,
    flex::{Kernels, contiguous, group_norm_forward, picture_dims, tensor, values},
    linear,
    norm::{self, Affine, Moments},
    shape::{AttentionShape, ConvShape, Gelu, LinearShape, NormShape, Resample},
    tracked::tracked,
};

/// Parents: input, weight and bias.
#[derive(Debug)]
struct ConvBackward;

impl Backward<Flex, 3> for ConvBackward {
    type State = (FlexTensor, FlexTensor, ConvShape);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, weight, shape) = ops.state;
        let parent = |i: usize| ops.parents[i].as_ref();
        if let Some(node) = parent(0) {
            let weight = contiguous(weight);
            let out = conv::input_gradient(values(&gradient), values(&weight), &shape);
            grads.register::<Flex>(node.id, tensor(out, shape.dims_in()));
        }
        if parent(1).is_some() || parent(2).is_some() {
            let x = contiguous(x);
            let (out, bias) = conv::weight_gradient(values(&x), values(&gradient), &shape);
            if let Some(node) = parent(1) {
                grads.register::<Flex>(node.id, tensor(out, shape.dims_weight()));
            }
            if let Some(node) = parent(2) {
                let channels = bias.len();
                grads.register::<Flex>(node.id, tensor(bias, [channels]));
            }
        }
    }
}

/// Parents: input, gamma, beta, and scale with shift.
#[derive(Debug)]
struct NormBackward;

/// What the gradient of a group norm needs.
#[derive(Clone, Debug)]
struct NormState {
    x: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    scale_shift: FlexTensor,
    moments: Arc<Vec<Moments>>,
    shape: NormShape,
}

impl Backward<Flex, 4> for NormBackward {
    type State = NormState;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let (batch, channels) = (state.shape.batch, state.shape.channels);
        let dims = state.x.layout().shape().clone();
        let (x, gamma, beta) = (
            contiguous(state.x),
            contiguous(state.gamma),
            contiguous(state.beta),
        );
        let scale_shift = contiguous(state.scale_shift);
        let affine = Affine {
            gamma: values(&gamma),
            beta: values(&beta),
            scale_shift: values(&scale_shift),
        };
        let found = norm::backward(
            values(&x),
            values(&gradient),
            affine,
            &state.moments,
            &state.shape,
        );
        let mut register = |i: usize, found: FlexTensor| {
            if let Some(node) = ops.parents[i].as_ref() {
                grads.register::<Flex>(node.id, found);
            }
        };
        let x = TensorData::new(found.x, dims);
        register(0, FlexTensor::from_data(x));
        register(1, tensor(found.gamma, [channels]));
        register(2, tensor(found.beta, [channels]));
        register(3, tensor(found.scale_shift, [batch, 2 * channels]));
    }
}

/// Parents: input, weight and bias.
#[derive(Debug)]
struct LinearBackward;

impl Backward<Flex, 3> for LinearBackward {
    type State = (FlexTensor, FlexTensor, LinearShape);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, weight, shape) = ops.state;
        let [x, weight] = [x, weight].map(contiguous);
        let found = linear::backward(values(&x), values(&weight), values(&gradient), &shape);
        let mut register = |i: usize, found: FlexTensor| {
            if let Some(node) = ops.parents[i].as_ref() {
                grads.register::<Flex>(node.id, found);
            }
        };
        register(0, tensor(found.x, [shape.rows, shape.inputs]));
        register(1, tensor(found.weight, [shape.inputs, shape.outputs]));
        register(2, tensor(found.bias, [shape.outputs]));
    }
}

/// Parents: query, key, value, and the mask, which needs no gradient.
#[derive(Debug)]
struct AttentionBackward;

impl Backward<Flex, 4> for AttentionBackward {
    type State = ([FlexTensor; 4], AttentionShape);

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let (given, shape) = ops.state;
        let dims = [&given[0], &given[1], &given[2]].map(|t| t.layout().shape().clone());
        let [query, key, value, mask] = given.map(contiguous);
        let given = Given {
            query: values(&query),
            key: values(&key),
            value: values(&value),
            mask: values(&mask),
        };
        let found = attention::backward(given, values(&gradient), &shape);
        let found = [found.query, found.key, found.value];
        for ((parent, found), dims) in ops.parents.iter().zip(found).zip(dims) {
            if let Some(node) = parent {
                let found = FlexTensor::from_data(TensorData::new(found, dims));
                grads.register::<Flex>(node.id, found);
            }
        }
    }
}

#[derive(Debug)]
struct GeluBackward;

impl Backward<Flex, 1> for GeluBackward {
    /// The input.
    type State = (FlexTensor, Gelu);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let (x, gelu) = ops.state;
        let dims = x.layout().shape().clone();
        let x = contiguous(x);
        if let Some(node) = ops.parents[0].as_ref() {
            let found = activation::backward(values(&x), values(&gradient), gelu);
            let found = FlexTensor::from_data(TensorData::new(found, dims));
            grads.register::<Flex>(node.id, found);
        }
    }
}

#[derive(Debug)]
struct ResampleBackward;

impl Backward<Flex, 1> for ResampleBackward {
    /// The input's sizes.
    type State = ([usize; 4], Resample);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let (dims, way) = ops.state;
        let [batch, channels, size @ ..] = dims;
        if let Some(node) = ops.parents[0].as_ref() {
            let found = way.backward(values(&gradient), batch * channels, size);
            grads.register::<Flex>(node.id, tensor(found, dims));
        }
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn kernel_gelu(x: FloatTensor<Self>, gelu: Gelu) -> FloatTensor<Self> {
        let input = x.primitive().clone();
        let out = Flex::kernel_gelu(input.clone(), gelu);
        tracked::<Flex, GeluBackward, C, 1>(GeluBackward, [x.node()], (input, gelu), out)
    }

    fn kernel_resample(x: FloatTensor<Self>, way: Resample) -> FloatTensor<Self> {
        let dims = picture_dims(x.primitive());
        let out = Flex::kernel_resample(x.primitive().clone(), way);
        tracked::<Flex, ResampleBackward, C, 1>(ResampleBackward, [x.node()], (dims, way), out)
    }

    fn kernel_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: LinearShape,
    ) -> FloatTensor<Self> {
        let [input, factor, added] = [&x, &weight, &bias].map(|t| t.primitive().clone());
        let out = Flex::kernel_linear(input.clone(), factor.clone(), added, shape);
        let nodes = [x.node(), weight.node(), bias.node()];
        tracked::<Flex, LinearBackward, C, 3>(LinearBackward, nodes, (input, factor, shape), out)
    }

    fn kernel_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        shape: AttentionShape,
    ) -> FloatTensor<Self> {
        let given = [&query, &key, &value, &mask].map(|t| t.primitive().clone());
        let [q, k, v, m] = given.clone();
        let out = Flex::kernel_attention(q, k, v, m, shape);
        let nodes = [query.node(), key.node(), value.node(), mask.node()];
        tracked::<Flex, AttentionBackward, C, 4>(AttentionBackward, nodes, (given, shape), out)
    }

    fn kernel_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        shape: ConvShape,
    ) -> FloatTensor<Self> {
        let [input, kernel, added] = [&x, &weight, &bias].map(|t| t.primitive().clone());
        let out = Flex::kernel_conv2d(input.clone(), kernel.clone(), added, shape);
        let nodes = [x.node(), weight.node(), bias.node()];
        tracked::<Flex, ConvBackward, C, 3>(ConvBackward, nodes, (input, kernel, shape), out)
    }

    fn kernel_group_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        scale_shift: FloatTensor<Self>,
        shape: NormShape,
    ) -> FloatTensor<Self> {
        let given = [&x, &gamma, &beta, &scale_shift].map(|t| t.primitive().clone());
        let [input, factor, addend, time] = given;
        let (out, moments) = group_norm_forward(
            input.clone(),
            factor.clone(),
            addend.clone(),
            time.clone(),
            shape,
        );
        let state = NormState {
            x: input,
            gamma: factor,
            beta: addend,
            scale_shift: time,
            moments: Arc::new(moments),
            shape,
        };
        let nodes = [x.node(), gamma.node(), beta.node(), scale_shift.node()];
        tracked::<Flex, NormBackward, C, 4>(NormBackward, nodes, state, out)
    }
}
