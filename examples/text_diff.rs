//! A picture changed by words: in the direction from one caption to another.
//!
//! ```sh
//! cargo run --release --example text_diff -- --checkpoint karlo-v1-alpha \
//!     --clip clip-vit-large-patch14 house.jpg "a house in summer" "a house in winter"
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{Common, Done, StageBars, finish, open_picture};

/// Turn a picture's CLIP embedding from one caption towards another, and decode on the way.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The picture.
    picture: PathBuf,

    /// What it shows.
    from: String,

    /// What it shall show.
    to: String,

    /// Pictures in all, the first with the picture's own embedding.
    #[arg(long, default_value_t = 5)]
    frames: usize,

    /// How far to turn, from 0 to 1; the paper goes to between 0.25 and 0.5.
    #[arg(long, default_value_t = 0.5)]
    theta: f64,

    /// Steps of the inversion and of the way back.
    #[arg(long, default_value_t = 100)]
    invert: usize,

    /// Network evaluations in each step of the inversion.
    #[arg(long, default_value_t = 2)]
    rounds: usize,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let picture = open_picture(&args.picture)?;
    let unclip = args.common.load()?;
    let mut bars = StageBars::default();
    let job = unclip.text_diff(&picture, &args.from, &args.to);
    let job = args
        .common
        .apply(job.frames(args.frames).theta(args.theta))?;
    let output = job
        .inverted(args.invert, args.rounds)
        .on_step(|step| bars.show(step))
        .run()?;
    args.common.save(&output, "text-diff", Some(args.frames))
}
