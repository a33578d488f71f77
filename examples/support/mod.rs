//! What the examples share: the checkpoint, the device, precision, progress bars, saving.
#![allow(dead_code, unused_imports, unreachable_pub)]

mod chart;
mod device;
mod lists;
mod progress;

use std::{
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
};

pub use chart::{Bar, bar_chart, wilson};
use clap::Args;
pub use device::{DEVICES, Dtype, parse_device};
pub use lists::{captions, read_lists};
pub use progress::{StageBars, peak_memory, reset_peak_memory};
use unclip::{
    Exclamation, Job, Output, Residency, UnClip,
    burn::tensor::Device,
    core::{
        image::{on_white, upright},
        kernels::{Precision, set_precision},
    },
    image::DynamicImage,
};

/// Every step of every stage takes and gives back the same large blocks; the usual allocator returns them
/// to the system, which then clears them each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What an example's `run` gives back.
pub type Done = Result<(), Box<dyn Error>>;

/// Prints an error with its causes.
pub fn finish(done: Done) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  because: {cause}");
        source = cause.source();
    }
    ExitCode::FAILURE
}

/// Flags for the checkpoint, where it runs, and how its stages are run.
#[derive(Args, Debug)]
pub struct Common {
    /// Folder of the checkpoint, the one with model_index.json. Default: the demo model.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,

    /// Folder of the CLIP whose vision tower reads pictures, for checkpoints that have none (for
    /// Karlo openai/clip-vit-large-patch14).
    #[arg(long, value_name = "DIR")]
    pub clip: Option<PathBuf>,

    /// Where to compute; a GPU of several as NAME:NUMBER.
    #[arg(long, value_parser = parse_device, default_value = DEVICES[0])]
    pub device: Device,

    /// Types of weights and arithmetic.
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,

    #[command(flatten)]
    pub units: Units,

    /// The same seed makes the same picture. Default: a new one each time; 0 where many are made to be
    /// compared or kept.
    #[arg(long)]
    pub seed: Option<u64>,

    /// What the picture should not show.
    #[arg(long, default_value = "")]
    pub negative: String,

    /// Steps of prior, decoder and upsampler, comma-separated; one number is for prior and decoder.
    #[arg(long, value_delimiter = ',', value_name = "N[,N[,N]]")]
    pub steps: Vec<usize>,

    /// Guidance of prior and decoder, comma-separated; one number is the decoder's.
    #[arg(long, value_delimiter = ',', value_name = "SCALE[,SCALE]")]
    pub guidance: Vec<f64>,

    /// Make so many pictures for each one and keep the one that CLIP finds nearest to the prompt (without
    /// a prompt, to the picture given). Default: 4 for text_to_image without --checkpoint, else 1.
    #[arg(long, value_name = "N")]
    pub candidates: Option<usize>,

    /// Stop after the decoder, at 64 × 64 pixels.
    #[arg(long)]
    pub small: bool,

    /// Load each network when it runs and drop it afterwards: slower, in the memory of the
    /// largest one.
    #[arg(long)]
    pub low_memory: bool,

    /// Variant of the weight files, such as fp16.
    #[arg(long)]
    pub variant: Option<String>,

    /// Read "!" in prompts as diffusers does for Karlo (as padding), not as a word.
    #[arg(long)]
    pub diffusers_exclamation: bool,

    /// Folder the pictures go to; it is made.
    #[arg(long, value_name = "DIR", default_value = "out")]
    pub out: PathBuf,
}

/// The demo model, which comes with the repository.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// How precisely layers multiply: results differ in the third digit, and training has to go on as it
/// was begun.
#[derive(Args, Clone, Copy, Debug)]
pub struct Units {
    /// Let the CPU's convolutions multiply bf16 on its matrix units (Intel's AMX, on Linux): up to twice
    /// as fast.
    #[arg(long, conflicts_with = "tf32")]
    pub amx: bool,

    /// Let a GPU's convolutions, linear layers and attention multiply TF32 on its tensor cores.
    #[arg(long)]
    pub tf32: bool,
}

impl Units {
    /// Has layers multiply so from now on.
    pub fn choose(self) {
        if self.amx && !set_precision(Precision::Bf16) {
            eprintln!("--amx: this processor or system has no such units; without");
        }
        if self.tf32 && !set_precision(Precision::Tf32) {
            eprintln!("--tf32: this build has no GPU; without");
        }
    }
}

impl Common {
    /// Opens the checkpoint, or the demo model.
    pub fn load(&self) -> Result<UnClip, unclip::Error> {
        // Before the work, as it may not be possible.
        std::fs::create_dir_all(&self.out).map_err(|e| {
            unclip::Error::io(&self.out, e, "--out names a folder that can be made")
        })?;
        self.builder().build()
    }

    /// The same, to change something about it.
    pub fn builder(&self) -> unclip::Builder {
        self.units.choose();
        let checkpoint = self.checkpoint.clone().unwrap_or_else(demo_model);
        let mut builder = UnClip::builder(&self.device)
            .checkpoint(checkpoint)
            .precision(self.dtype.into());
        if let Some(clip) = &self.clip {
            builder = builder.clip_vision(clip);
        }
        if self.low_memory {
            builder = builder.residency(Residency::OneAtATime);
        }
        if self.diffusers_exclamation {
            builder = builder.exclamation(Exclamation::AsStated);
        }
        if let Some(variant) = &self.variant {
            builder = builder.variant(variant);
        }
        builder
    }

    /// Gives a job the flags' settings.
    pub fn apply<'a, K>(&self, job: Job<'a, K>) -> Result<Job<'a, K>, Box<dyn Error>> {
        if self.steps.len() > 3 {
            return Err("--steps takes at most three numbers".into());
        }
        if self.guidance.len() > 2 {
            return Err("--guidance takes at most two numbers".into());
        }
        Ok(self.configure(job))
    }

    /// The same after `apply` has checked the flags once.
    pub fn configure<'a, K>(&self, mut job: Job<'a, K>) -> Job<'a, K> {
        job = job.negative_prompt(&self.negative);
        if let Some(seed) = self.seed {
            job = job.seed(seed);
        }
        job = match self.steps[..] {
            [both] => job.prior_steps(both).decoder_steps(both),
            [prior, decoder] => job.prior_steps(prior).decoder_steps(decoder),
            [prior, decoder, upsampler, ..] => job
                .prior_steps(prior)
                .decoder_steps(decoder)
                .upsampler_steps(upsampler),
            [] => job,
        };
        job = match self.guidance[..] {
            [decoder] => job.decoder_guidance(decoder),
            [prior, decoder, ..] => job.prior_guidance(prior).decoder_guidance(decoder),
            [] => job,
        };
        if let Some(candidates) = self.candidates {
            job = job.candidates(candidates);
        }
        match self.small {
            true => job.without_upsampling(),
            false => job,
        }
    }

    /// Writes the pictures and a sheet of them, and says where.
    pub fn save(&self, output: &Output, kind: &str, columns: Option<usize>) -> Done {
        let name = match output.settings.seed {
            Some(seed) => format!("{kind}-{seed}"),
            None => kind.to_owned(),
        };
        for path in output.save_all(&self.out, &name)? {
            println!("{}", path.display());
        }
        let square = (output.images.len() as f64).sqrt().ceil() as usize;
        let sheet = self.out.join(format!("{name}-sheet.png"));
        output.save_contact_sheet(&sheet, columns.unwrap_or(square))?;
        println!("{}", sheet.display());
        Ok(())
    }
}

/// Reads a picture of any kind, whatever its name ends with, turned as its camera says; what is
/// transparent is on white.
pub fn open_picture(path: &Path) -> Result<DynamicImage, Box<dyn Error>> {
    Ok(on_white(open_upright(path)?).into())
}

/// The same with what is transparent left so, as masks need it.
pub fn open_upright(path: &Path) -> Result<DynamicImage, Box<dyn Error>> {
    let failed = |e: String| format!("{}: {e}", path.display());
    let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
    Ok(upright(&bytes).map_err(|e| failed(e.to_string()))?)
}

/// One line of a file for each entry; empty lines and lines that start with # are left out.
pub fn read_lines(path: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}
