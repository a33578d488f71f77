//! Variations of a picture, by its CLIP embedding, or by inversion with fresh noise.
//!
//! ```sh
//! cargo run --release --example variations -- --checkpoint karlo-v1-alpha-image-variations \
//!     --images 4 photo.jpg
//! cargo run --release --example variations -- --checkpoint karlo-v1-alpha \
//!     --clip clip-vit-large-patch14 --eta 0,0.3,1 photo.jpg
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{Common, Done, StageBars, finish, open_picture};
use unclip::image::imageops::FilterType;

/// Make other pictures of what a picture shows.
///
/// With --eta the picture is first inverted, so that the noise holds what CLIP does not see: 0 then
/// gives the picture again and higher values vary it more and more.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The picture.
    picture: PathBuf,

    /// Pictures to make (of each --eta).
    #[arg(long, default_value_t = 4)]
    images: usize,

    /// Caption for the decoder.
    #[arg(long, default_value = "")]
    prompt: String,

    /// Invert the picture and lead back from it with these shares of fresh noise, from 0 to 1.
    #[arg(long, value_delimiter = ',')]
    eta: Vec<f64>,

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
    if args.eta.is_empty() {
        let job = unclip
            .variations(&picture)
            .images(args.images)
            .prompt(&args.prompt);
        let output = args
            .common
            .apply(job)?
            .on_step(|step| bars.show(step))
            .run()?;
        return args.common.save(&output, "variations", None);
    }

    let common = &args.common;
    if !(common.guidance.is_empty() && common.negative.is_empty() && common.candidates.is_none()) {
        return Err("--eta leads back without --guidance, --negative and --candidates".into());
    }
    // As elsewhere: one number, or the second of several, is the decoder's.
    let steps = match common.steps[..] {
        [] => 100,
        [decoder] | [_, decoder, ..] => decoder,
    };
    let latents = unclip
        .invert(&picture)
        .prompt(&args.prompt)
        .steps(steps)
        .rounds(args.rounds)
        .on_step(|step| bars.show(step))
        .run()?;
    let mut rows = Vec::new();
    for eta in &args.eta {
        let mut bars = StageBars::default();
        let count = if *eta == 0.0 { 1 } else { args.images };
        let mut job = unclip.reconstruct(&latents).eta(*eta).images(count);
        if let Some(seed) = args.common.seed {
            job = job.seed(seed);
        }
        if args.common.small {
            job = job.without_upsampling();
        }
        let output = job.on_step(|step| bars.show(step)).run()?;
        let seed = output
            .settings
            .seed
            .map_or(String::new(), |seed| format!("-{seed}"));
        output.save_all(&args.common.out, &format!("variations{seed}-eta{eta}"))?;
        let size = output.images[0].dimensions();
        rows.push(
            picture
                .resize_exact(size.0, size.1, FilterType::CatmullRom)
                .to_rgb8(),
        );
        rows.extend((0..args.images).map(|i| output.images[i.min(count - 1)].clone()));
    }
    let sheet = unclip::core::image::contact_sheet(&rows, args.images + 1, 4);
    let path = args.common.out.join("variations-eta-sheet.png");
    unclip::core::image::save_png(&sheet, &path, &[])?;
    println!("{} (the picture first, a row for each eta)", path.display());
    Ok(())
}
