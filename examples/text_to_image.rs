//! Text to image from an unCLIP checkpoint in diffusers' layout (Karlo and its kin).
//!
//! ```sh
//! cargo run --release --example text_to_image -- --checkpoint karlo-v1-alpha "a red bicycle"
//! ```

mod support;

use std::{error::Error, path::PathBuf, process::ExitCode, time::Instant};

use clap::Parser;
use support::{DEVICES, Dtype, StageBars, parse_device, peak_memory};
use unclip::{Exclamation, Residency, UnClip, burn::tensor::Device};

/// Make pictures of a prompt with an unCLIP checkpoint.
///
/// Without --checkpoint the tiny checkpoint of the project's tests is used. Its weights are
/// random: it shows that everything works, and its pictures are noise.
#[derive(Parser, Debug)]
#[command(version)]
struct Args {
    /// What to show. Several prompts make one batch.
    #[arg(required = true)]
    prompts: Vec<String>,

    /// Folder of the checkpoint, the one with model_index.json.
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,

    /// Where to compute; a GPU of several as NAME:NUMBER.
    #[arg(long, value_parser = parse_device, default_value = DEVICES[0])]
    device: Device,

    /// Types of weights and arithmetic.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    dtype: Dtype,

    /// The same seed makes the same picture. Default: a new one each time.
    #[arg(long)]
    seed: Option<u64>,

    /// Pictures of each prompt.
    #[arg(long, default_value_t = 1)]
    images: usize,

    /// What the picture should not show.
    #[arg(long, default_value = "")]
    negative: String,

    /// Steps of prior, decoder and upsampler, comma-separated; one number is for prior and decoder.
    #[arg(long, value_delimiter = ',', value_name = "N[,N[,N]]")]
    steps: Vec<usize>,

    /// Guidance of prior and decoder, comma-separated; one number is the decoder's.
    #[arg(long, value_delimiter = ',', value_name = "SCALE[,SCALE]")]
    guidance: Vec<f64>,

    /// Stop after the decoder, at 64 × 64 pixels.
    #[arg(long)]
    small: bool,

    /// Load each network when it runs and drop it afterwards: slower, in the memory of the
    /// largest one.
    #[arg(long)]
    low_memory: bool,

    /// Variant of the weight files, such as fp16.
    #[arg(long)]
    variant: Option<String>,

    /// Read "!" in prompts as diffusers does for Karlo (as padding), not as a word.
    #[arg(long)]
    diffusers_exclamation: bool,

    /// Columns of the contact sheet. Default: as square as it gets.
    #[arg(long, value_name = "COLUMNS")]
    grid: Option<usize>,

    /// Folder the pictures go to; it is made.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let unclip = load(args)?;
    eprintln!("loaded in {:.1} s", start.elapsed().as_secs_f64());

    let mut bars = StageBars::default();
    let mut job = unclip
        .texts_to_images(&args.prompts)
        .images(args.images)
        .negative_prompt(&args.negative)
        .on_step(|step| bars.show(step));
    if let Some(seed) = args.seed {
        job = job.seed(seed);
    }
    match args.steps[..] {
        [] => {}
        [both] => job = job.prior_steps(both).decoder_steps(both),
        [prior, decoder] => job = job.prior_steps(prior).decoder_steps(decoder),
        [prior, decoder, upsampler] => {
            job = job
                .prior_steps(prior)
                .decoder_steps(decoder)
                .upsampler_steps(upsampler);
        }
        _ => return Err("--steps takes at most three numbers".into()),
    }
    match args.guidance[..] {
        [] => {}
        [decoder] => job = job.decoder_guidance(decoder),
        [prior, decoder] => job = job.prior_guidance(prior).decoder_guidance(decoder),
        _ => return Err("--guidance takes at most two numbers".into()),
    }
    if args.small {
        job = job.without_upsampling();
    }

    let start = Instant::now();
    let output = job.run()?;
    let name = match output.settings.seed {
        Some(seed) => format!("unclip-{seed}"),
        None => "unclip".to_owned(),
    };
    for path in output.save_all(&args.out, &name)? {
        println!("{}", path.display());
    }
    let columns = args
        .grid
        .unwrap_or_else(|| (output.images.len() as f64).sqrt().ceil() as usize);
    let sheet = args.out.join(format!("{name}-sheet.png"));
    output.save_contact_sheet(&sheet, columns)?;
    println!("{}", sheet.display());
    let memory = peak_memory().map_or(String::new(), |mib| format!(", peak memory {mib} MiB"));
    eprintln!("made in {:.1} s{memory}", start.elapsed().as_secs_f64());
    Ok(())
}

fn load(args: &Args) -> Result<UnClip, unclip::Error> {
    let shipped = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/checkpoints/unclip"
    );
    let checkpoint = args.checkpoint.clone().unwrap_or_else(|| {
        eprintln!("no --checkpoint: using the tests' tiny one, whose pictures are noise");
        shipped.into()
    });
    let mut builder = UnClip::builder(&args.device)
        .checkpoint(checkpoint)
        .precision(args.dtype.into());
    if args.low_memory {
        builder = builder.residency(Residency::OneAtATime);
    }
    if args.diffusers_exclamation {
        builder = builder.exclamation(Exclamation::AsStated);
    }
    if let Some(variant) = &args.variant {
        builder = builder.variant(variant);
    }
    builder.build()
}
