//! Folders, configurations and tokenizers.

use crate::common::fixture_root;
use crate::copy::{Copy, forget, quick, tree};
use std::fs;
use std::path::PathBuf;
use unclip::Error;
use unclip::Output;
use unclip::Residency;
use unclip::Result;
use unclip::UnClip;
use unclip::burn::tensor::Device;

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
fn a_checkpoint_says_what_guidance_suits_it() {
    let say = |value: &str| {
        let copy = Copy::new();
        copy.edit(
            "model_index.json",
            "{",
            &format!("{{ \"decoder_guidance_scale\": {value},"),
        );
        copy
    };
    for (value, expected) in [("2.5", 2.5), ("null", 8.0)] {
        let unclip = say(value).load().unwrap();
        let guidance = |job: Result<Output>| job.unwrap().settings.decoder.guidance;
        assert_eq!(guidance(quick(&unclip).run()), expected);
        assert_eq!(guidance(quick(&unclip).decoder_guidance(3.0).run()), 3.0);
    }
    let error = say("\"strong\"").error();
    assert!(
        matches!(&error, Error::Config { key, .. } if key == "decoder_guidance_scale"),
        "{error}"
    );
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
fn whatever_is_taken_away_is_named() {
    for name in tree(&fixture_root().join("checkpoints/unclip")) {
        let copy = Copy::new();
        let path = copy.path("").join(&name);
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
        let path = copy.path("").join(&name);
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
                    let builder = UnClip::builder(&Device::flex()).checkpoint(copy.path(""));
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
