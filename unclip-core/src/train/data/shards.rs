//! Tar files of the webdataset format.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    captions::{CAPTION, chosen, object, of_object, text},
    picture::{decode, is_picture},
};
use crate::{
    error::{Error, Result},
    train::{
        Captioned, Samples,
        pattern::{expanded, matches},
    },
};

/// Captioned pictures in tar files: `KEY.jpg` (or .png, .webp, .gif), `KEY.txt` with the caption, and
/// `KEY.json`, whose `caption` counts where there is no `.txt`. img2dataset writes these, and
/// `make_dataset`.
///
/// Opening reads the headers of every file once and keeps where everything is, about 200 bytes a sample;
/// samples are then read at their place, in any order. A tar that was cut off gives what it has, and one
/// sample that cannot be read and says where it ends.
#[derive(Clone, Debug)]
pub struct Shards {
    files: Vec<PathBuf>,
    samples: Vec<Sample>,
}

#[derive(Clone, Debug)]
struct Sample {
    file: u32,
    key: String,
    picture: Option<Span>,
    caption: Option<Span>,
    about: Option<Span>,
    /// What is wrong with the file here.
    broken: Option<String>,
}

/// Bytes of a tar file.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    length: u64,
}

/// A tar's blocks.
const BLOCK: u64 = 512;
/// A file in a tar that is larger than this is no sample of a data set.
const LARGEST: u64 = 1 << 30;

impl Shards {
    /// Opens a folder of `.tar` files, one of them, or those of a pattern such as
    /// `data/{00000..00099}.tar` or `data/*.tar`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a file or folder that is not there; [`Error::Data`] if no file is found,
    /// none is a tar, or none has a sample.
    pub fn open(path: &Path) -> Result<Self> {
        let files = shard_files(path)?;
        let mut all = Self {
            files,
            samples: Vec::new(),
        };
        for number in 0..all.files.len() {
            let found = index(&all.files[number], number as u32)?;
            all.samples.extend(found);
        }
        match all.samples.iter().find(|s| s.broken.is_none()) {
            Some(_) => Ok(all),
            None => {
                let reason = all.samples.into_iter().find_map(|s| s.broken);
                let reason = reason.unwrap_or_else(|| "no samples (KEY.jpg and KEY.txt)".into());
                Err(Error::data(path.display(), reason))
            }
        }
    }

    /// The tar files, in order.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    fn read(&self, sample: &Sample, span: Span) -> Result<Vec<u8>> {
        let path = &self.files[sample.file as usize];
        let io = |e| Error::io(path, e, "the file has gone since it was opened");
        let mut file = File::open(path).map_err(io)?;
        file.seek(SeekFrom::Start(span.start)).map_err(io)?;
        let mut bytes = vec![0; span.length as usize];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }
}

/// The files that a path or pattern stands for, in order of their names.
fn shard_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let (folder, patterns) = match path.is_dir() {
        true => (path.to_owned(), vec!["*.tar".to_owned()]),
        false => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (path.with_file_name(""), expanded(&name))
        }
    };
    let folder = match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder,
    };
    let io = |e| {
        Error::io(
            &folder,
            e,
            "give a folder of .tar files, or a pattern of them",
        )
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)? {
        names.push(
            entry
                .map_err(io)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    let mut files = Vec::new();
    for pattern in patterns {
        let found = names.iter().filter(|name| matches(&pattern, name));
        let before = files.len();
        files.extend(found.map(|name| folder.join(name)));
        if files.len() == before {
            let missing = folder.join(&pattern);
            let hint = "a folder of .tar files, or a pattern of them, is expected".into();
            return Err(Error::NotFound {
                path: missing,
                hint,
            });
        }
    }
    Ok(files)
}

/// The samples of a tar file in its order.
fn index(path: &Path, file: u32) -> Result<Vec<Sample>> {
    let io = |e| Error::io(path, e, "the file has gone since it was listed");
    let tar = File::open(path).map_err(io)?;
    let length = tar.metadata().map_err(io)?.len();
    let mut archive = tar::Archive::new(tar);
    let (mut samples, mut known): (Vec<Sample>, HashMap<String, usize>) = Default::default();
    let new = |key: &str| Sample {
        file,
        key: key.to_owned(),
        picture: None,
        caption: None,
        about: None,
        broken: None,
    };
    let mut end = 0;
    let mut broken: Option<String> = None;
    for entry in archive.entries_with_seek().map_err(io)? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                broken = Some(format!("not a tar from byte {end} on ({error})"));
                break;
            }
        };
        let span = Span {
            start: entry.raw_file_position(),
            length: entry.size(),
        };
        let reached = span.start.checked_add(span.length);
        let Some(reached) = reached.filter(|reached| *reached <= length) else {
            broken = Some(format!("cut off at byte {length}"));
            break;
        };
        end = reached.next_multiple_of(BLOCK);
        if !entry.header().entry_type().is_file() || span.length > LARGEST {
            continue;
        }
        let name = entry.path_bytes();
        let name = String::from_utf8_lossy(&name);
        // The key ends at the first dot of the file's name, as webdataset has it.
        let base = name.rfind('/').map_or(0, |at| at + 1);
        let Some(dot) = name[base..].find('.').map(|at| base + at) else {
            continue;
        };
        let (key, ending) = (&name[..dot], &name[dot + 1..]);
        let slot: fn(&mut Sample) -> &mut Option<Span> = match ending.to_lowercase().as_str() {
            "txt" => |s| &mut s.caption,
            "json" => |s| &mut s.about,
            _ if is_picture(Path::new(&*name)) => |s| &mut s.picture,
            _ => continue,
        };
        let at = *known.entry(key.to_owned()).or_insert_with(|| {
            samples.push(new(key));
            samples.len() - 1
        });
        let slot = slot(&mut samples[at]);
        // `KEY.seg.png` beside `KEY.jpg` is another thing.
        if slot.is_none() || !ending.contains('.') {
            *slot = Some(span);
        }
    }
    // A whole tar ends with two blocks of zeros.
    if broken.is_none() && length < end + BLOCK {
        broken = Some(format!("cut off at byte {length}"));
    }
    if let Some(reason) = broken {
        let after = samples
            .last()
            .map_or(String::new(), |s| format!(", in or after {}", s.key));
        let reason = format!("{reason}{after}: what follows is missing; get the file again");
        // What is at the cut may be half a sample; the one that names the cut stands for it.
        if samples.last().is_some_and(|s| s.picture.is_none()) {
            samples.pop();
        }
        samples.push(Sample {
            broken: Some(reason),
            ..new("")
        });
    }
    Ok(samples)
}

impl Samples for Shards {
    type Item = Captioned;

    fn len(&self) -> usize {
        self.samples.len()
    }

    fn get(&self, index: usize, draw: u64) -> Result<Captioned> {
        let (sample, name) = (&self.samples[index], self.name(index));
        if let Some(reason) = &sample.broken {
            return Err(Error::data(name, reason));
        }
        let captions = match (sample.caption, sample.about) {
            (Some(span), _) => {
                let text = text(self.read(sample, span)?, &name)?;
                // A line break within a caption is a space.
                vec![text.split_whitespace().collect::<Vec<_>>().join(" ")]
            }
            (None, Some(span)) => of_object(&object(&self.read(sample, span)?, &name)?, &CAPTION),
            (None, None) => Vec::new(),
        };
        let caption = chosen(captions, draw, &name)?;
        let picture = sample
            .picture
            .ok_or_else(|| Error::data(&name, "it has no picture"))?;
        Ok(Captioned {
            picture: decode(&self.read(sample, picture)?, &name)?,
            caption,
        })
    }

    fn name(&self, index: usize) -> String {
        let sample = &self.samples[index];
        let file = self.files[sample.file as usize].file_name();
        let file = file.unwrap_or_default().to_string_lossy();
        match sample.key.is_empty() {
            true => file.into_owned(),
            false => format!("{file}/{}", sample.key),
        }
    }
}
