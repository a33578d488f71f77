//! The upsampler's recipe.

use unclip::{
    Noise, Upsampler,
    burn::{
        module::Module,
        tensor::{Device, Tensor},
    },
    core::{
        diffusion::{BetaSchedule, Clip, Process, Sampler, Target, Variance},
        image::from_images,
        nn::{UNet, UNetConfig},
        resident::Resident,
        stage::Run,
        train::{TrainSettings, initialized, square},
    },
    upsample::{Degradation, DiffusionUpsampler, UpsamplerConfig, UpsamplerTraining},
};

use crate::{check_gradients, check_recording, discs, mean_loss, train};

fn config() -> UpsamplerConfig {
    let off = vec![false; 2];
    let unet = UNetConfig::new(6, 3, vec![16, 24], 1, off.clone(), off, false, 0, true);
    UpsamplerConfig::new(unet.with_groups(8), 32)
}

pub fn network() -> UNet {
    initialized(config().unet.init(&Device::flex()), 1, &["conv_out"]).unwrap()
}

fn process(target: Target) -> Process {
    let variance = Variance::FixedSmallLog;
    Process::new(BetaSchedule::SquaredCosine, 1000, target, variance)
        .with_clip(Some(Clip::Range(1.0)))
}

pub fn recipe() -> UpsamplerTraining {
    UpsamplerTraining::new(&config(), 16, process(Target::Sample)).with_crop(16)
}

#[test]
fn it_learns_to_enlarge() {
    let samples = discs(4, 32);
    let settings = TrainSettings {
        learning_rate: 2e-3,
        ema: 0.98,
        ..TrainSettings::new(150, 8)
    };
    let (trainer, rows) = train(recipe(), network(), samples.clone(), settings);
    let (before, after) = (mean_loss(&rows[..10]), mean_loss(&rows[130..]));
    assert!(after < 0.1 * before, "{before} {after}");

    // And it makes better pictures than enlarging alone, on the whole picture.
    let device = Device::flex();
    let wanted = from_images(&[samples[1].picture.clone()], &device).unwrap();
    let low = square(&samples[1].picture, 16);
    let low = Degradation::Blur
        .apply(&low, &mut Noise::from_seed(0))
        .unwrap();
    let low = from_images(&[low], &device).unwrap();
    let network = Resident::Kept(trainer.averaged());
    let stage = DiffusionUpsampler::new(&config(), network, None, process(Target::Sample), &device)
        .unwrap();
    let mut noise = Noise::from_seed(1);
    let mut run = Run::new(Sampler::ddim(20, 0.0), &mut noise);
    let made = stage.upsample(low.clone(), &mut run).unwrap();
    let error = |x: Tensor<4>| {
        (x - wanted.clone())
            .powi_scalar(2)
            .mean()
            .into_scalar::<f32>()
    };
    let enlarged = unclip::core::resample::resize_bicubic(low, 32, 32);
    let (ours, plain) = (error(made), error(enlarged));
    assert!(ours < plain, "{ours} {plain}");
}

#[test]
fn recorded_steps_are_the_steps() {
    let settings = TrainSettings::new(8, 4);
    check_recording(recipe, &network(), &discs(6, 32), &settings);
}

#[test]
fn gradients_are_the_losses() {
    let recipe = UpsamplerTraining::new(&config(), 16, process(Target::Epsilon))
        .with_crop(8)
        .with_degradation(Degradation::Bsr);
    let network = initialized(config().unet.init(&Device::flex()), 2, &[]).unwrap();
    assert!(network.num_params() > 10_000);
    check_gradients(recipe, network, discs(3, 40));
}
