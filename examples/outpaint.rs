//! What lies around a picture.
//!
//! ```sh
//! cargo run --release --example outpaint -- --checkpoint karlo-v1-alpha photo.jpg \
//!     --left 64 --right 64 "a wide beach"
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{Common, Done, StageBars, finish, open_picture};
use unclip::Extend;

/// Paint around a picture; the picture itself stays as it is.
///
/// The picture gets the size the checkpoint was trained for, unless --own-size is given.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The picture.
    picture: PathBuf,

    /// What the whole shall show.
    #[arg(default_value = "")]
    prompt: String,

    /// Pixels of the picture to add on every side.
    #[arg(long, default_value_t = 0)]
    all: usize,

    /// Pixels to add to the left.
    #[arg(long, default_value_t = 0)]
    left: usize,

    /// Pixels to add above.
    #[arg(long, default_value_t = 0)]
    top: usize,

    /// Pixels to add to the right.
    #[arg(long, default_value_t = 0)]
    right: usize,

    /// Pixels to add below.
    #[arg(long, default_value_t = 0)]
    bottom: usize,

    /// Make each step this often, so that old and new grow together; slower.
    #[arg(long, default_value_t = 1)]
    rounds: usize,

    /// Pictures to make.
    #[arg(long, default_value_t = 1)]
    images: usize,

    /// Keep the picture's own size.
    #[arg(long)]
    own_size: bool,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let picture = open_picture(&args.picture)?;
    let extend = Extend {
        left: args.all.saturating_add(args.left),
        top: args.all.saturating_add(args.top),
        right: args.all.saturating_add(args.right),
        bottom: args.all.saturating_add(args.bottom),
    };
    if extend == Extend::default() {
        return Err("give --all, --left, --top, --right or --bottom".into());
    }
    let unclip = args.common.load()?;
    let mut bars = StageBars::default();
    let job = unclip
        .outpaint(&picture, extend, &args.prompt)
        .images(args.images)
        .rounds(args.rounds);
    let mut job = args.common.apply(job)?;
    if args.own_size {
        job = job.at_own_size();
    }
    let output = job.on_step(|step| bars.show(step)).run()?;
    args.common.save(&output, "outpaint", None)
}
