//! One function for each stage: its data, recipe and model, and what is kept of it.

use std::{
    error::Error,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use unclip::{
    ImageEncoder, TextEncoder,
    burn::tensor::FloatDType,
    clip::{
        ClipImageEncoder, ClipImageProcessor, ClipTextEncoder, ClipTraining, load_text_tower,
        load_vision_tower, save_text_tower, save_vision_tower, tokenizer::ClipTokenizer,
    },
    core::{
        self,
        image::to_host,
        resident::Resident,
        train::{Recipe, Samples, TrainSettings, Trainer, Weighting, initialized},
        weights::{LoadOptions, write_whole},
    },
    decoder::{DecoderTraining, save_decoder},
    image::DynamicImage,
    prior::{
        AutoregressivePrior, AutoregressiveTraining, EmbeddedCaption, EmbeddingCodec, Pca,
        PriorTraining, dot_edges, embedding_statistics, save_autoregressive_prior, save_prior,
    },
    upsample::{Degradation, UpsamplerTraining, save_upsampler},
};

use super::{
    Args, config,
    data::{Embedded, Twins, World},
    sheets,
    support::Done,
    tokenizer,
};
use crate::demo::{render::render, split::train_scene};

type Fallible<T> = Result<T, Box<dyn Error>>;

/// What is shipped is rounded to this; later stages are trained on what is shipped.
const SHIPPED: Option<FloatDType> = Some(FloatDType::F16);

/// Scenes whose embeddings the priors are trained on.
const EMBEDDED: usize = 60_000;

pub fn model_folder(args: &Args) -> PathBuf {
    args.out.join("model")
}

/// CLIP on the world's pictures.
pub fn clip(args: &Args) -> Done {
    let folder = model_folder(args);
    let tokenizer = tokenizer::make(&folder.join("tokenizer"))?;
    let config = config::clip(tokenizer.vocabulary_size(), tokenizer.eos_id());
    let processor = ClipImageProcessor::openai(config::SMALL as u32);
    let model = initialized(config.init(&args.device[0]), 1, &[])?;
    let recipe = ClipTraining::new(tokenizer, processor.clone());
    let world = Twins {
        side: config::SMALL as u32,
    };
    let trainer = train(args, "clip", recipe, model, Arc::new(world), |_| Ok(()))?;
    // Averaged weights only help where learning rates stay high; these fell to 0.
    let model = trainer.averaged();
    save_text_tower(
        &model.text,
        &config.text,
        &folder.join("text_encoder"),
        SHIPPED,
    )?;
    save_vision_tower(
        &model.vision,
        &config.vision,
        &folder.join("image_encoder"),
        SHIPPED,
    )?;
    processor.save(&folder.join("feature_extractor"))?;
    Ok(())
}

/// The text encoder as it is shipped.
pub fn text_encoder(args: &Args) -> Fallible<ClipTextEncoder> {
    let (folder, device) = (model_folder(args), &args.device[0]);
    let tower = folder.join("text_encoder");
    let tower = load_text_tower(&tower, None, device, LoadOptions::default())?;
    let tokenizer = ClipTokenizer::load(&folder.join("tokenizer"))?;
    Ok(ClipTextEncoder::new(
        tokenizer,
        Resident::Kept(tower),
        device,
    ))
}

/// The image encoder as it is shipped.
pub fn image_encoder(args: &Args) -> Fallible<ClipImageEncoder> {
    let (folder, device) = (model_folder(args), &args.device[0]);
    let tower = folder.join("image_encoder");
    let tower = load_vision_tower(&tower, None, device, LoadOptions::default())?;
    let processor = ClipImageProcessor::load(&folder.join("feature_extractor"))?;
    Ok(ClipImageEncoder::new(
        processor,
        Resident::Kept(tower),
        device,
    ))
}

/// Embeddings of the first scenes, computed once.
fn embeddings(args: &Args) -> Fallible<Arc<Vec<Vec<f32>>>> {
    let path = args.out.join("embeddings.f32");
    if !path.exists() {
        let encoder = image_encoder(args)?;
        let style = "embedding scenes {bar:40} {pos}/{len} {elapsed} (left {eta})";
        let bar =
            ProgressBar::new(EMBEDDED as u64).with_style(ProgressStyle::with_template(style)?);
        let mut bytes = Vec::with_capacity(EMBEDDED * config::WIDTH * 4);
        for first in (0..EMBEDDED).step_by(100) {
            let picture = |i| render(&train_scene(i as u64), config::SMALL as u32);
            let pictures: Vec<DynamicImage> =
                (first..first + 100).map(|i| picture(i).into()).collect();
            let rows = to_host(encoder.encode_images(&pictures)?, "image encoder")?;
            bytes.extend(rows.iter().flat_map(|v| v.to_le_bytes()));
            bar.inc(100);
        }
        write_whole(&path, &bytes)?;
        bar.finish();
    }
    let bytes = std::fs::read(&path)?;
    let values = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let values: Vec<f32> = values.collect();
    Ok(Arc::new(
        values.chunks(config::WIDTH).map(<[f32]>::to_vec).collect(),
    ))
}

/// The diffusion prior on those embeddings.
pub fn prior(args: &Args) -> Done {
    let embeddings = embeddings(args)?;
    let config = config::prior();
    let process = config::scheduler("prior")?.process;
    let samples: Vec<EmbeddedCaption> = embeddings
        .iter()
        .map(|e| EmbeddedCaption {
            embedding: e.clone(),
            caption: String::new(),
        })
        .collect();
    let (mean, deviation) = embedding_statistics(&samples)?;
    let model = initialized(config.init(&args.device[0]), 2, &[])?;
    let model = model.with_statistics(&mean, deviation);
    let recipe = PriorTraining::new(&config, process, Box::new(text_encoder(args)?));
    let data = Arc::new(Embedded { embeddings });
    let trainer = train(args, "prior", recipe, model, data, |_| Ok(()))?;
    save_prior(
        &trainer.averaged(),
        &config,
        &model_folder(args).join("prior"),
        SHIPPED,
    )?;
    Ok(())
}

/// The autoregressive prior on the same.
pub fn autoregressive(args: &Args) -> Done {
    let embeddings = embeddings(args)?;
    let device = &args.device[0];
    let some: Vec<f32> = embeddings.iter().take(20_000).flatten().copied().collect();
    let pca = Pca::fit(&some, config::WIDTH)?;
    let dims = pca.dims_for(0.99);
    println!(
        "{dims} of {} dimensions hold 99 % of the variance",
        pca.dims()
    );
    let codec = EmbeddingCodec::fit(pca.truncated(dims)?, &some, 256)?;
    let edges = {
        let rows: Vec<_> = (0..2000_usize).collect();
        let data = Embedded {
            embeddings: embeddings.clone(),
        };
        let samples = rows.iter().map(|i| data.get(*i, *i as u64));
        let samples = samples.collect::<Result<Vec<_>, _>>()?;
        let texts: Vec<&str> = samples.iter().map(|s| &s.caption[..]).collect();
        let text = text_encoder(args)?.encode_text(&texts)?;
        let images = samples.iter().map(|s| &s.embedding[..]);
        let images = core::train::stack(images, &[config::WIDTH], device)?;
        dot_edges(text.embedding, images, 32)?
    };
    let config = config::autoregressive(dims);
    let model = initialized(config.init(device), 3, &[])?;
    let stage = |model| {
        let model = Resident::Kept(model);
        AutoregressivePrior::new(&config, model, codec.clone(), edges.clone(), device)
    };
    let text = Box::new(text_encoder(args)?);
    let recipe = AutoregressiveTraining::new(stage(model.clone())?, text);
    let data = Arc::new(Embedded { embeddings });
    let trainer = train(args, "autoregressive", recipe, model, data, |_| Ok(()))?;
    let folder = model_folder(args).join("autoregressive_prior");
    save_autoregressive_prior(&stage(trainer.averaged())?, &config, &folder)?;
    Ok(())
}

/// The decoder, with sheets of what it makes of true embeddings.
pub fn decoder(args: &Args) -> Done {
    let config = config::decoder();
    let process = config::scheduler("decoder")?.process;
    let model = initialized(config.init(&args.device[0]), 4, &["conv_out"])?;
    let (text, image) = (text_encoder(args)?, image_encoder(args)?);
    // Captions are worth more here than in the paper: they say what is where.
    let recipe = DecoderTraining::new(&config, process, Box::new(text), Box::new(image))
        .with_dropout(0.1, 0.2)
        // What stands where is decided at high noise, and a short training should learn that first.
        .with_weighting(Weighting::MinSnr(5.0));
    let world = World {
        side: config::SMALL as u32,
    };
    let mut sheet = sheets::Decoder::new(args)?;
    let trainer = train(args, "decoder", recipe, model, Arc::new(world), |trainer| {
        sheet.make(args, trainer.averaged(), trainer.step())
    })?;
    let folder = model_folder(args);
    let model = trainer.averaged();
    let (projection, unet) = (folder.join("text_proj"), folder.join("decoder"));
    save_decoder(&model, &config, &projection, &unet, SHIPPED)?;
    Ok(())
}

/// An upsampler: the first from 64 to 256, the second from 256 to 1024.
pub fn upsampler(args: &Args, number: usize) -> Done {
    let config = config::upsampler(number);
    let (name, low) = names(number);
    let process = config::scheduler(name)?.process;
    let model = initialized(config.unet.init(&args.device[0]), 5, &["conv_out"])?;
    let (degradation, crop) = match number {
        1 => (Degradation::Blur, 16),
        _ => (Degradation::Bsr, 32),
    };
    let recipe = UpsamplerTraining::new(&config, low, process)
        .with_degradation(degradation)
        .with_crop(crop);
    let world = World {
        side: config.size as u32,
    };
    let trainer = train(args, name, recipe, model, Arc::new(world), |_| Ok(()))?;
    let folder = model_folder(args)
        .join(folder_of(number))
        .display()
        .to_string();
    let network = trainer.averaged();
    save_upsampler(
        &network,
        &config,
        Path::new(&format!("{folder}_first")),
        SHIPPED,
    )?;
    Ok(())
}

fn names(number: usize) -> (&'static str, usize) {
    match number {
        1 => ("upsampler-256", 64),
        _ => ("upsampler-1024", 256),
    }
}

fn folder_of(number: usize) -> &'static str {
    match number {
        1 => "super_res",
        _ => "super_res_2",
    }
}

/// Writes the schedulers, and model_index.json with the stages that there are.
pub fn index(args: &Args) -> Done {
    let folder = model_folder(args);
    let mut index = json!({ "_class_name": "UnCLIPPipeline" });
    for (name, class) in [
        ("tokenizer", "CLIPTokenizer"),
        ("text_encoder", "CLIPTextModelWithProjection"),
        ("image_encoder", "CLIPVisionModelWithProjection"),
        ("feature_extractor", "CLIPImageProcessor"),
        ("prior", "PriorTransformer"),
        ("text_proj", "UnCLIPTextProjModel"),
        ("decoder", "UNet2DConditionModel"),
        ("super_res_first", "UNet2DModel"),
        ("super_res_2_first", "UNet2DModel"),
    ] {
        if !folder.join(name).is_dir() {
            continue;
        }
        let library = match class.starts_with("CLIP") {
            true => "transformers",
            false => "diffusers",
        };
        index[name] = json!([library, class]);
        let stage = name.trim_end_matches("_first");
        if matches!(stage, "prior" | "decoder" | "super_res" | "super_res_2") {
            let name = format!("{stage}_scheduler");
            let path = folder.join(&name).join("scheduler_config.json");
            core::json::write(&path, &config::scheduler_json(stage))?;
            index[name] = json!(["diffusers", "UnCLIPScheduler"]);
        }
    }
    core::json::write(&folder.join("model_index.json"), &index)?;
    println!("{} is a checkpoint", folder.display());
    Ok(())
}

/// Trains one stage with a progress bar, from its last checkpoint on.
fn train<R: Recipe>(
    args: &Args,
    name: &str,
    recipe: R,
    model: R::Model,
    samples: Arc<dyn Samples<Item = R::Sample>>,
    mut on_save: impl FnMut(&Trainer<R>) -> Done,
) -> Fallible<Trainer<R>> {
    let recipe_settings = config::settings(name);
    let settings = TrainSettings {
        steps: args.steps.unwrap_or(recipe_settings.steps),
        batch: args.batch.unwrap_or(recipe_settings.batch),
        learning_rate: args.rate.unwrap_or(recipe_settings.learning_rate),
        pieces: args.pieces.unwrap_or(1),
        workers: args.workers,
        ..recipe_settings
    };
    let folder = args.out.join(name);
    let style = format!("{name:>16} {{bar:32}} {{pos}}/{{len}} {{elapsed}} (left {{eta}}) {{msg}}");
    let bar =
        ProgressBar::new(settings.steps as u64).with_style(ProgressStyle::with_template(&style)?);
    let mut trainer = Trainer::new(recipe, model, settings, &args.device)?;
    if trainer.resume(&folder)? {
        bar.set_position(trainer.step() as u64);
        bar.reset_eta();
    }
    let start = Instant::now();
    let limit = args.minutes.map(|m| Duration::from_secs_f64(60.0 * m));
    let (mut mean, mut failed) = (None, None);
    let result = trainer.run(samples, &folder, |trainer, progress| {
        let row = progress.row;
        let mean = mean.get_or_insert(row.loss);
        *mean += 0.02 * (row.loss - *mean);
        bar.set_position(row.step as u64);
        bar.set_message(format!(
            "loss {mean:.4}, {:.1} samples/s",
            row.samples_per_second
        ));
        if progress.is_saved
            && let Err(error) = on_save(trainer)
        {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        match limit.is_some_and(|limit| start.elapsed() > limit) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.abandon();
    if let Some(error) = failed {
        return Err(error);
    }
    match result {
        // What was asked for: this much time and no more.
        Err(unclip::Error::Cancelled { .. }) if limit.is_some() => Ok(trainer),
        result => result.map(|()| trainer).map_err(Into::into),
    }
}
