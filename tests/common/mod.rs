//! What several test programs use: the fixtures, and the devices to test on.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors};
use unclip::burn::tensor::{Bool, Device, Tensor, TensorData};

/// `UNCLIP_ORACLE`, or the project's own fixtures.
pub fn fixture_root() -> PathBuf {
    match std::env::var_os("UNCLIP_ORACLE") {
        Some(root) => root.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
    }
}

/// The devices named in `UNCLIP_TEST_DEVICES` (comma-separated; default `flex`).
///
/// # Panics
/// If one of them is not built in: a test that was asked for must not be skipped.
pub fn devices() -> Vec<(String, Device)> {
    let names = std::env::var("UNCLIP_TEST_DEVICES").unwrap_or_else(|_| "flex".into());
    names
        .split(',')
        .map(|name| match name.trim() {
            #[cfg(feature = "flex")]
            "flex" => ("flex".to_owned(), Device::flex()),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            "ndarray" => ("ndarray".to_owned(), Device::ndarray()),
            #[cfg(feature = "wgpu-plain")]
            "wgpu" => (
                "wgpu".to_owned(),
                Device::wgpu(unclip::burn::tensor::DeviceKind::DefaultDevice),
            ),
            #[cfg(feature = "vulkan")]
            "vulkan" => (
                "vulkan".to_owned(),
                Device::vulkan(unclip::burn::tensor::DeviceKind::DefaultDevice),
            ),
            #[cfg(feature = "cuda-plain")]
            "cuda" => ("cuda".to_owned(), Device::cuda(0)),
            other => panic!("UNCLIP_TEST_DEVICES: `{other}` is not built in"),
        })
        .collect()
}

/// A tensor of a fixture file, on the host.
#[derive(Clone, Debug)]
pub struct Golden {
    pub shape: Vec<usize>,
    pub floats: Vec<f32>,
    pub ints: Vec<i64>,
    pub bytes: Vec<u8>,
}

impl Golden {
    pub fn tensor<const D: usize>(&self, device: &Device) -> Tensor<D> {
        Tensor::from_data(
            TensorData::new(self.floats.clone(), self.shape.clone()),
            device,
        )
    }

    pub fn mask(&self, device: &Device) -> Tensor<2, Bool> {
        let keep: Vec<bool> = self.ints.iter().map(|v| *v != 0).collect();
        Tensor::from_data(TensorData::new(keep, self.shape.clone()), device)
    }

    pub fn ids(&self) -> Vec<u32> {
        self.ints.iter().map(|v| *v as u32).collect()
    }

    /// Slice `i` of the first axis.
    pub fn at(&self, i: usize) -> Self {
        fn part<T: Clone>(values: &[T], i: usize, size: usize) -> Vec<T> {
            let part = values.get(i * size..(i + 1) * size);
            part.unwrap_or_default().to_vec()
        }
        let size: usize = self.shape[1..].iter().product();
        Self {
            shape: self.shape[1..].to_vec(),
            floats: part(&self.floats, i, size),
            ints: part(&self.ints, i, size),
            bytes: part(&self.bytes, i, size),
        }
    }

    pub fn rms(&self) -> f64 {
        let sum: f64 = self.floats.iter().map(|v| f64::from(*v).powi(2)).sum();
        (sum / self.floats.len().max(1) as f64).sqrt()
    }
}

/// The tensors of a safetensors fixture.
pub type Goldens = BTreeMap<String, Golden>;

pub fn read_goldens(path: &Path) -> Goldens {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let mut golden = Golden {
                shape: view.shape().to_vec(),
                floats: Vec::new(),
                ints: Vec::new(),
                bytes: Vec::new(),
            };
            match view.dtype() {
                Dtype::F32 => {
                    golden.floats = view
                        .data()
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                        .collect();
                }
                Dtype::I64 => {
                    golden.ints = view
                        .data()
                        .chunks_exact(8)
                        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
                        .collect();
                }
                Dtype::U8 => golden.bytes = view.data().to_vec(),
                other => panic!("{}: `{name}` is {other:?}", path.display()),
            }
            (name, golden)
        })
        .collect()
}
