//! The networks of a checkpoint, or new ones of their kind, to train.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use unclip::{
    burn::{module::Module, tensor::Device},
    clip::{
        ClipImageEncoder, ClipImageProcessor, ClipModel, ClipModelConfig, ClipTextEncoder,
        ClipTraining, TransformersClipImageProcessor, TransformersClipText, TransformersClipVision,
        load_text_tower, load_vision_tower, tokenizer::ClipTokenizer,
    },
    core::{
        diffusion::{Process, SchedulerConfig},
        nn::UNet,
        resident::Resident,
        train::initialized,
        weights::LoadOptions,
    },
    decoder::{DecoderConfig, DecoderModel, load_decoder},
    prior::{DiffusersPrior, PriorConfig, PriorModel, load_prior},
    upsample::{UpsamplerConfig, load_upsampler},
};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A checkpoint in diffusers' layout that training starts from.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its folder.
    pub folder: PathBuf,
    /// Folder of the image encoder, if it is not in the checkpoint.
    pub clip: Option<PathBuf>,
    /// Whether what is trained gets new weights, drawn from this seed.
    pub fresh: Option<u64>,
    /// Where it goes.
    pub device: Device,
}

impl Start {
    fn folder(&self, name: &str) -> Fallible<PathBuf> {
        let folder = self.folder.join(name);
        match folder.is_dir() {
            true => Ok(folder),
            false => Err(format!(
                "{} is not there: --from takes a checkpoint in diffusers' layout that has it",
                folder.display()
            )
            .into()),
        }
    }

    fn vision(&self) -> Fallible<PathBuf> {
        match &self.clip {
            Some(folder) => Ok(folder.clone()),
            None => self
                .folder("image_encoder")
                .map_err(|e| format!("{e}; or give --clip").into()),
        }
    }

    fn image_processor(&self) -> Fallible<ClipImageProcessor> {
        if let Some(folder) = &self.clip {
            return Ok(TransformersClipImageProcessor::load(folder)?);
        }
        let names = ["feature_extractor", "image_processor"];
        let found = names
            .iter()
            .map(|n| self.folder.join(n))
            .find(|f| f.is_dir());
        let folder = match found {
            Some(folder) => folder,
            None => self.folder(names[0])?,
        };
        Ok(TransformersClipImageProcessor::load(&folder)?)
    }

    /// `model` with weights of `load`, or new ones.
    fn weights<M: Module>(
        &self,
        model: M,
        zero: &[&str],
        load: impl FnOnce() -> unclip::Result<M>,
    ) -> Fallible<M> {
        Ok(match self.fresh {
            Some(seed) => initialized(model, seed, zero)?,
            None => load()?,
        })
    }

    /// The text encoder, as it is.
    pub fn text_encoder(&self) -> Fallible<ClipTextEncoder> {
        let tower = self.folder("text_encoder")?;
        let tower = load_text_tower(&tower, None, &self.device, LoadOptions::default())?;
        let tokenizer = ClipTokenizer::load(&self.folder("tokenizer")?)?;
        Ok(ClipTextEncoder::new(
            tokenizer,
            Resident::Kept(tower),
            &self.device,
        ))
    }

    /// The image encoder, as it is.
    pub fn image_encoder(&self) -> Fallible<ClipImageEncoder> {
        let tower = self.vision()?;
        let tower = load_vision_tower(&tower, None, &self.device, LoadOptions::default())?;
        let processor = self.image_processor()?;
        Ok(ClipImageEncoder::new(
            processor,
            Resident::Kept(tower),
            &self.device,
        ))
    }

    /// Both towers as one model, with its recipe.
    pub fn clip(&self) -> Fallible<(ClipTraining, ClipModel, ClipModelConfig)> {
        let (text, vision) = (self.folder("text_encoder")?, self.vision()?);
        let config = ClipModelConfig::new(
            TransformersClipText::load(&text)?,
            TransformersClipVision::load(&vision)?,
        );
        let (device, options) = (&self.device, LoadOptions::default());
        let new = config.init(device);
        let model = self.weights(new.clone(), &[], || {
            Ok(ClipModel {
                text: load_text_tower(&text, None, device, options)?,
                vision: load_vision_tower(&vision, None, device, options)?,
                ..new
            })
        })?;
        let tokenizer = ClipTokenizer::load(&self.folder("tokenizer")?)?;
        Ok((
            ClipTraining::new(tokenizer, self.image_processor()?),
            model,
            config,
        ))
    }

    /// The process of a stage.
    pub fn process(&self, stage: &str) -> Fallible<Process> {
        let folder = self.folder(&format!("{stage}_scheduler"))?;
        Ok(SchedulerConfig::load(&folder)?.process)
    }

    /// The diffusion prior.
    pub fn prior(&self) -> Fallible<(PriorModel, PriorConfig)> {
        let folder = self.folder("prior")?;
        let config = DiffusersPrior::load(&folder)?;
        let model = self.weights(config.init(&self.device), &[], || {
            load_prior(&folder, None, &self.device, LoadOptions::default())
        })?;
        Ok((model, config))
    }

    /// The decoder.
    pub fn decoder(&self) -> Fallible<(DecoderModel, DecoderConfig)> {
        let (projection, unet) = (self.folder("text_proj")?, self.folder("decoder")?);
        let config = DecoderConfig::load_diffusers(&projection, &unet)?;
        let model = self.weights(config.init(&self.device), &["conv_out"], || {
            load_decoder(
                &projection,
                &unet,
                None,
                &self.device,
                LoadOptions::default(),
            )
        })?;
        Ok((model, config))
    }

    /// An upsampler, from the folder that `name` and `_first` make.
    pub fn upsampler(&self, name: &str) -> Fallible<(UNet, UpsamplerConfig)> {
        let folder = self.folder(&format!("{name}_first"))?;
        let config = UpsamplerConfig::load_diffusers(&folder)?;
        let model = self.weights(config.unet.init(&self.device), &["conv_out"], || {
            load_upsampler(&folder, None, &self.device, LoadOptions::default())
        })?;
        Ok((model, config))
    }

    /// Copies the checkpoint to `to`, so that what is trained can take its place there.
    pub fn copy(&self, to: &Path) -> Fallible<()> {
        copy(&self.folder, to)
            .map_err(|e| format!("{} to {}: {e}", self.folder.display(), to.display()).into())
    }
}

/// Copies a folder, each file completely or not at all; `to` may be within `from`, or be it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    let own = fs::canonicalize(to)?;
    if own == fs::canonicalize(from)? {
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let from = entry?.path();
        let to = to.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            if !own.starts_with(fs::canonicalize(&from)?) {
                copy(&from, &to)?;
            }
        } else {
            let temporary = to.with_extension("copied.tmp");
            let copied = fs::copy(&from, &temporary).and_then(|_| fs::rename(&temporary, &to));
            if copied.is_err() {
                // Best effort: the error that matters is the one before.
                let _ = fs::remove_file(&temporary);
            }
            copied?;
        }
    }
    Ok(())
}
