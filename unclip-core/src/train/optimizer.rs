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
    kernels::{self, AdamNumbers},
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
        let power = (step + 1) as i32;
        model.map(&mut Update {
            path: ModulePath::default(),
            states: self,
            gradients,
            scale,
            rate: settings.learning_rate_at(step),
            correction1: 1.0 - settings.beta1.powi(power),
            correction2: 1.0 - settings.beta2.powi(power),
            ema: settings.ema_at(step),
            settings,
        })
    }

    /// The model with averaged weights; as it is where there are none.
    pub fn averaged<M: Module>(&self, model: M) -> M {
        replaced(model, &self.average)
    }
}

/// Length of the gradient over all parameters.
///
/// # Errors
/// [`Error::NotFinite`](crate::error::Error::NotFinite).
pub(super) fn norm<M: Module>(model: &M, gradients: &GradientsParams) -> Result<f64> {
    let mut squares = Squares {
        gradients,
        sums: Vec::new(),
        sum: None,
    };
    model.visit(&mut squares);
    squares.sums.extend(squares.sum);
    if squares.sums.is_empty() {
        return Ok(0.0);
    }
    let sums = to_host(Tensor::cat(squares.sums, 0), "gradient")?;
    Ok(sums.into_iter().map(f64::from).sum::<f64>().sqrt())
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
        match kernels::add_squares(&gradient, self.sum.clone()) {
            Some(sum) => self.sum = Some(sum),
            None => self.sums.push(gradient.powi_scalar(2).sum()),
        }
    }
}

struct Update<'a> {
    path: ModulePath,
    states: &'a mut Optimizer,
    gradients: GradientsParams,
    scale: f64,
    rate: f64,
    correction1: f64,
    correction2: f64,
    ema: f64,
    settings: &'a TrainSettings,
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
        let TrainSettings {
            beta1,
            beta2,
            epsilon,
            weight_decay,
            ..
        } = *self.settings;
        let decay = if decays { weight_decay } else { 0.0 };
        let numbers = AdamNumbers {
            scale: self.scale,
            rate: self.rate,
            decay,
            betas: [beta1, beta2],
            corrections: [self.correction1, self.correction2],
            epsilon,
            ema: self.ema,
        };
        let states = &mut *self.states;
        let moments = [states.first.get(key), states.second.get(key)];
        let average = states.average.get(key);
        if let Some(found) = kernels::adam(&value, &gradient, moments, average, &numbers) {
            let [value, first, second, average] = found;
            states.first.insert(key.to_owned(), first);
            states.second.insert(key.to_owned(), second);
            if self.settings.ema > 0.0 {
                states.average.insert(key.to_owned(), average);
            }
            return value;
        }
        let gradient = match self.scale {
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
        let root = (second.clone() / self.correction2).sqrt() + epsilon;
        let change = first.clone() / root * (self.rate / self.correction1);
        self.states.first.insert(key.to_owned(), first);
        self.states.second.insert(key.to_owned(), second);
        let value = match decay > 0.0 {
            true => value * (1.0 - self.rate * decay) - change,
            false => value - change,
        };
        self.average(key, &value);
        value
    }

    fn average(&mut self, key: &str, value: &Tensor<1>) {
        if self.settings.ema == 0.0 {
            return;
        }
        let average = match self.states.average.remove(key) {
            Some(average) => average * self.ema + value.clone() * (1.0 - self.ema),
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
