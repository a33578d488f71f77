//! A folder of pictures with captions.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    captions::{chosen, text},
    lists::{read_csv, read_jsonl},
    picture::{ENDINGS, decode, is_picture},
};
use crate::{
    error::{Error, Result},
    train::{Captioned, Samples},
};

/// Lists that are looked for in a folder, in this order.
pub(super) const LISTS: [&str; 4] = [
    "metadata.jsonl",
    "captions.jsonl",
    "captions.csv",
    "metadata.csv",
];

/// Pictures of a folder and of those in it, with captions.
///
/// A `metadata.jsonl` or `captions.csv` lists pictures with captions; without one, each picture has its
/// captions in `NAME.txt` beside it, one on a line. Several captions of a picture (a list in the
/// `.jsonl`, several rows of the `.csv`, several lines of the `.txt`) take turns, as the reading draws.
#[derive(Clone, Debug)]
pub struct PictureFolder {
    entries: Vec<Entry>,
}

/// A picture that is known of.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its path below the folder, or the place of the list that is wrong.
    pub name: String,
    pub picture: PathBuf,
    pub captions: Captions,
}

#[derive(Clone, Debug)]
pub(super) enum Captions {
    /// As a list has them.
    Listed(Vec<String>),
    /// In a file beside the picture.
    Beside,
    /// What is wrong with the list here.
    Broken(String),
}

impl PictureFolder {
    /// Opens a folder, or the list in one.
    ///
    /// Columns or keys of pictures are `file_name`, `image`, `path`, `file` or `filename`, those of
    /// captions `caption`, `captions`, `text` or `prompt`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Data`] without pictures or for a list without these columns.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path, None)
    }

    /// The same with the names of the list's columns or keys.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_columns(path: &Path, picture: &str, caption: &str) -> Result<Self> {
        Self::read(path, Some([picture, caption]))
    }

    fn read(path: &Path, columns: Option<[&str; 2]>) -> Result<Self> {
        let list = match path.is_dir() {
            false => Some(path.to_owned()),
            true => LISTS.iter().map(|l| path.join(l)).find(|l| l.is_file()),
        };
        let entries = match &list {
            Some(list) if list.extension().is_some_and(|e| e == "csv") => read_csv(list, columns)?,
            Some(list) => read_jsonl(list, columns)?,
            None => {
                let mut found = Vec::new();
                walk(path, &mut found)?;
                found.sort();
                found
                    .into_iter()
                    .map(|picture| beside(path, picture))
                    .collect()
            }
        };
        if entries.is_empty() {
            let reason = match list {
                Some(_) => "it lists no pictures".to_owned(),
                None => format!("no pictures (.{})", ENDINGS.join(", .")),
            };
            return Err(Error::data(
                list.as_deref().unwrap_or(path).display(),
                reason,
            ));
        }
        Ok(Self { entries })
    }
}

fn beside(root: &Path, picture: PathBuf) -> Entry {
    let name = picture.strip_prefix(root).unwrap_or(&picture);
    Entry {
        name: name.display().to_string(),
        picture,
        captions: Captions::Beside,
    }
}

/// All pictures below a folder; links to folders are not followed.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let io = |e| Error::io(folder, e, "give a folder of pictures");
    for entry in fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(io)?.is_dir() {
            walk(&path, found)?;
        } else if is_picture(&path) {
            found.push(path);
        }
    }
    Ok(())
}

impl Samples for PictureFolder {
    type Item = Captioned;

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn get(&self, index: usize, draw: u64) -> Result<Captioned> {
        let Entry {
            name,
            picture,
            captions,
        } = &self.entries[index];
        let captions = match captions {
            Captions::Broken(reason) => return Err(Error::data(name, reason)),
            Captions::Listed(captions) => captions.clone(),
            Captions::Beside => {
                let path = picture.with_extension("txt");
                let bytes = fs::read(&path).map_err(|e| {
                    Error::io(
                        &path,
                        e,
                        "each picture has its captions in such a file beside it",
                    )
                })?;
                let text = text(bytes, &path.display().to_string())?;
                text.lines().map(str::to_owned).collect()
            }
        };
        let caption = chosen(captions, draw, name)?;
        let bytes = fs::read(picture).map_err(|e| Error::io(picture, e, "it is listed"))?;
        Ok(Captioned {
            picture: decode(&bytes, name)?,
            caption,
        })
    }

    fn name(&self, index: usize) -> String {
        self.entries[index].name.clone()
    }
}
