//! Every recipe on every source of data, and the trainer on data with broken samples.

use std::{fs, ops::ControlFlow, path::Path, sync::Arc};

use unclip::{
    Error,
    burn::tensor::Device,
    core::train::{
        Captioned, EmbeddedCaption, Recipe, Samples, TrainSettings, Trainer,
        data::{Embeddings, InMemory, open, write_embeddings},
        frozen, merged, with_lora,
    },
};

use crate::{clip, decoder, discs, prior, saving::values, upsampler};

fn png(sample: &Captioned) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let format = unclip::image::ImageFormat::Png;
    sample.picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// The same discs in a folder, a list and shards; some of them broken.
fn write_all(root: &Path, count: usize) -> Vec<std::path::PathBuf> {
    let names = ["beside", "csv", "jsonl", "shards"];
    let folders: Vec<_> = names.iter().map(|name| root.join(name)).collect();
    for folder in &folders {
        fs::create_dir_all(folder).unwrap();
    }
    let mut tar = tar::Builder::new(fs::File::create(folders[3].join("00000.tar")).unwrap());
    let (mut csv, mut jsonl) = (String::from("image,text\n"), String::new());
    for (i, sample) in discs(count, 32).iter().enumerate() {
        let bytes = if i % 7 == 3 {
            b"broken".to_vec()
        } else {
            png(sample)
        };
        let (name, caption) = (format!("{i:03}.png"), &sample.caption);
        for folder in &folders[..3] {
            fs::write(folder.join(&name), &bytes).unwrap();
        }
        fs::write(folders[0].join(format!("{i:03}.txt")), caption).unwrap();
        csv += &format!("{name},{caption}\n");
        jsonl += &format!("{{\"file_name\": \"{name}\", \"text\": \"{caption}\"}}\n");
        for (name, bytes) in [
            (name, &bytes[..]),
            (format!("{i:03}.txt"), caption.as_bytes()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes).unwrap();
        }
    }
    tar.finish().unwrap();
    fs::write(folders[1].join("captions.csv"), csv).unwrap();
    fs::write(folders[2].join("metadata.jsonl"), jsonl).unwrap();
    folders
}

fn settings(steps: usize) -> TrainSettings {
    TrainSettings {
        save_every: 2,
        ..TrainSettings::new(steps, 4)
    }
}

/// Trains until `until` in `folder`, going on where it was.
fn run<R: Recipe>(
    recipe: R,
    model: R::Model,
    samples: Arc<dyn Samples<Item = R::Sample>>,
    folder: &Path,
    settings: TrainSettings,
    until: usize,
) -> Trainer<R> {
    let mut trainer = Trainer::new(recipe, model, settings, &[Device::flex()]).unwrap();
    trainer.resume(folder).unwrap();
    let done = trainer.run(samples, folder, |trainer, _| {
        match trainer.step() >= until {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    assert!(
        matches!(done, Ok(()) | Err(Error::Cancelled { .. })),
        "{done:?}"
    );
    trainer
}

fn two_steps<R: Recipe>(
    recipe: R,
    model: R::Model,
    samples: Arc<dyn Samples<Item = R::Sample>>,
) -> Vec<(String, f64)> {
    let folder = tempfile::tempdir().unwrap();
    run(recipe, model, samples, folder.path(), settings(2), 2);
    let rows = unclip::core::train::read_log(&folder.path().join("log.csv")).unwrap();
    assert_eq!(rows.len(), 2);
    rows.iter()
        .map(|row| (row.step.to_string(), row.loss))
        .collect()
}

#[test]
fn every_recipe_trains_on_every_source() {
    let root = tempfile::tempdir().unwrap();
    let mut losses = Vec::new();
    for folder in write_all(root.path(), 12) {
        let samples = || open(&folder).unwrap();
        losses.push([
            two_steps(clip::recipe(), clip::model(), samples()),
            two_steps(decoder::recipe(3), decoder::model(3, &[]), samples()),
            two_steps(upsampler::recipe(), upsampler::network(), samples()),
        ]);
    }
    // The data are the same, and so is the order.
    for other in &losses {
        assert!(other.iter().flatten().all(|(_, loss)| loss.is_finite()));
        assert_eq!(*other, losses[0]);
    }
}

#[test]
fn the_priors_train_on_embeddings_of_every_kind() {
    let root = tempfile::tempdir().unwrap();
    let samples = prior::samples(9);
    let path = root.path().join("embeddings_0.safetensors");
    write_embeddings(&path, &samples).unwrap();
    let read = || -> Arc<dyn Samples<Item = EmbeddedCaption>> {
        Arc::new(Embeddings::open(root.path()).unwrap())
    };
    let held =
        || -> Arc<dyn Samples<Item = EmbeddedCaption>> { Arc::new(InMemory(samples.clone())) };
    let diffusion = |data| two_steps(prior::recipe(), prior::model(&samples), data);
    assert_eq!(diffusion(read()), diffusion(held()));
    let autoregressive = |data| {
        let (recipe, network) = prior::autoregressive(&samples);
        two_steps(recipe, network, data)
    };
    assert_eq!(autoregressive(read()), autoregressive(held()));
}

#[test]
fn a_run_with_broken_samples_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let folder = &write_all(root.path(), 12)[0];
    let stopped_at = |stops: &[usize]| {
        let out = tempfile::tempdir().unwrap();
        let mut last = None;
        for stop in stops {
            let samples = open(folder).unwrap();
            let (recipe, network) = (upsampler::recipe(), upsampler::network());
            last = Some(run(
                recipe,
                network,
                samples,
                out.path(),
                settings(7),
                *stop,
            ));
        }
        let trainer = last.unwrap();
        let names: Vec<_> = trainer.broken().iter().map(|b| b.name.clone()).collect();
        (values(&trainer.averaged()), names)
    };
    let whole = stopped_at(&[7]);
    assert_eq!(stopped_at(&[1, 3, 4, 7]), whole);
    let mut names = whole.1;
    names.sort();
    assert_eq!(names, ["003.png", "010.png"]);

    let few = TrainSettings {
        max_broken: 1,
        ..settings(7)
    };
    let (recipe, network) = (upsampler::recipe(), upsampler::network());
    let mut trainer = Trainer::new(recipe, network, few, &[Device::flex()]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let done = trainer.run(open(folder).unwrap(), out.path(), |_, _| {
        ControlFlow::Continue(())
    });
    assert!(done.unwrap_err().to_string().contains("see max_broken"));
}

#[test]
fn low_rank_changes_are_trained_resumed_and_merged() {
    let samples = || -> Arc<dyn Samples<Item = Captioned>> { Arc::new(InMemory(discs(4, 16))) };
    let adapted = || with_lora(decoder::model(3, &[]), 2, 5, &[]).unwrap();
    let before = values(&merged(adapted()));
    assert_eq!(before, values(&decoder::model(3, &[])));
    let stopped_at = |stops: &[usize]| {
        let out = tempfile::tempdir().unwrap();
        let mut last = None;
        for stop in stops {
            let recipe = decoder::recipe(3);
            last = Some(run(
                recipe,
                adapted(),
                samples(),
                out.path(),
                settings(5),
                *stop,
            ));
        }
        values(&merged(last.unwrap().averaged()))
    };
    let after = stopped_at(&[5]);
    assert_eq!(stopped_at(&[2, 3, 5]), after);
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    let changed: Vec<_> = before
        .iter()
        .filter(|(name, v)| after[*name] != **v)
        .collect();
    assert!(!changed.is_empty());
    for (name, (shape, _)) in changed {
        assert!(shape.len() == 2 && name.ends_with("weight"), "{name}");
    }
    assert!(with_lora(decoder::model(3, &[]), 0, 5, &[]).is_err());
    assert!(with_lora(decoder::model(3, &[]), 2, 5, &["nothing.*"]).is_err());
}

#[test]
fn frozen_parameters_stay_as_they_are() {
    let start = || decoder::model(3, &[]);
    let model = frozen(start(), &["unet.*"]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let samples = Arc::new(InMemory(discs(4, 16)));
    let trainer = run(
        decoder::recipe(3),
        model,
        samples,
        out.path(),
        settings(3),
        3,
    );
    let (before, after) = (values(&start()), values(&trainer.averaged()));
    for (name, value) in &before {
        assert!(
            !name.starts_with("unet.") || after[name] == *value,
            "{name}"
        );
    }
    assert_ne!(before, after);
    let message = frozen(start(), &["unet.*", "typo*"])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("typo*") && message.contains("projection."),
        "{message}"
    );
    assert!(frozen(start(), &["*"]).is_err());
}
