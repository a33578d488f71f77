//! The report of a checkpoint that is not the model's.

use std::{fmt, path::PathBuf};

use burn::tensor::DType;

/// A tensor that is there but does not fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    /// Its name in the checkpoint.
    pub key: String,
    /// What the model has there.
    pub expected: String,
    /// What the checkpoint has.
    pub found: String,
}

/// Every difference between a checkpoint and the model it should fill.
///
/// Nothing has been loaded when this is returned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mismatch {
    /// The file or index.
    pub path: PathBuf,
    /// Tensors the model has and the checkpoint lacks, with the nearest surplus name if one is
    /// close.
    pub missing: Vec<(String, Option<String>)>,
    /// Tensors the checkpoint has and the model lacks.
    pub surplus: Vec<String>,
    /// Tensors of another shape, in the checkpoint's layout.
    pub shapes: Vec<Misfit>,
    /// Tensors of a type that cannot be converted (integers where floats belong).
    pub dtypes: Vec<Misfit>,
    /// Tensors with NaN or infinite values, when asked to check.
    pub not_finite: Vec<String>,
}

impl Mismatch {
    pub(super) fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.surplus.is_empty()
            && self.shapes.is_empty()
            && self.dtypes.is_empty()
            && self.not_finite.is_empty()
    }

    /// Puts the most similar surplus name beside each missing one.
    pub(super) fn find_near_matches(&mut self) {
        // Each comparison is quadratic in the names' length; a checkpoint of another model
        // altogether has thousands, and no near match helps there.
        const ENOUGH: usize = 32;
        for (key, near) in self.missing.iter_mut().take(ENOUGH) {
            *near = self
                .surplus
                .iter()
                .map(|s| (strsim::normalized_levenshtein(key, s), s))
                .filter(|(similarity, _)| *similarity > 0.7)
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, s)| s.clone());
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} does not fit the model; nothing was loaded",
            self.path.display()
        )?;
        for (key, near) in &self.missing {
            write!(f, "\n  missing: {key}")?;
            if let Some(near) = near {
                write!(f, " (did you mean {near}?)")?;
            }
        }
        for key in &self.surplus {
            write!(f, "\n  not part of the model: {key}")?;
        }
        for m in &self.shapes {
            write!(
                f,
                "\n  shape: {} is {}, the model has {}",
                m.key, m.found, m.expected
            )?;
        }
        for m in &self.dtypes {
            write!(
                f,
                "\n  type: {} is {}, the model has {}",
                m.key, m.found, m.expected
            )?;
        }
        for key in &self.not_finite {
            write!(f, "\n  NaN or infinite values: {key}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mismatch {}

/// How a stored type is called in messages.
pub(super) fn dtype_name(dtype: Option<DType>) -> String {
    dtype.map_or_else(
        || "a type without a name here".to_owned(),
        |d| format!("{d:?}"),
    )
}
