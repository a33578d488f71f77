//! What is trained, and on what.

use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{Device, Tensor},
};

use crate::{
    error::{Error, Result},
    image::to_host,
    noise::Noise,
};

/// How one stage is trained.
///
/// All that is random happens in [`prepare`](Self::prepare), on the host; the loss is a function of
/// model and examples alone. So a batch can be computed in pieces, on several
/// devices, or again after a restart, and gives the same.
pub trait Recipe: Send + Sync {
    /// The network.
    type Model: Module;
    /// What the data hold.
    type Sample: Send + 'static;
    /// A sample with its timestep, noise and dropped conditions.
    type Example: Send + Sync;

    /// Runs frozen encoders on the samples of a step and draws what their loss needs.
    ///
    /// # Errors
    /// Whatever is wrong with a sample.
    fn prepare(
        &mut self,
        samples: Vec<Self::Sample>,
        noise: &mut Noise,
    ) -> Result<Vec<Self::Example>>;

    /// The loss of each example, `[n]`, on `device` (which tracks gradients).
    ///
    /// # Errors
    /// Examples that do not fit the model.
    fn loss(
        &self,
        model: &Self::Model,
        examples: &[&Self::Example],
        device: &Device,
    ) -> Result<Tensor<1>>;

    /// Gradients of the examples' summed loss times `scale`, computed in `pieces`.
    ///
    /// Recipes whose loss compares the examples of a batch with each other bring their own.
    ///
    /// # Errors
    /// What [`loss`](Self::loss) gives.
    fn backward(
        &self,
        model: &Self::Model,
        examples: &[&Self::Example],
        pieces: usize,
        scale: f64,
        device: &Device,
    ) -> Result<Pass> {
        let mut pass = Pass::default();
        for piece in examples.chunks(examples.len().div_ceil(pieces.max(1)).max(1)) {
            let losses = self.loss(model, piece, device)?;
            let values = to_host(losses.clone().inner(), "loss")?;
            if values.len() != piece.len() {
                let expected = format!("[{}], one for each example", piece.len());
                return Err(Error::shape("the losses", &[values.len()], expected));
            }
            pass.losses.extend(values);
            let gradients = (losses.sum() * scale).backward();
            let gradients = GradientsParams::from_grads(gradients, model);
            pass.gradients = accumulate(model, pass.gradients, gradients);
        }
        Ok(pass)
    }

    /// Whether the loss of an example depends on nothing but that example, so that devices can share
    /// a batch.
    fn is_separable(&self) -> bool {
        true
    }

    /// The model after a step, with parameters brought back into their range.
    fn constrained(&self, model: Self::Model) -> Self::Model {
        model
    }

    /// Told the losses of a step; for timestep samplers that learn from them.
    fn observe(&mut self, examples: &[Self::Example], losses: &[f32]) {
        let _ = (examples, losses);
    }

    /// What [`observe`](Self::observe) has learned, to be kept in checkpoints.
    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// [`Error::Setting`] if it is not that.
    fn restore(&mut self, state: &serde_json::Value) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

/// Gradients, and the loss of each example.
#[derive(Debug, Default)]
pub struct Pass {
    /// One for each parameter that is trained.
    pub gradients: GradientsParams,
    /// In the order of the examples.
    pub losses: Vec<f32>,
}

/// The sum of two gradients.
pub fn accumulate<M: Module>(
    model: &M,
    one: GradientsParams,
    other: GradientsParams,
) -> GradientsParams {
    if one.is_empty() {
        return other;
    }
    let mut sum = GradientsAccumulator::new();
    sum.accumulate(model, one);
    sum.accumulate(model, other);
    sum.grads()
}
