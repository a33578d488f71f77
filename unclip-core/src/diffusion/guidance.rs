//! Classifier-free guidance (arXiv 2207.12598), in one batch or in two calls.

use burn::tensor::Tensor;

/// The conditions a network is run under at every step.
///
/// Batched guidance reads each weight once for both branches and halves the calls; separate
/// guidance needs half the activations.
#[derive(Debug)]
pub enum Conditions<C> {
    /// No guidance.
    Plain(C),
    /// Unconditional rows first, then the conditional ones, as diffusers orders them.
    Batched(C),
    /// One call for each.
    Separate {
        /// Conditions of an empty or negative prompt.
        unconditional: C,
        /// Conditions of the prompt.
        conditional: C,
    },
}

/// A network's answers.
#[derive(Debug)]
pub struct Branches<const D: usize> {
    /// Under the prompt.
    pub conditional: Tensor<D>,
    /// Under the empty or negative prompt.
    pub unconditional: Option<Tensor<D>>,
}

impl<C> Conditions<C> {
    /// Runs `forward` on `x` under each of the conditions.
    pub fn predict<const D: usize>(
        &self,
        x: Tensor<D>,
        forward: impl Fn(Tensor<D>, &C) -> Tensor<D>,
    ) -> Branches<D> {
        match self {
            Self::Plain(c) => Branches {
                conditional: forward(x, c),
                unconditional: None,
            },
            Self::Batched(c) => {
                let rows = x.dims()[0];
                let both = forward(Tensor::cat(vec![x.clone(), x], 0), c);
                Branches {
                    unconditional: Some(both.clone().narrow(0, 0, rows)),
                    conditional: both.narrow(0, rows, rows),
                }
            }
            Self::Separate {
                unconditional,
                conditional,
            } => Branches {
                unconditional: Some(forward(x.clone(), unconditional)),
                conditional: forward(x, conditional),
            },
        }
    }
}

impl<const D: usize> Branches<D> {
    /// u + scale · (c − u); the conditional answer where there is no other.
    pub fn guide(self, scale: f64) -> Tensor<D> {
        match self.unconditional {
            None => self.conditional,
            Some(u) => u.clone() + (self.conditional - u) * scale,
        }
    }
}
