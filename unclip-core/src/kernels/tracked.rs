//! Results of operations with a way back of their own.

use burn::backend::{
    Autodiff, Backend,
    autodiff::{
        checkpoint::strategy::CheckpointStrategy,
        ops::{Backward, NodeGuard, OpsKind},
    },
    tensor::FloatTensor,
};

/// Puts an operation's result into the graph, with its state if anything is tracked.
pub(super) fn tracked<B: Backend, O: Backward<B, N>, C: CheckpointStrategy, const N: usize>(
    operation: O,
    nodes: [NodeGuard; N],
    state: O::State,
    out: FloatTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    match operation.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(ops) => ops.finish(state, out),
        OpsKind::UnTracked(ops) => ops.finish(out),
    }
}
