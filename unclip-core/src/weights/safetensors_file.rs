//! One safetensors file: header at opening, one tensor at a time afterwards.
//!
//! The file is read at the tensor's offset instead of being memory-mapped: mapped pages that were
//! touched stay in the process's resident memory (a 4 GB prior would count twice while it loads),
//! and a file that shrinks under a map kills the process instead of giving an error.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use burn::tensor::DType;
use safetensors::{Dtype, tensor::Metadata};

use super::TensorInfo;
use crate::error::{Error, Result};

/// Longest header accepted, in bytes; a real one takes about 150 bytes a tensor.
const MAX_HEADER: u64 = 100_000_000;

/// An indexed safetensors file.
#[derive(Debug)]
pub(super) struct SafetensorsFile {
    path: PathBuf,
    data_start: u64,
    offsets: BTreeMap<String, (u64, usize)>,
}

impl SafetensorsFile {
    /// Reads the header and checks that the file holds every byte it promises.
    pub(super) fn open(path: &Path) -> Result<(Self, BTreeMap<String, TensorInfo>)> {
        let damaged = |reason: String| Error::WeightFile {
            path: path.to_owned(),
            reason,
        };
        let io = |e| {
            Error::io(
                path,
                e,
                "a weight file named by this checkpoint is not there",
            )
        };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        if length < 8 {
            return Err(damaged(format!(
                "it has {length} bytes, too few for a safetensors header; download it again"
            )));
        }
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(io)?;
        let header_length = u64::from_le_bytes(prefix);
        if header_length > MAX_HEADER {
            return Err(damaged(format!(
                "its header claims {header_length} bytes, which no safetensors file has; \
                 it is damaged or of another format"
            )));
        }
        if header_length > length - 8 {
            return Err(damaged(format!(
                "its header claims {header_length} bytes and the file has only {length}; \
                 download it again"
            )));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|e| damaged(format!("its header does not parse: {e}")))?;
        let data_start = 8 + header_length;
        let promised = data_start + metadata.data_len() as u64;
        if promised != length {
            return Err(damaged(format!(
                "its header promises {promised} bytes and the file has {length}; \
                 it was cut off or appended to: download it again"
            )));
        }

        let mut offsets = BTreeMap::new();
        let mut infos = BTreeMap::new();
        for (name, info) in metadata.tensors() {
            let (begin, end) = info.data_offsets;
            offsets.insert(name.clone(), (begin as u64, end - begin));
            infos.insert(
                name,
                TensorInfo {
                    dtype: burn_dtype(info.dtype),
                    shape: info.shape.clone(),
                },
            );
        }
        let this = Self {
            path: path.to_owned(),
            data_start,
            offsets,
        };
        Ok((this, infos))
    }

    /// Where a tensor's bytes begin in the file.
    #[cfg(feature = "train")]
    pub(super) fn position(&self, name: &str) -> Option<u64> {
        self.offsets
            .get(name)
            .map(|(offset, _)| self.data_start + offset)
    }

    /// The little-endian bytes of a tensor of this file.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let io = |e| Error::io(&self.path, e, "the file has gone since it was opened");
        let &(offset, length) = self.offsets.get(name).ok_or_else(|| Error::WeightFile {
            path: self.path.clone(),
            reason: format!("it has no tensor `{name}`"),
        })?;
        let mut file = File::open(&self.path).map_err(io)?;
        file.seek(SeekFrom::Start(self.data_start + offset))
            .map_err(io)?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(bytes)
    }
}

/// Burn's name of a safetensors type; `None` for those no unCLIP model has.
fn burn_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U8 => DType::U8,
        _ => return None,
    })
}
