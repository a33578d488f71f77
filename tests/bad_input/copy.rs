//! A copy of a checkpoint that can be damaged, and short jobs.

use crate::common::fixture_root;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use tempfile::TempDir;
use unclip::Error;
use unclip::Residency;
use unclip::Result;
use unclip::UnClip;
use unclip::burn::tensor::Device;
use unclip::burn::tensor::Tensor;
use unclip::core::weights::Mismatch;

/// A copy of the fixtures' checkpoint, to be damaged.
pub(crate) struct Copy(TempDir);

impl Copy {
    pub(crate) fn new() -> Self {
        Self::of("unclip")
    }

    /// A copy of another of the checkpoints.
    pub(crate) fn of(name: &str) -> Self {
        fn copy(from: &Path, to: &Path) {
            fs::create_dir_all(to).unwrap();
            for entry in fs::read_dir(from).unwrap() {
                let path = entry.unwrap().path();
                let target = to.join(path.file_name().unwrap());
                if path.is_dir() {
                    copy(&path, &target);
                } else {
                    fs::write(target, fs::read(&path).unwrap()).unwrap();
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let checkpoints = fixture_root().join("checkpoints");
        copy(&checkpoints.join(name), folder.path());
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn weights(&self, component: &str) -> PathBuf {
        self.path(component)
            .join("diffusion_pytorch_model.safetensors")
    }

    /// Replaces text in a file.
    pub(crate) fn edit(&self, name: &str, from: &str, to: &str) -> &Self {
        let path = self.path(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} does not contain {from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
        self
    }

    /// Splits a safetensors file into header and data, changes them and puts them together.
    pub(crate) fn edit_weights(
        &self,
        component: &str,
        edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>, &mut Vec<u8>),
    ) {
        let path = self.weights(component);
        let bytes = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let mut data = bytes[8 + length..].to_vec();
        edit(&mut header, &mut data);
        fs::write(path, safetensors_bytes(&header, &data)).unwrap();
    }

    pub(crate) fn load(&self) -> Result<UnClip> {
        UnClip::load(self.0.path(), &Device::flex())
    }

    /// Both ways of loading have to refuse alike.
    pub(crate) fn error(&self) -> Error {
        let lazy = UnClip::builder(&Device::flex())
            .checkpoint(self.0.path())
            .residency(Residency::OneAtATime)
            .build()
            .unwrap_err();
        let error = self.load().unwrap_err();
        assert_eq!(error.to_string(), lazy.to_string());
        error
    }

    pub(crate) fn mismatch(&self) -> Mismatch {
        match self.error() {
            Error::Weights(mismatch) => *mismatch,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn safetensors_bytes(
    header: &serde_json::Map<String, serde_json::Value>,
    data: &[u8],
) -> Vec<u8> {
    let header = serde_json::to_vec(header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

pub(crate) fn unclip() -> UnClip {
    UnClip::load(fixture_root().join("checkpoints/unclip"), &Device::flex()).unwrap()
}

/// A job of few steps.
pub(crate) fn quick(unclip: &UnClip) -> unclip::Job<'_, unclip::TextToImage> {
    let job = unclip.text_to_image("a red cube").seed(3);
    job.prior_steps(2).decoder_steps(2).upsampler_steps(2)
}

/// Every file and folder below `folder`, by its path in it.
pub(crate) fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|below| name.join(below)));
        }
        found.push(name);
    }
    found.sort();
    found
}

/// Writes a component's tensors again, changed by `edit`; its header is valid afterwards.
pub(crate) fn rewrite(
    copy: &Copy,
    component: &str,
    edit: impl Fn(&str, &mut safetensors::Dtype, &mut Vec<usize>, &mut Vec<u8>),
) {
    let bytes = fs::read(copy.weights(component)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let (mut dtype, mut shape) = (view.dtype(), view.shape().to_vec());
            let mut data = view.data().to_vec();
            edit(&name, &mut dtype, &mut shape, &mut data);
            (name, dtype, shape, data)
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(copy.weights(component), bytes).unwrap();
}

/// Removes an entry of `model_index.json`.
pub(crate) fn forget(copy: &Copy, component: &str) {
    let path = copy.path("model_index.json");
    let text = fs::read(&path).unwrap();
    let mut index: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).unwrap();
    index.remove(component).unwrap();
    fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

pub(crate) fn largest_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar()
}
