//! The one error type of the family.
//!
//! Everything that comes from outside (files, prompts, pictures, JSON, settings, a cancel) is
//! reported here; every message names the thing and, where there is one, the remedy. A shape
//! mistake inside a program panics instead, as Burn's own layers do.

use std::path::{Path, PathBuf};

/// Result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a checkpoint folder and a picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder that has to be there is not.
    #[error("{path} does not exist: {hint}", path = path.display())]
    NotFound {
        /// What was looked for.
        path: PathBuf,
        /// What to do about it.
        hint: String,
    },

    /// The operating system refused to read or write a file.
    #[error("cannot access {path}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },

    /// A JSON file does not parse, or lacks what it must have.
    #[error("{path} is not the JSON it should be", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The reason, with line and column.
        #[source]
        source: serde_json::Error,
    },

    /// A configuration asks for something unknown, contradictory or not supported.
    #[error("{origin}: `{key}` is {value}, {expected}")]
    Config {
        /// The file or the setting's owner.
        origin: String,
        /// Name of the setting.
        key: String,
        /// Its value.
        value: String,
        /// What would have been accepted.
        expected: String,
    },

    /// A weight file is damaged or of another format.
    #[error("{path} is not a readable weight file: {reason}", path = path.display())]
    WeightFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The tensors of a checkpoint are not those of the model. Nothing has been loaded.
    #[error(transparent)]
    Weights(#[from] Box<crate::weights::Mismatch>),

    /// The tokenizer's files are broken.
    #[error("{path} is not a CLIP tokenizer: {reason}", path = path.display())]
    Tokenizer {
        /// File or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A tensor given to a job has the wrong shape.
    #[error("{name} has shape {found:?}, expected {expected}")]
    Shape {
        /// Which tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The expected shape in words.
        expected: String,
    },

    /// A setting of a job is out of range.
    #[error("{name} is {value}: {expected}")]
    Setting {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What would have been accepted.
        expected: String,
    },

    /// The job needs a stage that is not there.
    #[error("no {stage} is loaded, and this needs one: {hint}")]
    MissingStage {
        /// The stage.
        stage: String,
        /// How to get one.
        hint: String,
    },

    /// A picture could not be read or written.
    #[error("{path}: the picture cannot be read or written", path = path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// Training data are not what they should be.
    #[error("{what}: {reason}")]
    Data {
        /// The file, folder or sample.
        what: String,
        /// What is wrong with it, and what was expected.
        reason: String,
    },

    /// Training went wrong: a loss or gradient that is not finite, or a loss that jumped.
    #[error(
        "training diverged at step {step}: {reason}; the batch was: {batch}{}. Lower the learning \
         rate, or leave the batch's samples out, and resume",
        .checkpoint.as_ref().map_or(String::new(), |path| {
            format!("; the last checkpoint before is {}", path.display())
        })
    )]
    Diverged {
        /// The step, counted from 1.
        step: usize,
        /// What happened.
        reason: String,
        /// Names of the batch's samples.
        batch: String,
        /// The newest checkpoint.
        checkpoint: Option<std::path::PathBuf>,
    },

    /// `on_step` asked to stop.
    #[error("cancelled in the {stage} at step {step} of {steps}")]
    Cancelled {
        /// Stage that was running.
        stage: String,
        /// Steps done.
        step: usize,
        /// Steps asked for.
        steps: usize,
    },

    /// The computation gave values that are not numbers.
    #[error("the {stage} produced values that are not finite: {hint}")]
    NotFinite {
        /// The stage.
        stage: String,
        /// The usual cause.
        hint: String,
    },
}

impl Error {
    /// An [`Error::Io`], or [`Error::NotFound`] with `hint` when the file is not there.
    pub fn io(path: &Path, source: std::io::Error, hint: &str) -> Self {
        if source.kind() == std::io::ErrorKind::NotFound {
            Self::NotFound {
                path: path.to_owned(),
                hint: hint.to_owned(),
            }
        } else {
            Self::Io {
                path: path.to_owned(),
                source,
            }
        }
    }

    /// An [`Error::Setting`].
    pub fn setting(name: &str, value: impl ToString, expected: impl Into<String>) -> Self {
        Self::Setting {
            name: name.to_owned(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// An [`Error::Data`].
    pub fn data(what: impl ToString, reason: impl Into<String>) -> Self {
        Self::Data {
            what: what.to_string(),
            reason: reason.into(),
        }
    }

    /// An [`Error::Config`].
    pub fn config(
        origin: impl ToString,
        key: &str,
        value: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config {
            origin: origin.to_string(),
            key: key.to_owned(),
            value: value.to_string(),
            expected: expected.into(),
        }
    }

    /// An [`Error::Shape`] for `dims` that are not `expected`.
    pub fn shape(name: &str, dims: &[usize], expected: impl Into<String>) -> Self {
        Self::Shape {
            name: name.to_owned(),
            found: dims.to_vec(),
            expected: expected.into(),
        }
    }
}
