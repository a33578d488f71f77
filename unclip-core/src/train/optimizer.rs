//! AdamW, the length of gradients, and averaged weights.
//!
//! Not Burn's optimiser: its clipping is parameter by parameter, its states are found by numbers that
//! are new in each process, and they are read back onto a default device.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};

use super::TrainSettings;
use crate::{
    error::Result,
    image::to_host,
    kernels::step::{AdamForm, AdamNumbers, adam, add_squares, has_adam},
    weights::{KeyMap, ModulePath},
};

/// The moments and averages of every parameter, under the parameter's name, as rows of numbers.
#[derive(Clone, Debug, Default)]
pub struct Optimizer {
    pub(super) first: BTreeMap<String, Tensor<1>>,
    pub(super) second: BTreeMap<String, Tensor<1>>,
    pub(super) average: BTreeMap<String, Tensor<1>>,
}

impl Optimizer {
    /// One step of AdamW with gradients scaled by `scale`; returns the model after it.
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: GradientsParams,
        scale: f64,
        settings: &TrainSettings,
        step: usize,
    ) -> M {
        let averages = settings.ema > 0.0;
        if !averages {
            // Of an earlier run; they would stay as they were then.
            self.average.clear();
        }
        model.map(&mut Update {
            path: ModulePath::default(),
            states: self,
            gradients,
            numbers: numbers(scale, settings, step),
            on_device: None,
            averages,
        })
    }

    /// The model with averaged weights; as it is where there are none. Further steps do not change it,
    /// also if they change weights `in_place`.
    pub fn averaged<M: Module>(&self, model: M, in_place: bool) -> M {
        let copied = |(key, value): (&String, &Tensor<1>)| (key.clone(), value.clone() * 1.0);
        let own = match in_place {
            true => rows(&model, |key| !self.average.contains_key(key)),
            false => BTreeMap::new(),
        };
        let values = self.average.iter().chain(&own).map(copied).collect();
        replaced(model, &values)
    }
}

/// The numbers of a step.
pub(super) fn numbers(scale: f64, settings: &TrainSettings, step: usize) -> AdamNumbers {
    let TrainSettings { beta1, beta2, .. } = *settings;
    let power = (step + 1) as i32;
    AdamNumbers {
        scale,
        rate: settings.learning_rate_at(step),
        decay: settings.weight_decay,
        betas: [beta1, beta2],
        corrections: [1.0 - beta1.powi(power), 1.0 - beta2.powi(power)],
        epsilon: settings.epsilon,
        ema: settings.ema_at(step),
    }
}

/// Length of the gradient over all parameters.
///
/// # Errors
/// [`Error::NotFinite`](crate::error::Error::NotFinite).
pub(super) fn norm<M: Module>(model: &M, gradients: &GradientsParams) -> Result<f64> {
    match squares(model, gradients) {
        Some(sums) => Ok(length(&to_host(sums, "gradient")?)),
        None => Ok(0.0),
    }
}

/// Sums of squares of the gradient; none without gradients.
pub(super) fn squares<M: Module>(model: &M, gradients: &GradientsParams) -> Option<Tensor<1>> {
    let mut squares = Squares {
        gradients,
        sums: Vec::new(),
        sum: None,
    };
    model.visit(&mut squares);
    squares.sums.extend(squares.sum);
    (!squares.sums.is_empty()).then(|| Tensor::cat(squares.sums, 0))
}

/// The length, given the sums of squares.
pub(super) fn length(sums: &[f32]) -> f64 {
    sums.iter().map(|sum| f64::from(*sum)).sum::<f64>().sqrt()
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
    /// Of all parameters together, where there is a kernel for it.
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.get::<D>(param.id) else {
            return;
        };
        match add_squares(&gradient, self.sum.clone()) {
            Some(sum) => self.sum = Some(sum),
            None => self.sums.push(gradient.powi_scalar(2).sum()),
        }
    }
}

struct Update<'a> {
    path: ModulePath,
    states: &'a mut Optimizer,
    gradients: GradientsParams,
    numbers: AdamNumbers,
    /// The numbers for the kernel, once it has been called.
    on_device: Option<Tensor<1>>,
    /// Whether averages are kept.
    averages: bool,
}

impl Update<'_> {
    /// New value of a parameter, all as rows, with moments and average kept. Matrices decay, vectors do
    /// not.
    fn value(
        &mut self,
        key: &str,
        value: Tensor<1>,
        gradient: Tensor<1>,
        decays: bool,
    ) -> Tensor<1> {
        if has_adam(&value, &gradient) {
            return self.value_by_kernel(key, value, gradient, decays);
        }
        let AdamNumbers {
            scale,
            rate,
            decay,
            betas: [beta1, beta2],
            corrections: [correction1, correction2],
            epsilon,
            ..
        } = self.numbers;
        let gradient = match scale {
            1.0 => gradient,
            scale => gradient * scale,
        };
        let square = gradient.clone().powi_scalar(2) * (1.0 - beta2);
        let first = match self.states.first.remove(key) {
            Some(first) => first * beta1 + gradient * (1.0 - beta1),
            None => gradient * (1.0 - beta1),
        };
        let second = match self.states.second.remove(key) {
            Some(second) => second * beta2 + square,
            None => square,
        };
        let root = (second.clone() / correction2).sqrt() + epsilon;
        let change = first.clone() / root * (rate / correction1);
        self.states.first.insert(key.to_owned(), first);
        self.states.second.insert(key.to_owned(), second);
        let value = match decays && decay > 0.0 {
            true => value * (1.0 - rate * decay) - change,
            false => value - change,
        };
        self.average(key, &value);
        value
    }

    fn value_by_kernel(
        &mut self,
        key: &str,
        value: Tensor<1>,
        gradient: Tensor<1>,
        decays: bool,
    ) -> Tensor<1> {
        let (device, length) = (value.device(), value.dims());
        let numbers = self
            .on_device
            .get_or_insert_with(|| self.numbers.on(&device))
            .clone();
        let states = &mut *self.states;
        let zeros = || Tensor::zeros(length, &device);
        let moments = [&mut states.first, &mut states.second]
            .map(|moments| moments.remove(key).unwrap_or_else(zeros));
        let average = states.average.remove(key);
        let form = AdamForm {
            decays,
            begins: average.is_none(),
            is_in_place: false,
        };
        let average = average.unwrap_or_else(|| Tensor::empty(length, &device));
        let found = adam(value, gradient, moments, average, numbers, form);
        let [value, first, second, average] = found;
        states.first.insert(key.to_owned(), first);
        states.second.insert(key.to_owned(), second);
        if self.averages {
            states.average.insert(key.to_owned(), average);
        }
        value
    }

    fn average(&mut self, key: &str, value: &Tensor<1>) {
        if !self.averages {
            return;
        }
        let ema = self.numbers.ema;
        let average = match self.states.average.remove(key) {
            Some(average) => average * ema + value.clone() * (1.0 - ema),
            None => value.clone(),
        };
        self.states.average.insert(key.to_owned(), average);
    }
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return param;
        };
        let (key, _) = self.path.key(&KeyMap::default());
        param.map(|tensor| {
            let (is_tracked, shape) = (tensor.is_require_grad(), tensor.dims());
            let value = tensor.inner().flatten::<1>(0, D - 1);
            let value = self.value(&key, value, gradient.flatten::<1>(0, D - 1), D > 1);
            let tensor = Tensor::from_inner(value.reshape(shape));
            match is_tracked {
                true => tensor.require_grad(),
                false => tensor,
            }
        })
    }
}

/// The model with these values where there are any.
pub(super) fn replaced<M: Module>(model: M, values: &BTreeMap<String, Tensor<1>>) -> M {
    model.map(&mut Replace {
        path: ModulePath::default(),
        values,
    })
}

struct Replace<'a> {
    path: ModulePath,
    values: &'a BTreeMap<String, Tensor<1>>,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (key, _) = self.path.key(&KeyMap::default());
        match self.values.get(&key) {
            Some(value) => param.map(|tensor| value.clone().reshape(tensor.dims())),
            None => param,
        }
    }
}

/// The values of a model whose parameters are not tracked, as rows; only those that `keep` names.
pub(super) fn rows<M: Module>(
    model: &M,
    keep: impl Fn(&str) -> bool,
) -> BTreeMap<String, Tensor<1>> {
    let mut rows = Rows {
        path: ModulePath::default(),
        keep,
        found: BTreeMap::new(),
    };
    model.visit(&mut rows);
    rows.found
}

struct Rows<F> {
    path: ModulePath,
    keep: F,
    found: BTreeMap<String, Tensor<1>>,
}

impl<F: Fn(&str) -> bool> ModuleVisitor for Rows<F> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (key, _) = self.path.key(&KeyMap::default());
        if (self.keep)(&key) {
            self.found.insert(key, param.val().flatten::<1>(0, D - 1));
        }
    }
}
