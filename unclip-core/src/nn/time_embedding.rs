//! How a network is told the time.

use burn::{
    config::Config,
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor, TensorData},
};

use super::{
    Activation,
    layers::{as_compute, linear},
};

/// Sinusoidal features of timesteps, `[cos | sin]`, computed on the host.
///
/// Frequency k of `width / 2` is exp(−ln 10000 · k / (width / 2 − shift)). Frequencies and angles
/// are rounded to f32 where the reference rounds them: at t = 999 one unit in the last place of
/// a frequency moves the angle by 6e-5.
///
/// `cos_first` false gives `[sin | cos]`. An odd `width` ends with a zero.
pub fn sinusoid(timesteps: &[f32], width: usize, cos_first: bool, shift: f64) -> Vec<f32> {
    let half = width / 2;
    let step = -(10_000f64.ln()) as f32;
    let divisor = (half as f64 - shift) as f32;
    let frequencies: Vec<f32> = (0..half)
        .map(|k| f64::from(step * k as f32 / divisor).exp() as f32)
        .collect();
    let mut features = Vec::with_capacity(timesteps.len() * width);
    for &t in timesteps {
        let angles = frequencies.iter().map(|f| f64::from(f * t));
        let (mut cos, mut sin): (Vec<f32>, Vec<f32>) = angles
            .map(|angle| (angle.cos() as f32, angle.sin() as f32))
            .unzip();
        if !cos_first {
            std::mem::swap(&mut cos, &mut sin);
        }
        features.extend(cos);
        features.extend(sin);
        features.extend(std::iter::repeat_n(0.0, width - 2 * half));
    }
    features
}

/// What a network is told of the time.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // There is one at a time.
pub enum Times<'a> {
    /// A timestep for each element of the batch.
    Steps(&'a [f32]),
    /// What [`TimeEmbedding::features`] made of them, `[b, sinusoid]`.
    Features(Tensor<2>),
}

/// Configuration of [`TimeEmbedding`].
#[derive(Config, Debug)]
pub struct TimeEmbeddingConfig {
    /// Width of the sinusoid.
    pub sinusoid: usize,
    /// Width of the hidden layer.
    pub hidden: usize,
    /// Width of the embedding.
    pub output: usize,
    /// `[cos | sin]` rather than `[sin | cos]`. Default: true
    #[config(default = true)]
    pub cos_first: bool,
    /// Shift of the frequencies' divisor. Default: 0
    #[config(default = 0.0)]
    pub shift: f64,
    /// Non-linearity between the layers. Default: SiLU
    #[config(default = "Activation::Silu")]
    pub activation: Activation,
}

/// Sinusoidal features through two linear layers with a non-linearity between them.
///
/// Should be created with [`TimeEmbeddingConfig`].
#[derive(Module, Debug)]
pub struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
    width: usize,
    cos_first: bool,
    shift: f64,
    #[module(skip)]
    activation: Activation,
}

impl TimeEmbeddingConfig {
    /// A new embedding on `device`.
    pub fn init(&self, device: &Device) -> TimeEmbedding {
        TimeEmbedding {
            linear_1: LinearConfig::new(self.sinusoid, self.hidden).init(device),
            linear_2: LinearConfig::new(self.hidden, self.output).init(device),
            width: self.sinusoid,
            cos_first: self.cos_first,
            shift: self.shift,
            activation: self.activation,
        }
    }
}

impl TimeEmbedding {
    /// The features of timesteps, `[b, sinusoid]` one row after the other.
    pub fn features(&self, timesteps: &[f32]) -> Vec<f32> {
        sinusoid(timesteps, self.width, self.cos_first, self.shift)
    }

    /// Width of the features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Embeds one timestep for each element of the batch, in the type of `like`.
    ///
    /// # Shapes
    /// output: `[b, output]` on the device of `like`
    pub fn forward<const D: usize>(&self, times: Times<'_>, like: &Tensor<D>) -> Tensor<2> {
        let features = match times {
            Times::Steps(timesteps) => Tensor::from_data(
                TensorData::new(self.features(timesteps), [timesteps.len(), self.width]),
                (&like.device(), like.dtype()),
            ),
            Times::Features(features) => as_compute(features, like.dtype()),
        };
        let hidden = self.activation.apply(linear(&self.linear_1, features));
        linear(&self.linear_2, hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_zero_is_all_cosines_of_zero() {
        assert_eq!(sinusoid(&[0.0], 4, true, 0.0), [1.0, 1.0, 0.0, 0.0]);
        assert_eq!(sinusoid(&[0.0], 5, false, 0.0), [0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn the_lowest_frequency_of_a_wide_sinusoid_is_near_one_in_ten_thousand() {
        let features = sinusoid(&[1.0], 2048, true, 0.0);
        let lowest_sine = features[2047];
        assert!((lowest_sine - 1.009e-4).abs() < 1e-6, "{lowest_sine}");
    }
}
