//! Trains the demo model from nothing, stage by stage, and writes it as a checkpoint.
//!
//! ```sh
//! cargo run --release --features train --example train_demo -- --out runs/demo
//! cargo run --release --features train --example train_demo -- --out runs/demo --stage decoder --resume
//! ```

#![allow(unreachable_pub)]

mod config;
mod contrast;
mod data;
#[path = "../demo/mod.rs"]
mod demo;
mod stages;
#[path = "../support/mod.rs"]
mod support;
mod tokenizer;
#[path = "../training/mod.rs"]
mod training;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use support::{Done, finish};
use training::Flags;

/// Train the demo model: a world of coloured solids, captions, CLIP, both priors, the decoder and
/// both upsamplers.
///
/// Stop it at any time: with --resume it goes on at the last checkpoint. OUT/model is a checkpoint
/// that the other examples take with --checkpoint.
#[derive(Parser, Debug)]
#[command(version)]
pub struct Args {
    /// Folder of the run; it is made.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    out: PathBuf,

    /// What to train; a stage needs those before it.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    stage: Vec<Stage>,

    /// Begin with the weights of this checkpoint, such as models/demo, and not with new ones; the
    /// autoregressive prior, whose codes follow from the embeddings, always begins anew.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,

    /// Make no sheets of the decoder's samples. On a GPU sampling has kernels of its own to compile.
    #[arg(long)]
    no_sheets: bool,

    #[command(flatten)]
    flags: Flags,
}

/// A stage of the demo model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Every stage in order.
    All,
    /// Both CLIP towers.
    Clip,
    /// Counts how often CLIP tells a picture's caption from one that is wrong in one thing.
    Contrast,
    /// The diffusion prior.
    Prior,
    /// The autoregressive prior.
    Autoregressive,
    /// The decoder.
    Decoder,
    /// The upsampler from 64 to 256.
    #[value(name = "upsampler-256")]
    First,
    /// The upsampler from 256 to 1024.
    #[value(name = "upsampler-1024")]
    Second,
    /// Writes what is trained so far as a checkpoint.
    Export,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let wanted = |stage| args.stage.contains(&stage) || args.stage.contains(&Stage::All);
    if wanted(Stage::Clip) {
        stages::clip(args)?;
    }
    if wanted(Stage::Clip) || wanted(Stage::Contrast) {
        stages::contrast(args)?;
    }
    if wanted(Stage::Prior) {
        stages::prior(args)?;
    }
    if wanted(Stage::Autoregressive) {
        stages::autoregressive(args)?;
    }
    if wanted(Stage::Decoder) {
        stages::decoder(args)?;
    }
    if wanted(Stage::First) {
        stages::upsampler(args, 1)?;
    }
    if wanted(Stage::Second) {
        stages::upsampler(args, 2)?;
    }
    stages::index(args)
}
