//! What a job gives back.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use unclip_clip::tokenizer::Exclamation;
use unclip_core::{
    error::{Error, Result},
    image::{contact_sheet, save_png},
    stage::StageSettings,
    weights::Precision,
};

/// Everything that is needed to make a picture again, with the same checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Version of this crate.
    pub version: String,
    /// Name of the job.
    pub job: String,
    /// Name of the checkpoint's folder.
    pub checkpoint: Option<String>,
    /// Types of the checkpoint's weights and arithmetic.
    pub precision: Precision,
    /// How "!" was read by the checkpoint's tokenizer.
    pub exclamation: Exclamation,
    /// The prompts, in order.
    pub prompts: Vec<String>,
    /// What guidance leads away from.
    pub negative_prompt: String,
    /// Pictures of each prompt.
    pub images: usize,
    /// Pictures made for each that was kept.
    #[serde(default = "one")]
    pub candidates: usize,
    /// Seed of the noise; none if noise of one's own was given.
    pub seed: Option<u64>,
    /// The prior's settings; none if image embeddings were given.
    pub prior: Option<StageSettings>,
    /// The decoder's settings.
    pub decoder: StageSettings,
    /// The upsamplers' settings; none if the job stopped before.
    pub upsamplers: Vec<StageSettings>,
    /// What else the job was told.
    #[serde(default)]
    pub details: serde_json::Value,
}

/// Candidates in settings written before there were any.
fn one() -> usize {
    1
}

/// The pictures of a job, with what lies between the stages.
#[derive(Debug)]
pub struct Output {
    /// Finished pictures: all of the first prompt, then all of the second, and so on.
    pub images: Vec<RgbImage>,
    /// The same as values in [-1, 1], `[b, 3, h, w]`.
    pub pixels: Tensor<4>,
    /// The decoder's pictures, in [-1, 1].
    pub small: Tensor<4>,
    /// The image embeddings the decoder was given, `[b, d]`.
    pub image_embeddings: Tensor<2>,
    /// Cosine of each picture's CLIP embedding, at the decoder's size, with what it was chosen for;
    /// empty without [`candidates`](crate::Job::candidates).
    pub similarities: Vec<f32>,
    /// How it was made.
    pub settings: Settings,
}

impl Output {
    /// The prompt of the picture at `index`.
    pub fn prompt(&self, index: usize) -> Option<&str> {
        let prompts = &self.settings.prompts;
        prompts
            .get(index / self.settings.images.max(1))
            .map(String::as_str)
    }

    /// Writes the picture at `index` as PNG, with its prompt and the settings in text chunks.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such picture, or what writing gives.
    pub fn save(&self, index: usize, path: impl AsRef<Path>) -> Result<()> {
        let Some(image) = self.images.get(index) else {
            let expected = format!("there are {} pictures", self.images.len());
            return Err(Error::setting("index", index, expected));
        };
        let prompt = self.prompt(index).unwrap_or_default();
        let index = index.to_string();
        let settings = self.settings_json();
        save_png(
            image,
            path.as_ref(),
            &[
                ("Description", prompt),
                ("unclip-index", &index),
                ("unclip", &settings),
            ],
        )
    }

    /// Writes every picture as `NAME-0.png`, `NAME-1.png`, … into `folder`, which is made.
    ///
    /// # Errors
    /// What writing gives.
    pub fn save_all(&self, folder: impl AsRef<Path>, name: &str) -> Result<Vec<PathBuf>> {
        let folder = folder.as_ref();
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e, "cannot be made"))?;
        (0..self.images.len())
            .map(|i| {
                let path = folder.join(format!("{name}-{i}.png"));
                self.save(i, &path)?;
                Ok(path)
            })
            .collect()
    }

    /// Writes all pictures in one, `columns` to a row.
    ///
    /// # Errors
    /// What writing gives.
    pub fn save_contact_sheet(&self, path: impl AsRef<Path>, columns: usize) -> Result<()> {
        let sheet = contact_sheet(&self.images, columns, 4);
        save_png(&sheet, path.as_ref(), &[("unclip", &self.settings_json())])
    }

    fn settings_json(&self) -> String {
        // Plain strings and numbers: there is nothing in it that JSON cannot hold.
        serde_json::to_string(&self.settings).unwrap_or_default()
    }
}
