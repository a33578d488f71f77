//! Synthetic data: captions → shards of pictures with captions and settings.

use std::{
    fs::{self, File},
    io::BufWriter,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use unclip_core::{
    error::{Error, Result},
    json,
    weights::write_whole,
};

use crate::{Job, TextToImage, UnClip};

/// Makes a data set of pictures in the webdataset format: tar files `00000.tar`, `00001.tar`, …,
/// each sample a `.png`, a `.txt` with the caption and a `.json` with key, seed and settings.
///
/// What is finished is not made again: run the same call again after a stop, and it goes on with the
/// batch it was in. Many machines can share one list, each with its own
/// [`worker`](Self::worker) number; together they make the same shards as one alone.
///
/// ```no_run
/// # fn main() -> Result<(), unclip::Error> {
/// use unclip::{Dataset, UnClip, burn::tensor::Device};
///
/// let unclip = UnClip::load("karlo-v1-alpha", &Device::flex())?;
/// let captions = ["a red cube", "a blue ball"].map(String::from);
/// let made = Dataset::new(&unclip, "data", captions.to_vec())
///     .batch(8)
///     .worker(0, 4)
///     .job(|job| job.decoder_steps(50))
///     .run()?;
/// println!("{} samples are new", made.samples);
/// # Ok(()) }
/// ```
#[must_use = "call `run`"]
pub struct Dataset<'a> {
    unclip: &'a UnClip,
    folder: PathBuf,
    captions: Vec<String>,
    per_shard: usize,
    batch: usize,
    worker: (usize, usize),
    seed: u64,
    configure: Configure<'a>,
    watch: Watch<'a>,
}

type Configure<'a> = Box<dyn Fn(Job<'a, TextToImage>) -> Job<'a, TextToImage> + 'a>;
type Watch<'a> = Box<dyn FnMut(usize, usize) -> ControlFlow<()> + 'a>;

/// What a call of [`Dataset::run`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// Shards of this worker that are complete now.
    pub shards: usize,
    /// Samples that were made by this call.
    pub samples: usize,
}

impl<'a> Dataset<'a> {
    /// A data set of `captions` in `folder`, which is made.
    pub fn new(unclip: &'a UnClip, folder: impl AsRef<Path>, captions: Vec<String>) -> Self {
        Self {
            unclip,
            folder: folder.as_ref().to_owned(),
            captions,
            per_shard: 1000,
            batch: 1,
            worker: (0, 1),
            seed: 0,
            configure: Box::new(|job| job),
            watch: Box::new(|_, _| ControlFlow::Continue(())),
        }
    }

    /// Samples in a shard. Default: 1000.
    pub fn per_shard(mut self, samples: usize) -> Self {
        self.per_shard = samples;
        self
    }

    /// Pictures made together; each batch has a seed of its own. Default: 1.
    pub fn batch(mut self, pictures: usize) -> Self {
        self.batch = pictures;
        self
    }

    /// Makes only the shards whose number leaves `index` when divided by `count`.
    pub fn worker(mut self, index: usize, count: usize) -> Self {
        self.worker = (index, count);
        self
    }

    /// Seed of the first sample; a batch has this plus the number of its first sample. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Settings for every job: steps, guidance, size. Prompts, seed and count are the data set's.
    pub fn job(
        mut self,
        configure: impl Fn(Job<'a, TextToImage>) -> Job<'a, TextToImage> + 'a,
    ) -> Self {
        self.configure = Box::new(configure);
        self
    }

    /// Called with the samples done and to do, of this worker; `ControlFlow::Break(())` stops after
    /// the batch, and nothing that was made is lost.
    pub fn on_sample(mut self, watch: impl FnMut(usize, usize) -> ControlFlow<()> + 'a) -> Self {
        self.watch = Box::new(watch);
        self
    }

    /// Makes what is missing.
    ///
    /// # Errors
    /// [`Error::Setting`] for counts of 0, no captions, a worker that does not exist, or a folder
    /// that was begun with another list; [`Error::Cancelled`]; what a job or writing gives.
    pub fn run(mut self) -> Result<Made> {
        let (index, count) = self.worker;
        for (name, value) in [
            ("samples per shard", self.per_shard),
            ("batch", self.batch),
            ("captions", self.captions.len()),
        ] {
            if value == 0 {
                return Err(Error::setting(name, 0, "at least 1 is needed"));
            }
        }
        if index >= count {
            let expected = format!("0 to {}, of {count} workers", count.saturating_sub(1));
            return Err(Error::setting("worker", index, expected));
        }
        make_folder(&self.folder)?;
        self.check_list()?;
        let captions = std::mem::take(&mut self.captions);
        let shards: Vec<_> = captions
            .chunks(self.per_shard)
            .enumerate()
            .skip(index)
            .step_by(count)
            .collect();
        let total = shards.iter().map(|(_, captions)| captions.len()).sum();
        let (mut done, mut made) = (0, Made::default());
        for (shard, captions) in shards {
            let path = self.folder.join(format!("{shard:05}.tar"));
            if !path.exists() {
                self.fill(shard, captions, done, total, &mut made)?;
                pack(&path, &part(&self.folder, shard))?;
            }
            done += captions.len();
            made.shards += 1;
        }
        Ok(made)
    }

    /// Writes what the folder is for, or compares with what was written.
    fn check_list(&self) -> Result<()> {
        let list = List {
            captions: self.captions.len(),
            fingerprint: format!("{:016x}", fingerprint(&self.captions)),
            per_shard: self.per_shard,
            batch: self.batch,
            seed: self.seed,
        };
        let path = self.folder.join("dataset.json");
        if !path.exists() {
            let text = serde_json::to_vec_pretty(&list).unwrap_or_default();
            return write_whole(&path, &text);
        }
        let begun: List = json::read(&path)?;
        if begun != list {
            let expected = format!(
                "{begun:?}, with which {} was begun: take these, or another folder",
                self.folder.display()
            );
            return Err(Error::setting("data set", format!("{list:?}"), expected));
        }
        Ok(())
    }

    /// Makes a shard's samples as files of a folder.
    fn fill(
        &mut self,
        shard: usize,
        captions: &[String],
        done: usize,
        total: usize,
        made: &mut Made,
    ) -> Result<()> {
        let folder = part(&self.folder, shard);
        make_folder(&folder)?;
        for (i, captions) in captions.chunks(self.batch).enumerate() {
            let first = shard * self.per_shard + i * self.batch;
            let path = |sample: usize, kind: &str| folder.join(format!("{sample:09}.{kind}"));
            // The last file of a sample is its .json.
            let is_done = (first..first + captions.len()).all(|n| path(n, "json").exists());
            if !is_done {
                let seed = self.seed + first as u64;
                let job = self.unclip.texts_to_images(captions);
                let output = (self.configure)(job).images(1).seed(seed).run()?;
                for (row, caption) in captions.iter().enumerate() {
                    let sample = first + row;
                    output.save(row, path(sample, "png"))?;
                    write_whole(&path(sample, "txt"), caption.as_bytes())?;
                    let about = serde_json::json!({
                        "key": format!("{sample:09}"), "caption": caption, "seed": seed,
                        "row": row, "settings": output.settings,
                    });
                    write_whole(&path(sample, "json"), about.to_string().as_bytes())?;
                }
                made.samples += captions.len();
            }
            let done = done + i * self.batch + captions.len();
            if (self.watch)(done, total).is_break() {
                return Err(Error::Cancelled {
                    stage: "data set".into(),
                    step: done,
                    steps: total,
                });
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Dataset<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset")
            .field("folder", &self.folder)
            .field("captions", &self.captions.len())
            .field("worker", &self.worker)
            .finish_non_exhaustive()
    }
}

/// What the samples of a folder follow from, with the job's settings.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct List {
    captions: usize,
    fingerprint: String,
    per_shard: usize,
    batch: usize,
    seed: u64,
}

/// FNV-1a over all captions, each with an end.
fn fingerprint(captions: &[String]) -> u64 {
    let bytes = captions
        .iter()
        .flat_map(|c| c.bytes().chain(std::iter::once(0)));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Where a shard's samples lie until it is complete.
fn part(folder: &Path, shard: usize) -> PathBuf {
    folder.join(format!("{shard:05}.part"))
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| Error::io(folder, e, "cannot be made"))
}

/// A tar file of a folder's files in order of their names, complete or not there; the folder goes.
///
/// Nothing in it depends on when or by whom it was made.
fn pack(path: &Path, folder: &Path) -> Result<()> {
    let temporary = path.with_extension("tar.tmp");
    let io = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let write = || -> std::io::Result<()> {
        let mut files = fs::read_dir(folder)?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<std::io::Result<Vec<_>>>()?;
        files.retain(|file| file.extension().is_none_or(|kind| kind != "tmp"));
        files.sort();
        let mut tar = tar::Builder::new(BufWriter::new(File::create(&temporary)?));
        for file in files {
            let bytes = fs::read(&file)?;
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            let name = file.file_name().unwrap_or_default();
            tar.append_data(&mut header, name, &bytes[..])?;
        }
        let file = tar.into_inner()?.into_inner()?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        // Best effort: the error that matters is the one before.
        let _ = fs::remove_file(&temporary);
    }
    written.map_err(io)?;
    fs::remove_dir_all(folder).map_err(io)
}
