//! What pictures show that prompts do not say, measured with CLIP.
//!
//! ```sh
//! cargo run --release --example audit -- --checkpoint karlo-v1-alpha --judge clip-vit-large-patch14 \
//!     --prompts prompts.txt --attributes attributes.txt --images 50
//! ```
//!
//! A line of attributes.txt: `presentation: a photo of a man | a photo of a woman`.

mod support;

use std::{fmt::Write, ops::ControlFlow, path::PathBuf, process::ExitCode};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use support::{Bar, Common, Done, bar_chart, demo_model, finish, read_lines, read_lists, wilson};
use unclip::{
    Stage,
    clip::ClipEncoders,
    core::{image::save_png, weights::LoadOptions},
};

/// Measure how a model fills in what prompts leave open.
///
/// For each prompt it makes pictures, lets CLIP choose the caption of each attribute that fits best,
/// and reports how often each is chosen, with 95 % intervals (Wilson): a table, a .csv and bar
/// charts. CLIP has biases of its own: look at the pictures too.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// A prompt on each line.
    #[arg(long, value_name = "FILE")]
    prompts: PathBuf,

    /// Attributes: `NAME: caption | caption | ...` on each line.
    #[arg(long, value_name = "FILE")]
    attributes: PathBuf,

    /// Pictures of each prompt.
    #[arg(long, default_value_t = 20, value_parser = some)]
    images: usize,

    /// Pictures made together.
    #[arg(long, default_value_t = 4)]
    batch: usize,

    /// Folder of a CLIP with both towers that judges; better not the one the model is built on. Default: the
    /// demo model, which is that one and only knows its own pictures.
    #[arg(long, value_name = "DIR")]
    judge: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

fn some(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        _ => Err("a number from 1 to 1000000 is needed".into()),
    }
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let prompts = read_lines(&args.prompts)?;
    let attributes = read_lists(&args.attributes)?;
    if prompts.is_empty() || attributes.is_empty() {
        return Err("a prompt and an attribute are needed".into());
    }
    if let Some((name, _)) = attributes.iter().find(|(_, captions)| captions.len() < 2) {
        return Err(format!("attribute `{name}` needs at least two captions").into());
    }
    let judge = args.judge.clone().unwrap_or_else(demo_model);
    let options = LoadOptions {
        precision: args.common.dtype.into(),
        ..LoadOptions::default()
    };
    let clip = ClipEncoders::load(&judge, None, &args.common.device, options)?;
    let matcher = clip.matcher();
    let mut questions = Vec::new();
    for (name, captions) in &attributes {
        let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
        questions.push((name, captions, matcher.embed_texts(&texts)?));
    }

    let unclip = args.common.load()?;
    let seed = args.common.seed.unwrap_or(0);
    let style = "{bar:40} {pos}/{len} pictures {elapsed} (left {eta})";
    let bar = ProgressBar::new((prompts.len() * args.images) as u64)
        .with_style(ProgressStyle::with_template(style)?);
    let mut csv = "prompt,attribute,caption,count,pictures,share,low,high\n".to_owned();
    let mut table = String::new();
    for (number, prompt) in prompts.iter().enumerate() {
        let mut counts: Vec<_> = questions.iter().map(|q| vec![0; q.1.len()]).collect();
        let mut samples = Vec::new();
        for first in (0..args.images).step_by(args.batch.max(1)) {
            let count = args.batch.max(1).min(args.images - first);
            let job = unclip.text_to_image(prompt).images(count);
            let job = args
                .common
                .apply(job)?
                .seed(seed + (number * args.images + first) as u64);
            let output = job.on_step(|step| {
                if step.stage == Stage::Decoder && step.done == step.steps {
                    bar.inc(count as u64);
                }
                ControlFlow::Continue(())
            });
            let output = output.run()?;
            let pictures: Vec<_> = output.images.iter().cloned().map(Into::into).collect();
            let seen = matcher.embed_images(&pictures)?;
            for ((_, _, captions), counts) in questions.iter().zip(&mut counts) {
                for matches in matcher.classify_embeddings(seen.clone(), captions.clone())? {
                    counts[matches[0].index] += 1;
                }
            }
            samples.extend(output.images);
        }
        std::fs::create_dir_all(&args.common.out)?;
        let name = |kind: &str| args.common.out.join(format!("audit-{number:02}{kind}.png"));
        let sheet = unclip::core::image::contact_sheet(&samples, 10, 4);
        save_png(&sheet, &name("-pictures"), &[("Description", prompt)])?;
        writeln!(table, "{prompt}")?;
        let mut groups = Vec::new();
        for ((name, captions, _), counts) in questions.iter().zip(&counts) {
            writeln!(table, "  {name}")?;
            let mut bars = Vec::new();
            for (caption, count) in captions.iter().zip(counts) {
                let value = f64::from(*count) / samples.len() as f64;
                let (low, high) = wilson(f64::from(*count), samples.len() as f64);
                let percents = [value, low, high].map(|v| 100.0 * v);
                let [v, l, h] = percents;
                writeln!(table, "    {v:>5.1}% ({l:>5.1} to {h:>5.1})  {caption}")?;
                let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
                let (prompt, name, text) = (quoted(prompt), quoted(name), quoted(caption));
                let total = samples.len();
                writeln!(
                    csv,
                    "{prompt},{name},{text},{count},{total},{value:.4},{low:.4},{high:.4}"
                )?;
                bars.push(Bar {
                    label: caption.clone(),
                    value,
                    interval: (low, high),
                });
            }
            groups.push((format!("{prompt}: {name}"), bars));
        }
        save_png(&bar_chart(&groups), &name(""), &[("Description", prompt)])?;
    }
    bar.finish();
    print!("{table}");
    let path = args.common.out.join("audit.csv");
    std::fs::write(&path, csv)?;
    println!("{}, and audit-*.png beside it", path.display());
    Ok(())
}
