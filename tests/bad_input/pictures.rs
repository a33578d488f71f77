//! The image side of CLIP: its folders, its configurations and the pictures it is given.

use crate::copy::Copy;
use std::fs;
use unclip::Error;
use unclip::Result;
use unclip::burn::tensor::Device;
use unclip::burn::tensor::Tensor;
use unclip::clip::ClipEncoders;
use unclip::clip::ClipImageEncoder;
use unclip::clip::ClipImageProcessor;
use unclip::clip::load_vision_tower;
use unclip::core::resident::Resident;
use unclip::core::stage::ImageEncoder;
use unclip::core::weights::LoadOptions;
use unclip::image::DynamicImage;
use unclip::image::ImageBuffer;

fn clip() -> Copy {
    Copy::of("clip_full_quick_gelu")
}

fn load(copy: &Copy) -> Result<ClipEncoders> {
    let options = LoadOptions {
        check_finite: true,
        ..LoadOptions::default()
    };
    ClipEncoders::load(&copy.path(""), None, &Device::flex(), options)
}

#[test]
fn missing_files_of_a_clip_are_named() {
    let missing = |file: &str| {
        let copy = clip();
        fs::remove_file(copy.path(file)).unwrap();
        let error = load(&copy).unwrap_err();
        assert!(
            matches!(&error, Error::NotFound { path, .. } if path.starts_with(copy.path(""))),
            "{file}: {error}"
        );
        error.to_string()
    };
    for file in [
        "config.json",
        "preprocessor_config.json",
        "merges.txt",
        "vocab.json",
    ] {
        let error = missing(file);
        assert!(error.contains(file), "{file}: {error}");
    }
    missing("model.safetensors");
}

#[test]
fn a_pipeline_that_lacks_an_encoder_is_no_clip() {
    let copy = Copy::of("unclip");
    let error = load(&copy).unwrap_err();
    assert!(
        matches!(&error, Error::NotFound { path, .. } if path.starts_with(copy.path(""))),
        "{error}"
    );
    assert!(error.to_string().contains("feature_extractor"), "{error}");
}

#[test]
fn clip_configurations_that_are_not_supported_are_refused_by_name() {
    for (file, from, to, key) in [
        (
            "config.json",
            "\"CLIPModel\"",
            "\"SiglipModel\"",
            "architectures",
        ),
        ("config.json", "\"clip\"", "\"siglip\"", "model_type"),
        (
            "config.json",
            "\"clip_text_model\"",
            "\"bert\"",
            "model_type",
        ),
        (
            "config.json",
            "\"image_size\": 24",
            "\"image_size\": 0",
            "image_size",
        ),
        (
            "config.json",
            "\"patch_size\": 6",
            "\"patch_size\": 25",
            "patch_size",
        ),
        (
            "preprocessor_config.json",
            "CLIPImageProcessor",
            "ViTImageProcessor",
            "image_processor_type",
        ),
        (
            "preprocessor_config.json",
            "\"resample\": 3",
            "\"resample\": 9",
            "resample",
        ),
        (
            "preprocessor_config.json",
            "shortest_edge",
            "longest_edge",
            "size",
        ),
    ] {
        let copy = clip();
        copy.edit(file, from, to);
        match load(&copy).unwrap_err() {
            Error::Config { key: found, .. } => assert_eq!(found, key, "{file} {to}"),
            other => panic!("{file} {to}: {other}"),
        }
    }
}

#[test]
fn weights_of_another_clip_are_refused_by_name() {
    // A whole CLIP is no vision tower, and the other way round.
    let (options, device) = (LoadOptions::default(), Device::flex());
    let error = load_vision_tower(&clip().path(""), None, &device, options).unwrap_err();
    assert!(
        matches!(&error, Error::Config { key, .. } if key == "architectures"),
        "{error}"
    );
    let copy = Copy::of("clip_vision_quick_gelu");
    copy.edit("config.json", "\"patch_size\": 6", "\"patch_size\": 8");
    match load_vision_tower(&copy.path(""), None, &device, options).unwrap_err() {
        Error::Weights(mismatch) => {
            let keys: Vec<&str> = mismatch.shapes.iter().map(|m| m.key.as_str()).collect();
            assert_eq!(
                keys,
                [
                    "vision_model.embeddings.patch_embedding.weight",
                    "vision_model.embeddings.position_embedding.weight"
                ]
            );
        }
        other => panic!("{other}"),
    }
    // The scale is a scalar in the file, and nothing else.
    let copy = clip();
    let path = copy.path("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let edit = |keep: bool| {
        let tensors = file
            .tensors()
            .into_iter()
            .filter(|(name, _)| keep || name != "logit_scale");
        let tensors = tensors.map(|(name, view)| {
            let shape = match name.as_str() {
                "logit_scale" => vec![1, 1],
                _ => view.shape().to_vec(),
            };
            let view = safetensors::tensor::TensorView::new(view.dtype(), shape, view.data());
            (name, view.unwrap())
        });
        fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    };
    edit(true);
    match load(&copy).unwrap_err() {
        Error::Weights(mismatch) => assert_eq!(mismatch.shapes[0].key, "logit_scale"),
        other => panic!("{other}"),
    }
    edit(false);
    match load(&copy).unwrap_err() {
        Error::Weights(mismatch) => assert_eq!(mismatch.missing[0].0, "logit_scale"),
        other => panic!("{other}"),
    }
}

#[test]
fn a_preprocessor_of_another_size_is_refused_when_it_matters() {
    let copy = clip();
    let mut clip = load(&copy).unwrap();
    clip.image.processor = ClipImageProcessor::openai(20);
    let picture = DynamicImage::new_rgb8(9, 9);
    let error = clip.matcher().rank_captions(&picture, &["a"]).unwrap_err();
    assert!(
        matches!(&error, Error::Shape { name, .. } if name == "the pixel values"),
        "{error}"
    );
    clip.image.processor = ClipImageProcessor::openai(0);
    let error = clip.image.encode_images(&[picture]).unwrap_err();
    assert!(matches!(&error, Error::Setting { .. }), "{error}");
    for shape in [[1, 3, 24, 23], [1, 4, 24, 24], [2, 3, 48, 48]] {
        let pixels = Tensor::zeros(shape, &Device::flex());
        let error = clip.image.embed_pixels(pixels).unwrap_err();
        assert!(matches!(&error, Error::Shape { .. }), "{error}");
    }
}

#[test]
fn every_picture_is_encoded_or_refused() {
    let device = Device::flex();
    let folder = Copy::of("clip_vision_quick_gelu");
    let options = LoadOptions::default();
    let tower = load_vision_tower(&folder.path(""), None, &device, options).unwrap();
    let side = tower.image_size() as u32;
    let processor = ClipImageProcessor::openai(side);
    let encoder = ClipImageEncoder::new(processor, Resident::Kept(tower), &device);

    let error = encoder.encode_images(&[]).unwrap_err();
    assert!(matches!(&error, Error::Setting { name, .. } if name == "pictures"));
    for (width, height) in [(0, 0), (0, 5), (5, 0)] {
        let nothing = [
            DynamicImage::new_rgb8(4, 4),
            DynamicImage::new_rgb8(width, height),
        ];
        let error = encoder.encode_images(&nothing).unwrap_err();
        assert!(
            matches!(&error, Error::Shape { name, .. } if name == "a picture"),
            "{error}"
        );
    }
    let (w, h) = (6, 5);
    let nan = f32::NAN;
    let pictures = [
        DynamicImage::new_rgb8(1, 1),
        DynamicImage::new_luma8(1, 70_000),
        DynamicImage::new_rgba8(70_000, 1),
        DynamicImage::new_rgb8(3, 1),
        DynamicImage::new_luma_a8(w, h),
        DynamicImage::new_luma16(w, h),
        DynamicImage::new_luma_a16(w, h),
        DynamicImage::new_rgb16(w, h),
        DynamicImage::new_rgba16(w, h),
        ImageBuffer::from_pixel(w, h, unclip::image::Rgb([nan, f32::INFINITY, -1e30])).into(),
        ImageBuffer::from_pixel(w, h, unclip::image::Rgba([0.5, nan, 1.0, nan])).into(),
    ];
    let embeddings = encoder.encode_images(&pictures).unwrap();
    assert_eq!(embeddings.dims()[0], pictures.len());
    unclip::core::image::to_host(embeddings, "test").unwrap();
}

/// Every value of both files, the towers' included, replaced by values that make no sense: an
/// error or encoders that run, never a panic.
#[test]
fn no_clip_configuration_panics() {
    let values = [
        "0",
        "3",
        "-1",
        "1e300",
        "4294967296",
        "null",
        "\"x\"",
        "[0]",
        "{}",
        "true",
    ];
    let copy = clip();
    let mut panics = Vec::new();
    for file in ["config.json", "preprocessor_config.json"] {
        let path = copy.path(file);
        let whole = fs::read(&path).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        for place in places(&json) {
            for value in values {
                let mut changed = json.clone();
                *changed.pointer_mut(&place).unwrap() = serde_json::from_str(value).unwrap();
                fs::write(&path, serde_json::to_vec(&changed).unwrap()).unwrap();
                let outcome = std::panic::catch_unwind(|| {
                    if let Ok(clip) = load(&copy) {
                        let picture = DynamicImage::new_rgb8(9, 7);
                        let _ = clip.matcher().rank_captions(&picture, &["a", "b"]);
                    }
                });
                if outcome.is_err() {
                    panics.push(format!("{file} {place} = {value}"));
                }
            }
        }
        fs::write(&path, whole).unwrap();
    }
    assert!(panics.is_empty(), "{panics:#?}");
}

/// JSON pointers to everything inside.
fn places(json: &serde_json::Value) -> Vec<String> {
    let inside: Vec<(String, &serde_json::Value)> = match json {
        serde_json::Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), v)).collect(),
        serde_json::Value::Array(list) => {
            let numbered = list.iter().enumerate();
            numbered.map(|(i, v)| (i.to_string(), v)).collect()
        }
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    for (key, value) in inside {
        found.push(format!("/{key}"));
        found.extend(places(value).iter().map(|below| format!("/{key}{below}")));
    }
    found
}
