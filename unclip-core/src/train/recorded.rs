//! Steps that a device records once and repeats with other numbers.
//!
//! A small network's step is thousands of launches, each of which takes the host longer than the GPU. A
//! recorded one is two launches (CUDA graphs; elsewhere dispatches that are ready made).

#![allow(unsafe_code)]

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Device, Graph, Tensor, capture},
};

use super::{
    Optimizer,
    inputs::{Given, Inputs},
    optimizer::{length, squares},
    recipe::Recordable,
};
use crate::{
    error::{Error, Result},
    kernels::step::{AdamForm, AdamNumbers, adam, has_adam, write},
    weights::{KeyMap, ModulePath},
};

/// Both halves of a step: up to the gradient, and the change of the parameters, which is only made when
/// the host has seen that the gradient is finite.
pub(super) struct Recorded<'r> {
    given: Given,
    rows: usize,
    pass: Graph<Result<Found>, Box<dyn FnMut() -> Result<Found> + 'r>>,
    numbers: Tensor<1>,
    update: Graph<(), Box<dyn FnMut() + 'r>>,
}

/// What the first half finds.
struct Found {
    /// The loss of each example, and behind it sums of squares of the gradient.
    report: Tensor<1>,
    gradients: GradientsParams,
}

impl<'r> Recorded<'r> {
    /// Records a step of `rows` examples; none if the device does not, or does not find the same with it.
    /// Parameters that have gradients must have been through a step.
    pub(super) fn new<M: Module + 'r, E>(
        recipe: &'r dyn Recordable<Model = M, Example = E>,
        model: &M,
        optimizer: &Optimizer,
        inputs: Inputs,
        rows: usize,
        device: &Device,
    ) -> Result<Option<Self>> {
        let given = inputs.on(device);
        let plain = device.clone().without_autodiff();
        let (held, own) = (given.clone(), model.clone());
        let mut pass: Box<dyn FnMut() -> Result<Found> + 'r> = Box::new(move || {
            let losses = recipe.loss_of(&own, &held)?;
            let report = losses.clone().inner();
            let gradients = (losses.sum() * (1.0 / rows as f64)).backward();
            let gradients = GradientsParams::from_grads(gradients, &own);
            let report = match squares(&own, &gradients) {
                Some(sums) => Tensor::cat(vec![report, sums], 0),
                None => report,
            };
            Ok(Found { report, gradients })
        });
        let expected = pass()?.report;
        let mut pass = capture(&plain, pass);
        if !pass.is_hardware() {
            return Ok(None);
        }
        replay(&mut pass);
        let Ok(found) = pass.output() else {
            return Ok(None);
        };
        if !is_near(expected, found.report.clone()) {
            return Ok(None);
        }
        // A change that is none.
        let nothing = AdamNumbers {
            scale: 0.0,
            rate: 0.0,
            decay: 0.0,
            betas: [1.0; 2],
            corrections: [1.0; 2],
            epsilon: 1.0,
            ema: 1.0,
        };
        let numbers = nothing.on(&plain);
        let mut rows_of = Rows {
            path: ModulePath::default(),
            gradients: &found.gradients,
            optimizer,
            found: Vec::new(),
            have_kernel: true,
        };
        model.visit(&mut rows_of);
        if !rows_of.have_kernel {
            return Ok(None);
        }
        let (parameters, held) = (rows_of.found, numbers.clone());
        let update: Box<dyn FnMut() + 'r> = Box::new(move || {
            for parameter in &parameters {
                parameter.step(held.clone());
            }
        });
        let update = capture(&plain, update);
        Ok(update.is_hardware().then_some(Self {
            given,
            rows,
            pass,
            numbers,
            update,
        }))
    }

    /// Whether these numbers are for the step that was recorded.
    pub(super) fn fits(&self, inputs: &Inputs) -> bool {
        self.given.is_like(inputs)
    }

    /// Losses and length of the gradient for other numbers.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(super) fn pass(&mut self, inputs: Inputs) -> Result<(Vec<f32>, f64)> {
        write(&self.given.values().clone().inner(), inputs.into_values());
        replay(&mut self.pass);
        let not_finite = |stage: &str| Error::NotFinite {
            stage: stage.into(),
            hint: "a smaller learning rate may help".into(),
        };
        let report = match self.pass.output() {
            Ok(found) => found.report.clone().into_data(),
            // Recording would have ended with it.
            Err(_) => return Err(not_finite("loss")),
        };
        let mut losses: Vec<f32> = report.iter::<f32>().collect();
        let sums = losses.split_off(self.rows);
        for (values, stage) in [(&losses, "loss"), (&sums, "gradient")] {
            if !values.iter().all(|v| v.is_finite()) {
                return Err(not_finite(stage));
            }
        }
        let length = length(&sums);
        Ok((losses, length))
    }

    /// Changes the parameters, in the memory that they are in.
    pub(super) fn update(&mut self, numbers: &AdamNumbers) {
        write(&self.numbers, numbers.row().to_vec());
        replay(&mut self.update);
    }
}

/// Has the device repeat what it recorded.
fn replay<T, F: FnMut() -> T>(graph: &mut Graph<T, F>) {
    // SAFETY: what was read and written is held by the closures and results, which the graph holds; this
    // thread recorded it and is the only one that uses it: the trainer has it alone until a step is done.
    unsafe { graph.replay() };
}

/// Whether a repeated step has found what the step did: a record that a driver does not keep to is not
/// used.
fn is_near(expected: Tensor<1>, found: Tensor<1>) -> bool {
    let [expected, found] = [expected, found].map(Tensor::into_data);
    let pairs = expected.iter::<f32>().zip(found.iter::<f32>());
    let mut apart = pairs.map(|(a, b)| (a - b).abs() <= 1e-3 * a.abs() + 1e-6);
    apart.all(|is_near| is_near)
}

/// A parameter with all that its step reads and writes, as rows.
struct Parameter {
    value: Tensor<1>,
    gradient: Tensor<1>,
    moments: [Tensor<1>; 2],
    average: Tensor<1>,
    decays: bool,
}

impl Parameter {
    fn step(&self, numbers: Tensor<1>) {
        let form = AdamForm {
            decays: self.decays,
            begins: false,
            is_in_place: true,
        };
        let (value, gradient) = (self.value.clone(), self.gradient.clone());
        let (moments, average) = (self.moments.clone(), self.average.clone());
        adam(value, gradient, moments, average, numbers, form);
    }
}

struct Rows<'a> {
    path: ModulePath,
    gradients: &'a GradientsParams,
    optimizer: &'a Optimizer,
    found: Vec<Parameter>,
    /// Whether all of them can be changed by the kernel.
    have_kernel: bool,
}

impl ModuleVisitor for Rows<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (key, _) = self.path.key(&KeyMap::default());
        let states = self.optimizer;
        let (Some(gradient), Some(first), Some(second)) = (
            self.gradients.get::<D>(param.id),
            states.first.get(&key),
            states.second.get(&key),
        ) else {
            return;
        };
        let value = param.val().inner().flatten::<1>(0, D - 1);
        let gradient = gradient.flatten(0, D - 1);
        self.have_kernel &= has_adam(&value, &gradient);
        // Without averages something is written that nobody reads.
        let unread = || Tensor::empty(value.dims(), &value.device());
        self.found.push(Parameter {
            gradient,
            moments: [first.clone(), second.clone()],
            average: states.average.get(&key).cloned().unwrap_or_else(unread),
            decays: D > 1,
            value,
        });
    }
}
