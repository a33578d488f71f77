//! Trains a prior on your own captioned pictures or embeddings, further or from nothing.
//!
//! ```sh
//! cargo run --release --features train --example train_prior -- --data pictures --out runs/prior
//! ```

#[path = "support/mod.rs"]
mod support;
mod training;

use std::{error::Error, path::Path, process::ExitCode, sync::Arc};

use clap::Parser;
use indicatif::ProgressIterator;
use serde_json::{Value, json};
use support::{Done, finish};
use training::{Autoregressive, Own};
use unclip::{
    ImageEncoder,
    core::{
        image::to_host,
        json,
        train::{
            EmbeddedCaption, Samples, TrainSettings,
            data::{self, Embeddings, Layout, write_embeddings},
            merged, pictures,
        },
    },
    prior::{
        AutoregressiveTraining, PriorTraining, embedding_statistics, save_autoregressive_prior,
        save_prior,
    },
};

/// Train the prior, which finds image embeddings for captions. --data may also be embeddings of
/// pictures with captions, .npy or .safetensors; of pictures they are computed first, once.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    own: Own,

    /// Train the autoregressive prior instead of the diffusion prior, from nothing.
    #[arg(long)]
    autoregressive: bool,

    /// Share of the samples without caption, for guidance.
    #[arg(long, default_value_t = 0.1)]
    caption_dropout: f32,

    /// Only embed the pictures of this part, counted from 0, into OUT/embeddings_K.safetensors: for
    /// several machines, after which --data OUT trains on all of them.
    #[arg(long, value_name = "K/N", value_parser = parse_part)]
    shard: Option<(usize, usize)>,
}

fn parse_part(text: &str) -> Result<(usize, usize), String> {
    let parsed = text
        .split_once('/')
        .and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((k, n)) if k < n => Ok((k, n)),
        _ => Err("expected K/N with K from 0 to N - 1, such as 3/16".into()),
    }
}

/// Samples that statistics are taken of.
const SOME: usize = 10_000;

fn main() -> ExitCode {
    finish(run(&Cli::parse()))
}

fn run(args: &Cli) -> Done {
    let own = &args.own;
    if let Some((part, parts)) = args.shard {
        return embed(
            own,
            &own.out.join(format!("embeddings_{part:04}.safetensors")),
            part,
            parts,
        );
    }
    let samples = embeddings(own)?;
    let some = (0..samples.len().min(SOME)).filter_map(|i| samples.get(i, 0).ok());
    let some: Vec<EmbeddedCaption> = some.collect();
    match args.autoregressive {
        true => autoregressive(args, samples, &some),
        false => diffusion(args, samples, &some),
    }
}

fn small() -> TrainSettings {
    TrainSettings {
        learning_rate: 3e-4,
        ..TrainSettings::new(20_000, 128)
    }
}

fn diffusion(args: &Cli, samples: Arc<Embeddings>, some: &[EmbeddedCaption]) -> Done {
    let (own, start) = (&args.own, args.own.start());
    let (mut model, config) = start.prior()?;
    if let Some(row) = some
        .first()
        .filter(|row| row.embedding.len() != config.embedding)
    {
        let (found, expected) = (row.embedding.len(), config.embedding);
        return Err(format!(
            "the data's embeddings are {found} wide, the prior's {expected}: give a checkpoint \
             (--from) of the CLIP that made them"
        )
        .into());
    }
    if own.fresh {
        let (mean, deviation) = embedding_statistics(some)?;
        model = model.with_statistics(&mean, deviation);
    }
    let text = Box::new(start.text_encoder()?);
    let recipe = PriorTraining::new(&config, start.process("prior")?, text)
        .with_dropout(args.caption_dropout);
    let settings = own.settings(PriorTraining::paper(), small());
    let model = own.parts(model)?;
    let trainer = own
        .flags
        .run(&own.out, recipe, model, settings, samples, |_, _| Ok(()))?;
    let folder = own.model()?;
    save_prior(
        &merged(trainer.averaged()),
        &config,
        &folder.join("prior"),
        None,
    )?;
    println!("{} is a checkpoint with this prior", folder.display());
    Ok(())
}

fn autoregressive(args: &Cli, samples: Arc<Embeddings>, some: &[EmbeddedCaption]) -> Done {
    let (own, start) = (&args.own, args.own.start());
    let config = start.prior()?.1;
    let new = Autoregressive::new(&start, &config, some, own.flags.seed)?;
    let text = Box::new(start.text_encoder()?);
    let recipe = AutoregressiveTraining::new(new.stage(new.model.clone())?, text)
        .with_dropout(args.caption_dropout);
    let settings = own.settings(AutoregressiveTraining::paper(), small());
    let model = own.parts(new.model.clone())?;
    let trainer = own
        .flags
        .run(&own.out, recipe, model, settings, samples, |_, _| Ok(()))?;
    let folder = own.model()?.join("autoregressive_prior");
    let stage = new.stage(merged(trainer.averaged()))?;
    save_autoregressive_prior(&stage, &new.config, &folder, None)?;
    println!("{} is this prior", folder.display());
    Ok(())
}

/// The data's embeddings; those of pictures are computed and kept in the run's folder.
fn embeddings(own: &Own) -> Result<Arc<Embeddings>, Box<dyn Error>> {
    if data::layout(&own.data)? == Layout::Embeddings {
        return Ok(Arc::new(Embeddings::open(&own.data)?));
    }
    let path = own.out.join("embeddings.safetensors");
    // A run that is resumed has them, if they are of the same pictures by the same encoder.
    let (whose, start) = (path.with_extension("json"), own.start());
    let made_of = json!({
        "data": own.data, "samples": data::open(&own.data)?.len(),
        "from": start.folder, "clip": start.clip,
    });
    let known = json::read::<Value>(&whose).is_ok_and(|known| known == made_of);
    if !(known && path.with_extension("jsonl").exists()) {
        embed(own, &path, 0, 1)?;
        json::write(&whose, &made_of)?;
    }
    Ok(Arc::new(Embeddings::open(&path)?))
}

/// Embeds a part of the pictures into a file.
fn embed(own: &Own, path: &Path, part: usize, parts: usize) -> Done {
    let (samples, encoder) = (data::open(&own.data)?, own.start().image_encoder()?);
    let indices: Vec<usize> = (part..samples.len()).step_by(parts).collect();
    eprintln!("embedding {} pictures", indices.len());
    let mut rows = Vec::with_capacity(indices.len());
    for some in indices.chunks(32).progress() {
        let mut read = Vec::with_capacity(some.len());
        for index in some {
            match samples.get(*index, 0) {
                Ok(sample) => read.push(sample),
                Err(error) => eprintln!("left out: {}: {error}", samples.name(*index)),
            }
        }
        if read.is_empty() {
            continue;
        }
        let found = encoder.encode_images(&pictures(&read))?;
        let [_, width] = found.dims();
        let values = to_host(found, "image encoder")?;
        for (sample, embedding) in read.into_iter().zip(values.chunks(width)) {
            rows.push(EmbeddedCaption {
                embedding: embedding.to_vec(),
                caption: sample.caption,
            });
        }
    }
    if rows.is_empty() {
        return Err(format!("{}: no picture that can be used", own.data.display()).into());
    }
    std::fs::create_dir_all(&own.out)?;
    write_embeddings(path, &rows)?;
    Ok(())
}
