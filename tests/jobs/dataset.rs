//! Synthetic data: stopped and resumed, shared by workers, and what is refused.

use std::{collections::BTreeMap, fs, ops::ControlFlow, path::Path};

use unclip::{Dataset, Error, Job, Settings, TextToImage, UnClip, burn::tensor::Device};

use crate::fixture;

/// The tests' quickest job.
fn quick(job: Job<'_, TextToImage>) -> Job<'_, TextToImage> {
    job.prior_steps(2).decoder_steps(2).without_upsampling()
}

fn dataset<'a>(unclip: &'a UnClip, folder: &Path) -> Dataset<'a> {
    let captions = (0..7).map(|i| format!("caption {i}")).collect();
    Dataset::new(unclip, folder, captions)
        .per_shard(3)
        .batch(2)
        .seed(5)
        .job(quick)
}

/// Every file under its name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|f| f.unwrap());
    files
        .map(|f| {
            let name = f.file_name().to_string_lossy().into_owned();
            (name, fs::read(f.path()).unwrap())
        })
        .collect()
}

#[test]
fn shards_hold_pictures_captions_and_settings() {
    let unclip = UnClip::load(fixture(), &Device::flex()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = dataset(&unclip, folder.path()).run().unwrap();
    assert_eq!((made.shards, made.samples), (3, 7));
    let all = files(folder.path());
    let names: Vec<&str> = all.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["00000.tar", "00001.tar", "00002.tar", "dataset.json"]
    );

    let mut tar = tar::Archive::new(&all["00001.tar"][..]);
    let mut seen = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        seen.insert(name, bytes);
    }
    assert_eq!(seen.len(), 9);
    assert_eq!(seen["000000004.txt"], b"caption 4");
    // A sample can be made again from what stands beside it.
    let about: serde_json::Value = serde_json::from_slice(&seen["000000004.json"]).unwrap();
    let settings: Settings = serde_json::from_value(about["settings"].clone()).unwrap();
    let job = quick(unclip.texts_to_images(&settings.prompts));
    let again = job.seed(about["seed"].as_u64().unwrap()).run().unwrap();
    let row = about["row"].as_u64().unwrap() as usize;
    let stored = unclip::image::load_from_memory(&seen["000000004.png"]).unwrap();
    assert_eq!(again.images[row], stored.to_rgb8());
    assert_eq!(again.prompt(row), Some("caption 4"));
}

#[test]
fn stopped_and_resumed_or_shared_it_makes_the_same_files() {
    let unclip = UnClip::load(fixture(), &Device::flex()).unwrap();
    let whole = tempfile::tempdir().unwrap();
    dataset(&unclip, whole.path()).run().unwrap();
    let expected = files(whole.path());

    let stopped = tempfile::tempdir().unwrap();
    let mut samples = 0;
    for calls in 1.. {
        let once = dataset(&unclip, stopped.path());
        let mut batches = 0;
        let result = once
            .on_sample(|_, _| {
                batches += 1;
                match batches > calls {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })
            .run();
        match result {
            Ok(made) => {
                samples += made.samples;
                break;
            }
            Err(error) => assert!(matches!(error, Error::Cancelled { .. }), "{error}"),
        }
    }
    assert!(samples < 7, "nothing was kept of what was made before");
    assert_eq!(files(stopped.path()), expected);
    // Once more there is nothing to do.
    let again = dataset(&unclip, stopped.path()).run().unwrap();
    assert_eq!((again.shards, again.samples), (3, 0));

    let shared = tempfile::tempdir().unwrap();
    for worker in [1, 0] {
        dataset(&unclip, shared.path())
            .worker(worker, 2)
            .run()
            .unwrap();
    }
    assert_eq!(files(shared.path()), expected);
}

#[test]
fn another_list_a_worker_too_many_and_nothing_to_do_are_refused() {
    let unclip = UnClip::load(fixture(), &Device::flex()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    dataset(&unclip, folder.path()).worker(2, 3).run().unwrap();
    let before = files(folder.path());
    let refused = |data: Dataset<'_>| match data.run() {
        Err(Error::Setting { name, .. }) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(dataset(&unclip, folder.path()).seed(6)), "data set");
    assert_eq!(
        refused(dataset(&unclip, folder.path()).per_shard(0)),
        "samples per shard"
    );
    assert_eq!(refused(dataset(&unclip, folder.path()).batch(0)), "batch");
    assert_eq!(
        refused(dataset(&unclip, folder.path()).worker(3, 3)),
        "worker"
    );
    assert_eq!(
        refused(Dataset::new(&unclip, folder.path(), vec![])),
        "captions"
    );
    assert_eq!(files(folder.path()), before);
}
