//! Time and memory of Karlo's stages at full size, with random weights: no checkpoint needed.
//!
//! ```sh
//! cargo run --release --example stage_bench -- --stages prior,decoder --steps 3
//! ```

mod support;

use std::{error::Error, time::Instant};

use clap::{Parser, ValueEnum};
use support::{DEVICES, Dtype, parse_device, peak_memory, reset_peak_memory};
use unclip::{
    Decoder, Noise, Precision, Prior, Sampler, TextEncoder, Upsampler,
    burn::{
        module::Module,
        tensor::{Bool, Device, Tensor, TensorData},
    },
    clip::{ClipTextEncoder, TextTowerConfig, tokenizer::ClipTokenizer},
    core::{
        diffusion::{BetaSchedule, Clip, Process, Target, Variance},
        resident::Resident,
        stage::{Caption, Conditioning, Run, TextEncoding},
        weights::randomize,
    },
    decoder::{DecoderConfig, DiffusionDecoder},
    prior::{DiffusionPrior, PriorConfig},
    upsample::{DiffusionUpsampler, UpsamplerConfig},
};

/// Measure Karlo's stages at full size with random weights.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Which stages.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [
        StageName::Text, StageName::Prior, StageName::Decoder, StageName::Upsampler,
    ])]
    stages: Vec<StageName>,

    /// Where to compute.
    #[arg(long, value_parser = parse_device, default_value = DEVICES[0])]
    device: Device,

    /// Types of weights and arithmetic.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,

    /// Pictures in a batch; prior and decoder are guided, which doubles it.
    #[arg(long, default_value_t = 1)]
    batch: usize,

    /// Steps to measure, after one that is not counted.
    #[arg(long, default_value_t = 3)]
    steps: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StageName {
    Text,
    Prior,
    Decoder,
    Upsampler,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    println!(
        "{:<10} {:>14} {:>8} {:>11} {:>12} {:>10}",
        "stage", "parameters", "init s", "s per step", "images / s", "peak MiB"
    );
    for stage in &args.stages {
        reset_peak_memory();
        match stage {
            StageName::Text => text(&args)?,
            StageName::Prior => prior(&args)?,
            StageName::Decoder => decoder(&args)?,
            StageName::Upsampler => upsampler(&args)?,
        }
    }
    println!(
        "batch {}, {:?}; images / s at 25 prior, 25 decoder, 7 upsampler steps",
        args.batch, args.dtype
    );
    Ok(())
}

/// Random weights in the chosen precision, with their number and the seconds it took.
fn network<M: Module>(args: &Args, module: M) -> (M, usize, f64) {
    let count = module.num_params();
    let start = Instant::now();
    let module = randomize(module, Precision::from(args.dtype), 0);
    (module, count, start.elapsed().as_secs_f64())
}

/// Runs a stage and prints its row. The first step, which may compile kernels, is not counted.
fn measure(
    args: &Args,
    name: &str,
    (count, init): (usize, f64),
    steps_of_a_picture: usize,
    run: impl FnOnce(&mut Run<'_>) -> Result<(), unclip::Error>,
) -> Result<(), Box<dyn Error>> {
    let mut noise = Noise::from_seed(0);
    let mut times = Vec::new();
    let device = args.device.clone();
    let mut watch = |_| {
        // Work is queued on a GPU: without waiting, a step would seem to take no time.
        let _ = device.sync();
        times.push(Instant::now());
        std::ops::ControlFlow::Continue(())
    };
    let mut this_run = Run::new(Sampler::ancestral(args.steps + 1), &mut noise);
    this_run.guidance = 4.0;
    this_run.watch = Some(&mut watch);
    run(&mut this_run)?;
    let mut seconds: Vec<f64> = times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_secs_f64())
        .collect();
    seconds.sort_by(f64::total_cmp);
    let step = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    print_row(args, name, (count, init), step, steps_of_a_picture);
    Ok(())
}

fn print_row(args: &Args, name: &str, (count, init): (usize, f64), step: f64, steps: usize) {
    let rate = args.batch as f64 / (step * steps as f64);
    let memory = peak_memory().map_or("-".to_owned(), |mib| mib.to_string());
    println!("{name:<10} {count:>14} {init:>8.1} {step:>11.3} {rate:>12.4} {memory:>10}");
}

fn process(target: Target, variance: Variance, clip: f64) -> Process {
    Process::new(BetaSchedule::SquaredCosine, 1000, target, variance)
        .with_clip(Some(Clip::Range(clip)))
}

/// A caption of noise, with ViT-L/14's widths.
fn encoding(args: &Args) -> Result<TextEncoding, unclip::Error> {
    let mut noise = Noise::from_seed(1);
    let mask = TensorData::new(vec![true; args.batch * 77], [args.batch, 77]);
    Ok(TextEncoding {
        embedding: noise.normal([args.batch, 768], &args.device)?,
        tokens: noise.normal([args.batch, 77, 768], &args.device)?,
        mask: Tensor::<2, Bool>::from_data(mask, &args.device),
    })
}

fn text(args: &Args) -> Result<(), Box<dyn Error>> {
    let device = &args.device;
    let (tower, count, init) = network(args, TextTowerConfig::vit_l_14().init(device));
    let stage = ClipTextEncoder::new(ClipTokenizer::openai()?, Resident::Kept(tower), device);
    let prompts = vec!["a photograph of a corgi"; args.batch];
    let mut seconds = Vec::new();
    for _ in 0..args.steps.max(1) + 1 {
        let start = Instant::now();
        let encoding = stage.encode_text(&prompts)?;
        encoding.embedding.into_data();
        seconds.push(start.elapsed().as_secs_f64());
    }
    let counted = &mut seconds[1..];
    counted.sort_by(f64::total_cmp);
    print_row(args, "text", (count, init), counted[counted.len() / 2], 1);
    Ok(())
}

fn prior(args: &Args) -> Result<(), Box<dyn Error>> {
    let config = PriorConfig::karlo();
    let (model, count, init) = network(args, config.init(&args.device));
    let process = process(Target::Sample, Variance::FixedSmallLog, 5.0);
    let stage = DiffusionPrior::new(&config, Resident::Kept(model), process, &args.device)?;
    let text = encoding(args)?;
    let caption = Caption {
        text: &text,
        unconditional: Some(&text),
    };
    measure(args, "prior", (count, init), 25, |run| {
        stage.sample(caption, run).map(|_| ())
    })
}

fn decoder(args: &Args) -> Result<(), Box<dyn Error>> {
    let config = DecoderConfig::karlo();
    let (model, count, init) = network(args, config.init(&args.device));
    let process = process(Target::Epsilon, Variance::LearnedRange, 1.0);
    let stage = DiffusionDecoder::new(&config, Resident::Kept(model), process, &args.device)?;
    let text = encoding(args)?;
    let conditioning = Conditioning {
        image_embedding: text.embedding.clone(),
        caption: Caption {
            text: &text,
            unconditional: Some(&text),
        },
    };
    measure(args, "decoder", (count, init), 25, |run| {
        stage.decode(&conditioning, run).map(|_| ())
    })
}

fn upsampler(args: &Args) -> Result<(), Box<dyn Error>> {
    let config = UpsamplerConfig::karlo();
    let (model, count, init) = network(args, config.unet.init(&args.device));
    let process = process(Target::Epsilon, Variance::FixedSmallLog, 1.0);
    let first = Resident::Kept(model);
    let stage = DiffusionUpsampler::new(&config, first, None, process, &args.device)?;
    let low = Noise::from_seed(2).normal([args.batch, 3, 64, 64], &args.device)?;
    measure(args, "upsampler", (count, init), 7, |run| {
        stage.upsample(low, run).map(|_| ())
    })
}
