//! Rows of numbers in `.npy` and safetensors files, read one at a time.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};

use crate::{
    error::{Error, Result},
    weights::Checkpoint,
};

/// A matrix in a file.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub path: PathBuf,
    pub count: usize,
    pub width: usize,
    dtype: DType,
    start: u64,
}

/// Names under which safetensors files have embeddings of pictures.
pub(super) const TENSORS: [&str; 4] = [
    "image_embedding",
    "image_embeddings",
    "img_emb",
    "embeddings",
];

impl Rows {
    /// Opens a file of `[n, d]` numbers.
    ///
    /// # Errors
    /// [`Error::Data`] for another type or shape, or a file that was cut off.
    pub(super) fn open(path: &Path) -> Result<Self> {
        match path.extension().is_some_and(|e| e == "npy") {
            true => Self::npy(path),
            false => Self::safetensors(path),
        }
    }

    fn safetensors(path: &Path) -> Result<Self> {
        let file = Checkpoint::from_file(path)?;
        let name = TENSORS.iter().find(|name| file.info(name).is_some());
        let (Some(name), Some(info)) = (name, name.and_then(|name| file.info(name))) else {
            let found: Vec<&str> = file.names().take(5).collect();
            let reason = format!(
                "no tensor {}, found {}",
                TENSORS.join(" or "),
                found.join(", ")
            );
            return Err(Error::data(path.display(), reason));
        };
        let start = file
            .position(name)
            .ok_or_else(|| Error::data(path.display(), "expected one .npy or .safetensors file"))?;
        let dtype = info.dtype.filter(|d| size(*d).is_some());
        let dtype = dtype.ok_or_else(|| {
            Error::data(
                path.display(),
                format!("`{name}` is {:?}, expected f32, f16 or bf16", info.dtype),
            )
        })?;
        Self::checked(path, &info.shape, dtype, start)
    }

    fn npy(path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::data(path.display(), reason);
        let io = |e| Error::io(path, e, "give a .npy file of embeddings");
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut start = [0; 8];
        if length < 12 {
            return Err(wrong(format!("{length} bytes are no .npy file")));
        }
        file.read_exact(&mut start).map_err(io)?;
        if start[..6] != *b"\x93NUMPY" {
            return Err(wrong(
                "not a .npy file: it does not begin with \\x93NUMPY".into(),
            ));
        }
        let mut size_bytes = [0; 4];
        let digits = if start[6] == 1 { 2 } else { 4 };
        file.read_exact(&mut size_bytes[..digits]).map_err(io)?;
        let header = u64::from(u32::from_le_bytes(size_bytes));
        let data = 8 + digits as u64 + header;
        if data > length || header > 1 << 20 {
            return Err(wrong("its header is cut off; get the file again".into()));
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(io)?;
        let text = String::from_utf8_lossy(&text);
        let value = |key: &str| -> Option<&str> {
            let after = text.split_once(&format!("'{key}':"))?.1.trim_start();
            let end = match after.starts_with('(') {
                true => after.find(')')? + 1,
                false => after.find([',', '}'])?,
            };
            Some(after[..end].trim())
        };
        let dtype = match value("descr").unwrap_or_default().trim_matches('\'') {
            "<f4" => DType::F32,
            "<f2" => DType::F16,
            other => {
                return Err(wrong(format!(
                    "numbers of type {other}, expected <f4 or <f2"
                )));
            }
        };
        if value("fortran_order") != Some("False") {
            let remedy = "save it with np.save(path, np.ascontiguousarray(array))";
            return Err(wrong(format!(
                "its columns lie together, expected rows: {remedy}"
            )));
        }
        let shape = value("shape").unwrap_or_default();
        let shape: Vec<usize> = shape
            .trim_matches(['(', ')'])
            .split(',')
            .filter_map(|n| n.trim().parse().ok())
            .collect();
        Self::checked(path, &shape, dtype, data)
    }

    fn checked(path: &Path, shape: &[usize], dtype: DType, start: u64) -> Result<Self> {
        let [count, width] = *shape else {
            return Err(Error::data(
                path.display(),
                format!("shape {shape:?}, expected [n, d]"),
            ));
        };
        let length = std::fs::metadata(path)
            .map_err(|e| Error::io(path, e, "it is gone"))?
            .len();
        let bytes = count
            .checked_mul(width)
            .and_then(|n| n.checked_mul(size(dtype).unwrap_or(4)));
        let promised = bytes.and_then(|bytes| start.checked_add(bytes as u64));
        if width == 0 || promised.is_none_or(|promised| promised > length) {
            let reason = format!("{length} bytes hold less than its {shape:?}; get the file again");
            return Err(Error::data(path.display(), reason));
        }
        Ok(Self {
            path: path.to_owned(),
            count,
            width,
            dtype,
            start,
        })
    }

    /// A row.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for values that are not finite.
    pub(super) fn read(&self, row: usize, name: &str) -> Result<Vec<f32>> {
        let io = |e| Error::io(&self.path, e, "the file has gone since it was opened");
        let length = self.width * size(self.dtype).unwrap_or(4);
        let mut file = File::open(&self.path).map_err(io)?;
        let start = self.start + row as u64 * length as u64;
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).map_err(io)?;
        let data = TensorData::try_from_bytes_vec(bytes, [self.width], self.dtype);
        let data = data.map_err(|e| Error::data(name, format!("{e:?}")))?;
        let values: Vec<f32> = data.iter::<f32>().collect();
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(Error::data(name, "values that are not finite")),
        }
    }
}

/// Bytes of a number.
fn size(dtype: DType) -> Option<usize> {
    match dtype {
        DType::F32 => Some(4),
        DType::F16 | DType::BF16 => Some(2),
        _ => None,
    }
}
