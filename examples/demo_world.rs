//! What the demo world looks like: a sheet of scenes with their captions.
//!
//! ```sh
//! cargo run --release --example demo_world -- --seed 7 --count 24 --side 128 sheet.png
//! ```

#[path = "demo/mod.rs"]
mod demo;

use std::{error::Error, path::PathBuf};

use clap::Parser;
use demo::{caption::caption, render::render, rng::Rng, split};
use image::{RgbImage, imageops};

/// Write a sheet of scenes, and print their captions in the order of the sheet.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Picture to write.
    sheet: PathBuf,

    /// Seed of the first scene; the others follow.
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Scenes.
    #[arg(long, default_value_t = 24)]
    count: u32,

    /// Pixels on the side of a scene.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=2048))]
    side: u32,

    /// Scenes in a row.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=64))]
    columns: u32,

    /// Scenes of combinations that training never sees.
    #[arg(long)]
    held_out: bool,

    /// Folder for each scene as a picture, with its caption in a text file beside it: data to train on.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let columns = args.columns.min(args.count.max(1));
    let rows = args.count.div_ceil(columns).max(1);
    let mut sheet = RgbImage::new(columns * args.side, rows * args.side);
    for i in 0..args.count {
        let seed = args.seed + u64::from(i);
        let scene = if args.held_out {
            split::held_out_scene(seed)
        } else {
            split::train_scene(seed)
        };
        let text = caption(&scene, &mut Rng::new(seed));
        println!("{seed}: {text}");
        let (x, y) = (i % columns * args.side, i / columns * args.side);
        let picture = render(&scene, args.side);
        imageops::replace(&mut sheet, &picture, x.into(), y.into());
        if let Some(folder) = &args.folder {
            std::fs::create_dir_all(folder)?;
            picture.save(folder.join(format!("{seed:06}.png")))?;
            std::fs::write(folder.join(format!("{seed:06}.txt")), text)?;
        }
    }
    sheet.save(&args.sheet)?;
    Ok(())
}
