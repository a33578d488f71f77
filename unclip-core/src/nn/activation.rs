//! The non-linearities of the transformers and time embeddings.

use burn::tensor::{Tensor, activation::silu};
use serde::{Deserialize, Serialize};

use crate::kernels::{gelu, quick_gelu};

/// A non-linearity, applied to every value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// The exact GELU, by the error function. The tanh form would move a prior by 3e-4.
    Gelu,
    /// x · sigmoid(1.702 x), as OpenAI's CLIP was trained. GELU in its place shifts every output.
    QuickGelu,
    /// x · sigmoid(x).
    Silu,
}

impl Activation {
    /// The activation that transformers and diffusers call `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "quick_gelu" => Some(Self::QuickGelu),
            "silu" | "swish" => Some(Self::Silu),
            _ => None,
        }
    }

    /// What transformers and diffusers call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::QuickGelu => "quick_gelu",
            Self::Silu => "silu",
        }
    }

    /// Applies it.
    pub fn apply<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::QuickGelu => quick_gelu(x),
            Self::Silu => silu(x),
        }
    }
}
