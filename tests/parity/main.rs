//! Parity with the reference implementation, driven by the cases of a folder.
//!
//! `UNCLIP_ORACLE=DIR` names the folder (default: the project's own fixtures) and
//! `UNCLIP_TEST_DEVICES=flex,wgpu` the devices. Nothing about one checkpoint is built in.

#![allow(unreachable_pub)]

mod clip_model;
mod clip_text;
mod clip_vision;
#[path = "../common/mod.rs"]
mod common;
mod decoder;
mod image_processor;
mod image_variation;
mod kandinsky;
mod noise_augmentation;
mod prior;
mod report;
mod resample;
mod schedulers;
mod text_to_image;
mod tokenizer;
#[cfg(feature = "train")]
mod train_step;
mod upsampler;

use std::{io::Write, path::Path};

use common::{devices, fixture_root};
use report::{Case, Report};

#[test]
fn every_case_agrees_with_the_reference() {
    let root = fixture_root();
    let mut report = Report::default();
    tokenizer::check(&root, &mut report);
    let folders = case_folders(&root);
    assert!(!folders.is_empty(), "{} holds no cases", root.display());
    for (name, device) in devices() {
        for folder in &folders {
            let case = Case::open(&root, folder, &name, &device);
            match case.kind.as_str() {
                "clip_text" => clip_text::check(&case, &mut report),
                "clip_vision" => clip_vision::check(&case, &mut report),
                "clip_model" => clip_model::check(&case, &mut report),
                "image_processor" => image_processor::check(&case, &mut report),
                "prior_forward" => prior::check(&case, &mut report),
                "text_proj" => decoder::check_projection(&case, &mut report),
                "decoder_forward" => decoder::check_unet(&case, &mut report),
                "super_res_forward" => upsampler::check(&case, &mut report),
                "bicubic_antialias" => resample::check(&case, &mut report),
                "schedulers" => schedulers::check(&case, &mut report),
                "image_variation" => image_variation::check(&case, &mut report),
                "kandinsky_prior" => kandinsky::check(&case, &mut report),
                "stable_unclip_noise" => noise_augmentation::check(&case, &mut report),
                "text_to_image" => text_to_image::check(&case, &mut report),
                #[cfg(feature = "train")]
                "train_step" => train_step::check(&case, &mut report),
                #[cfg(not(feature = "train"))]
                "train_step" => {}
                kind => report.failed(&case, format!("unknown kind `{kind}`")),
            }
        }
    }
    // Past the test harness's capture: the table is what this test is run for.
    writeln!(std::io::stdout(), "{report}").unwrap();
    assert!(report.checked() > 0, "nothing was checked");
    assert_eq!(report.failures(), 0, "see the table above");
}

fn case_folders(root: &Path) -> Vec<std::path::PathBuf> {
    let cases = root.join("cases");
    let mut folders: Vec<_> = std::fs::read_dir(&cases)
        .unwrap_or_else(|e| panic!("{}: {e}", cases.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("case.json").is_file())
        .collect();
    folders.sort();
    folders
}
