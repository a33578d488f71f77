//! Filling a module from a checkpoint, completely or not at all.

use std::collections::BTreeSet;

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Bool, DType, FloatDType, Int, Tensor, TensorData},
};

use super::{
    Checkpoint, KeyMap, Misfit, Mismatch, TensorInfo, mismatch::dtype_name, transpose::transpose,
};
use crate::error::{Error, Result};

/// In which types a network keeps its weights and computes.
///
/// Matrices and kernels are kept in `weights` and are converted to `compute` when they are used;
/// biases and norms, which are small, are kept in `compute`. Sampling arithmetic is always f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Precision {
    /// Type of matrices and convolution kernels in memory.
    pub weights: FloatDType,
    /// Type of activations and arithmetic.
    pub compute: FloatDType,
}

impl Precision {
    /// f32 throughout: exact parity with the reference.
    pub const FULL: Self = Self::uniform(FloatDType::F32);
    /// Weights in f16, arithmetic in f32: half the memory; the choice for a CPU.
    pub const HALF_WEIGHTS: Self = Self {
        weights: FloatDType::F16,
        compute: FloatDType::F32,
    };
    /// f16 throughout: the choice for a GPU.
    pub const HALF: Self = Self::uniform(FloatDType::F16);

    /// One type for both.
    pub const fn uniform(dtype: FloatDType) -> Self {
        Self {
            weights: dtype,
            compute: dtype,
        }
    }

    /// Type of a parameter of the given rank.
    pub(super) fn of_rank(self, rank: usize) -> FloatDType {
        if rank > 1 { self.weights } else { self.compute }
    }
}

impl Default for Precision {
    fn default() -> Self {
        Self::FULL
    }
}

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Types in memory, whatever the file has.
    pub precision: Precision,
    /// Refuse NaN and infinite weights. Reads every tensor twice.
    pub check_finite: bool,
    /// Compare everything and load nothing: the module is given back as it was.
    pub is_dry_run: bool,
}

/// Fills `module` from `checkpoint`.
///
/// All names, shapes and types are compared before the first tensor is read. Tensors are then
/// read, converted and handed to the device one at a time. `Linear` weights are transposed.
///
/// # Errors
/// [`Error::Weights`] with every missing, surplus or unfitting tensor; [`Error::Io`] or
/// [`Error::WeightFile`] if a file cannot be read.
pub fn load<M: Module>(
    module: M,
    checkpoint: &Checkpoint,
    keys: &KeyMap,
    options: LoadOptions,
) -> Result<M> {
    let mut survey = Survey {
        path: ModulePath::default(),
        keys,
        checkpoint,
        used: BTreeSet::new(),
        mismatch: Mismatch {
            path: checkpoint.path().to_owned(),
            ..Mismatch::default()
        },
    };
    module.visit(&mut survey);
    let Survey {
        used, mut mismatch, ..
    } = survey;
    mismatch.surplus = checkpoint
        .names()
        .filter(|name| !used.contains(*name) && keys.expects(name))
        .map(str::to_owned)
        .collect();
    if options.check_finite {
        for name in used.iter().filter(|n| checkpoint.info(n).is_some()) {
            if !is_finite(&checkpoint.read(name)?) {
                mismatch.not_finite.push(name.clone());
            }
        }
    }
    if !mismatch.is_empty() {
        mismatch.find_near_matches();
        return Err(Box::new(mismatch).into());
    }
    if options.is_dry_run {
        return Ok(module);
    }

    let mut filler = Filler {
        path: ModulePath::default(),
        keys,
        checkpoint,
        precision: options.precision,
        error: None,
    };
    let module = module.map(&mut filler);
    filler.error.map_or(Ok(module), Err)
}

fn is_finite(data: &TensorData) -> bool {
    match data.dtype() {
        DType::F32 => data
            .as_slice::<f32>()
            .is_ok_and(|s| s.iter().all(|v| v.is_finite())),
        dtype if dtype.is_float() => data.iter::<f32>().all(f32::is_finite),
        _ => true,
    }
}

/// Where a traversal of a module stands.
#[derive(Default)]
pub(crate) struct ModulePath {
    segments: Vec<String>,
    containers: Vec<String>,
}

impl ModulePath {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.segments.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    pub(crate) fn exit(&mut self) {
        self.segments.pop();
        self.containers.pop();
    }

    /// The key in the checkpoint, and whether the checkpoint has the matrix transposed.
    pub(crate) fn key(&self, keys: &KeyMap) -> (String, bool) {
        let container = self.containers.last().map_or("", String::as_str);
        let mut path = self.segments.join(".");
        if matches!(container, "Struct:GroupNorm" | "Struct:LayerNorm") {
            for (burn, torch) in [(".gamma", ".weight"), (".beta", ".bias")] {
                if let Some(stem) = path.strip_suffix(burn) {
                    path = format!("{stem}{torch}");
                }
            }
        }
        let transposed = container == "Struct:Linear" && path.ends_with("weight");
        (keys.key(&path), transposed)
    }
}

/// A parameter's shape as the checkpoint has it.
fn stored_shape(shape: impl Iterator<Item = usize>, transposed: bool) -> Vec<usize> {
    let mut shape: Vec<usize> = shape.collect();
    if transposed {
        shape.reverse();
    }
    shape
}

/// Whether the checkpoint has a scalar where the module has a tensor of one value: Burn knows no
/// rank 0.
fn is_scalar(stored: &[usize], expected: &[usize]) -> bool {
    stored.is_empty() && expected == [1]
}

struct Survey<'a> {
    path: ModulePath,
    keys: &'a KeyMap,
    checkpoint: &'a Checkpoint,
    used: BTreeSet<String>,
    mismatch: Mismatch,
}

impl Survey<'_> {
    fn compare(&mut self, shape: impl Iterator<Item = usize>, kind: fn(DType) -> bool, name: &str) {
        let (key, transposed) = self.path.key(self.keys);
        let expected = stored_shape(shape, transposed);
        match self.checkpoint.info(&key) {
            None => self.mismatch.missing.push((key.clone(), None)),
            Some(TensorInfo { dtype, shape }) => {
                if *shape != expected && !is_scalar(shape, &expected) {
                    self.mismatch.shapes.push(Misfit {
                        key: key.clone(),
                        expected: format!("{expected:?}"),
                        found: format!("{shape:?}"),
                    });
                }
                if !dtype.is_some_and(kind) {
                    self.mismatch.dtypes.push(Misfit {
                        key: key.clone(),
                        expected: name.to_owned(),
                        found: dtype_name(*dtype),
                    });
                }
            }
        }
        self.used.insert(key);
    }
}

impl ModuleVisitor for Survey<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape();
        self.compare(shape.iter().copied(), |d| d.is_float(), "a float tensor");
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let shape = param.lazy_shape();
        self.compare(
            shape.iter().copied(),
            |d| d.is_int() || d.is_uint(),
            "an integer tensor",
        );
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        let shape = param.lazy_shape();
        self.compare(shape.iter().copied(), |d| d.is_bool(), "a bool tensor");
    }
}

struct Filler<'a> {
    path: ModulePath,
    keys: &'a KeyMap,
    checkpoint: &'a Checkpoint,
    precision: Precision,
    error: Option<Error>,
}

impl ModuleMapper for Filler<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() {
            return param;
        }
        let (key, transposed) = self.path.key(self.keys);
        match self.checkpoint.read(&key) {
            Ok(data) => {
                let dtype = DType::from(self.precision.of_rank(D));
                let data = data.convert_dtype(dtype);
                let data = if transposed { transpose(data) } else { data };
                let data = if data.shape().is_empty() {
                    let (bytes, _, dtype) = data.into_parts();
                    TensorData::from_bytes(bytes, [1], dtype)
                } else {
                    data
                };
                let tensor = Tensor::from_data(data, (&param.lazy_device(), dtype));
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}
