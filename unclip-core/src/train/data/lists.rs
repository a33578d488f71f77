//! Files that list pictures with their captions: `.csv` and `.jsonl`.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use super::{
    captions::{CAPTION, object, of_object, text},
    folder::{Captions, Entry},
};
use crate::error::{Error, Result};

/// Names under which pictures are found.
pub(super) const PICTURE: [&str; 5] = ["file_name", "image", "path", "file", "filename"];

/// Reads a `.csv`; `columns` are the names of its columns of pictures and captions.
///
/// # Errors
/// [`Error::Data`] if it has no such column.
pub(super) fn read_csv(path: &Path, columns: Option<[&str; 2]>) -> Result<Vec<Entry>> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e, "give the list of the pictures"))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let wrong = |reason: String| Error::data(path.display(), reason);
    let headers = reader.byte_headers().map_err(|e| wrong(e.to_string()))?;
    let headers: Vec<String> = headers
        .iter()
        .map(|h| String::from_utf8_lossy(h).trim().to_owned())
        .collect();
    let column = |what: &str, names: &[&str]| {
        let found = names
            .iter()
            .find_map(|name| headers.iter().position(|h| h == name));
        found.ok_or_else(|| {
            wrong(format!(
                "no column of {what}: expected {}, found {}",
                names.join(" or "),
                headers.join(", ")
            ))
        })
    };
    let (picture, caption) = match columns {
        Some([picture, caption]) => (
            column("pictures", &[picture])?,
            column("captions", &[caption])?,
        ),
        None => (column("pictures", &PICTURE)?, column("captions", &CAPTION)?),
    };
    let mut list = List::new(path);
    let mut record = csv::ByteRecord::new();
    while reader
        .read_byte_record(&mut record)
        .map_err(|e| wrong(e.to_string()))?
    {
        let line = record.position().map_or(0, csv::Position::line);
        let cell = |at: usize| record.get(at).unwrap_or_default().to_vec();
        list.add(line, || {
            let name = list_name(path, line);
            Ok((
                text(cell(picture), &name)?,
                vec![text(cell(caption), &name)?],
            ))
        });
    }
    Ok(list.entries)
}

/// Reads a `.jsonl`, an object on each line, as Hugging Face's imagefolder has it.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn read_jsonl(path: &Path, columns: Option<[&str; 2]>) -> Result<Vec<Entry>> {
    let bytes = fs::read(path).map_err(|e| Error::io(path, e, "give the list of the pictures"))?;
    let (pictures, captions) = match &columns {
        Some([picture, caption]) => (std::slice::from_ref(picture), std::slice::from_ref(caption)),
        None => (&PICTURE[..], &CAPTION[..]),
    };
    let mut list = List::new(path);
    for (line, bytes) in bytes.split(|b| *b == b'\n').enumerate() {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let line = line as u64 + 1;
        list.add(line, || {
            let name = list_name(path, line);
            let object = object(text(bytes.to_vec(), &name)?.as_bytes(), &name)?;
            let picture = pictures.iter().find_map(|key| object.get(*key)?.as_str());
            let picture = picture
                .ok_or_else(|| Error::data(&name, format!("no {}", pictures.join(" or "))))?;
            Ok((picture.to_owned(), of_object(&object, captions)))
        });
    }
    Ok(list.entries)
}

fn list_name(path: &Path, line: u64) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{file}, line {line}")
}

/// Entries of a list, one for each picture.
struct List<'a> {
    path: &'a Path,
    entries: Vec<Entry>,
    known: HashMap<String, usize>,
}

impl<'a> List<'a> {
    fn new(path: &'a Path) -> Self {
        Self {
            path,
            entries: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Adds a line's picture, or its captions to those of a line before.
    fn add(&mut self, line: u64, read: impl FnOnce() -> Result<(String, Vec<String>)>) {
        let (picture, captions) = match read() {
            Ok((picture, captions)) if !picture.trim().is_empty() => (picture, captions),
            Ok(_) => return self.broken(line, "no picture is named".into()),
            Err(Error::Data { reason, .. }) => return self.broken(line, reason),
            Err(error) => return self.broken(line, error.to_string()),
        };
        let picture = picture.trim().to_owned();
        if let Some(entry) = self
            .known
            .get(&picture)
            .and_then(|at| self.entries.get_mut(*at))
            && let Captions::Listed(known) = &mut entry.captions
        {
            known.extend(captions);
            return;
        }
        self.known.insert(picture.clone(), self.entries.len());
        self.entries.push(Entry {
            picture: self.path.with_file_name("").join(&picture),
            name: picture,
            captions: Captions::Listed(captions),
        });
    }

    fn broken(&mut self, line: u64, reason: String) {
        self.entries.push(Entry {
            name: list_name(self.path, line),
            picture: PathBuf::new(),
            captions: Captions::Broken(reason),
        });
    }
}
