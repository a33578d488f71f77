//! Bad input gives a typed error that names the thing, never a panic, and nothing half loaded.
#![allow(missing_docs)]

mod common;

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use common::fixture_root;
use tempfile::TempDir;
use unclip::{
    Error, Noise, Precision, Prior, Residency, Result, Stage, UnClip,
    burn::tensor::{Device, Tensor, TensorData},
    core::{
        stage::{Caption, Run},
        weights::Mismatch,
    },
};

/// A copy of the fixtures' checkpoint, to be damaged.
struct Copy(TempDir);

impl Copy {
    fn new() -> Self {
        fn copy(from: &Path, to: &Path) {
            fs::create_dir_all(to).unwrap();
            for entry in fs::read_dir(from).unwrap() {
                let path = entry.unwrap().path();
                let target = to.join(path.file_name().unwrap());
                if path.is_dir() {
                    copy(&path, &target);
                } else {
                    fs::write(target, fs::read(&path).unwrap()).unwrap();
                }
            }
        }
        let folder = tempfile::tempdir().unwrap();
        copy(&fixture_root().join("checkpoints/unclip"), folder.path());
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn weights(&self, component: &str) -> PathBuf {
        self.path(component)
            .join("diffusion_pytorch_model.safetensors")
    }

    /// Replaces text in a file.
    fn edit(&self, name: &str, from: &str, to: &str) -> &Self {
        let path = self.path(name);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{name} does not contain {from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
        self
    }

    /// Splits a safetensors file into header and data, changes them and puts them together.
    fn edit_weights(
        &self,
        component: &str,
        edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>, &mut Vec<u8>),
    ) {
        let path = self.weights(component);
        let bytes = fs::read(&path).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let mut data = bytes[8 + length..].to_vec();
        edit(&mut header, &mut data);
        fs::write(path, safetensors_bytes(&header, &data)).unwrap();
    }

    fn load(&self) -> Result<UnClip> {
        UnClip::load(self.0.path(), &Device::flex())
    }

    /// Both ways of loading have to refuse alike.
    fn error(&self) -> Error {
        let lazy = UnClip::builder(&Device::flex())
            .checkpoint(self.0.path())
            .residency(Residency::OneAtATime)
            .build()
            .unwrap_err();
        let error = self.load().unwrap_err();
        assert_eq!(error.to_string(), lazy.to_string());
        error
    }

    fn mismatch(&self) -> Mismatch {
        match self.error() {
            Error::Weights(mismatch) => *mismatch,
            other => panic!("{other:?}"),
        }
    }
}

fn safetensors_bytes(header: &serde_json::Map<String, serde_json::Value>, data: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    bytes
}

fn unclip() -> UnClip {
    UnClip::load(fixture_root().join("checkpoints/unclip"), &Device::flex()).unwrap()
}

/// A job of few steps.
fn quick(unclip: &UnClip) -> unclip::TextToImage<'_> {
    let job = unclip.text_to_image("a red cube").seed(3);
    job.prior_steps(2).decoder_steps(2).upsampler_steps(2)
}

#[test]
fn missing_files_and_folders_are_named() {
    let error = UnClip::load("no/such/folder", &Device::flex()).unwrap_err();
    assert!(matches!(&error, Error::NotFound { path, .. } if path.ends_with("folder")));
    for missing in [
        "model_index.json",
        "prior",
        "text_proj",
        "tokenizer",
        "super_res_last",
        "decoder_scheduler",
        "decoder/config.json",
        "prior_scheduler/scheduler_config.json",
        "text_encoder/config.json",
    ] {
        let copy = Copy::new();
        let path = copy.path(missing);
        match path.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        let error = copy.error();
        assert!(
            matches!(&error, Error::NotFound { path: found, .. } if *found == path),
            "{missing}: {error}"
        );
    }
    let copy = Copy::new();
    fs::remove_file(copy.weights("prior")).unwrap();
    let error = copy.error();
    assert!(matches!(&error, Error::NotFound { path, .. } if path.starts_with(copy.path("prior"))));
}

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
fn configurations_that_are_not_supported_are_refused_by_name() {
    for (file, from, to, key) in [
        (
            "model_index.json",
            "UnCLIPPipeline",
            "StableDiffusionPipeline",
            "_class_name",
        ),
        (
            "model_index.json",
            "PriorTransformer",
            "UNet1DModel",
            "prior",
        ),
        (
            "decoder/config.json",
            "UNet2DConditionModel",
            "UNet3DModel",
            "_class_name",
        ),
        (
            "decoder/config.json",
            "SimpleCrossAttnDownBlock2D",
            "AttnDownBlock2D",
            "down_block_types",
        ),
        (
            "decoder/config.json",
            "ResnetUpsampleBlock2D",
            "UpBlock2D",
            "up_block_types",
        ),
        (
            "decoder/config.json",
            "\"only_cross_attention\": false",
            "\"only_cross_attention\": true",
            "only_cross_attention",
        ),
        (
            "super_res_first/config.json",
            "\"silu\"",
            "\"mish\"",
            "act_fn",
        ),
        ("prior/config.json", "\"prd\"", "\"sum\"", "added_emb_type"),
        (
            "text_encoder/config.json",
            "quick_gelu",
            "tanh",
            "hidden_act",
        ),
        (
            "prior_scheduler/scheduler_config.json",
            "squaredcos_cap_v2",
            "exp",
            "beta_schedule",
        ),
        (
            "prior_scheduler/scheduler_config.json",
            "\"sample\"",
            "\"flow\"",
            "prediction_type",
        ),
        (
            "decoder_scheduler/scheduler_config.json",
            "learned_range",
            "guess",
            "variance_type",
        ),
        (
            "super_res_scheduler/scheduler_config.json",
            "UnCLIPScheduler",
            "X",
            "_class_name",
        ),
    ] {
        let copy = Copy::new();
        copy.edit(file, from, to);
        let error = copy.error();
        assert!(
            matches!(&error, Error::Config { key: found, .. } if found == key),
            "{file} {key}: {error}"
        );
    }
}

#[test]
fn broken_json_is_named_with_its_place() {
    for file in [
        "model_index.json",
        "decoder/config.json",
        "text_encoder/config.json",
        "prior_scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
    ] {
        let copy = Copy::new();
        copy.edit(file, "{", "{,");
        match copy.error() {
            Error::Json { path, source } => {
                assert_eq!(path, copy.path(file));
                assert_eq!(source.line(), 1);
            }
            other => panic!("{file}: {other:?}"),
        }
    }
}

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
fn settings_out_of_range_are_refused_before_any_work() {
    let unclip = unclip();
    let setting = |job: unclip::TextToImage<'_>| match job.run().unwrap_err() {
        Error::Setting { name, .. } => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(setting(quick(&unclip).prior_steps(0)), "steps");
    assert_eq!(setting(quick(&unclip).decoder_steps(0)), "steps");
    assert_eq!(setting(quick(&unclip).upsampler_steps(0)), "steps");
    for job in [
        quick(&unclip).prior_steps(1001),
        quick(&unclip).decoder_steps(1001),
        quick(&unclip).upsampler_steps(1001),
    ] {
        let job = job.on_step(|step| panic!("{} has run", step.stage));
        assert_eq!(setting(job), "steps");
    }
    assert_eq!(setting(quick(&unclip).images(0)), "images");
    assert_eq!(
        setting(quick(&unclip).decoder_guidance(f64::NAN)),
        "decoder guidance"
    );
    assert_eq!(
        setting(unclip.texts_to_images(Vec::<String>::new())),
        "prompts"
    );
    assert_eq!(
        setting(quick(&unclip).noise(Noise::recorded(Vec::new()))),
        "recorded noise"
    );
}

#[test]
fn empty_and_endless_prompts_work() {
    let unclip = unclip();
    let run = |prompt: &str| {
        let job = unclip.text_to_image(prompt).seed(3).without_upsampling();
        job.prior_steps(2).decoder_steps(2).run().unwrap().images
    };
    assert_eq!(run("").len(), 1);
    let words = "a red cube ".repeat(10_000);
    assert_eq!(run(&words), run(&words[..5_000]), "both fill the context");
    run(&"x".repeat(100_000));
}

#[test]
fn tensors_of_the_wrong_shape_are_named() {
    let unclip = unclip();
    let device = Device::flex();
    let shape = |job: unclip::TextToImage<'_>| match job.run().unwrap_err() {
        Error::Shape { name, .. } => name,
        other => panic!("{other:?}"),
    };
    let flat = || Tensor::<2>::zeros([1, 7], &device);
    let square = || Tensor::<4>::zeros([1, 3, 5, 5], &device);
    assert_eq!(
        shape(quick(&unclip).prior_latents(flat())),
        "the prior's latents"
    );
    assert_eq!(
        shape(quick(&unclip).decoder_latents(square())),
        "the decoder's latents"
    );
    assert_eq!(
        shape(quick(&unclip).upsampler_latents(square())),
        "the upsampler's latents"
    );
    assert_eq!(
        shape(quick(&unclip).image_embeddings(flat())),
        "the image embedding"
    );
    let rows = Tensor::<2>::zeros([2, 7], &device);
    assert_eq!(
        shape(quick(&unclip).image_embeddings(rows)),
        "the image embeddings"
    );
    let noise = Noise::recorded(vec![vec![0.0; 3]]);
    assert_eq!(
        shape(quick(&unclip).noise(noise)),
        "draw 1 of the recorded noise"
    );
}

#[test]
fn a_job_can_be_cancelled_in_every_stage() {
    let unclip = unclip();
    for stage in [
        Stage::TextEncoder,
        Stage::Prior,
        Stage::Decoder,
        Stage::Upsampler(0),
    ] {
        let job = quick(&unclip).on_step(|step| match step.stage == stage {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        });
        match job.run().unwrap_err() {
            Error::Cancelled {
                stage: found,
                step: 1,
                ..
            } => assert_eq!(found, stage.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn steps_are_reported_once_each_and_in_order() {
    let unclip = unclip();
    let mut steps = Vec::new();
    let job = quick(&unclip).on_step(|step| {
        steps.push((step.stage, step.done, step.steps));
        ControlFlow::Continue(())
    });
    job.run().unwrap();
    let (prior, decoder, upsampler) = (Stage::Prior, Stage::Decoder, Stage::Upsampler(0));
    let expected = [
        (Stage::TextEncoder, 1, 1),
        (prior, 1, 2),
        (prior, 2, 2),
        (decoder, 1, 2),
        (decoder, 2, 2),
        (upsampler, 1, 2),
        (upsampler, 2, 2),
    ];
    assert_eq!(steps, expected);
}

/// A prior of one's own.
struct Zeros(usize);

impl Prior for Zeros {
    fn sample(&self, caption: Caption<'_>, _: &mut Run<'_>) -> Result<Tensor<2>> {
        Ok(Tensor::zeros(
            [caption.text.rows(), self.0],
            &Device::flex(),
        ))
    }
}

#[test]
fn a_missing_stage_is_named_and_can_be_replaced() {
    let copy = Copy::new();
    let index = fs::read(copy.path("model_index.json")).unwrap();
    let mut index: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&index).unwrap();
    index.remove("prior");
    fs::write(
        copy.path("model_index.json"),
        serde_json::to_vec(&index).unwrap(),
    )
    .unwrap();
    let without = copy.load().unwrap();
    let error = quick(&without).run().unwrap_err();
    assert!(
        matches!(&error, Error::MissingStage { stage, .. } if stage == "prior"),
        "{error}"
    );

    let width = quick(&unclip()).run().unwrap().image_embeddings.dims()[1];
    let given = quick(&without).image_embeddings(Tensor::zeros([1, width], &Device::flex()));
    let builder = UnClip::builder(&Device::flex()).checkpoint(copy.path(""));
    let own = builder.prior(Zeros(width)).build().unwrap();
    // The prior draws no noise in either case.
    let (given, own) = (given.run().unwrap(), quick(&own).run().unwrap());
    assert_eq!(given.images, own.images);
    let nothing = UnClip::builder(&Device::flex()).build().unwrap();
    assert!(matches!(
        quick(&nothing).run(),
        Err(Error::MissingStage { .. })
    ));
}

#[test]
fn every_way_of_running_gives_the_same_picture() {
    let folder = fixture_root().join("checkpoints/unclip");
    let builder = || UnClip::builder(&Device::flex()).checkpoint(&folder);
    let kept = builder().build().unwrap();
    let expected = quick(&kept).run().unwrap();
    assert_eq!(
        quick(&kept).run().unwrap().images,
        expected.images,
        "same seed"
    );
    let other = quick(&kept).seed(4).run().unwrap();
    assert_ne!(other.images, expected.images, "another seed");

    let lazy = builder().residency(Residency::OneAtATime).build().unwrap();
    assert_eq!(quick(&lazy).run().unwrap().images, expected.images);

    let separate = quick(&kept).separate_guidance().run().unwrap();
    let difference: f32 = (separate.small - expected.small.clone())
        .abs()
        .max()
        .into_scalar();
    assert!(difference < 1e-3, "{difference}");

    let small = quick(&kept).without_upsampling().run().unwrap();
    assert_eq!(small.pixels.dims(), expected.small.dims());
    let half = builder()
        .precision(Precision::HALF_WEIGHTS)
        .build()
        .unwrap();
    assert_ne!(quick(&half).run().unwrap().images, expected.images);
}

#[test]
fn pictures_carry_what_makes_them_again() {
    let folder = tempfile::tempdir().unwrap();
    let unclip = unclip();
    let output = quick(&unclip).images(2).run().unwrap();
    let paths = output.save_all(folder.path(), "cube").unwrap();
    assert_eq!(paths.len(), 2);
    let texts = unclip::core::image::png_texts(&paths[1]).unwrap();
    let text = |key: &str| &texts.iter().find(|(k, _)| k == key).unwrap().1;
    assert_eq!(text("Description"), "a red cube");
    assert_eq!(text("unclip-index"), "1");
    let settings: unclip::Settings = serde_json::from_str(text("unclip")).unwrap();
    assert_eq!(settings, output.settings);
    assert_eq!(settings.seed, Some(3));
    assert!(matches!(
        output.save(2, paths[0].as_path()),
        Err(Error::Setting { .. })
    ));
}

/// Every file and folder below `folder`, by its path in it.
fn tree(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if path.is_dir() {
            found.extend(tree(&path).into_iter().map(|below| name.join(below)));
        }
        found.push(name);
    }
    found.sort();
    found
}

/// Writes a component's tensors again, changed by `edit`; its header is valid afterwards.
fn rewrite(
    copy: &Copy,
    component: &str,
    edit: impl Fn(&str, &mut safetensors::Dtype, &mut Vec<usize>, &mut Vec<u8>),
) {
    let bytes = fs::read(copy.weights(component)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let (mut dtype, mut shape) = (view.dtype(), view.shape().to_vec());
            let mut data = view.data().to_vec();
            edit(&name, &mut dtype, &mut shape, &mut data);
            (name, dtype, shape, data)
        })
        .collect();
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(copy.weights(component), bytes).unwrap();
}

/// Removes an entry of `model_index.json`.
fn forget(copy: &Copy, component: &str) {
    let path = copy.path("model_index.json");
    let text = fs::read(&path).unwrap();
    let mut index: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&text).unwrap();
    index.remove(component).unwrap();
    fs::write(path, serde_json::to_vec(&index).unwrap()).unwrap();
}

fn largest_difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    (a - b).abs().max().into_scalar()
}

#[test]
fn whatever_is_taken_away_is_named() {
    for name in tree(&fixture_root().join("checkpoints/unclip")) {
        let copy = Copy::new();
        let path = copy.0.path().join(&name);
        match path.is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        // The tokenizer's settings are also in the other file, or have defaults.
        if name.ends_with("special_tokens_map.json") || name.ends_with("tokenizer_config.json") {
            copy.load().unwrap();
            continue;
        }
        let error = copy.error();
        let Error::NotFound { path: found, hint } = &error else {
            panic!("{}: {error}", name.display());
        };
        let is_weights = name.extension().is_some_and(|e| e == "safetensors");
        let expected = if is_weights {
            path.parent().unwrap()
        } else {
            &path
        };
        assert!(found.starts_with(expected), "{}: {error}", name.display());
        assert!(!hint.is_empty());
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
fn schedules_out_of_range_are_refused() {
    let steps = "\"num_train_timesteps\": 1000";
    let range = "\"clip_sample_range\": 1.0";
    for (from, to, key) in [
        (steps, "\"num_train_timesteps\": 0", "num_train_timesteps"),
        (steps, "\"num_train_timesteps\": 1", "num_train_timesteps"),
        (
            steps,
            "\"num_train_timesteps\": 999999999999",
            "num_train_timesteps",
        ),
        (range, "\"clip_sample_range\": -1.0", "clip_sample_range"),
        (range, "\"clip_sample_range\": null", "clip_sample_range"),
    ] {
        let copy = Copy::new();
        copy.edit("super_res_scheduler/scheduler_config.json", from, to);
        let error = copy.error();
        assert!(
            matches!(&error, Error::Config { key: found, .. } if found == key),
            "{to}: {error}"
        );
    }
    for (from, to) in [
        (
            "\"num_train_timesteps\": 1000",
            "\"num_train_timesteps\": -5",
        ),
        (
            "\"num_train_timesteps\": 1000",
            "\"num_train_timesteps\": 2.5",
        ),
        ("\"clip_sample\": true", "\"clip_sample\": \"yes\""),
    ] {
        let copy = Copy::new();
        let file = "super_res_scheduler/scheduler_config.json";
        copy.edit(file, from, to);
        let error = copy.error();
        assert!(
            matches!(&error, Error::Json { path, .. } if *path == copy.path(file)),
            "{to}: {error}"
        );
    }
}

#[test]
fn betas_outside_their_range_are_refused() {
    for (start, end) in [("-0.1", "0.02"), ("0.0001", "1.5"), ("2.0", "3.0")] {
        let copy = Copy::new();
        copy.edit(
            "super_res_scheduler/scheduler_config.json",
            "\"squaredcos_cap_v2\"",
            &format!("\"linear\", \"beta_start\": {start}, \"beta_end\": {end}"),
        );
        let error = copy.error();
        assert!(
            matches!(&error, Error::Config { key, .. } if key.starts_with("beta_")),
            "{start} to {end}: {error}"
        );
    }
}

#[test]
fn picture_sizes_without_sense_are_refused() {
    for component in ["decoder", "super_res_first"] {
        let file = format!("{component}/config.json");
        let size = match component {
            "decoder" => "\"sample_size\": 16",
            _ => "\"sample_size\": 64",
        };
        // The last two would take terabytes: they have to be refused before anything is run.
        for value in ["null", "0", "3", "17", "1048576", "4294967296"] {
            let copy = Copy::new();
            copy.edit(&file, size, &format!("\"sample_size\": {value}"));
            match copy.load() {
                Err(Error::Config { key, .. }) => assert_eq!(key, "sample_size"),
                other => panic!("{component} {value}: {other:?}"),
            }
        }
        for value in ["-8", "16.5", "\"16\"", "[16, 16]"] {
            let copy = Copy::new();
            copy.edit(&file, size, &format!("\"sample_size\": {value}"));
            assert!(matches!(copy.error(), Error::Json { .. }), "{value}");
        }
    }
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

#[test]
fn broken_tokenizers_are_refused() {
    for (file, text) in [
        ("vocab.json", "{"),
        ("vocab.json", "[1, 2]"),
        ("vocab.json", "{\"a\": -1}"),
        ("vocab.json", "{\"a\": \"b\"}"),
        ("vocab.json", "{\"a\": 99999999999}"),
        ("special_tokens_map.json", "null,"),
        (
            "tokenizer_config.json",
            "{\"added_tokens_decoder\": {\"x\": 1}}",
        ),
    ] {
        let copy = Copy::new();
        let path = copy.path("tokenizer").join(file);
        fs::write(&path, text).unwrap();
        let error = copy.error();
        assert!(
            matches!(&error, Error::Json { path: found, .. } if *found == path),
            "{file} {text}: {error}"
        );
    }
    for (file, text) in [
        ("vocab.json", "{}"),
        ("vocab.json", "{\"a\": 0}"),
        ("merges.txt", "three words here"),
        ("merges.txt", "one"),
        ("merges.txt", "unheard of"),
        ("merges.txt", "\u{0}\u{1}\u{2} \u{3}"),
        (
            "tokenizer_config.json",
            "{\"bos_token\": \"<|unheard-of|>\"}",
        ),
        (
            "tokenizer_config.json",
            "{\"pad_token\": {\"content\": \"<|unheard-of|>\"}}",
        ),
    ] {
        let copy = Copy::new();
        fs::write(copy.path("tokenizer").join(file), text).unwrap();
        let error = copy.error();
        assert!(
            matches!(&error, Error::Tokenizer { path, .. } if path.starts_with(copy.path("tokenizer"))),
            "{file} {text}: {error}"
        );
    }
    let copy = Copy::new();
    fs::write(copy.path("tokenizer/merges.txt"), [0xff, 0xfe, 0xfd]).unwrap();
    let error = copy.error();
    assert!(
        matches!(&error, Error::Tokenizer { path, .. } | Error::Io { path, .. }
            if path.starts_with(copy.path("tokenizer"))),
        "{error}"
    );
}

#[test]
fn a_tokenizer_of_another_model_is_refused_when_it_matters() {
    let copy = Copy::new();
    let config = copy.path("tokenizer/tokenizer_config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("\"model_max_length\": 77", "\"model_max_length\": 78"),
    )
    .unwrap();
    let error = quick(&copy.load().unwrap()).run().unwrap_err();
    assert!(
        matches!(&error, Error::Shape { name, .. } if name == "the token ids"),
        "{error}"
    );
    // OpenAI's vocabulary is larger than the fixture's.
    let copy = Copy::new();
    forget(&copy, "tokenizer");
    let error = quick(&copy.load().unwrap()).run().unwrap_err();
    assert!(
        matches!(&error, Error::Setting { name, .. } if name == "token id"),
        "{error}"
    );
}

#[test]
fn guidance_has_to_be_a_number() {
    let unclip = unclip();
    for scale in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for (job, expected) in [
            (quick(&unclip).prior_guidance(scale), "prior guidance"),
            (quick(&unclip).decoder_guidance(scale), "decoder guidance"),
        ] {
            let job = job.on_step(|step| panic!("{} has run", step.stage));
            let error = job.run().unwrap_err();
            assert!(
                matches!(&error, Error::Setting { name, .. } if name == expected),
                "{error}"
            );
        }
    }
}

#[test]
fn recorded_noise_may_run_out_at_any_draw() {
    let unclip = unclip();
    let output = quick(&unclip).run().unwrap();
    let width = output.image_embeddings.dims()[1];
    let (small, large) = (output.small.dims(), output.pixels.dims());
    let sizes: Vec<usize> = [width, small.iter().product(), large.iter().product()]
        .into_iter()
        // x_T, and the noise of the one step that is not the last.
        .flat_map(|size| [size, size])
        .collect();
    let draws = |count: usize| sizes[..count].iter().map(|n| vec![0.1; *n]);
    for count in 0..sizes.len() {
        let error = quick(&unclip)
            .noise(Noise::recorded(draws(count)))
            .run()
            .unwrap_err();
        let Error::Setting { name, value, .. } = &error else {
            panic!("{count}: {error}");
        };
        assert_eq!(
            (name.as_str(), value.as_str()),
            ("recorded noise", &*format!("{count} draws"))
        );
    }
    let noise = Noise::recorded(draws(sizes.len()));
    assert_eq!(
        quick(&unclip).noise(noise).run().unwrap().settings.seed,
        None
    );
}

#[test]
fn values_that_are_not_finite_are_found_in_what_is_given() {
    let unclip = unclip();
    let device = Device::flex();
    let output = quick(&unclip).run().unwrap();
    for value in [f32::NAN, f32::INFINITY] {
        let embeddings = Tensor::<2>::full(output.image_embeddings.dims(), value, &device);
        let error = quick(&unclip)
            .image_embeddings(embeddings)
            .run()
            .unwrap_err();
        assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    }
    let latents = Tensor::<4>::full(output.small.dims(), f32::NAN, &device);
    let error = quick(&unclip).decoder_latents(latents).run().unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
}

#[test]
fn latents_need_a_row_for_each_picture() {
    let unclip = unclip();
    let device = Device::flex();
    let output = quick(&unclip).run().unwrap();
    let width = output.image_embeddings.dims()[1];
    let ([_, c, h, w], [_, _, large, _]) = (output.small.dims(), output.pixels.dims());
    for (job, expected) in [
        (
            quick(&unclip).prior_latents(Tensor::zeros([1, width], &device)),
            "the prior's latents",
        ),
        (
            quick(&unclip).decoder_latents(Tensor::zeros([1, c, h, w], &device)),
            "the decoder's latents",
        ),
        (
            quick(&unclip).upsampler_latents(Tensor::zeros([1, c, large, large], &device)),
            "the upsampler's latents",
        ),
        (
            quick(&unclip).image_embeddings(Tensor::zeros([1, width], &device)),
            "the image embeddings",
        ),
    ] {
        let error = job.images(2).run().unwrap_err();
        assert!(
            matches!(&error, Error::Shape { name, .. } if name == expected),
            "{error}"
        );
    }
}

#[test]
fn an_endless_word_is_its_beginning() {
    let unclip = unclip();
    let encoder = unclip.text_encoder().unwrap();
    for piece in ["x", "a red cube ", "é", "9", "!?", "\u{1f600}"] {
        let prompt: String = piece.chars().cycle().take(100_000).collect();
        let encoded = encoder.encode_text(&[&prompt]).unwrap();
        assert!(
            encoded
                .embedding
                .clone()
                .is_finite()
                .all()
                .into_scalar::<bool>()
        );
        let beginning: String = prompt.chars().take(60_000).collect();
        let expected = encoder.encode_text(&[&beginning]).unwrap();
        let difference = largest_difference(encoded.embedding, expected.embedding);
        assert_eq!(difference, 0.0, "{piece}");
    }
}

#[test]
fn other_stages_may_be_missing_too() {
    for (component, expected) in [("text_encoder", "text encoder"), ("decoder", "decoder")] {
        let copy = Copy::new();
        forget(&copy, component);
        let error = quick(&copy.load().unwrap()).run().unwrap_err();
        assert!(
            matches!(&error, Error::MissingStage { stage, .. } if stage == expected),
            "{error}"
        );
    }
    // Without upsamplers pictures are the decoder's; without a second one, the first does all.
    let copy = Copy::new();
    forget(&copy, "super_res_last");
    let first_only = quick(&copy.load().unwrap()).run().unwrap();
    forget(&copy, "super_res_first");
    let small = quick(&copy.load().unwrap()).run().unwrap();
    assert_eq!(small.pixels.dims(), first_only.small.dims());
    assert!(small.settings.upsamplers.is_empty());
    assert_eq!(
        first_only.pixels.dims(),
        quick(&unclip()).run().unwrap().pixels.dims()
    );
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

#[test]
fn separate_guidance_and_half_weights_are_near_the_plain_way() {
    let kept = unclip();
    let expected = quick(&kept).run().unwrap();
    let separate = quick(&kept).separate_guidance().run().unwrap();
    let difference = largest_difference(separate.small, expected.small.clone());
    assert!(difference < 1e-4, "{difference}");

    let folder = fixture_root().join("checkpoints/unclip");
    let builder = UnClip::builder(&Device::flex()).checkpoint(folder);
    let half = builder.precision(Precision::HALF_WEIGHTS).build().unwrap();
    let half = quick(&half).run().unwrap();
    assert_eq!(half.pixels.dtype(), unclip::burn::tensor::DType::F32);
    let difference = largest_difference(half.image_embeddings, expected.image_embeddings);
    assert!(difference > 0.0 && difference < 0.05, "{difference}");
    let mean: f32 = (half.small - expected.small).abs().mean().into_scalar();
    assert!(mean < 0.05, "{mean}");
}

/// Every value of every configuration replaced by values that make no sense: an error or a
/// network that runs, never a panic.
#[test]
fn no_configuration_panics() {
    let root = fixture_root().join("checkpoints/unclip");
    let files: Vec<PathBuf> = tree(&root)
        .into_iter()
        .filter(|path| {
            path.extension().is_some_and(|e| e == "json") && !path.ends_with("vocab.json")
        })
        .collect();
    let values = [
        "0",
        "3",
        "-1",
        "1e300",
        "4294967296",
        "null",
        "\"x\"",
        "[0]",
    ];
    let copy = Copy::new();
    let mut panics = Vec::new();
    for name in files {
        let path = copy.0.path().join(&name);
        let whole = fs::read_to_string(&path).unwrap();
        let json: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&whole).unwrap();
        let is_upsampled = name.to_string_lossy().starts_with("super_res");
        // Sizes that load and do not fit into memory have a test of their own.
        for key in json.keys().filter(|key| *key != "sample_size") {
            for value in values {
                let mut changed = json.clone();
                changed[key] = serde_json::from_str(value).unwrap();
                fs::write(&path, serde_json::to_vec(&changed).unwrap()).unwrap();
                let outcome = std::panic::catch_unwind(|| {
                    let builder = UnClip::builder(&Device::flex()).checkpoint(copy.0.path());
                    // Errors are what is expected; what loads has to run or to say why not.
                    if let Ok(unclip) = builder.residency(Residency::OneAtATime).build() {
                        let job = unclip.text_to_image("a").seed(3).prior_steps(1);
                        let job = job.decoder_steps(1).upsampler_steps(1);
                        let _ = match is_upsampled {
                            true => job.run(),
                            false => job.without_upsampling().run(),
                        };
                    }
                });
                if outcome.is_err() {
                    panics.push(format!("{} {key} = {value}", name.display()));
                }
            }
        }
        fs::write(&path, whole).unwrap();
    }
    assert!(panics.is_empty(), "{panics:#?}");
}
