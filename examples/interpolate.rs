//! The way from picture to picture, as a strip and an animation.
//!
//! ```sh
//! cargo run --release --example interpolate -- --checkpoint karlo-v1-alpha-image-variations \
//!     --frames 12 first.jpg second.jpg
//! ```

mod support;

use std::{fs::File, io::BufWriter, path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{Common, Done, StageBars, finish, open_picture};
use unclip::image::{
    Delay, DynamicImage, Frame,
    codecs::gif::{GifEncoder, Repeat},
};

/// Interpolate between pictures, spherically between their CLIP embeddings.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Two pictures or more.
    #[arg(required = true, num_args = 2..)]
    pictures: Vec<PathBuf>,

    /// Pictures in all.
    #[arg(long, default_value_t = 8)]
    frames: usize,

    /// Interpolate the noise too, found by this many steps of inversion: the ends are then the
    /// pictures themselves.
    #[arg(long, value_name = "STEPS")]
    invert: Option<usize>,

    /// Network evaluations in each step of the inversion.
    #[arg(long, default_value_t = 2)]
    rounds: usize,

    /// Milliseconds for each picture of the animation.
    #[arg(long, default_value_t = 150)]
    delay: u32,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let pictures = args.pictures.iter().map(|path| open_picture(path));
    let pictures = pictures.collect::<Result<Vec<DynamicImage>, _>>()?;
    let unclip = args.common.load()?;
    let mut bars = StageBars::default();
    let job = unclip.interpolate(pictures).frames(args.frames);
    let mut job = args.common.apply(job)?;
    if let Some(steps) = args.invert {
        job = job.inverted(steps, args.rounds);
    }
    let output = job.on_step(|step| bars.show(step)).run()?;
    args.common
        .save(&output, "interpolation", Some(args.frames))?;

    let path = args.common.out.join("interpolation.gif");
    let mut encoder = GifEncoder::new(BufWriter::new(File::create(&path)?));
    encoder.set_repeat(Repeat::Infinite)?;
    // There and back again.
    let back = output
        .images
        .iter()
        .rev()
        .skip(1)
        .take(args.frames.saturating_sub(2));
    for image in output.images.iter().chain(back) {
        let image = DynamicImage::from(image.clone()).to_rgba8();
        let delay = Delay::from_numer_denom_ms(args.delay, 1);
        encoder.encode_frame(Frame::from_parts(image, 0, 0, delay))?;
    }
    println!("{}", path.display());
    Ok(())
}
