//! Which caption fits which picture, with a CLIP in transformers' layout.
//!
//! ```sh
//! cargo run --release --example match_captions -- --clip clip-vit-large-patch14 \
//!     --caption "a cat on a sofa" --caption "a dog in the snow" first.jpg second.png
//! ```

mod support;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{DEVICES, Dtype, demo_model, finish, parse_device};
use unclip::{
    burn::tensor::Device,
    clip::{ClipEncoders, Match, PHOTO_TEMPLATES},
    core::weights::LoadOptions,
    image::{self, DynamicImage},
};

/// Rank captions for pictures, or sort pictures into classes, with CLIP.
///
/// For each picture it prints the captions (or classes), the best first: the cosine of the two
/// embeddings, and how likely each is if one of the list is right.
///
/// Without --clip the demo model's is used, which knows captions like "a small red cube on top of a large
/// blue cylinder" and pictures of such things, and nothing else.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The pictures.
    #[arg(required = true)]
    images: Vec<PathBuf>,

    /// A caption; may be given several times.
    #[arg(
        long = "caption",
        value_name = "TEXT",
        required_unless_present = "classes"
    )]
    captions: Vec<String>,

    /// Classes instead of captions, comma-separated: zero-shot classification.
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "A,B",
        conflicts_with = "captions"
    )]
    classes: Vec<String>,

    /// A sentence for the classes with {} in their place; may be given several times. Default: a
    /// short list of photo captions.
    #[arg(long = "template", value_name = "TEXT", requires = "classes")]
    templates: Vec<String>,

    /// Folder of the CLIP: config.json of a CLIPModel, its weights, its tokenizer's files and
    /// preprocessor_config.json. Or that of a pipeline with both encoders. Default: the demo model.
    #[arg(long, value_name = "DIR")]
    clip: Option<PathBuf>,

    /// Where to compute; a GPU of several as NAME:NUMBER.
    #[arg(long, value_parser = parse_device, default_value = DEVICES[0])]
    device: Device,

    /// Types of weights and arithmetic.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,

    /// Variant of the weight files, such as fp16.
    #[arg(long)]
    variant: Option<String>,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let images = args
        .images
        .iter()
        .map(|path| image::open(path).map_err(|e| format!("{}: {e}", path.display())))
        .collect::<Result<Vec<DynamicImage>, _>>()?;
    let options = LoadOptions {
        precision: args.dtype.into(),
        ..LoadOptions::default()
    };
    let folder = args.clip.clone().unwrap_or_else(demo_model);
    let clip = ClipEncoders::load(&folder, args.variant.as_deref(), &args.device, options)?;
    let matcher = clip.matcher();

    let is_classes = !args.classes.is_empty();
    let names = if is_classes {
        &args.classes
    } else {
        &args.captions
    };
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let embeddings = if is_classes {
        let templates: Vec<&str> = match &args.templates[..] {
            [] => PHOTO_TEMPLATES.to_vec(),
            given => given.iter().map(String::as_str).collect(),
        };
        matcher.embed_classes(&names, &templates)?
    } else {
        matcher.embed_texts(&names)?
    };
    let found = matcher.classify(&images, embeddings)?;
    for (path, matches) in args.images.iter().zip(found) {
        println!("{}", path.display());
        print_table(&names, &matches);
    }
    Ok(())
}

fn print_table(names: &[&str], matches: &[Match]) {
    println!("  {:>7} {:>11}", "cosine", "probability");
    for one in matches {
        let percent = 100.0 * one.probability;
        println!(
            "  {:>7.4} {percent:>10.1}%  {}",
            one.cosine, names[one.index]
        );
    }
}
