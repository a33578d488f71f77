//! Damaged weight files, and tensors that do not fit.

use crate::copy::{Copy, quick, rewrite};
use std::fs;
use unclip::Error;
use unclip::Residency;
use unclip::UnClip;
use unclip::burn::tensor::Device;
use unclip::burn::tensor::TensorData;

#[test]
fn damaged_weight_files_are_refused() {
    let copy = Copy::new();
    let path = copy.weights("decoder");
    let whole = fs::read(&path).unwrap();
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    let header_end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut no_json = whole.clone();
    no_json[8] = b'x';
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("three bytes", whole[..3].to_vec()),
        ("cut in the header", whole[..100].to_vec()),
        ("cut before the data", whole[..header_end].to_vec()),
        ("cut in the data", whole[..whole.len() - 5].to_vec()),
        ("longer than it says", [&whole[..], b"more"].concat()),
        ("header beyond the file", with_length(whole.len() as u64)),
        ("absurd header", with_length(u64::MAX)),
        ("header that is no JSON", no_json),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = copy.error();
        assert!(
            matches!(&error, Error::WeightFile { path: found, .. } if *found == path),
            "{what}: {error}"
        );
    }
    // Offsets that overlap, or that do not fit shape and type.
    fs::write(&path, &whole).unwrap();
    copy.edit_weights("decoder", |header, _| {
        header["conv_in.bias"]["data_offsets"] = serde_json::json!([0, u64::MAX]);
    });
    assert!(matches!(copy.error(), Error::WeightFile { .. }));
}

#[test]
fn missing_and_surplus_tensors_are_all_named() {
    let copy = Copy::new();
    copy.edit_weights("prior", |header, _| {
        for key in ["proj_in.weight", "norm_out.bias", "prd_embedding"] {
            let tensor = header.remove(key).unwrap();
            header.insert(format!("{key}_old"), tensor);
        }
    });
    let mismatch = copy.mismatch();
    let mut missing = mismatch.missing.clone();
    missing.sort();
    let expected = ["norm_out.bias", "prd_embedding", "proj_in.weight"];
    let expected: Vec<_> = expected
        .iter()
        .map(|key| ((*key).to_owned(), Some(format!("{key}_old"))))
        .collect();
    assert_eq!(missing, expected);
    assert_eq!(mismatch.surplus.len(), 3);
    let text = mismatch.to_string();
    assert!(text.contains("did you mean proj_in.weight_old?"), "{text}");
}

#[test]
fn wrong_shapes_and_types_are_named() {
    let copy = Copy::new();
    copy.edit_weights("super_res_first", |header, _| {
        let shape = header["conv_in.weight"]["shape"].as_array_mut().unwrap();
        shape.swap(0, 1);
        header["conv_out.bias"]["dtype"] = "I32".into();
    });
    let mismatch = copy.mismatch();
    assert_eq!(mismatch.shapes.len(), 1);
    assert_eq!(mismatch.shapes[0].key, "conv_in.weight");
    assert_eq!(mismatch.dtypes.len(), 1);
    assert_eq!(mismatch.dtypes[0].key, "conv_out.bias");
    assert!(mismatch.missing.is_empty() && mismatch.surplus.is_empty());
}

#[test]
fn weights_that_are_not_finite_are_named_when_asked() {
    for value in [f32::NAN, f32::INFINITY] {
        let copy = Copy::new();
        copy.edit_weights("text_proj", |header, data| {
            let begin = &header["embedding_proj.bias"]["data_offsets"][0];
            let at = begin.as_u64().unwrap() as usize;
            data[at..at + 4].copy_from_slice(&value.to_le_bytes());
        });
        let builder = UnClip::builder(&Device::flex()).checkpoint(copy.path(""));
        match builder.check_finite(true).build() {
            Err(Error::Weights(mismatch)) => {
                assert_eq!(mismatch.not_finite, ["embedding_proj.bias"]);
            }
            other => panic!("{other:?}"),
        }
        // Unasked it loads, and the first stage that shows it says so.
        let error = quick(&copy.load().unwrap()).run().unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    }
}

#[test]
fn headers_that_lie_are_refused() {
    for (what, key, value) in [
        ("overlap", "data_offsets", serde_json::json!([4, 68])),
        ("backwards", "data_offsets", serde_json::json!([64, 0])),
        ("negative", "data_offsets", serde_json::json!([-4, 60])),
        ("too short", "data_offsets", serde_json::json!([0, 4])),
        ("not offsets", "data_offsets", serde_json::json!("all")),
        ("larger shape", "shape", serde_json::json!([17])),
        (
            "overflowing shape",
            "shape",
            serde_json::json!([u64::MAX, 4]),
        ),
        (
            "wrapping shape",
            "shape",
            serde_json::json!([1u64 << 63, 2, 16]),
        ),
        ("negative shape", "shape", serde_json::json!([-16])),
        ("no shape", "shape", serde_json::Value::Null),
        ("wider type", "dtype", "F64".into()),
        ("unknown type", "dtype", "F33".into()),
    ] {
        let copy = Copy::new();
        copy.edit_weights("super_res_first", |header, _| {
            header["conv_in.bias"][key] = value;
        });
        let error = copy.error();
        assert!(
            matches!(&error, Error::WeightFile { path, .. } if *path == copy.weights("super_res_first")),
            "{what}: {error}"
        );
    }
    let copy = Copy::new();
    let header = "[".repeat(100_000);
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    fs::write(copy.weights("prior"), bytes).unwrap();
    assert!(matches!(copy.error(), Error::WeightFile { .. }));
}

#[test]
fn integers_where_floats_belong_are_named() {
    use safetensors::Dtype;
    for (dtype, size, name) in [(Dtype::I64, 8, "I64"), (Dtype::BOOL, 1, "a type")] {
        let copy = Copy::new();
        rewrite(&copy, "prior", |key, found, shape, data| {
            if key == "norm_out.weight" {
                *found = dtype;
                *data = vec![1; size * shape.iter().product::<usize>()];
            }
        });
        let mismatch = copy.mismatch();
        assert_eq!(mismatch.dtypes.len(), 1);
        assert_eq!(mismatch.dtypes[0].key, "norm_out.weight");
        assert!(mismatch.dtypes[0].found.starts_with(name), "{mismatch}");
        assert!(mismatch.shapes.is_empty() && mismatch.missing.is_empty());
    }
}

#[test]
fn surplus_tensors_alone_are_refused_and_named() {
    let copy = Copy::new();
    copy.edit_weights("decoder", |header, data| {
        for key in ["ema.decay", "zz.extra"] {
            let (begin, end) = (data.len(), data.len() + 4);
            data.extend([0; 4]);
            let entry = serde_json::json!({
                "dtype": "F32", "shape": [1], "data_offsets": [begin, end],
            });
            header.insert(key.into(), entry);
        }
    });
    let mismatch = copy.mismatch();
    assert_eq!(mismatch.path, copy.weights("decoder"));
    assert_eq!(mismatch.surplus, ["ema.decay", "zz.extra"]);
    assert!(mismatch.missing.is_empty() && mismatch.shapes.is_empty());
}

#[test]
fn an_unlike_name_is_not_suggested() {
    let copy = Copy::new();
    copy.edit_weights("prior", |header, _| {
        let tensor = header.remove("proj_in.weight").unwrap();
        header.insert("q".into(), tensor);
    });
    let mismatch = copy.mismatch();
    assert_eq!(mismatch.missing, [("proj_in.weight".to_owned(), None)]);
    assert_eq!(mismatch.surplus, ["q"]);
}

#[test]
fn all_weights_that_are_not_finite_are_named_in_every_type_and_residency() {
    use unclip::burn::tensor::DType;
    let bad = ["norm_out.bias", "proj_in.weight"];
    for (stored, dtype) in [
        (safetensors::Dtype::F32, DType::F32),
        (safetensors::Dtype::F16, DType::F16),
        (safetensors::Dtype::BF16, DType::BF16),
    ] {
        let copy = Copy::new();
        rewrite(&copy, "prior", |key, found, shape, data| {
            let count: usize = shape.iter().product();
            let mut values: Vec<f32> = data
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            if bad.contains(&key) {
                *values.last_mut().unwrap() = f32::NEG_INFINITY;
            }
            *found = stored;
            *data = TensorData::new(values, [count])
                .convert_dtype(dtype)
                .as_bytes()
                .to_vec();
        });
        for residency in [Residency::Keep, Residency::OneAtATime] {
            let builder = UnClip::builder(&Device::flex()).checkpoint(copy.path(""));
            match builder.residency(residency).check_finite(true).build() {
                Err(Error::Weights(mismatch)) => assert_eq!(mismatch.not_finite, bad),
                other => panic!("{stored:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_file_that_goes_bad_after_opening_is_an_error_of_the_job() {
    let copy = Copy::new();
    let builder = UnClip::builder(&Device::flex()).checkpoint(copy.path(""));
    let unclip = builder.residency(Residency::OneAtATime).build().unwrap();
    let expected = quick(&unclip).run().unwrap().images;
    let path = copy.weights("super_res_last");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = quick(&unclip).run().unwrap_err();
    assert!(
        matches!(&error, Error::WeightFile { path: found, .. } if *found == path),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    assert!(matches!(quick(&unclip).run(), Err(Error::NotFound { .. })));
    fs::write(&path, whole).unwrap();
    assert_eq!(quick(&unclip).run().unwrap().images, expected);
}
