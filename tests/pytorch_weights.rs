//! `.bin`, `.pt` and `.ckpt` files hold the same weights as safetensors.
#![cfg(feature = "pytorch")]
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use unclip::{
    Error,
    burn::tensor::{DType, Device},
    core::weights::{Checkpoint, KeyMap, LoadOptions, load},
    decoder::TextProjectionConfig,
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/pytorch")
        .join(name)
}

#[test]
fn every_pickled_form_holds_the_weights_of_the_safetensors_file() {
    let expected = Checkpoint::from_file(&file("expected.safetensors")).unwrap();
    for (name, tolerance) in [
        ("zip.bin", 0.0),
        ("legacy.bin", 0.0),
        ("nested.ckpt", 0.0),
        ("half.pt", 2e-3),
    ] {
        let found = Checkpoint::from_file(&file(name)).unwrap();
        assert_eq!(
            found.names().collect::<Vec<_>>(),
            expected.names().collect::<Vec<_>>(),
            "{name}"
        );
        for key in expected.names() {
            let values = |checkpoint: &Checkpoint| {
                let data = checkpoint.read(key).unwrap().convert_dtype(DType::F32);
                data.try_to_vec::<f32>().unwrap()
            };
            let pairs = values(&found).into_iter().zip(values(&expected));
            let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= tolerance, "{name}: {key}: {error}");
        }
        let module = TextProjectionConfig::new(8, 12, 10).init(&Device::flex());
        load(module, &found, &KeyMap::default(), LoadOptions::default()).unwrap();
    }
}

#[test]
fn a_file_that_is_no_pickle_is_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    for bytes in [&b""[..], b"not a pickle", &[0x80, 0x02, 0xff, 0xff, 0x2e]] {
        std::fs::write(&path, bytes).unwrap();
        let error = Checkpoint::from_file(&path).unwrap_err();
        assert!(matches!(error, Error::WeightFile { .. }), "{error}");
    }
    // Cut off in the middle.
    let whole = std::fs::read(file("zip.bin")).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = Checkpoint::from_file(&path).unwrap_err();
    assert!(matches!(error, Error::WeightFile { .. }), "{error}");
}
