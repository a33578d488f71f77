//! The autoregressive prior: decoding, likelihood, settings, its files.
#![allow(missing_docs)]

use std::ops::ControlFlow;

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use unclip_core::{
    diffusion::Sampler,
    error::{Error, Result},
    noise::Noise,
    resident::Resident,
    stage::{Caption, Prior, Run, Step, TextEncoding},
    weights::{Checkpoint, LoadOptions, Precision, load, randomize, save},
};
use unclip_prior::{
    AutoregressiveConfig, AutoregressiveInput, AutoregressivePrior, BestOf, EmbeddingCodec, Pca,
    PriorConfig, dot_edges, load_autoregressive_prior, prior_keys, save_autoregressive_prior,
};

const WIDTH: usize = 12;
const CONTEXT: usize = 5;

fn config() -> AutoregressiveConfig {
    AutoregressiveConfig::new(WIDTH, CONTEXT, 6, 16, 2, 8, 2).with_dot_buckets(8)
}

fn rows(count: usize, seed: u64) -> Tensor<2> {
    Noise::from_seed(seed)
        .normal([count, WIDTH], &Device::flex())
        .unwrap()
}

/// Captions of different lengths.
fn text(count: usize, seed: u64) -> TextEncoding {
    let device = Device::flex();
    let keep: Vec<bool> = (0..count * CONTEXT)
        .map(|i| i % CONTEXT <= 1 + i / CONTEXT % 3)
        .collect();
    TextEncoding {
        embedding: rows(count, seed),
        tokens: Noise::from_seed(seed + 1)
            .normal([count, CONTEXT, WIDTH], &device)
            .unwrap(),
        mask: Tensor::<2, Bool>::from_data(TensorData::new(keep, [count, CONTEXT]), &device),
    }
}

fn prior() -> AutoregressivePrior {
    let device = Device::flex();
    let images = rows(200, 1);
    let data: Vec<f32> = images.clone().into_data().try_to_vec().unwrap();
    let pca = Pca::fit(&data, WIDTH).unwrap().truncated(6).unwrap();
    let codec = EmbeddingCodec::fit(pca, &data, 16).unwrap();
    let edges = dot_edges(rows(200, 2), images, 8).unwrap();
    let model = randomize(config().init(&device), Precision::FULL, 3);
    AutoregressivePrior::new(&config(), Resident::Kept(model), codec, edges, &device).unwrap()
}

fn sampled(prior: &dyn Prior, text: &TextEncoding, guidance: Option<f64>, seed: u64) -> Vec<f32> {
    let mut noise = Noise::from_seed(seed);
    let unconditional = guidance.map(|_| crate::text(text.rows(), 50));
    let mut run = Run::new(Sampler::ancestral(1), &mut noise);
    run.guidance = guidance.unwrap_or(1.0);
    let caption = Caption {
        text,
        unconditional: unconditional.as_ref(),
    };
    prior
        .sample(caption, &mut run)
        .unwrap()
        .into_data()
        .try_to_vec()
        .unwrap()
}

#[test]
fn likelihood_sums_to_the_training_loss() {
    let prior = prior();
    let (text, images) = (text(4, 10), rows(4, 11));
    let (input, codes) = prior.training_pair(&text, images.clone()).unwrap();
    let model = prior.model.hold().unwrap();
    let loss: f32 = model.loss(&input, codes).into_scalar();
    let total: f32 = prior.log_likelihood(&text, images).unwrap().iter().sum();
    assert!((total / -(4.0 * 6.0) - loss).abs() < 1e-5, "{total} {loss}");
    // A uniform guess has ln 16; nothing learned cannot be far better.
    assert!((1.0..8.0).contains(&loss), "{loss}");
}

#[test]
fn probabilities_sum_to_one_and_look_back_only() {
    let prior = prior();
    let model = prior.model.hold().unwrap();
    let (input, codes) = prior.training_pair(&text(2, 20), rows(2, 21)).unwrap();
    let logits = model.forward(&input, codes.clone().narrow(1, 0, 5));
    assert_eq!(logits.dims(), [2, 6, 16]);
    let sums = burn::tensor::activation::softmax(logits.clone(), 2).sum_dim(2);
    assert!((sums - 1.0).abs().max().into_scalar::<f32>() < 1e-5);
    // The last code given changes only the last answer.
    let other = codes.clone().narrow(1, 4, 1).remainder_scalar(15) + 1;
    let changed = Tensor::cat(vec![codes.narrow(1, 0, 4), other], 1);
    let difference = (model.forward(&input, changed) - logits).abs().max_dim(2);
    let difference: Vec<f32> = difference.into_data().try_to_vec().unwrap();
    for (i, d) in difference.iter().enumerate() {
        assert_eq!(*d > 1e-5, i % 6 == 5, "{i}: {d}");
    }
}

#[test]
fn padding_does_not_matter() {
    let prior = prior();
    let model = prior.model.hold().unwrap();
    let text = text(1, 30);
    let (input, codes) = prior.training_pair(&text, rows(1, 31)).unwrap();
    let keep = text.mask.clone().float().reshape([1, CONTEXT, 1]);
    let garbage = AutoregressiveInput {
        tokens: text.tokens.clone() * keep.clone() + (keep.neg() + 1.0) * 7.0,
        ..input.clone()
    };
    let found =
        |input: &AutoregressiveInput| -> f32 { model.loss(input, codes.clone()).into_scalar() };
    assert!((found(&input) - found(&garbage)).abs() < 1e-6);
}

/// Greedy decoding without the cache: the whole sequence again for each code.
fn greedy_uncached(prior: &AutoregressivePrior, text: &TextEncoding, seed: u64) -> Vec<u32> {
    let device = Device::flex();
    let model = prior.model.hold().unwrap();
    let rows = text.rows();
    let dots: Vec<i64> = Noise::from_seed(seed)
        .uniform_vec(rows)
        .into_iter()
        .map(|u| 4 + (u * 4.0) as i64)
        .collect();
    let input = AutoregressiveInput {
        text_embedding: text.embedding.clone(),
        tokens: text.tokens.clone(),
        mask: text.mask.clone(),
        dots: Tensor::from_data(TensorData::new(dots, [rows]), &device),
    };
    let mut codes = Tensor::<2, Int>::zeros([rows, 0], &device);
    for i in 0..6 {
        let logits = model.forward(&input, codes.clone()).narrow(1, i, 1);
        let next: Tensor<2, Int> = logits.argmax(2).squeeze_dim(2);
        codes = match i {
            0 => next,
            _ => Tensor::cat(vec![codes, next], 1),
        };
    }
    codes.into_data().iter::<i64>().map(|c| c as u32).collect()
}

#[test]
fn decoding_with_the_cache_is_decoding_without() {
    let text = text(3, 40);
    for prior in [prior().with_temperature(0.0), prior().with_top_k(1)] {
        let found = sampled(&prior, &text, None, 9);
        let codes = greedy_uncached(&prior, &text, 9);
        let expected = prior.codec().decode(&codes, &Device::flex()).unwrap();
        assert_eq!(found, expected.into_data().try_to_vec::<f32>().unwrap());
    }
}

#[test]
fn a_seed_repeats_and_guidance_can_be_batched_or_separate() {
    let (prior, text) = (prior(), text(2, 60));
    assert_eq!(
        sampled(&prior, &text, None, 1),
        sampled(&prior, &text, None, 1)
    );
    assert_ne!(
        sampled(&prior, &text, None, 1),
        sampled(&prior, &text, None, 2)
    );
    let batched = sampled(&prior, &text, Some(3.0), 1);
    assert_ne!(batched, sampled(&prior, &text, None, 1));
    let unconditional = crate::text(2, 50);
    let mut noise = Noise::from_seed(1);
    let mut run = Run::new(Sampler::ancestral(1), &mut noise);
    (run.guidance, run.is_batched) = (3.0, false);
    let caption = Caption {
        text: &text,
        unconditional: Some(&unconditional),
    };
    let separate = prior.sample(caption, &mut run).unwrap();
    assert_eq!(separate.into_data().try_to_vec::<f32>().unwrap(), batched);
}

#[test]
fn the_best_of_many_is_nearer_to_the_text() {
    let text = text(3, 70);
    let nearness = |samples: Vec<f32>| -> f32 {
        let samples = Tensor::<2>::from_data(TensorData::new(samples, [3, WIDTH]), &Device::flex());
        (samples * text.embedding.clone()).sum().into_scalar()
    };
    let one = nearness(sampled(&prior(), &text, None, 4));
    let many = nearness(sampled(&BestOf::new(prior(), 16).unwrap(), &text, None, 4));
    assert!(many > one, "{one} {many}");
}

#[test]
fn it_reports_every_code_and_can_be_cancelled() {
    let (prior, text) = (prior(), text(1, 80));
    let run_until = |stop: usize| -> (Result<Tensor<2>>, usize) {
        let mut seen = 0;
        let mut watch = |step: Step| {
            seen += 1;
            assert_eq!((step.done, step.steps), (seen, 6));
            if seen == stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let mut noise = Noise::from_seed(0);
        let caption = Caption {
            text: &text,
            unconditional: None,
        };
        let mut run = Run::new(Sampler::ancestral(1), &mut noise);
        run.watch = Some(&mut watch);
        let found = prior.sample(caption, &mut run);
        (found, seen)
    };
    assert!(matches!(run_until(9), (Ok(_), 6)));
    assert!(matches!(run_until(2), (Err(Error::Cancelled { .. }), 2)));
}

#[test]
fn wrong_settings_and_parts_are_named() {
    let text = text(1, 90);
    let caption = Caption {
        text: &text,
        unconditional: None,
    };
    for temperature in [-1.0, f64::NAN, f64::INFINITY] {
        let mut noise = Noise::from_seed(0);
        let mut run = Run::new(Sampler::ancestral(1), &mut noise);
        let found = prior()
            .with_temperature(temperature)
            .sample(caption, &mut run);
        assert!(matches!(found, Err(Error::Setting { .. })));
    }
    let mut noise = Noise::from_seed(0);
    let mut run = Run::new(Sampler::ancestral(1), &mut noise);
    run.latents = Some(TensorData::new(vec![0.0_f32; WIDTH], [1, WIDTH]));
    assert!(matches!(
        prior().sample(caption, &mut run),
        Err(Error::Setting { .. })
    ));

    let p = prior();
    let device = Device::flex();
    let other = config().with_dot_buckets(9);
    let model = Resident::Kept(other.init(&device));
    let edges = p.dot_edges().to_vec();
    let error = AutoregressivePrior::new(&other, model, p.codec().clone(), edges, &device);
    assert!(matches!(error, Err(Error::Config { .. })));
    assert!(dot_edges(rows(3, 1), rows(3, 2), 1).is_err());
}

#[test]
fn a_saved_prior_is_the_same_prior() {
    let folder = tempfile::tempdir().unwrap();
    let prior = prior();
    save_autoregressive_prior(&prior, &config(), folder.path(), None).unwrap();
    let device = Device::flex();
    let loaded = load_autoregressive_prior(folder.path(), &device, LoadOptions::default()).unwrap();
    let text = text(2, 95);
    let (a, b) = (
        sampled(&prior, &text, None, 3),
        sampled(&loaded, &text, None, 3),
    );
    // The components are stored in single precision.
    assert!(
        a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-5),
        "{a:?} {b:?}"
    );

    let path = folder.path().join("config.json");
    let json = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("UnclipAutoregressivePrior", "PriorTransformer"),
        ("\"buckets\": 16", "\"buckets\": 1"),
        ("\"codes\": 6", "\"codes\": 600"),
        ("\"layers\": 2", "\"layers\": 3"),
        ("\"heads\": 2", "\"heads\": 0"),
    ] {
        assert!(json.contains(from), "{json}");
        std::fs::write(&path, json.replace(from, to)).unwrap();
        let error = load_autoregressive_prior(folder.path(), &device, LoadOptions::default());
        let error = error.unwrap_err();
        assert!(
            matches!(error, Error::Config { .. } | Error::Weights(_)),
            "{to}: {error}"
        );
    }
    std::fs::write(&path, "{").unwrap();
    let error = load_autoregressive_prior(folder.path(), &device, LoadOptions::default());
    assert!(matches!(error, Err(Error::Json { .. })));
}

#[test]
fn saving_is_the_inverse_of_loading() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::flex();
    let config = PriorConfig::new(WIDTH, 2, 6, 2, CONTEXT);
    let model = randomize(config.init(&device), Precision::FULL, 5);
    let path = folder.path().join("model.safetensors");
    save(&model, &path, &prior_keys(), None).unwrap();
    let first = std::fs::read(&path).unwrap();
    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    assert!(
        checkpoint
            .names()
            .any(|name| name == "transformer_blocks.1.ff.net.2.weight")
    );
    let loaded = load(
        config.init(&device),
        &checkpoint,
        &prior_keys(),
        LoadOptions::default(),
    );
    save(&loaded.unwrap(), &path, &prior_keys(), None).unwrap();
    assert_eq!(first, std::fs::read(&path).unwrap());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let nowhere = folder.path().join("missing/model.safetensors");
    assert!(matches!(
        save(&model, &nowhere, &prior_keys(), None),
        Err(Error::Io { .. })
    ));
}
