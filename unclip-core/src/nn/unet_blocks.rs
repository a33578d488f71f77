//! The levels of the ADM U-Net.

use burn::{
    module::Module,
    tensor::{Bool, Tensor},
};

use super::{ContextAttention, ResidualBlock};

/// What every level is given besides the picture.
pub(super) struct Conditions {
    /// Time embedding after SiLU, `[b, time]`.
    pub(super) time: Tensor<2>,
    /// Context tokens `[b, n, context]` with their mask `[b, n]`, true = keep.
    pub(super) context: Option<(Tensor<3>, Option<Tensor<2, Bool>>)>,
}

impl Conditions {
    fn attend(&self, layer: Option<&ContextAttention>, x: Tensor<4>) -> Tensor<4> {
        match (layer, &self.context) {
            (None, _) => x,
            (Some(layer), Some((context, mask))) => layer.forward(x, context.clone(), mask.clone()),
            (Some(_), None) => panic!("a U-Net that attends needs context tokens"),
        }
    }
}

/// A level on the way down: residual blocks, each followed by attention if the level has it,
/// then a halving block if it is not the smallest level.
#[derive(Module, Debug)]
pub struct DownBlock {
    pub(super) resnets: Vec<ResidualBlock>,
    pub(super) attentions: Vec<ContextAttention>,
    pub(super) downsamplers: Vec<ResidualBlock>,
}

impl DownBlock {
    /// Pushes every intermediate picture to `skips`.
    pub(super) fn forward(
        &self,
        mut x: Tensor<4>,
        conditions: &Conditions,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, block) in self.resnets.iter().enumerate() {
            x = block.forward(x, conditions.time.clone());
            x = conditions.attend(self.attentions.get(i), x);
            skips.push(x.clone());
        }
        for block in &self.downsamplers {
            x = block.forward(x, conditions.time.clone());
            skips.push(x.clone());
        }
        x
    }
}

/// The middle: a residual block, attention if it has it, a residual block.
#[derive(Module, Debug)]
pub struct MidBlock {
    pub(super) resnets: Vec<ResidualBlock>,
    pub(super) attentions: Vec<ContextAttention>,
}

impl MidBlock {
    pub(super) fn forward(&self, mut x: Tensor<4>, conditions: &Conditions) -> Tensor<4> {
        for (i, block) in self.resnets.iter().enumerate() {
            x = block.forward(x, conditions.time.clone());
            x = conditions.attend(self.attentions.get(i), x);
        }
        x
    }
}

/// A level on the way up: each residual block takes a skip connection, then a doubling block if
/// it is not the full-size level.
#[derive(Module, Debug)]
pub struct UpBlock {
    pub(super) resnets: Vec<ResidualBlock>,
    pub(super) attentions: Vec<ContextAttention>,
    pub(super) upsamplers: Vec<ResidualBlock>,
}

impl UpBlock {
    /// Takes its skip connections off the end of `skips`.
    ///
    /// # Panics
    /// If there are fewer than it has residual blocks.
    pub(super) fn forward(
        &self,
        mut x: Tensor<4>,
        conditions: &Conditions,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, block) in self.resnets.iter().enumerate() {
            let Some(skip) = skips.pop() else {
                panic!("the way down of this U-Net gave too few skip connections");
            };
            x = block.forward(Tensor::cat(vec![x, skip], 1), conditions.time.clone());
            x = conditions.attend(self.attentions.get(i), x);
        }
        for block in &self.upsamplers {
            x = block.forward(x, conditions.time.clone());
        }
        x
    }
}
