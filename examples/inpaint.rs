//! Parts of a picture painted anew as a caption says, or painted over.
//!
//! ```sh
//! cargo run --release --example inpaint -- --checkpoint karlo-v1-alpha photo.jpg \
//!     --rectangle 100,80,60,90 "a red armchair"
//! cargo run --release --example inpaint -- --checkpoint karlo-v1-alpha photo.jpg \
//!     --mask mask.png --grow 8
//! ```

mod support;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{Common, Done, StageBars, finish, open_picture, open_upright};
use unclip::{Mask, image::DynamicImage};

/// Paint what a mask covers anew; every other pixel stays as it is.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The picture.
    picture: PathBuf,

    /// What the painted part shall show; without it background.
    #[arg(default_value = "")]
    prompt: String,

    /// A picture of the same size, white where to paint (or transparent, if it has alpha).
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,

    /// Paint a rectangle.
    #[arg(long, value_delimiter = ',', value_name = "X,Y,WIDTH,HEIGHT")]
    rectangle: Vec<usize>,

    /// Paint a polygon.
    #[arg(long, value_delimiter = ',', value_name = "X,Y,X,Y,...")]
    polygon: Vec<f64>,

    /// Enlarge what is painted by this many pixels, so that shadows may follow.
    #[arg(long, default_value_t = 0)]
    grow: usize,

    /// Make each step this often, so that old and new grow together; slower.
    #[arg(long, default_value_t = 1)]
    rounds: usize,

    /// How little of what was there shows through, above 0 and at most 1.
    #[arg(long, default_value_t = 1.0)]
    strength: f64,

    /// Pictures to make.
    #[arg(long, default_value_t = 1)]
    images: usize,

    /// Work at the picture's own size, however far that is from what the checkpoint was trained
    /// for.
    #[arg(long)]
    own_size: bool,

    /// Let the picture's own CLIP embedding say what is painted, not the prior; needs a vision
    /// tower.
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn mask(args: &Args, picture: &DynamicImage) -> Result<Mask, Box<dyn Error>> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mask = match (&args.mask, &args.rectangle[..], &args.polygon[..]) {
        (Some(path), [], []) => Mask::from_image(&open_upright(path)?),
        (None, [x, y, w, h], []) => Mask::rectangle(width, height, [*x, *y], [*w, *h]),
        (None, [], corners) if !corners.is_empty() && corners.len() % 2 == 0 => {
            let corners: Vec<_> = corners.chunks(2).map(|c| [c[0], c[1]]).collect();
            Mask::polygon(width, height, &corners)?
        }
        _ => return Err("give one of --mask, --rectangle x,y,w,h and --polygon x,y,...".into()),
    };
    if mask.count() == 0 {
        let what = "the mask leaves every pixel as it is: white, or transparent, is what is painted, and a \
                    rectangle or polygon counts in pixels of the picture";
        return Err(what.into());
    }
    Ok(mask.grown(args.grow))
}

fn run(args: &Args) -> Done {
    let picture = open_picture(&args.picture)?;
    let mask = mask(args, &picture)?;
    let unclip = args.common.load()?;
    let mut bars = StageBars::default();
    let job = unclip
        .edit(&picture, &mask, &args.prompt)
        .images(args.images)
        .strength(args.strength)
        .rounds(args.rounds);
    let mut job = args.common.apply(job)?;
    if args.own_size {
        job = job.at_own_size();
    }
    if args.follow {
        job = job.following_the_picture();
    }
    let output = job.on_step(|step| bars.show(step)).run()?;
    args.common.save(&output, "inpaint", None)
}
