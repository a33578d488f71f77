//! Which crate may depend on which, held against `cargo metadata`.
#![allow(missing_docs)]

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Stage crates know the core and never each other; only the facade knows all of them.
#[test]
fn crates_depend_downwards_only() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let family: BTreeMap<&str, Vec<&str>> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let siblings = dependencies
                .map(|dependency| dependency["name"].as_str().unwrap())
                .filter(|name| name.starts_with("unclip"));
            (package["name"].as_str().unwrap(), siblings.collect())
        })
        .collect();
    let stages = [
        "unclip-clip",
        "unclip-decoder",
        "unclip-prior",
        "unclip-upsample",
    ];
    assert_eq!(family["unclip-core"], Vec::<&str>::new());
    for stage in stages {
        assert_eq!(family[stage], ["unclip-core"], "{stage}");
    }
    let mut facade = family["unclip"].clone();
    facade.sort_unstable();
    let mut all = stages.to_vec();
    all.push("unclip-core");
    all.sort_unstable();
    assert_eq!(facade, all);
    assert_eq!(family.len(), 6, "a new crate needs a place in this test");
}

/// Library code uses the device it was given.
#[test]
fn no_library_code_picks_a_device() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> = [
        "src",
        "unclip-core",
        "unclip-clip",
        "unclip-prior",
        "unclip-decoder",
        "unclip-upsample",
    ]
    .map(|folder| root.join(folder))
    .to_vec();
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains("Device::default()"), "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "only {seen} files were looked at");
}
