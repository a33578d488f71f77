//! Trains a decoder on your own captioned pictures, further or from nothing, also for inpainting.
//!
//! ```sh
//! cargo run --release --features train --example train_decoder -- --data pictures --out runs/decoder
//! ```

#[path = "support/mod.rs"]
mod support;
mod training;

use std::process::ExitCode;

use clap::Parser;
use support::{Done, finish};
use training::{DecoderSheet, Own};
use unclip::{
    core::train::{TimestepSampler, TrainSettings, Weighting, data, merged},
    decoder::{DecoderTraining, save_decoder},
};

/// Train the decoder, which makes pictures of image embeddings and captions.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    own: Own,

    /// For inpainting: the network is also shown what of the picture is known.
    #[arg(long)]
    inpainting: bool,

    /// Share of the samples without image embedding, for guidance.
    #[arg(long, default_value_t = 0.1)]
    embedding_dropout: f32,

    /// Share of the samples without caption.
    #[arg(long, default_value_t = 0.5)]
    caption_dropout: f32,

    /// Noise on the image embeddings beside captions, as a share of their size and up to this, against a
    /// prior's mistakes.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    embedding_noise: f32,

    /// Weigh timesteps by min(SNR, this) / SNR; 5 is usual.
    #[arg(long, value_name = "SNR", group = "weighting", value_parser = parse_positive)]
    min_snr: Option<f64>,

    /// Weigh the error of x₀ by SNR, kept between these two; 1 5 has a short training learn early what
    /// stands where.
    #[arg(long, value_names = ["LEAST", "MOST"], num_args = 2, group = "weighting")]
    #[arg(value_parser = parse_positive)]
    truncated_snr: Option<Vec<f64>>,

    /// Weigh timesteps by 1 / (1 + SNR)^this; 1 is usual.
    #[arg(long, value_name = "POWER", group = "weighting", value_parser = parse_positive)]
    p2: Option<f64>,

    /// Draw timesteps more often where the loss is large.
    #[arg(long)]
    loss_aware: bool,
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above 0 is needed, such as 5".into()),
    }
}

fn main() -> ExitCode {
    finish(run(&Cli::parse()))
}

fn run(args: &Cli) -> Done {
    let (own, start) = (&args.own, args.own.start());
    let (mut model, mut config) = start.decoder()?;
    if args.inpainting {
        (model, config) = model.for_inpainting(&config);
    }
    let process = start.process("decoder")?;
    let timesteps = match args.loss_aware {
        true => TimestepSampler::loss_aware(process.steps()),
        false => TimestepSampler::uniform(process.steps()),
    };
    let weighting = match (args.min_snr, args.truncated_snr.as_deref(), args.p2) {
        (Some(most), ..) => Weighting::MinSnr(most),
        (_, Some(&[least, most]), _) if least > most => {
            return Err(
                format!("--truncated-snr {least} {most}: the first is the smaller one").into(),
            );
        }
        (_, Some(&[least, most]), _) => Weighting::TruncatedSnr { least, most },
        (.., Some(power)) => Weighting::P2(power),
        _ => Weighting::Even,
    };
    let encoders = (start.text_encoder()?, start.image_encoder()?);
    let data = data::open(&own.data)?;
    let mut sheet = DecoderSheet::of(&start, &process, data.as_ref(), 8)?;
    let recipe = DecoderTraining::new(&config, process, Box::new(encoders.0), Box::new(encoders.1))
        .with_dropout(args.embedding_dropout, args.caption_dropout)
        .with_embedding_noise(args.embedding_noise)
        .with_timesteps(timesteps)
        .with_weighting(weighting);
    let small = TrainSettings {
        learning_rate: 1e-4,
        ..TrainSettings::new(50_000, 16)
    };
    let settings = own.settings(DecoderTraining::paper(), small);
    let model = own.parts(model)?;
    let trainer = own.flags.run(
        &own.out,
        recipe,
        model,
        settings,
        data,
        |trainer, progress| {
            let step = progress.row.step;
            match own.samples_are_due(step) {
                true => sheet.make(&config, trainer.averaged(), &own.out, step),
                false => Ok(()),
            }
        },
    )?;
    let (model, folder) = (merged(trainer.averaged()), own.model()?);
    save_decoder(
        &model,
        &config,
        &folder.join("text_proj"),
        &folder.join("decoder"),
        None,
    )?;
    println!("{} is a checkpoint with this decoder", folder.display());
    Ok(())
}
