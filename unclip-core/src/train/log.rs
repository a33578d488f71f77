//! The record of a run: a line of `log.csv` for each step.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    weights::write_whole,
};

const HEADER: &str = "step,loss,gradient_norm,learning_rate,samples_per_second";

/// A line of the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogRow {
    /// The step, counted from 1.
    pub step: usize,
    /// Mean loss of its samples.
    pub loss: f64,
    /// Length of the gradient before it was clipped.
    pub gradient_norm: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Speed of this step.
    pub samples_per_second: f64,
}

/// Reads a record; lines that were cut off are left out.
///
/// # Errors
/// [`Error::Io`].
pub fn read_log(path: &Path) -> Result<Vec<LogRow>> {
    let text = fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })?;
    let row = |line: &str| {
        let mut cells = line.split(',');
        let step = cells.next()?.parse().ok()?;
        let mut number = || cells.next()?.parse().ok();
        Some(LogRow {
            step,
            loss: number()?,
            gradient_norm: number()?,
            learning_rate: number()?,
            samples_per_second: number()?,
        })
    };
    Ok(text.lines().filter_map(row).collect())
}

/// The record that is being written.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Goes on with the record of `folder` after `step`, or begins one.
    pub(super) fn open(folder: &Path, step: usize) -> Result<Self> {
        let path = folder.join("log.csv");
        let mut kept = String::from(HEADER) + "\n";
        if path.exists() {
            for row in read_log(&path)?.iter().filter(|row| row.step <= step) {
                kept += &line(row);
            }
        }
        write_whole(&path, kept.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path);
        let file = file.map_err(|source| Error::Io {
            path: path.clone(),
            source,
        })?;
        Ok(Self { path, file })
    }

    pub(super) fn write(&mut self, row: &LogRow) -> Result<()> {
        let written = self.file.write_all(line(row).as_bytes());
        written.map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })
    }
}

fn line(row: &LogRow) -> String {
    format!(
        "{},{:.6e},{:.4e},{:.4e},{:.3}\n",
        row.step, row.loss, row.gradient_norm, row.learning_rate, row.samples_per_second
    )
}
