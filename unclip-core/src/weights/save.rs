//! Writing a module as safetensors, the way [`load`](super::load) reads it.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, FloatDType, Tensor, TensorData},
};
use safetensors::{Dtype, tensor::TensorView};

use super::{KeyMap, load::ModulePath, transpose::transpose};
use crate::error::{Error, Result};

/// Writes every parameter of `module` to the safetensors file `path`, under the names of `keys`.
///
/// Floats are written as `dtype`, or as they are kept. `Linear` weights are transposed, so that
/// PyTorch reads them as they are. The file is complete or not there: it is written beside `path`,
/// flushed to the disk, and renamed.
///
/// # Errors
/// [`Error::Io`] if it cannot be written, [`Error::WeightFile`] for a type that safetensors do not
/// have.
pub fn save<M: Module>(
    module: &M,
    path: &Path,
    keys: &KeyMap,
    dtype: Option<FloatDType>,
) -> Result<()> {
    let mut collector = Collector {
        path: ModulePath::default(),
        keys,
        dtype: dtype.map(DType::from),
        tensors: Vec::new(),
    };
    module.visit(&mut collector);
    let mut views = Vec::with_capacity(collector.tensors.len());
    for (name, data) in &collector.tensors {
        let failed = |reason: String| Error::WeightFile {
            path: path.to_owned(),
            reason: format!("`{name}`: {reason}"),
        };
        let dtype = stored(data.dtype())
            .ok_or_else(|| failed(format!("{:?} cannot be stored", data.dtype())))?;
        let shape = data.shape().iter().copied().collect();
        let view = TensorView::new(dtype, shape, data.as_bytes());
        views.push((name.as_str(), view.map_err(|e| failed(e.to_string()))?));
    }
    // transformers refuses files that do not say whose layout they have.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(format)).map_err(|e| Error::WeightFile {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    write_whole(path, &bytes)
}

/// Writes a file completely or not at all.
///
/// # Errors
/// [`Error::Io`].
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let temporary = temporary(path);
    let write = || {
        let mut file = BufWriter::new(File::create(&temporary)?);
        file.write_all(bytes)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        // Best effort: the error that matters is the one before.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(io)
}

/// A name beside `path` that no other writer of the same file has, in this process or another.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    static WRITERS: AtomicUsize = AtomicUsize::new(0);
    let (process, writer) = (std::process::id(), WRITERS.fetch_add(1, Ordering::Relaxed));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{name}.{process}-{writer}.tmp"))
}

fn stored(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 | DType::Flex32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        _ => return None,
    })
}

struct Collector<'a> {
    path: ModulePath,
    keys: &'a KeyMap,
    dtype: Option<DType>,
    tensors: Vec<(String, TensorData)>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let (key, transposed) = self.path.key(self.keys);
        let data = param.val().into_data();
        let data = match self.dtype {
            Some(dtype) => data.convert_dtype(dtype),
            None => data,
        };
        let data = if transposed { transpose(data) } else { data };
        self.tensors.push((key, data));
    }
}
