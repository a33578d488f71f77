//! Every form in which weights may lie there.

use crate::copy::{Copy, quick};
use std::fs;
use unclip::Error;
use unclip::UnClip;
use unclip::burn::tensor::Device;
use unclip::burn::tensor::TensorData;

#[test]
fn shards_load_like_one_file_and_bad_indexes_are_refused() {
    let copy = Copy::new();
    let expected = quick(&copy.load().unwrap()).run().unwrap().images;
    let whole = fs::read(copy.weights("prior")).unwrap();
    fs::remove_file(copy.weights("prior")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&whole).unwrap();
    let mut names: Vec<String> = file.names().iter().map(|n| (*n).to_owned()).collect();
    names.sort();
    let mut map = serde_json::Map::new();
    for (i, half) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let shard = format!("diffusion_pytorch_model-0000{}-of-00002.safetensors", i + 1);
        let tensors = half
            .iter()
            .map(|name| (name.as_str(), file.tensor(name).unwrap()));
        let bytes = safetensors::serialize(tensors, None).unwrap();
        fs::write(copy.path("prior").join(&shard), bytes).unwrap();
        map.extend(half.iter().map(|name| (name.clone(), shard.clone().into())));
    }
    let index = copy.path("prior/diffusion_pytorch_model.safetensors.index.json");
    let write = |map: &serde_json::Map<String, serde_json::Value>| {
        fs::write(&index, serde_json::json!({ "weight_map": map }).to_string()).unwrap();
    };
    write(&map);
    assert_eq!(quick(&copy.load().unwrap()).run().unwrap().images, expected);

    for bad in [
        "../prior/elsewhere.safetensors",
        "/etc/passwd",
        "missing.safetensors",
    ] {
        let mut bad_map = map.clone();
        bad_map["proj_in.weight"] = bad.into();
        write(&bad_map);
        let error = copy.error();
        assert!(
            matches!(error, Error::WeightFile { .. } | Error::NotFound { .. }),
            "{bad}: {error}"
        );
    }
    let mut bad_map = map.clone();
    bad_map.insert("no.such.tensor".into(), map["proj_in.weight"].clone());
    write(&bad_map);
    assert!(
        matches!(copy.error(), Error::WeightFile { reason, .. } if reason.contains("no.such.tensor"))
    );
}

#[test]
fn variants_are_found_by_name_and_when_they_are_alone() {
    let copy = Copy::new();
    let expected = quick(&copy.load().unwrap()).run().unwrap().images;
    let fp16 = |component: &str, stem: &str| {
        let plain = copy.path(component).join(format!("{stem}.safetensors"));
        let variant = copy
            .path(component)
            .join(format!("{stem}.fp16.safetensors"));
        fs::rename(plain, variant).unwrap();
    };
    fp16("text_encoder", "model");
    for component in [
        "prior",
        "decoder",
        "text_proj",
        "super_res_first",
        "super_res_last",
    ] {
        fp16(component, "diffusion_pytorch_model");
    }
    assert_eq!(quick(&copy.load().unwrap()).run().unwrap().images, expected);
    let builder = || UnClip::builder(&Device::flex()).checkpoint(copy.path(""));
    let named = builder().variant("fp16").build().unwrap();
    assert_eq!(quick(&named).run().unwrap().images, expected);
    assert!(matches!(
        builder().variant("ema").build(),
        Err(Error::NotFound { .. })
    ));
}

#[test]
fn files_in_half_precision_load_as_what_is_asked_for() {
    let copy = Copy::new();
    let expected = quick(&copy.load().unwrap()).run().unwrap();
    copy.edit_weights("prior", |header, data| {
        let mut half = Vec::new();
        let mut entries: Vec<_> = header
            .iter_mut()
            .filter(|(name, _)| *name != "__metadata__")
            .map(|(_, entry)| entry)
            .collect();
        entries.sort_by_key(|entry| entry["data_offsets"][0].as_u64());
        for entry in entries {
            let offset = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
            let bytes = &data[offset(0)..offset(1)];
            let floats = bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            let floats: Vec<f32> = floats.collect();
            let count = floats.len();
            let f16 = unclip::burn::tensor::DType::F16;
            let begin = half.len();
            half.extend(
                TensorData::new(floats, [count])
                    .convert_dtype(f16)
                    .as_bytes(),
            );
            entry["dtype"] = "F16".into();
            entry["data_offsets"] = serde_json::json!([begin, half.len()]);
        }
        *data = half;
    });
    let found = quick(&copy.load().unwrap()).run().unwrap();
    let dtype = found.image_embeddings.dtype();
    assert_eq!(dtype, unclip::burn::tensor::DType::F32);
    let difference = (found.image_embeddings - expected.image_embeddings)
        .abs()
        .max();
    let difference: f32 = difference.into_scalar();
    assert!(difference > 0.0 && difference < 0.05, "{difference}");
}

#[test]
fn a_pickle_names_the_feature_or_what_is_wrong_with_it() {
    let copy = Copy::new();
    fs::remove_file(copy.weights("prior")).unwrap();
    let path = copy.path("prior/diffusion_pytorch_model.bin");
    for bytes in [
        &b"no pickle at all"[..],
        b"",
        b"\x80\x02}q\x00.",
        b"PK\x03\x04",
    ] {
        fs::write(&path, bytes).unwrap();
        let error = copy.error();
        let Error::WeightFile {
            path: found,
            reason,
        } = &error
        else {
            panic!("{bytes:?}: {error}");
        };
        assert_eq!(*found, path);
        assert!(
            cfg!(feature = "pytorch") || reason.contains("feature `pytorch`"),
            "{error}"
        );
    }
}
