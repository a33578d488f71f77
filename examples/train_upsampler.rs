//! Trains an upsampler on your own pictures, further or from nothing.
//!
//! ```sh
//! cargo run --release --features train --example train_upsampler -- --data pictures --out runs/up
//! ```

#[path = "support/mod.rs"]
mod support;
mod training;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use support::{Done, finish};
use training::{Own, UpsamplerSheet};
use unclip::{
    core::train::{TrainSettings, data, merged},
    upsample::{Degradation, UpsamplerTraining, save_upsampler},
};

/// Train an upsampler, which enlarges pictures.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    own: Own,

    /// Which of the checkpoint's upsamplers, counted from 1.
    #[arg(long, default_value_t = 1)]
    number: usize,

    /// Side of the pictures that it enlarges. Default: the decoder's, or what the one before makes.
    #[arg(long, value_name = "PIXELS")]
    from_size: Option<usize>,

    /// What small pictures suffer in training, so that the network bears what the stage before makes.
    #[arg(long, value_enum, default_value_t = Kind::Blur)]
    degradation: Kind,

    /// Side of the crops, in pixels of the small picture. Default: a quarter of it.
    #[arg(long, value_name = "PIXELS")]
    crop: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Nothing but being small.
    None,
    /// Gaussian blur, always the same, as the paper's from 64 to 256.
    Blur,
    /// Gaussian blur from none to strong. Sharp pictures are then not sharpened again.
    AnyBlur,
    /// Blur, noise and compression in any order, as the paper's from 256 to 1024.
    Bsr,
}

fn main() -> ExitCode {
    finish(run(&Cli::parse()))
}

fn run(args: &Cli) -> Done {
    let (own, start) = (&args.own, args.own.start());
    let name = match args.number {
        0 => return Err("--number counts from 1".into()),
        1 => "super_res".to_owned(),
        number => format!("super_res_{number}"),
    };
    let (network, config) = start.upsampler(&name)?;
    let low = match (args.from_size, args.number) {
        (Some(size), _) => size,
        (None, 1) => start.decoder()?.1.size,
        (None, 2) => start.upsampler("super_res")?.1.size,
        (None, number) => {
            start
                .upsampler(&format!("super_res_{}", number - 1))?
                .1
                .size
        }
    };
    let process = start.process(&name)?;
    let data = data::open(&own.data)?;
    let mut sheet = UpsamplerSheet::of(&start, &config, &process, data.as_ref(), low)?;
    let mut recipe =
        UpsamplerTraining::new(&config, low, process).with_degradation(match args.degradation {
            Kind::None => Degradation::None,
            Kind::Blur => Degradation::Blur,
            Kind::AnyBlur => Degradation::AnyBlur,
            Kind::Bsr => Degradation::Bsr,
        });
    if let Some(crop) = args.crop {
        recipe = recipe.with_crop(crop);
    }
    let paper = match args.number {
        1 => UpsamplerTraining::paper_256(),
        _ => UpsamplerTraining::paper_1024(),
    };
    let settings = own.settings(paper, TrainSettings::new(50_000, 16));
    let network = own.parts(network)?;
    let trainer = own.flags.run(
        &own.out,
        recipe,
        network,
        settings,
        data,
        |trainer, progress| {
            let step = progress.row.step;
            match own.samples_are_due(step) {
                true => sheet.make(trainer.averaged(), &own.out, step),
                false => Ok(()),
            }
        },
    )?;
    let folder = own.model()?;
    let to = folder.join(format!("{name}_first"));
    save_upsampler(&merged(trainer.averaged()), &config, &to, None)?;
    println!("{} is a checkpoint with this upsampler", folder.display());
    Ok(())
}
