//! Training a few numbers of a network: frozen parameters, and low-rank changes of linear layers.

use burn::{
    module::{Lora, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup, ParamId},
    tensor::{Tensor, TensorData},
};

use super::pattern::matches;
use crate::{
    error::{Error, Result},
    noise::Noise,
    weights::{KeyMap, ModulePath},
};

/// Keeps the parameters whose name is of one of `patterns` as they are; `*` stands for any letters, as
/// in `unet.down_blocks.*`.
///
/// # Errors
/// [`Error::Setting`] for a pattern of no parameter, or if nothing is left to train.
pub fn frozen<M: Module>(model: M, patterns: &[&str]) -> Result<M> {
    let mut freeze = Freeze {
        path: ModulePath::default(),
        patterns,
        used: vec![false; patterns.len()],
        trained: 0,
        names: Vec::new(),
    };
    let model = model.map(&mut freeze);
    if let Some(at) = freeze.used.iter().position(|used| !used) {
        let expected = format!(
            "the name of a parameter, such as {}",
            freeze.names.join(" or ")
        );
        return Err(Error::setting("freeze", patterns[at], expected));
    }
    match freeze.trained {
        0 => Err(Error::setting(
            "freeze",
            patterns.join(", "),
            "something left to train",
        )),
        _ => Ok(model),
    }
}

struct Freeze<'a> {
    path: ModulePath,
    patterns: &'a [&'a str],
    used: Vec<bool>,
    trained: usize,
    /// The first few.
    names: Vec<String>,
}

impl ModuleMapper for Freeze<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (name, _) = self.path.key(&KeyMap::default());
        let mut is_frozen = false;
        for (pattern, used) in self.patterns.iter().zip(&mut self.used) {
            if matches(pattern, &name) {
                (*used, is_frozen) = (true, true);
            }
        }
        if self.names.len() < 3 {
            self.names.push(name);
        }
        match is_frozen {
            true => param.set_require_grad(false),
            false => {
                self.trained += 1;
                param
            }
        }
    }
}

/// Freezes a model and adds to the weight of every linear layer whose name is of one of `patterns` (all
/// without any) the product of two matrices, `[in, rank]` and `[rank, out]`, which are trained instead
/// (arXiv 2106.09685). The second begins at 0, so that the model begins as it is.
///
/// The adapters are Burn's; their first matrix comes from `seed` here, so that a run can be repeated.
/// [`merged`] makes a model of the usual kind of it.
///
/// # Errors
/// [`Error::Setting`] for a rank of 0 and for patterns of no linear layer.
pub fn with_lora<M: Module>(model: M, rank: usize, seed: u64, patterns: &[&str]) -> Result<M> {
    if rank == 0 {
        return Err(Error::setting("rank", 0, "at least 1 is needed"));
    }
    let mut layers = Layers {
        path: ModulePath::default(),
        containers: Vec::new(),
        patterns,
        weights: Vec::new(),
    };
    model.visit(&mut layers);
    if layers.weights.is_empty() {
        let found = patterns.join(", ");
        return Err(Error::setting(
            "LoRA's layers",
            found,
            "the name of a linear layer",
        ));
    }
    let lora = Lora::new(rank, rank as f64).set_param_group(ParamGroup::from_ids(layers.weights));
    Ok(model.apply_lora(lora).map(&mut Begin {
        names: Vec::new(),
        noise: Noise::from_seed(seed),
    }))
}

/// A model whose low-rank changes have become part of its weights; any other as it is.
pub fn merged<M: Module>(model: M) -> M {
    model.materialize()
}

struct Layers<'a> {
    path: ModulePath,
    containers: Vec<String>,
    patterns: &'a [&'a str],
    weights: Vec<ParamId>,
}

impl ModuleVisitor for Layers<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
        self.containers.push(container.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let is_linear = self.containers.last().is_some_and(|c| c == "Struct:Linear");
        let (name, _) = self.path.key(&KeyMap::default());
        // A layer may be named with or without its parameter: both are its name to a reader.
        let layer = name.strip_suffix(".weight").unwrap_or(&name);
        let is_named = |p: &&str| matches(p, layer) || matches(p, &name);
        let is_chosen = self.patterns.is_empty() || self.patterns.iter().any(is_named);
        if D == 2 && is_linear && is_chosen {
            self.weights.push(param.id);
        }
    }
}

/// Draws the adapters' first matrices.
struct Begin {
    names: Vec<String>,
    noise: Noise,
}

impl ModuleMapper for Begin {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.names.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let is_first = matches!(&self.names[..], [.., lora, name] if lora == "lora" && name == "a");
        if !is_first {
            return param;
        }
        let shape: Vec<usize> = param.lazy_shape().iter().copied().collect();
        let range = 1.0 / (shape[0] as f32).sqrt();
        let values = self.noise.uniform_vec(shape.iter().product());
        let values: Vec<f32> = values
            .into_iter()
            .map(|v| (2.0 * v - 1.0) * range)
            .collect();
        let tensor = Tensor::from_data(TensorData::new(values, shape), &param.lazy_device());
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}
