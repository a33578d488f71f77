//! Trains CLIP on your own captioned pictures, further or from nothing.
//!
//! ```sh
//! cargo run --release --features train --example train_clip -- --data pictures --out runs/clip
//! ```

#[path = "support/mod.rs"]
mod support;
mod training;

use std::process::ExitCode;

use clap::Parser;
use support::{Done, finish};
use training::Own;
use unclip::{
    clip::{ClipTraining, save_text_tower, save_vision_tower},
    core::train::{TrainSettings, data, merged},
};

/// Train CLIP's towers, so that captions and pictures find each other. Priors and decoders know one CLIP
/// only: train them anew after it.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    own: Own,
}

fn main() -> ExitCode {
    finish(run(&Cli::parse().own))
}

fn run(own: &Own) -> Done {
    let (recipe, model, config) = own.start().clip()?;
    let data = data::open(&own.data)?;
    let small = TrainSettings {
        ema: 0.0,
        ..TrainSettings::new(10_000, 64)
    };
    let settings = own.settings(ClipTraining::paper(), small);
    let model = own.parts(model)?;
    let trainer = own.flags.run(
        &own.out,
        recipe,
        model,
        settings,
        data,
        |trainer, progress| {
            if own.samples_are_due(progress.row.step) {
                let factor = trainer.model().logit_factor()?;
                println!(
                    "step {}: cosines count {factor:.1} times",
                    progress.row.step
                );
            }
            Ok(())
        },
    )?;
    let (model, folder) = (merged(trainer.averaged()), own.model()?);
    save_text_tower(
        &model.text,
        &config.text,
        &folder.join("text_encoder"),
        None,
    )?;
    save_vision_tower(
        &model.vision,
        &config.vision,
        &folder.join("image_encoder"),
        None,
    )?;
    println!("{} is a checkpoint with this CLIP", folder.display());
    Ok(())
}
