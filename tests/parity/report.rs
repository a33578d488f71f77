//! One case, and the table of all.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde_json::Value;
use unclip::burn::tensor::{Device, Tensor};

use crate::common::{Golden, Goldens, read_goldens};

/// A folder of the fixture root's `cases`.
pub struct Case {
    pub root: PathBuf,
    pub folder: PathBuf,
    pub kind: String,
    pub json: Value,
    pub device: Device,
    name: String,
}

impl Case {
    pub fn open(root: &Path, folder: &Path, device_name: &str, device: &Device) -> Self {
        let text = std::fs::read(folder.join("case.json")).unwrap();
        let json: Value = serde_json::from_slice(&text).unwrap();
        let case_name = folder.file_name().unwrap().to_string_lossy();
        Self {
            root: root.to_owned(),
            folder: folder.to_owned(),
            kind: json["kind"].as_str().unwrap_or("none").to_owned(),
            json,
            device: device.clone(),
            name: format!("{device_name}: {case_name}"),
        }
    }

    /// The folder of the case's checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.root
            .join(self.json["checkpoint"].as_str().expect("a checkpoint"))
    }

    pub fn goldens(&self, file: &str) -> Goldens {
        read_goldens(&self.folder.join(file))
    }

    /// The rounding floor of `output`: max |f32 − f64| of the reference.
    fn floor(&self, output: &str) -> f64 {
        let floors = &self.json["f32_vs_f64"];
        floors
            .as_f64()
            .or_else(|| floors[output].as_f64())
            .unwrap_or(0.0)
    }
}

#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

enum Row {
    Number {
        name: String,
        error: f64,
        tolerance: f64,
    },
    Failed {
        name: String,
        reason: String,
    },
    Exact {
        name: String,
        count: usize,
    },
}

impl Row {
    fn is_failure(&self) -> bool {
        match self {
            // Not `error > tolerance`: NaN has to fail.
            Self::Number {
                error, tolerance, ..
            } => !matches!(error.partial_cmp(tolerance), Some(order) if order.is_le()),
            Self::Failed { .. } => true,
            Self::Exact { .. } => false,
        }
    }
}

impl Report {
    /// Compares with the reference: max error at most 20 × the case's floor for `output` or 1e-5 ×
    /// the golden's rms, whichever is larger.
    pub fn compare<const D: usize>(
        &mut self,
        case: &Case,
        output: &str,
        found: Tensor<D>,
        golden: &Golden,
    ) {
        let shape: Vec<usize> = found.dims().to_vec();
        let values = found.into_data().try_to_vec::<f32>().expect("f32");
        self.compare_values(case, output, &shape, &values, golden);
    }

    pub fn compare_values(
        &mut self,
        case: &Case,
        output: &str,
        shape: &[usize],
        values: &[f32],
        golden: &Golden,
    ) {
        let name = format!("{} {output}", case.name);
        if shape != golden.shape {
            let reason = format!("shape {shape:?}, not {:?}", golden.shape);
            self.rows.push(Row::Failed { name, reason });
            return;
        }
        let error = values
            .iter()
            .zip(&golden.floats)
            .map(|(a, b)| f64::from((a - b).abs()))
            // `max` drops NaN.
            .fold(0.0, |m: f64, e| if e.is_nan() { e } else { m.max(e) });
        self.rows.push(Row::Number {
            name,
            error,
            tolerance: (20.0 * case.floor(output)).max(1e-5 * golden.rms()),
        });
    }

    /// The same for what a loop of steps from t = 999 made.
    ///
    /// There ᾱ is 2.4e-9, so the first x₀ is (x − ε) · 20,000: where that is less than 1 or close to it
    /// the last bit of ε moves it by 0.04, or decides whether it is clipped. One value in a thousand may
    /// be so, and differs by less than 0.01; all others have to agree as ever.
    pub fn compare_loop(&mut self, case: &Case, output: &str, found: Tensor<4>, golden: &Golden) {
        let shape = found.dims();
        let values = found.into_data().try_to_vec::<f32>().expect("f32");
        if shape[..] != golden.shape[..] {
            return self.compare_values(case, output, &shape, &values, golden);
        }
        let mut pairs: Vec<_> = values.into_iter().zip(&golden.floats).collect();
        let apart = |(a, b): &(f32, &f32)| (a - **b).abs();
        // What is not a number comes last, among the largest.
        pairs.sort_by(|a, b| apart(a).total_cmp(&apart(b)));
        let largest = pairs.last().map_or(0.0, apart);
        self.number(case, &format!("{output}, all"), largest.into(), 1e-2);
        pairs.truncate(pairs.len() - pairs.len() / 1000);
        let largest = pairs.last().map_or(0.0, apart);
        let tolerance = (20.0 * case.floor(output)).max(1e-5 * golden.rms());
        self.number(
            case,
            &format!("{output}, 99.9 %"),
            largest.into(),
            tolerance,
        );
    }

    /// A number with a tolerance of its own.
    pub fn number(&mut self, case: &Case, what: &str, error: f64, tolerance: f64) {
        self.rows.push(Row::Number {
            name: format!("{} {what}", case.name),
            error,
            tolerance,
        });
    }

    /// Something that has to be equal, `count` times.
    pub fn exact<T: PartialEq + fmt::Debug>(&mut self, name: &str, found: &[T], expected: &[T]) {
        let name = name.to_owned();
        let different = found.iter().zip(expected).position(|(a, b)| a != b);
        self.rows.push(if found.len() != expected.len() {
            let reason = format!("{} entries, not {}", found.len(), expected.len());
            Row::Failed { name, reason }
        } else if let Some(i) = different {
            let reason = format!("entry {i} is {:?}, not {:?}", found[i], expected[i]);
            Row::Failed { name, reason }
        } else {
            let count = found.len();
            Row::Exact { name, count }
        });
    }

    pub fn case_exact<T: PartialEq + fmt::Debug>(
        &mut self,
        case: &Case,
        what: &str,
        found: &[T],
        expected: &[T],
    ) {
        self.exact(&format!("{} {what}", case.name), found, expected);
    }

    pub fn failed(&mut self, case: &Case, reason: String) {
        let name = case.name.clone();
        self.rows.push(Row::Failed { name, reason });
    }

    pub fn failures(&self) -> usize {
        self.rows.iter().filter(|row| row.is_failure()).count()
    }

    pub fn checked(&self) -> usize {
        self.rows.len()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<64} {:>10} {:>10}", "case", "max error", "tolerance")?;
        for row in &self.rows {
            let verdict = if row.is_failure() { "FAILED" } else { "ok" };
            match row {
                Row::Number {
                    name,
                    error,
                    tolerance,
                } => writeln!(f, "{name:<64} {error:>10.2e} {tolerance:>10.2e} {verdict}")?,
                Row::Exact { name, count } => {
                    writeln!(f, "{name:<64} {:>10} {count:>10} {verdict}", "equal")?;
                }
                Row::Failed { name, reason } => writeln!(f, "{name:<64} FAILED: {reason}")?,
            }
        }
        write!(f, "{} checked, {} failed", self.checked(), self.failures())
    }
}
