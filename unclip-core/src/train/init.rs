//! Weights to begin with, from a seed.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Tensor, TensorData},
};

use crate::{
    error::{Error, Result},
    noise::Noise,
    weights::{KeyMap, ModulePath},
};

/// Gives `model` weights to be trained from, the same for a seed on every device.
///
/// Linear layers and convolutions are uniform within ±1/√fan-in with biases 0, other matrices (tokens,
/// positions, learned embeddings) normal with 0.02; norms and factors stay as the model was
/// made. Layers whose name ends with one of `zero` begin at 0: the last of a residual branch, so that
/// a deep network begins as the identity.
///
/// # Errors
/// [`Error::Setting`] for an end that no layer has.
pub fn initialized<M: Module>(model: M, seed: u64, zero: &[&str]) -> Result<M> {
    let mut fill = Fill {
        path: ModulePath::default(),
        containers: Vec::new(),
        noise: Noise::from_seed(seed),
        zero,
        used: vec![false; zero.len()],
        failed: None,
    };
    let model = model.map(&mut fill);
    if let Some(error) = fill.failed {
        return Err(error);
    }
    match fill.used.iter().position(|used| !used) {
        Some(at) => Err(Error::setting(
            "layers at 0",
            zero[at],
            "the end of a layer's name",
        )),
        None => Ok(model),
    }
}

struct Fill<'a> {
    path: ModulePath,
    containers: Vec<String>,
    noise: Noise,
    zero: &'a [&'a str],
    used: Vec<bool>,
    failed: Option<Error>,
}

impl Fill<'_> {
    /// New values of a parameter of this shape; none to leave it alone.
    fn values(&mut self, shape: &[usize]) -> Option<Vec<f32>> {
        let count = shape.iter().product();
        let container = self.containers.last().map_or("", String::as_str);
        let is_layer = matches!(container, "Struct:Linear" | "Struct:Conv2d");
        let (key, _) = self.path.key(&KeyMap::default());
        // The others of one dimension are norms' and factors, which begin as they are made.
        if shape.len() == 1 && !key.ends_with("embedding") {
            return is_layer.then(|| vec![0.0; count]);
        }
        let layer = key.rsplit_once('.').map_or("", |(layer, _)| layer);
        if let Some(at) = self.zero.iter().position(|end| layer.ends_with(end)) {
            self.used[at] = true;
            return Some(vec![0.0; count]);
        }
        if !is_layer {
            return match self.noise.normal_vec(count) {
                Ok(values) => Some(values.into_iter().map(|v| 0.02 * v).collect()),
                Err(error) => {
                    self.failed = Some(error);
                    None
                }
            };
        }
        // Burn has linear weights as [in, out] and convolutions as [out, in, k, k].
        let fan_in = match shape.len() {
            2 => shape[0],
            _ => shape[1..].iter().product(),
        };
        let range = 1.0 / (fan_in as f32).sqrt();
        let values = self.noise.uniform_vec(count).into_iter();
        Some(values.map(|v| (2.0 * v - 1.0) * range).collect())
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
        self.containers.push(container.to_owned());
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        let _ = (name, container);
        self.path.exit();
        self.containers.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape: Vec<usize> = param.lazy_shape().iter().copied().collect();
        let Some(values) = self.values(&shape) else {
            return param;
        };
        let data = TensorData::new(values, shape);
        let tensor = Tensor::from_data(data, &param.lazy_device());
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}
