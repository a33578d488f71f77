//! CLIP's recipe.

use unclip::{
    burn::{
        module::{Module, ModuleVisitor, Param},
        optim::GradientsParams,
        tensor::{Device, Tensor},
    },
    clip::{
        ClipImageEncoder, ClipImageProcessor, ClipModel, ClipModelConfig, ClipTextEncoder,
        ClipTraining, Pooling, TextTowerConfig, VisionTowerConfig, contrastive_loss,
        tokenizer::ClipTokenizer,
    },
    core::{
        nn::Activation,
        noise::Noise,
        resident::Resident,
        stage::{ImageEncoder, TextEncoder},
        train::{Recipe, TrainSettings, initialized, pictures},
    },
};

use crate::{check_gradients, discs, mean_loss, train};

fn tokenizer() -> ClipTokenizer {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/tokenizer/small"
    );
    ClipTokenizer::load(folder.as_ref()).unwrap()
}

pub fn model() -> ClipModel {
    let words = tokenizer().vocabulary_size();
    let act = Activation::QuickGelu;
    let text = TextTowerConfig::new(words, 77, 16, 1, 2, 32, 12, act, Pooling::LargestId);
    let vision = VisionTowerConfig::new(16, 8, 16, 1, 2, 32, 12, act);
    let model = ClipModelConfig::new(text, vision).init(&Device::flex());
    initialized(model, 1, &[]).unwrap()
}

pub fn recipe() -> ClipTraining {
    ClipTraining::new(tokenizer(), ClipImageProcessor::openai(16))
}

#[test]
fn it_learns_which_caption_is_whose() {
    let settings = TrainSettings {
        learning_rate: 5e-3,
        ..TrainSettings::new(120, 8)
    };
    let (_, rows) = train(recipe(), model(), discs(8, 16), settings);
    let (before, after) = (mean_loss(&rows[..5]), mean_loss(&rows[110..]));
    assert!(after < 0.1 * before, "{before} {after}");
}

#[test]
fn pieces_have_the_gradients_of_the_whole_batch_and_the_loss_is_clips() {
    let device = Device::flex().autodiff();
    let model = model().to_device(&device).train();
    let recipe = recipe();
    let examples = recipe
        .prepare(discs(7, 16), &mut Noise::from_seed(0))
        .unwrap();
    let examples: Vec<_> = examples.iter().collect();
    let gradients = |pieces: usize, devices: usize| {
        let devices = vec![device.clone(); devices];
        let pass = recipe.backward(&model, &examples, pieces, 1.0 / 7.0, &devices);
        let pass = pass.unwrap();
        let mut all = All {
            gradients: &pass.gradients,
            values: Vec::new(),
        };
        model.visit(&mut all);
        (all.values, pass.losses)
    };
    let (whole, losses) = gradients(1, 1);
    for (pieces, devices) in [(2, 1), (3, 1), (7, 1), (1, 2), (2, 3)] {
        let (found, same) = gradients(pieces, devices);
        assert_eq!(found.len(), whole.len());
        let length = |v: &[f32]| v.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        let apart: Vec<f32> = found.iter().zip(&whole).map(|(a, b)| a - b).collect();
        assert!(length(&apart) < 1e-5 * length(&whole));
        assert!(losses.iter().zip(&same).all(|(a, b)| (a - b).abs() < 1e-5));
    }
    // The stages' embeddings through the loss that the parity tests hold against the reference.
    let (plain, samples) = (Device::flex(), discs(7, 16));
    let inner = model.valid();
    let scale = inner.logit_scale();
    let text = ClipTextEncoder::new(tokenizer(), Resident::Kept(inner.text), &plain);
    let processor = ClipImageProcessor::openai(16);
    let image = ClipImageEncoder::new(processor, Resident::Kept(inner.vision), &plain);
    let captions: Vec<&str> = samples.iter().map(|s| &s.caption[..]).collect();
    let expected = contrastive_loss(
        text.encode_text(&captions).unwrap().embedding,
        image.encode_images(&pictures(&samples)).unwrap(),
        scale,
    );
    let expected = expected.into_scalar::<f32>();
    let mean = losses.iter().sum::<f32>() / 7.0;
    assert!((mean - expected).abs() < 1e-5, "{mean} {expected}");
}

#[test]
fn the_factor_stays_in_its_range() {
    let mut model = model().to_device(&Device::flex().autodiff()).train();
    model.logit_scale = model.logit_scale.map(|scale| scale + 9.0);
    let model = recipe().constrained(model);
    assert!((model.logit_factor().unwrap() - 100.0).abs() < 1e-2);
}

#[test]
fn gradients_are_the_losses() {
    check_gradients(recipe(), model(), discs(5, 16));
}

struct All<'a> {
    gradients: &'a GradientsParams,
    values: Vec<f32>,
}

impl ModuleVisitor for All<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.values
                .extend(gradient.into_data().try_to_vec::<f32>().unwrap());
        }
    }
}
