//! Random tensors, and how far results are apart.

use burn::tensor::{Device, Tensor, TensorData};
use unclip_core::noise::Noise;

/// Random values; the device keeps gradients.
pub(crate) struct Source {
    pub(crate) noise: Noise,
    pub(crate) device: Device,
}

/// The devices named in `UNCLIP_TEST_DEVICES` that have kernels and are built in (default: `flex`).
#[allow(dead_code)] // Not every test takes GPUs.
pub(crate) fn devices() -> Vec<(String, Device)> {
    let names = std::env::var("UNCLIP_TEST_DEVICES").unwrap_or_else(|_| "flex".into());
    let named = names.split(',').map(|name| match name {
        "flex" => vec![(name.to_owned(), Device::flex())],
        #[cfg(feature = "wgpu")]
        "wgpu" => {
            let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
            vec![(name.to_owned(), device)]
        }
        #[cfg(feature = "cuda")]
        "cuda" => vec![(name.to_owned(), Device::cuda(0))],
        _ => vec![],
    });
    named.flatten().collect()
}

impl Source {
    pub(crate) fn new(seed: u64) -> Self {
        Self::on(seed, &Device::flex())
    }

    pub(crate) fn on(seed: u64, device: &Device) -> Self {
        Self {
            noise: Noise::from_seed(seed),
            device: device.clone().autodiff(),
        }
    }

    pub(crate) fn tensor<const D: usize>(&mut self, dims: [usize; D]) -> Tensor<D> {
        let values = self.noise.normal_vec(dims.iter().product()).unwrap();
        Tensor::from_data(TensorData::new(values, dims), &self.device).require_grad()
    }
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

/// The largest difference in units of the expected values' root mean square.
pub(crate) fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(
        expected.iter().any(|v| *v != 0.0),
        "nothing to compare with"
    );
    let square: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
    let scale = (square / expected.len() as f64).sqrt() as f32;
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // A value that is not a number is as wrong as can be.
    apart
        .map(|a| if a.is_nan() { f32::INFINITY } else { a })
        .fold(0.0, f32::max)
        / scale
}

/// Result and the gradients for input, weight and bias of what is done with them.
pub(crate) fn conv_results(
    inputs: &(Tensor<4>, Tensor<4>, Tensor<1>),
    weigh: &Tensor<4>,
    convolve: impl Fn(Tensor<4>, Tensor<4>, Tensor<1>) -> Tensor<4>,
) -> [Vec<f32>; 4] {
    let (x, weight, bias) = inputs;
    let out = convolve(x.clone(), weight.clone(), bias.clone());
    let gradients = (out.clone() * weigh.clone()).sum().backward();
    [
        values(out.inner()),
        values(x.grad(&gradients).unwrap()),
        values(weight.grad(&gradients).unwrap()),
        values(bias.grad(&gradients).unwrap()),
    ]
}
