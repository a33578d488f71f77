//! Text to image: with the demo model, or an unCLIP checkpoint in diffusers' layout (Karlo and its
//! kin).
//!
//! ```sh
//! cargo run --release --example text_to_image -- "a red cube on top of a blue cube"
//! cargo run --release --example text_to_image -- --checkpoint karlo-v1-alpha "a red bicycle"
//! ```

mod support;

use std::{process::ExitCode, time::Instant};

use clap::Parser;
use support::{Common, Done, StageBars, finish, peak_memory};
use unclip::prior::{BestOf, NoPrior};

/// A small model is not sure of itself: with three solids fewer than half of its pictures are right. CLIP finds one
/// of these.
const DEMO_CANDIDATES: usize = 4;

/// Make pictures of a prompt with an unCLIP checkpoint.
///
/// Without --checkpoint the demo model is used, which knows a world of coloured cubes, spheres,
/// cylinders and cones and how they stand to each other, and nothing else.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// What to show. Several prompts make one batch.
    #[arg(required = true)]
    prompts: Vec<String>,

    /// Pictures of each prompt.
    #[arg(long, default_value_t = 1)]
    images: usize,

    /// Samples of the prior for each picture, of which the one nearest to the text is kept; the paper
    /// takes 2.
    #[arg(long, value_name = "N", default_value_t = 1)]
    best_of: usize,

    /// Width and height of the finished pictures. Default: what the checkpoint was trained for.
    #[arg(long, num_args = 2, value_names = ["WIDTH", "HEIGHT"])]
    size: Option<Vec<usize>>,

    /// Columns of the contact sheet. Default: as square as it gets.
    #[arg(long, value_name = "COLUMNS")]
    grid: Option<usize>,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let start = Instant::now();
    let mut unclip = args.common.load()?;
    eprintln!("loaded in {:.1} s", start.elapsed().as_secs_f64());

    if args.best_of != 1 {
        let prior = unclip.replace_prior(Box::new(NoPrior));
        let prior = prior.ok_or("--best-of needs a checkpoint with a prior")?;
        unclip.replace_prior(Box::new(BestOf::of(prior, args.best_of)?));
    }

    let mut bars = StageBars::default();
    let job = unclip.texts_to_images(&args.prompts).images(args.images);
    let mut job = args.common.apply(job)?.on_step(|step| bars.show(step));
    if args.common.candidates.is_none() && args.common.checkpoint.is_none() {
        job = job.candidates(DEMO_CANDIDATES);
    }
    if let Some([width, height]) = args.size.as_deref() {
        job = job.size(*width, *height);
    }

    let start = Instant::now();
    let output = job.run()?;
    args.common.save(&output, "unclip", args.grid)?;
    let memory = peak_memory().map_or(String::new(), |mib| format!(", peak memory {mib} MiB"));
    eprintln!("made in {:.1} s{memory}", start.elapsed().as_secs_f64());
    Ok(())
}
