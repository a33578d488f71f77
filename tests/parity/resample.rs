//! Antialiased bicubic resampling.

use unclip::core::resample::resize_bicubic;

use crate::report::{Case, Report};

pub fn check(case: &Case, report: &mut Report) {
    let io = case.goldens("io.safetensors");
    for pair in case.json["pairs"].as_array().expect("pairs") {
        let pair = pair.as_str().unwrap();
        let golden = &io[&format!("{pair}.out")];
        let input = io[&format!("{pair}.in")].tensor::<4>(&case.device);
        let found = resize_bicubic(input, golden.shape[2], golden.shape[3]);
        report.compare(case, pair, found, golden);
    }
}
