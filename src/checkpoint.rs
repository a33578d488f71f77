//! A checkpoint folder in diffusers' layout: `model_index.json` and a folder for each component.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde_json::Value;
use unclip_clip::{
    ClipImageEncoder, ClipImageProcessor, ClipTextEncoder, TransformersClip, TransformersClipText,
    TransformersClipVision, VisionTowerConfig, load_clip_model, load_text_tower, load_vision_tower,
    tokenizer::ClipTokenizer,
};
use unclip_core::{
    diffusion::{Scheduler, SchedulerConfig},
    error::{Error, Result},
    json,
    nn::{DiffusersUNet, UNetConfig},
    resident::Resident,
    stage::{Decoder, ImageEncoder, Prior, TextEncoder, Upsampler},
    weights::LoadOptions,
};
use unclip_decoder::{DecoderConfig, DiffusionDecoder, load_decoder};
use unclip_prior::{DiffusersPrior, DiffusionPrior, load_prior};
use unclip_upsample::{DiffusionUpsampler, UpsamplerConfig, load_upsampler};

use crate::{Builder, Residency};

/// The pipelines whose folders this reads.
const PIPELINES: [&str; 3] = [
    "UnCLIPPipeline",
    "UnCLIPImageVariationPipeline",
    "KandinskyV22PriorPipeline",
];

/// The class each network has to be of. A scheduler's is checked where its file is read.
const CLASSES: [(&str, &str); 7] = [
    ("text_encoder", "CLIPTextModelWithProjection"),
    ("image_encoder", "CLIPVisionModelWithProjection"),
    ("prior", "PriorTransformer"),
    ("decoder", "UNet2DConditionModel"),
    ("text_proj", "UnCLIPTextProjModel"),
    ("super_res_first", "UNet2DModel"),
    ("super_res_last", "UNet2DModel"),
];

/// Names under which pipelines keep the preprocessing of pictures.
const IMAGE_PROCESSORS: [&str; 2] = ["feature_extractor", "image_processor"];

/// The decoder's guidance where a job does not say it, as diffusers names the argument. An entry of ours,
/// which diffusers passes over: checkpoints differ in what suits them.
const GUIDANCE: &str = "decoder_guidance_scale";

/// An opened folder: its index is read, its components are not.
pub(crate) struct CheckpointFolder<'a> {
    path: PathBuf,
    /// Components that the index names; null entries are absent.
    components: BTreeMap<String, String>,
    /// What the index says under [`GUIDANCE`].
    guidance: Option<f64>,
    builder: &'a Builder,
}

impl<'a> CheckpointFolder<'a> {
    pub(crate) fn open(path: &Path, builder: &'a Builder) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::NotFound {
                path: path.to_owned(),
                hint: "give the folder of a checkpoint in diffusers' layout".into(),
            });
        }
        let index_path = path.join("model_index.json");
        if !index_path.is_file() {
            return Err(Error::NotFound {
                path: index_path,
                hint: "a checkpoint in diffusers' layout has this file; is this its folder?".into(),
            });
        }
        let index: BTreeMap<String, Value> = json::read(&index_path)?;
        let class = index.get("_class_name").and_then(Value::as_str);
        if !class.is_some_and(|c| PIPELINES.contains(&c)) {
            return Err(Error::config(
                index_path.display(),
                "_class_name",
                class.unwrap_or("missing"),
                format!("expected {}", PIPELINES.join(" or ")),
            ));
        }
        let mut components = BTreeMap::new();
        for (name, value) in index.iter().filter(|(name, _)| !name.starts_with('_')) {
            let class = value.get(1).and_then(Value::as_str);
            if let Some(class) = class {
                components.insert(name.clone(), class.to_owned());
            }
        }
        for (name, expected) in CLASSES {
            if let Some(class) = components.get(name).filter(|class| *class != expected) {
                return Err(Error::config(
                    index_path.display(),
                    name,
                    class,
                    format!("expected {expected}"),
                ));
            }
        }
        let guidance = match index.get(GUIDANCE) {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_f64().ok_or_else(|| {
                Error::config(index_path.display(), GUIDANCE, value, "expected a number")
            })?),
        };
        Ok(Self {
            path: path.to_owned(),
            components,
            guidance,
            builder,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.components.contains_key(name)
    }

    /// The folder of a component that the index names.
    fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.path.join(name);
        if folder.is_dir() {
            return Ok(folder);
        }
        Err(Error::NotFound {
            path: folder,
            hint: if self.has(name) {
                "model_index.json names this component; the download is incomplete".into()
            } else {
                "another component of model_index.json needs this one".into()
            },
        })
    }

    /// The scheduler of a stage, whose sampler makes `steps` steps if a job does not say how many.
    fn scheduler(&self, name: &str, steps: usize) -> Result<Scheduler> {
        let scheduler = SchedulerConfig::load(&self.folder(name)?)?;
        Ok(Scheduler {
            sampler: scheduler
                .sampler
                .with_steps(steps.min(scheduler.process.steps())),
            ..scheduler
        })
    }

    fn resident<M>(
        &self,
        load: impl Fn(Option<&str>, LoadOptions) -> Result<M> + Send + 'static,
    ) -> Result<Resident<M>> {
        resident(self.builder, load)
    }

    /// Whether networks that are used together have embeddings of one width; those that are not `used`
    /// do not count.
    pub(crate) fn check_widths(&self, used: impl Fn(&str) -> bool) -> Result<()> {
        let used = |name: &str| self.has(name) && used(name);
        let prior = match used("prior") {
            true => Some(DiffusersPrior::load(&self.folder("prior")?)?),
            false => None,
        };
        let decoder = match used("decoder") {
            true => {
                let (projection, unet) = (self.folder("text_proj")?, self.folder("decoder")?);
                let config = DecoderConfig::load_diffusers(&projection, &unet)?;
                Some(config.projection.embedding)
            }
            false => None,
        };
        let agree = |part: &str, found: usize, other: &str, expected: usize| {
            let place = self.path.join(part);
            match found == expected {
                true => Ok(()),
                false => Err(Error::config(
                    place.display(),
                    "width of embeddings",
                    found,
                    format!(
                        "but the {other} beside it has {expected}: these are parts of different models"
                    ),
                )),
            }
        };
        if let (Some(prior), Some(decoder)) = (&prior, decoder) {
            let made = if prior.output == 0 {
                prior.embedding
            } else {
                prior.output
            };
            agree("prior", made, "decoder", decoder)?;
        }
        if used("text_encoder") {
            let text = TransformersClipText::load(&self.folder("text_encoder")?)?;
            if let Some(prior) = &prior {
                let taken = match prior.text_embedding {
                    0 => prior.embedding,
                    width => width,
                };
                agree("text_encoder", text.projection, "prior", taken)?;
            }
            if let Some(decoder) = decoder {
                agree("text_encoder", text.projection, "decoder", decoder)?;
            }
        }
        if let (true, Some(decoder)) = (used("image_encoder"), decoder) {
            let vision = TransformersClipVision::load(&self.folder("image_encoder")?)?;
            agree("image_encoder", vision.projection, "decoder", decoder)?;
        }
        Ok(())
    }

    pub(crate) fn text_encoder(&self) -> Result<Option<Box<dyn TextEncoder>>> {
        if !self.has("text_encoder") {
            return Ok(None);
        }
        let device = self.builder.text_encoder_device.clone();
        let tokenizer = if self.has("tokenizer") {
            ClipTokenizer::load(&self.folder("tokenizer")?)?
        } else {
            ClipTokenizer::openai()?
        };
        let folder = self.folder("text_encoder")?;
        let on = device.clone();
        let tower =
            self.resident(move |variant, options| load_text_tower(&folder, variant, &on, options))?;
        let tokenizer = tokenizer.with_exclamation(self.builder.exclamation);
        Ok(Some(Box::new(ClipTextEncoder::new(
            tokenizer, tower, &device,
        ))))
    }

    pub(crate) fn image_encoder(&self) -> Result<Option<Box<dyn ImageEncoder>>> {
        if !self.has("image_encoder") {
            return Ok(None);
        }
        let device = self.builder.image_encoder_device.clone();
        let processor = match IMAGE_PROCESSORS.iter().find(|name| self.has(name)) {
            Some(name) => ClipImageProcessor::load(&self.folder(name)?)?,
            None => processor_of(TransformersClipVision::load(
                &self.folder("image_encoder")?,
            )?),
        };
        let folder = self.folder("image_encoder")?;
        let on = device.clone();
        let tower = self
            .resident(move |variant, options| load_vision_tower(&folder, variant, &on, options))?;
        Ok(Some(Box::new(ClipImageEncoder::new(
            processor, tower, &device,
        ))))
    }

    pub(crate) fn prior(&self) -> Result<Option<Box<dyn Prior>>> {
        if !self.has("prior") {
            return Ok(None);
        }
        let device = self.builder.prior_device.clone();
        let folder = self.folder("prior")?;
        let config = DiffusersPrior::load(&folder)?;
        // Kandinsky's prior is alone in its folder, and its scheduler has no stage's name.
        let name = match self.has("scheduler") && !self.has("prior_scheduler") {
            true => "scheduler",
            false => "prior_scheduler",
        };
        let scheduler = self.scheduler(name, 25)?;
        let on = device.clone();
        let model =
            self.resident(move |variant, options| load_prior(&folder, variant, &on, options))?;
        let stage = DiffusionPrior::new(&config, model, scheduler.process, &device)?
            .with_sampler(scheduler.sampler);
        Ok(Some(Box::new(stage)))
    }

    pub(crate) fn decoder(&self) -> Result<Option<Box<dyn Decoder>>> {
        if !self.has("decoder") {
            return Ok(None);
        }
        let device = self.builder.decoder_device.clone();
        let (text_proj, folder) = (self.folder("text_proj")?, self.folder("decoder")?);
        let config = DecoderConfig::load_diffusers(&text_proj, &folder)?;
        let scheduler = self.scheduler("decoder_scheduler", 25)?;
        let on = device.clone();
        let model = self.resident(move |variant, options| {
            load_decoder(&text_proj, &folder, variant, &on, options)
        })?;
        let mut stage = DiffusionDecoder::new(&config, model, scheduler.process, &device)?
            .with_sampler(scheduler.sampler);
        if let Some(scale) = self.guidance {
            stage = stage.with_guidance(scale);
        }
        Ok(Some(Box::new(stage)))
    }

    /// Every upsampler: `super_res_*`, and beyond what diffusers knows `super_res_2_*` and so on.
    pub(crate) fn upsamplers(&self) -> Result<Vec<Box<dyn Upsampler>>> {
        let mut found: Vec<Box<dyn Upsampler>> = Vec::new();
        for number in 1.. {
            let name = match number {
                1 => "super_res".to_owned(),
                n => format!("super_res_{n}"),
            };
            if !self.has(&format!("{name}_first")) {
                break;
            }
            found.push(Box::new(self.upsampler(&name)?.at_position(number - 1)));
        }
        Ok(found)
    }

    fn upsampler(&self, name: &str) -> Result<DiffusionUpsampler> {
        let device = self.builder.upsampler_device.clone();
        let network = |folder: PathBuf| {
            let on = device.clone();
            self.resident(move |variant, options| load_upsampler(&folder, variant, &on, options))
        };
        let folder = self.folder(&format!("{name}_first"))?;
        let config = UpsamplerConfig::load_diffusers(&folder)?;
        let first = network(folder)?;
        let last = format!("{name}_last");
        let last = match self.has(&last) {
            false => None,
            true => {
                let folder = self.folder(&last)?;
                let (unet, _) = DiffusersUNet::load(&folder)?;
                let channels = |c: &UNetConfig| format!("{}, {}", c.in_channels, c.out_channels);
                if channels(&unet) != channels(&config.unet) {
                    return Err(Error::config(
                        folder.join("config.json").display(),
                        "in_channels, out_channels",
                        channels(&unet),
                        format!("but {name}_first has {}", channels(&config.unet)),
                    ));
                }
                Some(network(folder)?)
            }
        };
        let scheduler = self.scheduler(&format!("{name}_scheduler"), 7)?;
        let stage = DiffusionUpsampler::new(&config, first, last, scheduler.process, &device)?;
        Ok(stage.with_sampler(scheduler.sampler))
    }
}

/// Loads now, or checks now and loads at each use.
fn resident<M>(
    builder: &Builder,
    load: impl Fn(Option<&str>, LoadOptions) -> Result<M> + Send + 'static,
) -> Result<Resident<M>> {
    let options = builder.options;
    let variant = builder.variant.clone();
    let keep = builder.residency == Residency::Keep;
    if !keep {
        let dry = LoadOptions {
            is_dry_run: true,
            ..options
        };
        load(variant.as_deref(), dry)?;
    }
    // Values were checked above, if they are to be checked at all.
    let options = LoadOptions {
        check_finite: keep && options.check_finite,
        ..options
    };
    Resident::new(keep, move || load(variant.as_deref(), options))
}

/// OpenAI's preprocessing for a tower whose folder does not say.
fn processor_of(tower: VisionTowerConfig) -> ClipImageProcessor {
    ClipImageProcessor::openai(tower.image_size as u32)
}

/// The image encoder in a folder of its own: a vision tower, or a whole CLIP of which it is taken.
pub(crate) fn clip_vision(folder: &Path, builder: &Builder) -> Result<Box<dyn ImageEncoder>> {
    let config: BTreeMap<String, Value> = json::read(&folder.join("config.json"))?;
    let is_whole = config.get("model_type").and_then(Value::as_str) == Some("clip");
    let processor = match folder.join("preprocessor_config.json").is_file() {
        true => ClipImageProcessor::load(folder)?,
        false if is_whole => processor_of(TransformersClip::load(folder)?.vision),
        false => processor_of(TransformersClipVision::load(folder)?),
    };
    let device = builder.image_encoder_device.clone();
    let (folder, on) = (folder.to_owned(), device.clone());
    let tower = resident(builder, move |variant, options| match is_whole {
        true => Ok(load_clip_model(&folder, variant, &on, options)?.vision),
        false => load_vision_tower(&folder, variant, &on, options),
    })?;
    Ok(Box::new(ClipImageEncoder::new(processor, tower, &device)))
}
