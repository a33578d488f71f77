//! Embeddings that were computed before, with captions.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

use super::{
    captions::{CAPTION, chosen, object, of_object, text},
    npy::{Rows, TENSORS},
};
use crate::{
    error::{Error, Result},
    train::{EmbeddedCaption, Samples},
    weights::write_whole,
};

/// CLIP embeddings of pictures in files, with their captions.
///
/// A file has a row for each picture: `.npy` of `[n, d]` in f32 or f16, as clip-retrieval writes it
/// (`img_emb_0000.npy`, also in a folder `img_emb`), or `.safetensors` with a tensor `image_embedding` of
/// `[n, d]`, as [`write_embeddings`] writes it. Its captions are lines of a text file beside it or in a
/// folder `metadata`: for `img_emb_0000.npy` the first that there is of `img_emb_0000.jsonl`,
/// `metadata_0000.jsonl`, `captions_0000.jsonl` (objects with `caption`), and the same as `.txt` (a line
/// is a caption). Embeddings of texts (`text_emb_*.npy`) are not needed: recipes read captions with the
/// text encoder, since they need its tokens too.
#[derive(Clone, Debug)]
pub struct Embeddings {
    parts: Vec<(Rows, Lines)>,
    /// Rows up to the end of each part.
    ends: Vec<usize>,
}

impl Embeddings {
    /// Opens a folder of such files, or one of them.
    ///
    /// The first file says how wide embeddings are; rows of a file of another width are samples that
    /// cannot be used.
    ///
    /// # Errors
    /// [`Error::NotFound`] without files or captions; [`Error::Data`] for a file of another type or
    /// shape, or with more or fewer captions than rows.
    pub fn open(path: &Path) -> Result<Self> {
        let (mut parts, mut ends, mut count) = (Vec::new(), Vec::new(), 0);
        for file in embedding_files(path)? {
            let rows = Rows::open(&file)?;
            let lines = Lines::open(&captions_of(&file)?)?;
            if lines.starts.len() != rows.count {
                let found = format!("{} captions for {} rows", lines.starts.len(), rows.count);
                let reason = format!("{found} of {}", file.display());
                return Err(Error::data(lines.path.display(), reason));
            }
            count += rows.count;
            ends.push(count);
            parts.push((rows, lines));
        }
        if count == 0 {
            return Err(Error::data(path.display(), "its files have no rows"));
        }
        Ok(Self { parts, ends })
    }

    /// Length of an embedding.
    pub fn width(&self) -> usize {
        self.parts.first().map_or(0, |(rows, _)| rows.width)
    }

    /// The file of a sample and the row in it.
    fn place(&self, index: usize) -> (&Rows, &Lines, usize) {
        let part = self.ends.partition_point(|end| *end <= index);
        let (rows, lines) = &self.parts[part];
        (rows, lines, index + rows.count - self.ends[part])
    }
}

impl Samples for Embeddings {
    type Item = EmbeddedCaption;

    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn get(&self, index: usize, draw: u64) -> Result<EmbeddedCaption> {
        let (rows, lines, row) = self.place(index);
        let name = self.name(index);
        if rows.width != self.width() {
            let reason = format!("{} values, the first file has {}", rows.width, self.width());
            return Err(Error::data(name, reason));
        }
        Ok(EmbeddedCaption {
            caption: chosen(lines.captions(row, &name)?, draw, &name)?,
            embedding: rows.read(row, &name)?,
        })
    }

    fn name(&self, index: usize) -> String {
        let (rows, _, row) = self.place(index);
        let file = rows.path.file_name().unwrap_or_default().to_string_lossy();
        format!("{file}, row {row}")
    }
}

/// Writes embeddings of one width and their captions as `PATH`, a `.safetensors`, and the `.jsonl`
/// beside it, as [`Embeddings`] reads them: the captions last, so that a file with captions is whole.
///
/// # Errors
/// [`Error::Io`]; [`Error::Shape`] for rows of different width.
pub fn write_embeddings(path: &Path, rows: &[EmbeddedCaption]) -> Result<()> {
    let width = rows.first().map_or(0, |row| row.embedding.len());
    if let Some(row) = rows.iter().find(|row| row.embedding.len() != width) {
        let expected = format!("[{width}], as the first");
        return Err(Error::shape(
            "an embedding",
            &[row.embedding.len()],
            expected,
        ));
    }
    let values = rows.iter().flat_map(|row| row.embedding.iter());
    let bytes: Vec<u8> = values.flat_map(|v| v.to_le_bytes()).collect();
    let failed = |e: safetensors::SafeTensorError| Error::data(path.display(), e.to_string());
    let view = TensorView::new(Dtype::F32, vec![rows.len(), width], &bytes).map_err(failed)?;
    let bytes = safetensors::serialize([(TENSORS[0], view)], None).map_err(failed)?;
    let lines = rows
        .iter()
        .map(|row| json!({ "caption": row.caption }).to_string() + "\n");
    write_whole(path, &bytes)?;
    write_whole(
        &path.with_extension("jsonl"),
        lines.collect::<String>().as_bytes(),
    )
}

/// The files of a folder in the order of the numbers in their names.
fn embedding_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let folder = match path.join("img_emb").is_dir() {
        true => path.join("img_emb"),
        false => path.to_owned(),
    };
    let io = |e| Error::io(&folder, e, "give a folder of .npy or .safetensors files");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io)? {
        let file = entry.map_err(io)?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_ours = name.ends_with(".npy") || name.ends_with(".safetensors");
        if is_ours && !name.starts_with("text_emb") {
            files.push(file);
        }
    }
    if files.is_empty() {
        let hint = "a folder of embeddings has .npy or .safetensors files".into();
        return Err(Error::NotFound { path: folder, hint });
    }
    files.sort_by_key(|file| (number_of(file).parse::<u64>().unwrap_or(0), file.clone()));
    Ok(files)
}

/// The number that a file's name ends with.
fn number_of(file: &Path) -> String {
    let stem = file
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let start = stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem[start..].to_owned()
}

/// The file with the captions of a file's rows.
fn captions_of(file: &Path) -> Result<PathBuf> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let number = number_of(file);
    let folder = file.with_file_name("");
    let beside = [
        folder.clone(),
        folder.join("metadata"),
        folder.join("../metadata"),
    ];
    for ending in ["jsonl", "txt"] {
        for stem in [
            stem.clone().into(),
            format!("metadata_{number}"),
            format!("captions_{number}"),
        ] {
            let name = format!("{stem}.{ending}");
            if let Some(found) = beside.iter().map(|f| f.join(&name)).find(|f| f.is_file()) {
                return Ok(found);
            }
        }
    }
    Err(Error::NotFound {
        path: file.with_extension("jsonl"),
        hint: format!(
            "the captions of {stem}, an object {{\"caption\": ..}} for each row; of clip-retrieval's \
             metadata make it with pandas.read_parquet('metadata_{number}.parquet')[['caption']]\
             .to_json('metadata_{number}.jsonl', orient='records', lines=True)"
        ),
    })
}

/// Lines of a file, found by their places.
#[derive(Clone, Debug)]
struct Lines {
    path: PathBuf,
    starts: Vec<u64>,
    end: u64,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).map_err(|e| Error::io(path, e, "give the rows' captions"))?;
        let breaks = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n');
        let mut starts = vec![0];
        starts.extend(breaks.map(|(at, _)| at as u64 + 1));
        let end = bytes.len() as u64;
        starts.retain(|start| *start < end);
        Ok(Self {
            path: path.to_owned(),
            starts,
            end,
        })
    }

    fn captions(&self, line: usize, name: &str) -> Result<Vec<String>> {
        let io = |e| Error::io(&self.path, e, "the file has gone since it was opened");
        let start = self.starts[line];
        let end = self.starts.get(line + 1).copied().unwrap_or(self.end);
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact(&mut bytes).map_err(io)?;
        let text = text(bytes, name)?;
        match self.path.extension().is_some_and(|e| e == "jsonl") {
            true => Ok(of_object(&object(text.as_bytes(), name)?, &CAPTION)),
            false => Ok(vec![text]),
        }
    }
}
