//! The paper's comparison of priors: the same prompts and seeds, a row for each prior.
//!
//! ```sh
//! cargo run --release --example prior_ablation -- --checkpoint karlo-v1-alpha \
//!     "a red cube on top of a blue cube" "a corgi in a field"
//! ```

mod support;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use support::{Common, Done, StageBars, demo_model, finish};
use unclip::{
    UnClip,
    core::{
        image::{contact_sheet, save_png},
        weights::LoadOptions,
    },
    prior::{BestOf, NoPrior, TextAsImage, load_autoregressive_prior},
};

/// Make the same pictures with every prior: the caption only, the text embedding in place of an
/// image embedding, the autoregressive prior, the diffusion prior, and the best of several of its
/// samples.
///
/// One sheet comes out: a row for each prior in this order, a column for each picture.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// What to show.
    #[arg(required = true)]
    prompts: Vec<String>,

    /// Pictures of each prompt.
    #[arg(long, default_value_t = 1)]
    images: usize,

    /// Folder of an autoregressive prior of this checkpoint's CLIP, as `save_autoregressive_prior`
    /// writes it. Default: the demo model's; with --checkpoint that row is left out.
    #[arg(long, value_name = "DIR")]
    autoregressive: Option<PathBuf>,

    /// Samples of the diffusion prior for the last row.
    #[arg(long, default_value_t = 2)]
    best_of: usize,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let options = LoadOptions {
        precision: args.common.dtype.into(),
        ..LoadOptions::default()
    };
    let mut unclip = args.common.load()?;
    let mut rows = Vec::new();
    let mut add = |name: &str, unclip: &UnClip| -> Result<(), Box<dyn Error>> {
        eprintln!("{name}");
        let mut bars = StageBars::default();
        let job = unclip.texts_to_images(&args.prompts).images(args.images);
        let job = args.common.apply(job)?.seed(args.common.seed.unwrap_or(0));
        let output = job.on_step(|step| bars.show(step)).run()?;
        rows.push((name.to_owned(), output.images));
        Ok(())
    };
    let diffusion = unclip.replace_prior(Box::new(NoPrior));
    add("caption only", &unclip)?;
    unclip.replace_prior(Box::new(TextAsImage));
    add("text embedding as image embedding", &unclip)?;
    let demos = || demo_model().join("autoregressive_prior");
    let is_demo = args.common.checkpoint.is_none();
    match args.autoregressive.clone().or_else(|| is_demo.then(demos)) {
        Some(folder) => {
            let prior = load_autoregressive_prior(&folder, &args.common.device, options)?;
            unclip.replace_prior(Box::new(prior));
            add("autoregressive prior", &unclip)?;
        }
        None => eprintln!("no --autoregressive: its row is left out"),
    }
    if let Some(prior) = diffusion {
        unclip.replace_prior(prior);
        add("diffusion prior", &unclip)?;
        let prior = unclip.replace_prior(Box::new(NoPrior));
        let prior = prior.ok_or("the prior was there")?;
        unclip.replace_prior(Box::new(BestOf::of(prior, args.best_of)?));
        add(
            &format!("best of {} of the diffusion prior", args.best_of),
            &unclip,
        )?;
    }

    let pictures: Vec<_> = rows.iter().flat_map(|(_, images)| images.clone()).collect();
    let columns = args.prompts.len() * args.images;
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    std::fs::create_dir_all(&args.common.out)?;
    let path = args.common.out.join("prior-ablation.png");
    let about = format!(
        "rows: {}; columns: {}",
        names.join(", "),
        args.prompts.join(", ")
    );
    save_png(
        &contact_sheet(&pictures, columns, 4),
        &path,
        &[("Description", &about)],
    )?;
    println!("{}: {about}", path.display());
    Ok(())
}
