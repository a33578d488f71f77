//! `.bin`, `.pt`, `.pth`, `.th` and `.ckpt` through Burn's reader, which builds tensors only and
//! runs no code of the pickle.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

use burn::store::{ModuleStore, PytorchStore};

use super::TensorInfo;
use crate::error::{Error, Result};

/// Where training scripts keep the weights inside the pickled dictionary.
const NESTED: &str = "state_dict.";

pub(super) struct PytorchFile {
    path: PathBuf,
    store: Mutex<PytorchStore>,
}

impl std::fmt::Debug for PytorchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PytorchFile").field(&self.path).finish()
    }
}

impl PytorchFile {
    pub(super) fn open(path: &Path) -> Result<(Self, BTreeMap<String, TensorInfo>)> {
        if !path.is_file() {
            return Err(Error::NotFound {
                path: path.to_owned(),
                hint: "a weight file named by this checkpoint is not there".into(),
            });
        }
        let mut store = PytorchStore::from_file(path).map_indices_contiguous(false);
        let mut infos = index(&mut store, path)?;
        // A checkpoint of a training script: the weights are one level down.
        if !infos.is_empty() && infos.keys().all(|key| key.starts_with(NESTED)) {
            store = PytorchStore::from_file(path)
                .with_top_level_key(NESTED.trim_end_matches('.'))
                .map_indices_contiguous(false);
            infos = index(&mut store, path)?;
        }
        if infos.is_empty() {
            return Err(Error::WeightFile {
                path: path.to_owned(),
                reason: "it holds no tensors".into(),
            });
        }
        let this = Self {
            path: path.to_owned(),
            store: Mutex::new(store),
        };
        Ok((this, infos))
    }

    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let failed = |reason: String| Error::WeightFile {
            path: self.path.clone(),
            reason,
        };
        let mut store = match self.store.lock() {
            Ok(store) => store,
            Err(poisoned) => poisoned.into_inner(),
        };
        let tensor = store
            .get_tensor(name)
            .map_err(|e| failed(e.to_string()))?
            .ok_or_else(|| failed(format!("it has no tensor `{name}`")))?;
        let bytes = tensor
            .to_bytes()
            .map_err(|e| failed(format!("`{name}`: {e:?}")))?;
        Ok(bytes.to_vec())
    }
}

fn index(store: &mut PytorchStore, path: &Path) -> Result<BTreeMap<String, TensorInfo>> {
    let tensors = store.get_all_tensors().map_err(|e| Error::WeightFile {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(tensors
        .iter()
        .map(|(name, tensor)| {
            let info = TensorInfo {
                dtype: Some(tensor.dtype),
                shape: tensor.shape.iter().copied().collect(),
            };
            (name.clone(), info)
        })
        .collect())
}
