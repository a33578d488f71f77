//! A data set of synthetic pictures: captions → webdataset shards.
//!
//! ```sh
//! cargo run --release --example make_dataset -- --checkpoint karlo-v1-alpha \
//!     --captions captions.txt --shard 0/4 data
//! cargo run --release --example make_dataset -- --grammar grammar.txt --count 500 data
//! ```

mod support;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use support::{Common, Done, captions, finish, read_lines, read_lists};
use unclip::Dataset;

/// Make pictures of many captions, as tar shards with .png, .txt and .json.
///
/// Stop it at any time and run it again: it goes on where it was. Machines that share a list take
/// --shard 0/N to N-1/N, each with a folder of its own or all with the same.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Folder the shards go to; it is made.
    folder: PathBuf,

    /// A caption on each line.
    #[arg(long, value_name = "FILE", required_unless_present = "grammar")]
    captions: Option<PathBuf>,

    /// Lists, `NAME: one | another` on each line: captions are entries of the first, in which
    /// {NAME} stands for an entry of that list.
    #[arg(long, value_name = "FILE", conflicts_with = "captions")]
    grammar: Option<PathBuf>,

    /// Captions to make of the grammar.
    #[arg(long, default_value_t = 1000)]
    count: usize,

    /// Samples in a shard.
    #[arg(long, default_value_t = 1000)]
    per_shard: usize,

    /// Pictures made together.
    #[arg(long, default_value_t = 1)]
    batch: usize,

    /// This machine's number, from 0, of how many.
    #[arg(long, value_name = "I/N", default_value = "0/1", value_parser = parse_share)]
    shard: (usize, usize),

    #[command(flatten)]
    common: Common,
}

fn parse_share(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/');
    let parts = parts.and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parts.ok_or_else(|| format!("`{text}` is not I/N, such as 0/4"))
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let seed = args.common.seed.unwrap_or(0);
    let captions = match (&args.captions, &args.grammar) {
        (Some(path), _) => read_lines(path)?,
        (None, Some(path)) => captions(&read_lists(path)?, args.count, seed)?,
        (None, None) => return Err("--captions or --grammar is needed".into()),
    };
    let unclip = args.common.load()?;
    // Checks the flags once, where a mistake can be told.
    drop(args.common.apply(unclip.text_to_image(""))?);
    let style = "{bar:40} {pos}/{len} {elapsed} (left {eta})";
    let bar = ProgressBar::no_length().with_style(ProgressStyle::with_template(style)?);
    let made = Dataset::new(&unclip, &args.folder, captions)
        .per_shard(args.per_shard)
        .batch(args.batch)
        .worker(args.shard.0, args.shard.1)
        .seed(seed)
        .job(|job| args.common.configure(job))
        .on_sample(|done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            std::ops::ControlFlow::Continue(())
        })
        .run()?;
    bar.finish();
    let folder = args.folder.display();
    println!(
        "{folder}: {} shards, {} samples made now",
        made.shards, made.samples
    );
    Ok(())
}
