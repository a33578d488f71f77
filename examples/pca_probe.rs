//! What the dimensions of CLIP's space hold: a picture's embedding in ever more of them, decoded.
//!
//! ```sh
//! cargo run --release --example pca_probe -- --checkpoint karlo-v1-alpha \
//!     --clip clip-vit-large-patch14 --pictures photos picture.jpg
//! ```

mod support;

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use indicatif::ProgressBar;
use support::{Common, Done, StageBars, finish, open_picture, read_lines};
use unclip::{
    Noise, UnClip,
    burn::tensor::Tensor,
    core::{
        image::to_host,
        stage::{Caption, Run},
    },
    prior::Pca,
};

/// Find the principal components of CLIP image embeddings and decode a picture from the first 20,
/// 30, 40, 80, 120, 160, 200 and 320 of them, as in the paper's figure.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// The pictures to probe; each is a row.
    #[arg(required = true)]
    probed: Vec<PathBuf>,

    /// Folder of pictures whose embeddings the components are found in: the more the better.
    #[arg(long, value_name = "DIR", required_unless_present = "captions")]
    pictures: Option<PathBuf>,

    /// Captions, one a line, whose embeddings are sampled from the prior instead.
    #[arg(long, value_name = "FILE", conflicts_with = "pictures")]
    captions: Option<PathBuf>,

    /// Numbers of components. Default: the paper's, as far as there are so many.
    #[arg(long, value_delimiter = ',')]
    dims: Vec<usize>,

    #[command(flatten)]
    common: Common,
}

fn main() -> ExitCode {
    finish(run(&Args::parse()))
}

fn run(args: &Args) -> Done {
    let unclip = args.common.load()?;
    let embeddings = match (&args.pictures, &args.captions) {
        (Some(folder), _) => of_pictures(&unclip, folder)?,
        (None, Some(file)) => of_captions(&unclip, &read_lines(file)?, args.common.seed)?,
        (None, None) => return Err("--pictures or --captions is needed".into()),
    };
    let width = embeddings.dims()[1];
    let pca = Pca::fit(&to_host(embeddings, "image encoder")?, width)?;
    let dims: Vec<usize> = match &args.dims[..] {
        [] => {
            let paper = [20, 30, 40, 80, 120, 160, 200, 320];
            let mut dims: Vec<_> = paper.into_iter().filter(|d| *d < pca.dims()).collect();
            if dims.len() < 2 {
                dims = (1..4)
                    .map(|i| pca.dims() * i / 4)
                    .filter(|d| *d > 0)
                    .collect();
            }
            dims.push(pca.dims());
            dims
        }
        given => given.to_vec(),
    };
    for d in &dims {
        println!(
            "{d:>5} of {} hold {:.2}% of the variance",
            pca.dims(),
            100.0 * pca.explained(*d)
        );
    }

    let mut rows = Vec::new();
    for path in &args.probed {
        let embedding = unclip
            .image_encoder()?
            .encode_images(&[open_picture(path)?])?;
        for d in &dims {
            rows.push(pca.truncated(*d)?.squeeze(embedding.clone()));
        }
    }
    let mut bars = StageBars::default();
    let job = unclip
        .decode_embeddings(Tensor::cat(rows, 0))
        .shared_noise();
    let output = args
        .common
        .apply(job)?
        .on_step(|step| bars.show(step))
        .run()?;
    args.common.save(&output, "pca-probe", Some(dims.len()))
}

/// Embeddings of every picture of a folder, a row each; what is no picture is named and left out.
fn of_pictures(unclip: &UnClip, folder: &PathBuf) -> Result<Tensor<2>, Box<dyn Error>> {
    let encoder = unclip.image_encoder()?;
    let files = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut paths = files
        .map(|f| f.map(|f| f.path()))
        .collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    let bar = ProgressBar::new(paths.len() as u64);
    let mut rows = Vec::new();
    for path in &paths {
        match open_picture(path) {
            Ok(picture) => rows.push(encoder.encode_images(&[picture])?),
            Err(error) => bar.println(format!("left out: {error}")),
        }
        bar.inc(1);
    }
    bar.finish();
    match rows.len() {
        0 => Err(format!("{}: no pictures", folder.display()).into()),
        _ => Ok(Tensor::cat(rows, 0)),
    }
}

/// A sample of the prior for each caption.
fn of_captions(
    unclip: &UnClip,
    captions: &[String],
    seed: Option<u64>,
) -> Result<Tensor<2>, Box<dyn Error>> {
    let (encoder, prior) = (unclip.text_encoder()?, unclip.prior()?);
    let settings = prior.defaults();
    let mut noise = Noise::from_seed(seed.unwrap_or(0));
    let bar = ProgressBar::new(captions.len() as u64);
    let mut rows = Vec::new();
    for captions in captions.chunks(16) {
        let texts: Vec<&str> = captions.iter().map(String::as_str).collect();
        let text = encoder.encode_text(&texts)?;
        let unconditional = encoder.encode_text(&vec![""; texts.len()])?;
        let mut run = Run::new(settings.sampler, &mut noise);
        run.guidance = settings.guidance;
        let caption = Caption {
            text: &text,
            unconditional: Some(&unconditional),
        };
        rows.push(prior.sample(caption, &mut run)?);
        bar.inc(captions.len() as u64);
    }
    bar.finish();
    match rows.len() {
        0 => Err("the file has no captions".into()),
        _ => Ok(Tensor::cat(rows, 0)),
    }
}
