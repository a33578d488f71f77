//! The priors' recipes.

use unclip::{
    Noise, Prior, TextEncoder,
    burn::tensor::{Device, Tensor, TensorData},
    core::{
        diffusion::{BetaSchedule, Process, Sampler, Target, Variance},
        resident::Resident,
        stage::{Caption, Run},
        train::{TrainSettings, initialized},
    },
    prior::{
        AutoregressiveConfig, AutoregressiveModel, AutoregressivePrior, AutoregressiveTraining,
        DiffusionPrior, EmbeddedCaption, EmbeddingCodec, Pca, PriorConfig, PriorModel,
        PriorTraining, dot_edges, embedding_statistics,
    },
};

use crate::{Letters, check_gradients, mean_loss, train};

const WIDTH: usize = 10;
const TOKENS: usize = 6;

fn letters() -> Letters {
    Letters {
        width: WIDTH,
        tokens: TOKENS,
    }
}

/// Embeddings far from 0 and of small variance, as CLIP's are.
pub fn samples(count: usize) -> Vec<EmbeddedCaption> {
    let mut noise = Noise::from_seed(8);
    (0..count)
        .map(|i| EmbeddedCaption {
            embedding: noise
                .normal_vec(WIDTH)
                .unwrap()
                .into_iter()
                .map(|v| 0.3 * v + 0.5)
                .collect(),
            caption: format!("thing {i}"),
        })
        .collect()
}

fn config() -> PriorConfig {
    PriorConfig::new(WIDTH, 2, 16, 2, TOKENS)
}

fn process() -> Process {
    let variance = Variance::FixedSmallLog;
    Process::new(BetaSchedule::SquaredCosine, 1000, Target::Sample, variance)
}

pub fn model(samples: &[EmbeddedCaption]) -> PriorModel {
    let (mean, deviation) = embedding_statistics(samples).unwrap();
    let model = initialized(config().init(&Device::flex()), 2, &[]).unwrap();
    model.with_statistics(&mean, deviation)
}

fn embeddings(samples: &[EmbeddedCaption]) -> Tensor<2> {
    let values: Vec<f32> = samples.iter().flat_map(|s| s.embedding.clone()).collect();
    let data = TensorData::new(values, [samples.len(), WIDTH]);
    Tensor::from_data(data, &Device::flex())
}

/// Mean square distance of a prior's samples from the embeddings of their captions.
fn distance(prior: &dyn Prior, samples: &[EmbeddedCaption]) -> f32 {
    let captions: Vec<&str> = samples.iter().map(|s| &s.caption[..]).collect();
    let text = letters().encode_text(&captions).unwrap();
    let mut noise = Noise::from_seed(3);
    let mut run = Run::new(Sampler::ancestral(20), &mut noise);
    let caption = Caption {
        text: &text,
        unconditional: None,
    };
    let found = prior.sample(caption, &mut run).unwrap();
    let square = (found - embeddings(samples)).powi_scalar(2).mean();
    square.into_scalar()
}

pub fn recipe() -> PriorTraining {
    PriorTraining::new(&config(), process(), Box::new(letters()))
}

/// The autoregressive prior's recipe for data like `samples`, and a network.
pub fn autoregressive(
    samples: &[EmbeddedCaption],
) -> (AutoregressiveTraining, AutoregressiveModel) {
    let values: Vec<f32> = samples.iter().flat_map(|s| s.embedding.clone()).collect();
    let codec = EmbeddingCodec::fit(Pca::fit(&values, WIDTH).unwrap(), &values, 16).unwrap();
    let config = AutoregressiveConfig::new(WIDTH, TOKENS, codec.dims(), 16, 2, 16, 2);
    let (config, device) = (config.with_dot_buckets(2), Device::flex());
    let network = initialized(config.init(&device), 2, &[]).unwrap();
    let held = Resident::Kept(network.clone());
    let stage = AutoregressivePrior::new(&config, held, codec, vec![-2.0], &device).unwrap();
    (
        AutoregressiveTraining::new(stage, Box::new(letters())),
        network,
    )
}

#[test]
fn the_diffusion_prior_learns_which_embedding_a_caption_has() {
    let samples = samples(6);
    let settings = TrainSettings {
        learning_rate: 3e-3,
        ema: 0.98,
        ..TrainSettings::new(400, 24)
    };
    let (trainer, rows) = train(recipe(), model(&samples), samples.clone(), settings);
    let (before, after) = (mean_loss(&rows[..10]), mean_loss(&rows[380..]));
    assert!(after < 0.3 * before, "{before} {after}");
    let network = Resident::Kept(trainer.averaged());
    let stage = DiffusionPrior::new(&config(), network, process(), &Device::flex()).unwrap();
    // The data's variance is 0.09.
    let distance = distance(&stage, &samples);
    assert!(distance < 0.02, "{distance}");
}

#[test]
fn the_autoregressive_prior_learns_the_same() {
    let samples = samples(6);
    let values: Vec<f32> = samples.iter().flat_map(|s| s.embedding.clone()).collect();
    let pca = Pca::fit(&values, WIDTH).unwrap();
    let codec = EmbeddingCodec::fit(pca, &values, 16).unwrap();
    // Every dot product in the upper half, which is what is sampled from.
    let edges = vec![-2.0];
    assert_eq!(
        dot_edges(text_of(&samples).embedding, embeddings(&samples), 2)
            .unwrap()
            .len(),
        1
    );
    let config =
        AutoregressiveConfig::new(WIDTH, TOKENS, codec.dims(), 16, 2, 16, 2).with_dot_buckets(2);
    let device = Device::flex();
    let network = initialized(config.init(&device), 2, &[]).unwrap();
    let stage = |network| {
        let network = Resident::Kept(network);
        AutoregressivePrior::new(&config, network, codec.clone(), edges.clone(), &device).unwrap()
    };
    let recipe = AutoregressiveTraining::new(stage(network.clone()), Box::new(letters()));
    let settings = TrainSettings {
        learning_rate: 5e-3,
        ema: 0.98,
        ..TrainSettings::new(250, 24)
    };
    let (trainer, rows) = train(recipe, network, samples.clone(), settings);
    let (before, after) = (mean_loss(&rows[..10]), mean_loss(&rows[230..]));
    assert!(after < 0.25 * before, "{before} {after}");
    let trained = stage(trainer.averaged()).with_temperature(0.0);
    let distance = distance(&trained, &samples);
    assert!(distance < 0.02, "{distance}");
    // The exact likelihood is the training loss on the same data, but for dropped captions.
    let likelihood = trained
        .log_likelihood(&text_of(&samples), embeddings(&samples))
        .unwrap();
    let mean = -likelihood.iter().sum::<f32>() / likelihood.len() as f32 / codec.dims() as f32;
    assert!(f64::from(mean) < after, "{mean} {after}");
}

fn text_of(samples: &[EmbeddedCaption]) -> unclip::core::stage::TextEncoding {
    let captions: Vec<&str> = samples.iter().map(|s| &s.caption[..]).collect();
    letters().encode_text(&captions).unwrap()
}

#[test]
fn gradients_are_the_losses() {
    let samples = samples(4);
    let recipe = PriorTraining::new(&config(), process(), Box::new(letters())).with_dropout(0.5);
    check_gradients(recipe, model(&samples), samples);
}

#[test]
fn statistics_need_something_to_measure() {
    assert!(embedding_statistics(&[]).is_err());
    let same = vec![samples(1)[0].clone(); 3];
    let (mean, _) = embedding_statistics(&samples(500)).unwrap();
    assert!(mean.iter().all(|m| (m - 0.5).abs() < 0.1));
    assert!(
        embedding_statistics(&[EmbeddedCaption {
            embedding: vec![1.0; 4],
            caption: String::new()
        }])
        .is_err()
    );
    assert!(embedding_statistics(&same).is_err());
}
