//! Reading the JSON files of a checkpoint.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

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
