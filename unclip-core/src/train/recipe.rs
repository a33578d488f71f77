//! What is trained, and on what.

use std::thread;

use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{Device, Tensor},
};

use super::inputs::{Given, Inputs};
#[cfg(feature = "flex")]
use crate::kernels::is_flex;
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

    /// Runs frozen encoders on the samples of a step and draws what their loss needs. While a step is
    /// computed, the next ones are prepared in other threads.
    ///
    /// # Errors
    /// Whatever is wrong with a sample.
    fn prepare(&self, samples: Vec<Self::Sample>, noise: &mut Noise) -> Result<Vec<Self::Example>>;

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

    /// Gradients of the examples' summed loss times `scale`: each device takes a share of the examples,
    /// in `pieces` one after the other, and the sum is on the first device.
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
        devices: &[Device],
    ) -> Result<Pass>
    where
        Self: Sized,
    {
        let passes = shared(model, examples, devices, |model, _, share, device| {
            let mut pass = Pass::default();
            for piece in share.chunks(share.len().div_ceil(pieces.max(1)).max(1)) {
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
        })?;
        Ok(Pass::sum(model, passes, devices))
    }

    /// The recipe as one whose steps can be recorded, if it is one and leaves [`backward`](Self::backward)
    /// and [`constrained`](Self::constrained) as they are.
    fn recordable(&self) -> Option<&dyn Recordable<Model = Self::Model, Example = Self::Example>> {
        None
    }

    /// The model after a step, with parameters brought back into their range.
    fn constrained(&self, model: Self::Model) -> Self::Model {
        model
    }

    /// Told the losses of a step; for timestep samplers that learn from them.
    fn observe(&self, examples: &[Self::Example], losses: &[f32]) {
        let _ = (examples, losses);
    }

    /// Whether what [`observe`](Self::observe) is told changes what [`prepare`](Self::prepare) gives. Steps
    /// are then not prepared before the losses of those before them are known.
    fn learns_from_losses(&self) -> bool {
        false
    }

    /// What [`observe`](Self::observe) has learned, to be kept in checkpoints.
    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// [`Error::Setting`] if it is not that.
    fn restore(&self, state: &serde_json::Value) -> Result<()> {
        let _ = state;
        Ok(())
    }
}

/// A loss that is computed on the device from numbers that were put there before, and from nothing else:
/// neither the host nor the values decide what is computed. A GPU can record that once and repeat it.
pub trait Recordable {
    /// The network.
    type Model;
    /// What the recipe prepares.
    type Example;

    /// The numbers that the loss of these examples needs.
    ///
    /// # Errors
    /// Examples that do not fit together.
    fn inputs(&self, model: &Self::Model, examples: &[&Self::Example]) -> Result<Inputs>;

    /// The loss of each example, `[n]`.
    ///
    /// # Errors
    /// Numbers that do not fit the model.
    fn loss_of(&self, model: &Self::Model, given: &Given) -> Result<Tensor<1>>;
}

/// Gradients, and the loss of each example.
#[derive(Debug, Default)]
pub struct Pass {
    /// One for each parameter that is trained.
    pub gradients: GradientsParams,
    /// In the order of the examples.
    pub losses: Vec<f32>,
}

impl Pass {
    /// The sum of what several devices found, on the first of them.
    pub fn sum<M: Module>(model: &M, passes: Vec<Self>, devices: &[Device]) -> Self {
        let mut sum = Self::default();
        for pass in passes {
            let gradients = match devices {
                [main, _, ..] => {
                    let main = main.clone().without_autodiff();
                    pass.gradients.to_device(&main, model)
                }
                _ => pass.gradients,
            };
            sum.gradients = accumulate(model, sum.gradients, gradients);
            sum.losses.extend(pass.losses);
        }
        sum
    }
}

/// Runs `run` on every device at once with its share of the examples, and the place of the share's
/// first example in all; results are in the order of the examples.
///
/// A CPU that is given several times is divided: this uses more of it than one computation does, as
/// many operations run on one core.
///
/// # Errors
/// The first error of a share.
pub fn shared<M: Module, E: Sync, T: Send>(
    model: &M,
    examples: &[E],
    devices: &[Device],
    run: impl Fn(&M, usize, &[E], &Device) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let size = examples.len().div_ceil(devices.len().max(1)).max(1);
    if let [device] = devices {
        return Ok(vec![run(model, 0, examples, device)?]);
    }
    thread::scope(|scope| {
        let shares = examples.chunks(size).zip(devices).enumerate();
        let started: Vec<_> = shares
            .map(|(i, (share, device))| {
                let (model, run) = (model.clone(), &run);
                scope.spawn(move || {
                    let run = || run(&model.fork(device), i * size, share, device);
                    #[cfg(feature = "flex")]
                    if is_flex(device) {
                        return super::cores::within(i, devices.len(), run);
                    }
                    run()
                })
            })
            .collect();
        let joined = started.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            // A bug in the recipe: it goes on as the panic that it was.
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
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
