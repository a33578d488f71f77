//! One function for each stage: its data, recipe and model, and what is kept of it.

use std::{
    error::Error,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use unclip::{
    ImageEncoder,
    burn::{module::Module, tensor::FloatDType},
    clip::{ClipImageProcessor, ClipTraining, save_text_tower, save_vision_tower},
    core::{
        self,
        image::to_host,
        train::{Captioned, EmbeddedCaption, Recipe, Samples, Trainer, Weighting, initialized},
        weights::write_whole,
    },
    decoder::{DecoderTraining, save_decoder},
    image::DynamicImage,
    prior::{
        AutoregressiveTraining, PriorTraining, embedding_statistics, save_autoregressive_prior,
        save_prior,
    },
    upsample::{Degradation, UpsamplerTraining, save_upsampler},
};

use super::{
    Args, config, contrast,
    data::{Embedded, Twins, World},
    support::Done,
    tokenizer,
    training::{Autoregressive, DecoderSheet, Start},
};
use crate::demo::{
    caption::full_caption,
    render::render,
    split::{busy_train_scene, held_out_scene, train_scene},
};

pub type Fallible<T> = Result<T, Box<dyn Error>>;

/// What is shipped is rounded to this; later stages are trained on what is shipped.
const SHIPPED: Option<FloatDType> = Some(FloatDType::F16);

/// Scenes whose embeddings the priors are trained on.
const EMBEDDED: usize = 60_000;
/// How many of them are embedded at once.
const TOGETHER: usize = 400;

/// Crops of a picture that an upsampler learns from.
const CROPS: usize = 4;

pub fn model_folder(args: &Args) -> PathBuf {
    args.out.join("model")
}

/// CLIP on the world's pictures.
pub fn clip(args: &Args) -> Done {
    let folder = model_folder(args);
    let tokenizer = match &args.from {
        Some(from) => tokenizer::copy(&from.join("tokenizer"), &folder.join("tokenizer"))?,
        None => tokenizer::make(&folder.join("tokenizer"))?,
    };
    let config = config::clip(tokenizer.vocabulary_size(), tokenizer.eos_id());
    let processor = ClipImageProcessor::openai(config::SMALL as u32);
    let new = config.init(&args.flags.device[0]);
    let model = begin(args, new, 1, &[], |start| Ok(start.clip()?.1))?;
    let recipe = ClipTraining::new(tokenizer, processor.clone());
    let world = Twins {
        side: config::SMALL as u32,
    };
    let trainer = train(args, "clip", recipe, model, Arc::new(world), |_| Ok(()))?;
    // Averaged weights only help where learning rates stay high; these fell to 0.
    let model = trainer.averaged();
    let stale = embeddings_file(args);
    if stale.exists() {
        std::fs::remove_file(stale)?;
    }
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

/// Prints how well CLIP tells twins apart.
pub fn contrast(args: &Args) -> Done {
    let (text, image) = (
        shipped(args).text_encoder()?,
        shipped(args).image_encoder()?,
    );
    for (change, share) in contrast::contrast(&text, &image)? {
        println!(
            "captions of another {change}: {:.1} % told apart",
            100.0 * share
        );
    }
    Ok(())
}

/// Weights to begin with: of `--from`, or new ones.
fn begin<M: Module>(
    args: &Args,
    new: M,
    seed: u64,
    zero: &[&str],
    of: impl FnOnce(&Start) -> Fallible<M>,
) -> Fallible<M> {
    match &args.from {
        Some(folder) => of(&Start {
            folder: folder.clone(),
            ..shipped(args)
        }),
        None => Ok(initialized(new, seed, zero)?),
    }
}

/// What is written so far, as it is shipped.
fn shipped(args: &Args) -> Start {
    Start {
        folder: model_folder(args),
        clip: None,
        fresh: None,
        device: args.flags.device[0].clone(),
    }
}

/// Where the embeddings of the present CLIP are kept.
fn embeddings_file(args: &Args) -> PathBuf {
    args.out.join("embeddings.f32")
}

/// Embeddings of the first scenes, computed once.
fn embeddings(args: &Args) -> Fallible<Arc<Vec<Vec<f32>>>> {
    let path = embeddings_file(args);
    if !path.exists() {
        let encoder = shipped(args).image_encoder()?;
        let style = "embedding scenes {bar:40} {pos}/{len} {elapsed} (left {eta})";
        let bar =
            ProgressBar::new(EMBEDDED as u64).with_style(ProgressStyle::with_template(style)?);
        let mut bytes = Vec::with_capacity(EMBEDDED * config::WIDTH * 4);
        for first in (0..EMBEDDED).step_by(TOGETHER) {
            let pictures = small_pictures(first..first + TOGETHER);
            let rows = to_host(encoder.encode_images(&pictures)?, "image encoder")?;
            bytes.extend(rows.iter().flat_map(|v| v.to_le_bytes()));
            bar.inc(TOGETHER as u64);
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

/// Pictures of scenes, which every core has a share of.
fn small_pictures(scenes: Range<usize>) -> Vec<DynamicImage> {
    let scenes: Vec<usize> = scenes.collect();
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    let share = scenes.len().div_ceil(cores).max(1);
    thread::scope(|scope| {
        let render = |i: &usize| render(&train_scene(*i as u64), config::SMALL as u32).into();
        let shares = scenes.chunks(share);
        let started: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(render).collect::<Vec<_>>()))
            .collect();
        let joined = started.into_iter().flat_map(|share| match share.join() {
            Ok(pictures) => pictures,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
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
    let new = config.init(&args.flags.device[0]);
    let model = begin(args, new, 2, &[], |start| Ok(start.prior()?.0))?;
    let model = model.with_statistics(&mean, deviation);
    let recipe = PriorTraining::new(&config, process, Box::new(shipped(args).text_encoder()?));
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
    let data = Arc::new(Embedded { embeddings });
    let some = (0..20_000_usize).map(|i| data.get(i, i as u64));
    let some = some.collect::<Result<Vec<_>, _>>()?;
    let new = Autoregressive::new(&shipped(args), &config::prior(), &some, 3)?;
    let text = Box::new(shipped(args).text_encoder()?);
    let recipe = AutoregressiveTraining::new(new.stage(new.model.clone())?, text);
    let model = new.model.clone();
    let trainer = train(args, "autoregressive", recipe, model, data, |_| Ok(()))?;
    let folder = model_folder(args).join("autoregressive_prior");
    save_autoregressive_prior(
        &new.stage(trainer.averaged())?,
        &new.config,
        &folder,
        SHIPPED,
    )?;
    Ok(())
}

/// The decoder, with sheets of what it makes of true embeddings.
pub fn decoder(args: &Args) -> Done {
    let config = config::decoder();
    let process = config::scheduler("decoder")?.process;
    let new = config.init(&args.flags.device[0]);
    let model = begin(args, new, 4, &["conv_out"], |start| Ok(start.decoder()?.0))?;
    let (text, image) = (
        shipped(args).text_encoder()?,
        shipped(args).image_encoder()?,
    );
    let world = World::new(config::SMALL as u32, busy_train_scene, 1);
    let mut sheet = match args.no_sheets {
        true => None,
        false => Some(DecoderSheet::new(&shipped(args), &process, watched())?),
    };
    let recipe = DecoderTraining::new(&config, process, Box::new(text), Box::new(image))
        // Captions are worth more here than in the paper: they say what is where.
        .with_dropout(0.3, 0.25)
        // And more than an embedding that a prior made up.
        .with_embedding_noise(1.0)
        // What stands where is settled at high noise: there errors should count.
        .with_weighting(Weighting::TruncatedSnr {
            least: 1.0,
            most: 5.0,
        });
    let run = args.out.join("decoder");
    let trainer = train(args, "decoder", recipe, model, Arc::new(world), |trainer| {
        if let Some(sheet) = &mut sheet {
            sheet.make(&config, trainer.averaged(), &run, trainer.step())?;
        }
        Ok(())
    })?;
    let folder = model_folder(args);
    let model = trainer.averaged();
    let (projection, unet) = (folder.join("text_proj"), folder.join("decoder"));
    save_decoder(&model, &config, &projection, &unet, SHIPPED)?;
    Ok(())
}

/// Scenes for the decoder's sheets: half of them as training sees them, half of combinations that it
/// never sees.
fn watched() -> Vec<Captioned> {
    let seen = (0..8).map(|i| train_scene(u64::MAX / 2 + i));
    let scenes = seen.chain((0..8).map(held_out_scene));
    let captioned = scenes.map(|scene| Captioned {
        picture: render(&scene, config::SMALL as u32),
        caption: full_caption(&scene),
    });
    captioned.collect()
}

/// An upsampler: the first from 64 to 256, the second from 256 to 1024.
pub fn upsampler(args: &Args, number: usize) -> Done {
    let config = config::upsampler(number);
    let (name, low) = names(number);
    let process = config::scheduler(name)?.process;
    let new = config.unet.init(&args.flags.device[0]);
    let stage = folder_of(number);
    let model = begin(args, new, 5, &["conv_out"], |start| {
        Ok(start.upsampler(stage)?.0)
    })?;
    let crop = if number == 1 { 16 } else { 32 };
    let recipe = UpsamplerTraining::new(&config, low, process)
        .with_degradation(Degradation::AnyBlur)
        .with_crop(crop);
    let world = World::new(config.size as u32, train_scene, CROPS);
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
    let mut index = json!({
        "_class_name": "UnCLIPPipeline", "decoder_guidance_scale": config::GUIDANCE,
    });
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
        let library = match class {
            // A class of that pipeline's own.
            "UnCLIPTextProjModel" => "unclip",
            _ if class.starts_with("CLIP") => "transformers",
            _ => "diffusers",
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

/// Trains one stage in a folder of its name.
fn train<R: Recipe>(
    args: &Args,
    name: &str,
    recipe: R,
    model: R::Model,
    samples: Arc<dyn Samples<Item = R::Sample>>,
    mut on_save: impl FnMut(&Trainer<R>) -> Done,
) -> Fallible<Trainer<R>> {
    let settings = args.flags.settings(config::settings(name));
    let folder = args.out.join(name);
    args.flags.run(
        &folder,
        recipe,
        model,
        settings,
        samples,
        |trainer, progress| match progress.is_saved {
            true => on_save(trainer),
            false => Ok(()),
        },
    )
}
