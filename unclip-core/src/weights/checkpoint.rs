//! Finding the weight files of a folder, and reading single tensors from them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use serde::Deserialize;

use super::safetensors_file::SafetensorsFile;
use crate::error::{Error, Result};

/// Type and shape of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// `None` for a type Burn has no name for.
    pub dtype: Option<DType>,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

/// The tensors of one model, spread over one or more files. Only headers are in memory.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, (usize, TensorInfo)>,
    files: Vec<WeightFile>,
}

#[derive(Debug)]
enum WeightFile {
    Safetensors(SafetensorsFile),
    #[cfg(feature = "pytorch")]
    Pytorch(Box<super::pytorch::PytorchFile>),
}

/// `*.safetensors.index.json`: which shard holds which tensor.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// File names (without extension) under which diffusers and transformers save weights.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];

impl Checkpoint {
    /// Finds the weights of the model in `folder`.
    ///
    /// With `variant`, `NAME.VARIANT.safetensors` (or its sharded form) is taken; without, the
    /// plain file, and where there is none but exactly one variant, that one. `.bin` is read
    /// after everything else, with feature `pytorch`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no weight file, [`Error::WeightFile`] if one is damaged.
    pub fn open(folder: &Path, variant: Option<&str>) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::NotFound {
                path: folder.to_owned(),
                hint: "this checkpoint lacks the folder of one of its models".into(),
            });
        }
        let names = file_names(folder)?;
        let has = |name: &str| names.iter().any(|n| n == name);
        for stem in STEMS {
            let dotted = variant.map(|v| format!(".{v}")).unwrap_or_default();
            let single = format!("{stem}{dotted}.safetensors");
            if has(&single) {
                return Self::from_file(&folder.join(single));
            }
            // diffusers writes the variant after `index`, transformers before `safetensors`.
            for index in [
                format!("{stem}{dotted}.safetensors.index.json"),
                format!("{stem}.safetensors.index{dotted}.json"),
            ] {
                if has(&index) {
                    return Self::from_index(&folder.join(index));
                }
            }
        }
        if variant.is_none() {
            let variants: Vec<&String> = names
                .iter()
                .filter(|n| n.ends_with(".safetensors") && !n.contains("-of-"))
                .filter(|n| STEMS.iter().any(|s| n.starts_with(&format!("{s}."))))
                .collect();
            if let [only] = variants[..] {
                return Self::from_file(&folder.join(only));
            }
        }
        let pickles = names
            .iter()
            .filter(|n| {
                [".bin", ".pt", ".pth", ".ckpt", ".th"]
                    .iter()
                    .any(|e| n.ends_with(e))
            })
            .collect::<Vec<_>>();
        if let Some(name) = pickles
            .iter()
            .find(|n| STEMS.iter().any(|s| n.starts_with(s)))
            .or(pickles.first())
        {
            return Self::from_file(&folder.join(name));
        }
        Err(Error::NotFound {
            path: folder.join(match variant {
                Some(v) => format!("*.{v}.safetensors"),
                None => "*.safetensors".to_owned(),
            }),
            hint: match variant {
                Some(v) => format!("the folder has no weights of the variant `{v}`"),
                None => "the folder holds no weights (diffusion_pytorch_model.safetensors, \
                         model.safetensors, their index, or .bin)"
                    .into(),
            },
        })
    }

    /// Indexes a single `.safetensors`, `.index.json`, `.bin`, `.pt`, `.pth`, `.th` or `.ckpt`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Io`] or [`Error::WeightFile`] if there is no such file, or it cannot be
    /// read or is none of these.
    pub fn from_file(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".index.json") {
            return Self::from_index(path);
        }
        let (file, infos) = if name.ends_with(".safetensors") {
            let (file, infos) = SafetensorsFile::open(path)?;
            (WeightFile::Safetensors(file), infos)
        } else {
            Self::open_pickle(path)?
        };
        Ok(Self {
            path: path.to_owned(),
            tensors: infos.into_iter().map(|(k, i)| (k, (0, i))).collect(),
            files: vec![file],
        })
    }

    #[cfg(feature = "pytorch")]
    fn open_pickle(path: &Path) -> Result<(WeightFile, BTreeMap<String, TensorInfo>)> {
        let (file, infos) = super::pytorch::PytorchFile::open(path)?;
        Ok((WeightFile::Pytorch(Box::new(file)), infos))
    }

    #[cfg(not(feature = "pytorch"))]
    fn open_pickle(path: &Path) -> Result<(WeightFile, BTreeMap<String, TensorInfo>)> {
        Err(Error::WeightFile {
            path: path.to_owned(),
            reason: "it is not a .safetensors file; build with feature `pytorch` to read \
                     .bin and .pt, or convert it"
                .into(),
        })
    }

    fn from_index(path: &Path) -> Result<Self> {
        let index: ShardIndex = crate::json::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut shards: Vec<&String> = index.weight_map.values().collect();
        shards.sort();
        shards.dedup();
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        for (number, shard) in shards.into_iter().enumerate() {
            // An index comes from outside: it must not make us read elsewhere.
            if Path::new(shard).file_name() != Some(shard.as_ref()) {
                return Err(Error::WeightFile {
                    path: path.to_owned(),
                    reason: format!("it names a shard outside its folder: `{shard}`"),
                });
            }
            let (file, infos) = SafetensorsFile::open(&folder.join(shard))?;
            files.push(WeightFile::Safetensors(file));
            for (name, info) in infos {
                if index.weight_map.get(&name) == Some(shard) {
                    tensors.insert(name, (number, info));
                }
            }
        }
        if let Some(name) = index.weight_map.keys().find(|k| !tensors.contains_key(*k)) {
            return Err(Error::WeightFile {
                path: path.to_owned(),
                reason: format!(
                    "it says that `{name}` is in {}, and it is not",
                    index.weight_map[name]
                ),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            tensors,
            files,
        })
    }

    /// The file or index the tensors come from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Type and shape of a tensor, or `None` if there is no such.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|(_, info)| info)
    }

    /// Where the bytes of a tensor begin in [`path`](Self::path), if they lie there as they are.
    #[cfg(feature = "train")]
    pub(crate) fn position(&self, name: &str) -> Option<u64> {
        match &self.files[..] {
            [WeightFile::Safetensors(file)] => file.position(name),
            _ => None,
        }
    }

    /// Reads one tensor, in the type it is stored in.
    ///
    /// # Errors
    /// [`Error::WeightFile`] for an unknown name or type, [`Error::Io`] if the file cannot be read.
    pub fn read(&self, name: &str) -> Result<TensorData> {
        let failed = |reason: String| Error::WeightFile {
            path: self.path.clone(),
            reason,
        };
        let Some((file, info)) = self.tensors.get(name) else {
            return Err(failed(format!("it has no tensor `{name}`")));
        };
        let Some(dtype) = info.dtype else {
            return Err(failed(format!("`{name}` has a type that is not supported")));
        };
        let bytes = match &self.files[*file] {
            WeightFile::Safetensors(file) => file.read(name)?,
            #[cfg(feature = "pytorch")]
            WeightFile::Pytorch(file) => file.read(name)?,
        };
        TensorData::try_from_bytes_vec(bytes, info.shape.clone(), dtype)
            .map_err(|e| failed(format!("`{name}`: {e:?}")))
    }
}

fn file_names(folder: &Path) -> Result<Vec<String>> {
    let io = |source| Error::Io {
        path: folder.to_owned(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        names.push(
            entry
                .map_err(io)?
                .file_name()
                .to_string_lossy()
                .into_owned(),
        );
    }
    names.sort();
    Ok(names)
}
