//! The JSON files of a checkpoint.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    weights::write_whole,
};

/// Parses the JSON file at `path`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::Io`], or [`Error::Json`] with line and column.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path)
        .map_err(|e| Error::io(path, e, "a checkpoint folder of this kind has this file"))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })
}

/// Writes `value` as JSON to `path`, completely or not at all; the folder is made.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e, "cannot be made"))?;
    }
    let mut text = serde_json::to_vec_pretty(value).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })?;
    text.push(b'\n');
    write_whole(path, &text)
}
