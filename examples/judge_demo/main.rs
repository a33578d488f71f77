//! How often the demo model shows what its captions ask for, told by a judge that is no network.
//!
//! ```sh
//! cargo run --release --example judge_demo -- --seed 1 --rows diffusion-prior,caption-only
//! ```

#[path = "../demo/mod.rs"]
mod demo;
#[path = "../support/mod.rs"]
mod support;
mod tables;

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::ExitCode,
};

use clap::{Parser, ValueEnum};
use demo::{
    caption::full_caption,
    judge::{Verdict, judge},
    parse::{Request, parse},
    render::render,
    split::{Split, scene_of},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use support::{Common, Done, demo_model, finish};
use unclip::{
    Job, UnClip,
    core::weights::LoadOptions,
    image::{DynamicImage, RgbImage},
    prior::{BestOf, NoPrior, TextAsImage, load_autoregressive_prior},
};

/// Count how many pictures show the objects, colours, sizes and relation that their captions name.
///
/// A row is a way to make pictures: a prior or a stand-in of the paper's ablations, or another
/// guidance. Each row's captions and seeds are the same, half of them of combinations that training
/// never saw. Verdicts are kept as they come in OUT/verdicts.jsonl: the same command goes on where it
/// was stopped. Tables in Markdown, with 95 % intervals (Wilson), are in OUT/judged.md too.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// Captions of each split.
    #[arg(long, default_value_t = 200)]
    captions: u64,

    /// Rows to judge.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::ALL)]
    rows: Vec<Row>,

    /// Pictures made together.
    #[arg(long, default_value_t = 8)]
    batch: usize,

    /// Judge finished pictures, not the decoder's of 64 × 64.
    #[arg(long)]
    full_size: bool,

    /// Keep every picture.
    #[arg(long)]
    keep: bool,

    #[command(flatten)]
    common: Common,
}

/// A way to make pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Row {
    /// Renderings of the scenes: what the judge says of perfect pictures.
    Rendered,
    /// Neither embedding nor prior: the decoder has the caption alone.
    CaptionOnly,
    /// The caption's embedding in place of an image embedding.
    TextAsImage,
    /// The embedding of the scene's rendering: what a perfect prior would give.
    TrueEmbedding,
    /// That embedding without the caption: variations of the rendering.
    EmbeddingOnly,
    /// The autoregressive prior.
    AutoregressivePrior,
    /// The diffusion prior.
    DiffusionPrior,
    /// The better of two samples of it.
    BestOfTwo,
    /// The diffusion prior, and of four pictures the one that CLIP finds nearest to the caption.
    Candidates4,
    /// Decoder guidance 1.
    Guidance1,
    /// Decoder guidance 2.
    Guidance2,
    /// Decoder guidance 4.
    Guidance4,
    /// Decoder guidance 8.
    Guidance8,
}

impl Row {
    const ALL: [Self; 13] = [
        Self::Rendered,
        Self::CaptionOnly,
        Self::TextAsImage,
        Self::TrueEmbedding,
        Self::EmbeddingOnly,
        Self::AutoregressivePrior,
        Self::DiffusionPrior,
        Self::BestOfTwo,
        Self::Candidates4,
        Self::Guidance1,
        Self::Guidance2,
        Self::Guidance4,
        Self::Guidance8,
    ];

    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |v| v.get_name().replace('-', " "))
    }

    fn guidance(self) -> Option<f64> {
        match self {
            Self::Guidance1 => Some(1.0),
            Self::Guidance2 => Some(2.0),
            Self::Guidance4 => Some(4.0),
            Self::Guidance8 => Some(8.0),
            _ => None,
        }
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            self.to_possible_value()
                .as_ref()
                .map_or("", |v| v.get_name()),
        )
    }
}

/// One picture of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Task {
    row: Row,
    is_held_out: bool,
    number: u64,
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Judged {
    #[serde(flatten)]
    task: Task,
    caption: String,
    verdict: Verdict,
}

/// A caption with what it asks for.
struct Case {
    caption: String,
    request: Request,
    rendering: RgbImage,
}

/// Scenes of the judge, far from those of training.
const FIRST: u64 = 1 << 40;

fn case(task: Task) -> Result<Case, Box<dyn std::error::Error>> {
    let split = if task.is_held_out {
        Split::HeldOut
    } else {
        Split::Train
    };
    let scene = scene_of(split, FIRST + task.number);
    let caption = full_caption(&scene);
    let request = parse(&caption).ok_or_else(|| format!("{caption:?} is not read"))?;
    Ok(Case {
        caption,
        request,
        rendering: render(&scene, 64),
    })
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    fs::create_dir_all(&args.common.out)?;
    let path = args.common.out.join("verdicts.jsonl");
    check_settings(args)?;
    let mut verdicts = read(&path)?;
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    if fs::read(&path)?.last().is_some_and(|last| *last != b'\n') {
        // A line was cut off.
        writeln!(file)?;
    }
    for row in &args.rows {
        let wanted = [false, true].into_iter().flat_map(|is_held_out| {
            (0..args.captions).map(move |number| Task {
                row: *row,
                is_held_out,
                number,
            })
        });
        let left: Vec<Task> = wanted.filter(|task| !verdicts.contains_key(task)).collect();
        let style = "{prefix:>22} {bar:32} {pos}/{len} {elapsed} (left {eta})";
        let bar = ProgressBar::new(left.len() as u64)
            .with_style(ProgressStyle::with_template(style)?)
            .with_prefix(row.name());
        if left.is_empty() {
            continue;
        }
        let unclip = load(*row, args)?;
        for tasks in left.chunks(args.batch.max(1)) {
            let cases = tasks
                .iter()
                .map(|task| case(*task))
                .collect::<Result<Vec<_>, _>>()?;
            let pictures = pictures(&unclip, *row, &cases, tasks[0], args)?;
            for ((task, case), picture) in tasks.iter().zip(cases).zip(pictures) {
                if args.keep {
                    let kind = if task.is_held_out { "held-out" } else { "seen" };
                    let name = format!("{}-{kind}-{:04}.png", task.row, task.number);
                    picture.save(args.common.out.join(name))?;
                }
                let judged = Judged {
                    task: *task,
                    caption: case.caption,
                    verdict: judge(&picture, &case.request),
                };
                writeln!(file, "{}", serde_json::to_string(&judged)?)?;
                verdicts.insert(*task, judged);
            }
            bar.inc(tasks.len() as u64);
        }
        bar.finish();
    }
    let tables = tables::tables(&args.rows, &verdicts);
    fs::write(args.common.out.join("judged.md"), &tables)?;
    print!("{tables}");
    Ok(())
}

/// Verdicts of other pictures must not be taken for these.
fn check_settings(args: &Args) -> Done {
    let path = args.common.out.join("settings.json");
    let common = &args.common;
    // Seeds are those of batches.
    let settings = json!({
        "checkpoint": common.checkpoint, "clip": common.clip, "dtype": format!("{:?}", common.dtype),
        "seed": common.seed.unwrap_or(0), "negative": common.negative, "steps": common.steps,
        "guidance": common.guidance, "candidates": common.candidates, "batch": args.batch,
        "full_size": args.full_size,
    });
    let verdicts = common.out.join("verdicts.jsonl");
    if !verdicts.exists() {
        return Ok(unclip::core::json::write(&path, &settings)?);
    }
    let known: Value = unclip::core::json::read(&path)?;
    match known == settings {
        true => Ok(()),
        false => Err(format!(
            "{} are of other settings, {known}: name another folder with --out",
            verdicts.display()
        )
        .into()),
    }
}

/// Verdicts of earlier runs; a line that was cut off is judged again.
fn read(path: &Path) -> Result<HashMap<Task, Judged>, Box<dyn std::error::Error>> {
    let mut verdicts = HashMap::new();
    if !path.exists() {
        return Ok(verdicts);
    }
    for line in BufReader::new(File::open(path)?).lines() {
        if let Ok(judged) = serde_json::from_str::<Judged>(&line?) {
            verdicts.insert(judged.task, judged);
        }
    }
    Ok(verdicts)
}

/// The model with the row's prior.
fn load(row: Row, args: &Args) -> Result<UnClip, Box<dyn std::error::Error>> {
    let common = &args.common;
    let mut unclip = common.load()?;
    let prior: Box<dyn unclip::Prior> = match row {
        Row::CaptionOnly => Box::new(NoPrior),
        Row::TextAsImage => Box::new(TextAsImage),
        Row::AutoregressivePrior => {
            let checkpoint = common.checkpoint.clone().unwrap_or_else(demo_model);
            let options = LoadOptions {
                precision: common.dtype.into(),
                ..LoadOptions::default()
            };
            let folder = checkpoint.join("autoregressive_prior");
            Box::new(load_autoregressive_prior(&folder, &common.device, options)?)
        }
        Row::BestOfTwo => {
            let own = unclip.replace_prior(Box::new(NoPrior));
            Box::new(BestOf::of(own.ok_or("the checkpoint has no prior")?, 2)?)
        }
        _ => return Ok(unclip),
    };
    unclip.replace_prior(prior);
    Ok(unclip)
}

fn pictures(
    unclip: &UnClip,
    row: Row,
    cases: &[Case],
    first: Task,
    args: &Args,
) -> Result<Vec<RgbImage>, Box<dyn std::error::Error>> {
    if row == Row::Rendered {
        return Ok(cases.iter().map(|case| case.rendering.clone()).collect());
    }
    let renderings = cases.iter().map(|case| case.rendering.clone().into());
    if row == Row::EmbeddingOnly {
        let job = settled(unclip.variations_of(renderings), row, first, args)?;
        return Ok(job.run()?.images);
    }
    let captions: Vec<_> = cases.iter().map(|case| case.caption.clone()).collect();
    let mut job = unclip.texts_to_images(&captions);
    if row == Row::TrueEmbedding {
        let renderings: Vec<DynamicImage> = renderings.collect();
        job = job.image_embeddings(unclip.image_encoder()?.encode_images(&renderings)?);
    }
    Ok(settled(job, row, first, args)?.run()?.images)
}

/// A job with the row's settings.
fn settled<'a, K>(
    job: Job<'a, K>,
    row: Row,
    first: Task,
    args: &Args,
) -> Result<Job<'a, K>, Box<dyn std::error::Error>> {
    let job = args.common.apply(job)?;
    let seed = args.common.seed.unwrap_or(0);
    let mut job = job.seed(seed ^ first.number ^ u64::from(first.is_held_out) << 20);
    if let Some(guidance) = row.guidance() {
        job = job.decoder_guidance(guidance);
    }
    if row == Row::Candidates4 {
        job = job.candidates(4);
    }
    if !args.full_size {
        job = job.without_upsampling();
    }
    Ok(job)
}
