//! Flags of training on data of one's own.

use std::{error::Error, path::PathBuf};

use clap::Args;
use unclip::{
    burn::module::Module,
    core::train::{TrainSettings, frozen, with_lora},
};

use super::{Flags, Start};
use crate::support::demo_model;

/// Flags of training on data of one's own.
#[derive(Args, Clone, Debug)]
pub struct Own {
    /// What to train on: a folder of pictures with NAME.txt beside them, or with a captions.csv or
    /// metadata.jsonl; .tar shards of webdataset, or a pattern of them in quotes.
    #[arg(long, value_name = "PATH")]
    pub data: PathBuf,

    /// Folder of the run: checkpoints, log.csv, loss.png and samples. OUT/model becomes a whole
    /// checkpoint with what was trained.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Checkpoint (the folder with model_index.json) to train further. Default: the demo model.
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,

    /// Folder of the image encoder, for checkpoints without (for Karlo openai/clip-vit-large-patch14).
    #[arg(long, value_name = "DIR")]
    pub clip: Option<PathBuf>,

    /// Begin with new weights, in the sizes of the checkpoint's.
    #[arg(long)]
    pub fresh: bool,

    /// Parameters that stay as they are, by name, comma-separated; * stands for any letters.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub freeze: Vec<String>,

    /// Train only changes of linear layers, of this rank (LoRA). They are added up in the end.
    #[arg(long, value_name = "RANK")]
    pub lora: Option<usize>,

    /// The layers for --lora, by name as for --freeze. Default: all linear ones.
    #[arg(long, value_delimiter = ',', value_name = "NAME", requires = "lora")]
    pub lora_layers: Vec<String>,

    /// The paper's batch, steps, learning rate and averaging (for a cluster).
    #[arg(long)]
    pub paper: bool,

    /// Steps between samples; 0 makes none.
    #[arg(long, default_value_t = 500, value_name = "STEPS")]
    pub sample_every: usize,

    #[command(flatten)]
    pub flags: Flags,
}

impl Own {
    /// Where training starts.
    pub fn start(&self) -> Start {
        Start {
            folder: self.from.clone().unwrap_or_else(demo_model),
            clip: self.clip.clone(),
            fresh: self.fresh.then_some(self.flags.seed),
            device: self.flags.device[0].clone(),
        }
    }

    /// The paper's settings, or those that suit a workstation, with what the flags say.
    pub fn settings(&self, paper: TrainSettings, small: TrainSettings) -> TrainSettings {
        self.flags.settings(if self.paper { paper } else { small })
    }

    /// What of a model is trained: all, or as the flags say.
    pub fn parts<M: Module>(&self, model: M) -> Result<M, Box<dyn Error>> {
        let mut model = model;
        if let Some(rank) = self.lora {
            model = with_lora(model, rank, self.flags.seed, &names(&self.lora_layers))?;
        }
        if !self.freeze.is_empty() {
            model = frozen(model, &names(&self.freeze))?;
        }
        Ok(model)
    }

    /// Whether samples are due after a step.
    pub fn samples_are_due(&self, step: usize) -> bool {
        self.sample_every > 0 && step.is_multiple_of(self.sample_every)
    }

    /// OUT/model, with a copy of the checkpoint.
    pub fn model(&self) -> Result<PathBuf, Box<dyn Error>> {
        let folder = self.out.join("model");
        self.start().copy(&folder)?;
        Ok(folder)
    }
}

fn names(given: &[String]) -> Vec<&str> {
    given.iter().map(String::as_str).collect()
}
