//! Recognising what a path holds.

use std::{fs, path::Path, sync::Arc};

use super::{PictureFolder, Shards, folder::LISTS, picture::is_picture};
use crate::{
    error::{Error, Result},
    train::{Captioned, Samples},
};

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Pictures with captions, for [`PictureFolder`].
    Pictures,
    /// Tar files, for [`Shards`].
    Shards,
    /// Embeddings, for [`Embeddings`](super::Embeddings).
    Embeddings,
}

const EXPECTED: &str = "expected one of: pictures with NAME.txt beside them; captions.csv or \
    metadata.jsonl; .tar shards of webdataset, or a pattern of them; .npy or .safetensors embeddings";

/// Recognises a path by its name and, for a folder, by what is in it.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Data`] for a path that holds nothing of the kind, with what would be.
pub fn layout(path: &Path) -> Result<Layout> {
    let unknown = || Error::data(path.display(), EXPECTED);
    let of_name = |name: &Path| {
        let ending = name.extension()?.to_str()?.to_owned();
        Some(match ending.as_str() {
            "tar" => Layout::Shards,
            "csv" | "jsonl" => Layout::Pictures,
            "npy" | "safetensors" => Layout::Embeddings,
            _ => return None,
        })
    };
    if !path.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_pattern = name.contains(['*', '?', '{']);
        if !is_pattern && !path.is_file() {
            return Err(Error::NotFound {
                path: path.to_owned(),
                hint: EXPECTED.into(),
            });
        }
        return of_name(path).ok_or_else(unknown);
    }
    if LISTS.iter().any(|list| path.join(list).is_file()) {
        return Ok(Layout::Pictures);
    }
    if path.join("img_emb").is_dir() {
        return Ok(Layout::Embeddings);
    }
    let io = |e| Error::io(path, e, "give the folder of the data");
    let mut found = None;
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?.path();
        match of_name(&entry) {
            Some(Layout::Shards) => return Ok(Layout::Shards),
            Some(Layout::Embeddings) => found = Some(Layout::Embeddings),
            _ if is_picture(&entry) || entry.is_dir() => {
                found = found.or(Some(Layout::Pictures));
            }
            _ => {}
        }
    }
    found.ok_or_else(unknown)
}

/// Opens captioned pictures, whatever [`layout`] they have.
///
/// # Errors
/// As [`layout`] and what it recognises; [`Error::Data`] for embeddings, which hold no pictures.
pub fn open(path: &Path) -> Result<Arc<dyn Samples<Item = Captioned>>> {
    Ok(match layout(path)? {
        Layout::Pictures => Arc::new(PictureFolder::open(path)?),
        Layout::Shards => Arc::new(Shards::open(path)?),
        Layout::Embeddings => {
            let reason = "embeddings, from which priors learn; this needs pictures";
            return Err(Error::data(path.display(), reason));
        }
    })
}
