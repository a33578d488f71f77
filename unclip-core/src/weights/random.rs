//! Filling a module with random weights, to measure a network without a checkpoint.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Tensor, TensorData},
};

use super::Precision;
use crate::noise::Noise;

/// Gives every parameter uniform values of variance 1 / fan-in (norm scales 1, biases 0), so that
/// activations keep their size through a network of any depth.
///
/// Each parameter is made on the host in the given precision, one at a time. Burn's own
/// initialisers would first make all of them in the device's default type.
pub fn randomize<M: Module>(module: M, precision: Precision, seed: u64) -> M {
    module.map(&mut Randomizer {
        noise: Noise::from_seed(seed),
        precision,
        name: Vec::new(),
    })
}

struct Randomizer {
    noise: Noise,
    precision: Precision,
    name: Vec<String>,
}

impl ModuleMapper for Randomizer {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.name.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.name.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape: Vec<usize> = param.lazy_shape().iter().copied().collect();
        let count = shape.iter().product();
        let values = match self.name.last().map(String::as_str) {
            Some("gamma") => vec![1.0; count],
            Some("beta" | "bias") => vec![0.0; count],
            _ => {
                // A matrix is [in, out], a kernel [out, in, h, w].
                let fan_in = if D == 2 {
                    shape[0]
                } else {
                    count / shape[0].max(1)
                };
                let half_width = (3.0 / fan_in.max(1) as f32).sqrt();
                let mut values = self.noise.uniform_vec(count);
                for v in &mut values {
                    *v = (*v * 2.0 - 1.0) * half_width;
                }
                values
            }
        };
        let dtype = DType::from(self.precision.of_rank(D));
        let data = TensorData::new(values, shape).convert_dtype(dtype);
        let tensor = Tensor::from_data(data, (&param.lazy_device(), dtype));
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}
