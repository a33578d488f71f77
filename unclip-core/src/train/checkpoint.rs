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
    pub running_loss: Option<f64>,
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
    for old in [&temporary, &path] {
        if old.exists() {
            fs::remove_dir_all(old).map_err(io(old))?;
        }
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
    fs::rename(&temporary, &path).map_err(io(&path))?;
    let all = checkpoints(folder);
    for (_, old) in &all[..all.len().saturating_sub(keep)] {
        fs::remove_dir_all(old).map_err(io(old))?;
    }
    Ok(path)
}

/// Reads a checkpoint into `model`, whose parameters are not tracked.
pub(super) fn read<M: Module>(path: &Path, model: M) -> Result<(M, Optimizer, State)> {
    let state: State = json::read(&path.join(FINISHED))?;
    let get = |name: &str, model: M| {
        let files = Checkpoint::open(&path.join(name), None)?;
        load(model, &files, &KeyMap::default(), LoadOptions::default())
    };
    let is_trained = |key: &str| state.trained.iter().any(|k| k == key);
    let read = |name: &str| -> Result<BTreeMap<String, Tensor<1>>> {
        match path.join(name).is_dir() {
            true => Ok(rows(&get(name, model.clone())?, is_trained)),
            false => Ok(BTreeMap::new()),
        }
    };
    let optimizer = Optimizer {
        first: read("first")?,
        second: read("second")?,
        average: read("average")?,
    };
    Ok((get("model", model.clone())?, optimizer, state))
}
