//! Checkpoints of a run: folders that are complete or not there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::{module::Module, tensor::Tensor};
use serde::{Deserialize, Serialize};

use super::{
    Broken, Optimizer, TrainSettings,
    optimizer::{replaced, rows},
};
use crate::{
    error::{Error, Result},
    json,
    weights::{Checkpoint, KeyMap, LoadOptions, load, save, write_whole},
};

/// What a checkpoint holds beside tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    /// Steps done.
    pub step: usize,
    pub settings: TrainSettings,
    /// Parameters that the optimiser has moments of.
    pub trained: Vec<String>,
    pub broken: Vec<(String, String)>,
    /// As bits: decimals need not come back as the same number.
    pub running_loss: Option<u64>,
    /// Samples there are, once a run has begun.
    pub samples: Option<usize>,
    pub recipe: serde_json::Value,
}

impl State {
    pub(super) fn broken(&self) -> Vec<Broken> {
        let broken = self.broken.iter().cloned();
        broken
            .map(|(name, reason)| Broken { name, reason })
            .collect()
    }
}

const FINISHED: &str = "state.json";

/// The checkpoints of a run's folder, `step-000001000` and so on, with their steps, oldest first.
pub fn checkpoints(folder: &Path) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(usize, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let step = name.strip_prefix("step-")?.parse().ok()?;
            Some((step, entry.path()))
        })
        .filter(|(_, path)| path.join(FINISHED).is_file())
        .collect();
    found.sort();
    found
}

/// The newest checkpoint of a run's folder.
pub fn latest_checkpoint(folder: &Path) -> Option<PathBuf> {
    checkpoints(folder).pop().map(|(_, path)| path)
}

/// Writes a checkpoint beside its place and moves it there, then removes all but the newest `keep`.
pub(super) fn write<M: Module>(
    folder: &Path,
    model: &M,
    optimizer: &Optimizer,
    state: &State,
    keep: usize,
) -> Result<PathBuf> {
    let path = folder.join(format!("step-{:09}", state.step));
    let temporary = folder.join(format!("step-{:09}.tmp", state.step));
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(io(&temporary))?;
    }
    let put = |name: &str, model: &M| {
        let folder = temporary.join(name);
        fs::create_dir_all(&folder).map_err(io(&folder))?;
        save(
            model,
            &folder.join("model.safetensors"),
            &KeyMap::default(),
            None,
        )
    };
    put("model", model)?;
    for (name, values) in [
        ("average", &optimizer.average),
        ("first", &optimizer.first),
        ("second", &optimizer.second),
    ] {
        if !values.is_empty() {
            put(name, &replaced(model.clone(), values))?;
        }
    }
    let text = serde_json::to_vec_pretty(state).unwrap_or_default();
    write_whole(&temporary.join(FINISHED), &text)?;
    if path.exists() {
        remove(&path).map_err(io(&path))?;
    }
    fs::rename(&temporary, &path).map_err(io(&path))?;
    let all = checkpoints(folder);
    for (_, old) in &all[..all.len().saturating_sub(keep)] {
        remove(old).map_err(io(old))?;
    }
    Ok(path)
}

/// Removes a checkpoint, which at no moment is one that lacks something.
fn remove(checkpoint: &Path) -> std::io::Result<()> {
    let aside = checkpoint.with_extension("old");
    if aside.exists() {
        fs::remove_dir_all(&aside)?;
    }
    fs::rename(checkpoint, &aside)?;
    fs::remove_dir_all(aside)
}

/// Reads a checkpoint into `model`, whose parameters are not tracked.
pub(super) fn read<M: Module>(path: &Path, model: M) -> Result<(M, Optimizer, State)> {
    let state: State = json::read(&path.join(FINISHED))?;
    let get = |name: &str, model: M| {
        let files = Checkpoint::open(&path.join(name), None)?;
        load(model, &files, &KeyMap::default(), LoadOptions::default())
    };
    let is_trained = |key: &str| state.trained.iter().any(|k| k == key);
    let read = |name: &str, is_there: bool| -> Result<BTreeMap<String, Tensor<1>>> {
        match is_there {
            true => Ok(rows(&get(name, model.clone())?, is_trained)),
            false => Ok(BTreeMap::new()),
        }
    };
    let has_moments = !state.trained.is_empty();
    let optimizer = Optimizer {
        first: read("first", has_moments)?,
        second: read("second", has_moments)?,
        average: read("average", has_moments && state.settings.ema > 0.0)?,
    };
    Ok((get("model", model.clone())?, optimizer, state))
}
