//! Times a training step of each stage of a checkpoint, and the memory it takes.
//!
//! ```sh
//! cargo run --release --features train --example train_bench -- --stage decoder
//! python tools/train_bench.py --from models/demo --stage decoder
//! ```
//!
//! The second is the same step in PyTorch, on diffusers' and transformers' networks.

#[path = "support/mod.rs"]
mod support;
mod training;

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::{Parser, ValueEnum};
use support::{
    DEVICES, Done, Units, demo_model, finish, parse_device, peak_memory, reset_peak_memory,
};
use training::Start;
use unclip::{
    burn::tensor::Device,
    core::{
        noise::Noise,
        train::{
            Captioned, EmbeddedCaption, Recipe, Samples, TrainSettings, Trainer, data::InMemory,
        },
    },
    decoder::DecoderTraining,
    image::RgbImage,
    prior::PriorTraining,
    upsample::UpsamplerTraining,
};

/// Time training steps: everything but reading data.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    /// Checkpoint (the folder with model_index.json) whose networks are trained. Default: the demo
    /// model.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,

    /// Stages.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "clip,prior,decoder,upsampler"
    )]
    stage: Vec<Stage>,

    /// Samples in a step.
    #[arg(long, default_value_t = 16)]
    batch: usize,

    /// Steps that are timed; two before them are not.
    #[arg(long, default_value_t = 8)]
    steps: usize,

    /// Where to compute; several share each batch.
    #[arg(long, value_parser = parse_device, value_delimiter = ',', default_value = DEVICES[0])]
    device: Vec<Device>,

    #[command(flatten)]
    units: Units,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stage {
    Clip,
    Prior,
    Decoder,
    Upsampler,
}

const CAPTION: &str = "a small red cube on top of a large blue ball";
/// Steps before those that are timed: caches are cold and memory is new.
const WARM_UP: usize = 2;

fn main() -> ExitCode {
    finish(run(&Cli::parse()))
}

fn run(args: &Cli) -> Done {
    args.units.choose();
    let start = Start {
        folder: args.from.clone().unwrap_or_else(demo_model),
        clip: None,
        fresh: None,
        device: args.device[0].clone(),
    };
    let mut noise = Noise::from_seed(1);
    for stage in &args.stage {
        match stage {
            Stage::Clip => {
                let (recipe, model, config) = start.clip()?;
                let pictures = pictures(args.batch, config.vision.image_size, &mut noise);
                time(args, "clip", recipe, model, pictures)?;
            }
            Stage::Prior => {
                let (model, config) = start.prior()?;
                let text = Box::new(start.text_encoder()?);
                let recipe = PriorTraining::new(&config, start.process("prior")?, text);
                let mut samples = Vec::with_capacity(args.batch);
                for _ in 0..args.batch {
                    samples.push(EmbeddedCaption {
                        embedding: noise.normal_vec(config.embedding)?,
                        caption: CAPTION.into(),
                    });
                }
                time(args, "prior", recipe, model, samples)?;
            }
            Stage::Decoder => {
                let (model, config) = start.decoder()?;
                let encoders = (start.text_encoder()?, start.image_encoder()?);
                let (text, image) = (Box::new(encoders.0), Box::new(encoders.1));
                let process = start.process("decoder")?;
                let recipe = DecoderTraining::new(&config, process, text, image);
                let pictures = pictures(args.batch, config.size, &mut noise);
                time(args, "decoder", recipe, model, pictures)?;
            }
            Stage::Upsampler => {
                let (model, config) = start.upsampler("super_res")?;
                let low = start.decoder()?.1.size;
                let process = start.process("super_res")?;
                let recipe = UpsamplerTraining::new(&config, low, process);
                let pictures = pictures(args.batch, config.size, &mut noise);
                time(args, "upsampler", recipe, model, pictures)?;
            }
        }
    }
    Ok(())
}

fn pictures(count: usize, side: usize, noise: &mut Noise) -> Vec<Captioned> {
    let mut picture = || {
        let values = noise.uniform_vec(side * side * 3);
        let bytes = values.into_iter().map(|v| (v * 255.0) as u8).collect();
        RgbImage::from_raw(side as u32, side as u32, bytes).unwrap_or_default()
    };
    let samples = (0..count).map(|_| Captioned {
        picture: picture(),
        caption: CAPTION.into(),
    });
    samples.collect()
}

fn time<R: Recipe>(
    args: &Cli,
    name: &str,
    recipe: R,
    model: R::Model,
    samples: Vec<R::Sample>,
) -> Done
where
    R::Sample: Clone + Sync,
{
    let settings = TrainSettings {
        workers: 1,
        save_every: usize::MAX,
        ..TrainSettings::new(WARM_UP + args.steps, args.batch)
    };
    let folder = tempfile::tempdir()?;
    let samples: Arc<dyn Samples<Item = R::Sample>> = Arc::new(InMemory(samples));
    let mut trainer = Trainer::new(recipe, model, settings, &args.device)?;
    let mut seconds = Vec::with_capacity(args.steps);
    reset_peak_memory();
    trainer.run(samples, folder.path(), |_, progress| {
        if progress.row.step > WARM_UP {
            seconds.push(args.batch as f64 / progress.row.samples_per_second);
        }
        std::ops::ControlFlow::Continue(())
    })?;
    seconds.sort_by(f64::total_cmp);
    let median = seconds[seconds.len() / 2];
    let memory = match peak_memory() {
        Some(mebibytes) => format!("{mebibytes} MiB"),
        None => "unknown".to_owned(),
    };
    println!(
        "{name:>10}: {:7.2} samples/s, {:.3} s a step of {}, peak memory {memory}",
        args.batch as f64 / median,
        median,
        args.batch
    );
    Ok(())
}
