//! More pictures made than are wanted, of which CLIP chooses.

use burn::tensor::Tensor;
use image::DynamicImage;
use unclip_core::{
    error::Result,
    image::to_images,
    nearest::{best_rows, row_cosines, row_index},
};

use super::chain::{Chain, Encoded};

/// What is kept of the decoder's pictures.
pub(super) struct Kept {
    pub small: Tensor<4>,
    pub image_embedding: Tensor<2>,
    /// Cosine of each kept picture's embedding with what it was asked for.
    pub similarities: Vec<f32>,
}

impl Chain<'_> {
    /// Of each `candidates` pictures next to each other keeps the one nearest to its prompt or, where
    /// that is empty, to the image embedding it was made from.
    pub(super) fn choose(
        &mut self,
        prompts: &[String],
        encoded: &Encoded,
        image_embedding: Tensor<2>,
        small: Tensor<4>,
    ) -> Result<Kept> {
        if self.candidates == 1 {
            return Ok(Kept {
                small,
                image_embedding,
                similarities: Vec::new(),
            });
        }
        let pictures = to_images(small.clone())?.into_iter();
        let pictures: Vec<DynamicImage> = pictures.map(DynamicImage::from).collect();
        let seen = self.embed(&pictures)?;
        let to_text = row_cosines(seen.clone(), encoded.text.embedding.clone())?;
        let to_image = row_cosines(seen, image_embedding.clone())?;
        let per_prompt = to_text.len() / prompts.len().max(1);
        let is_empty = prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt.is_empty(), per_prompt));
        let similarities: Vec<f32> = is_empty
            .zip(to_text.into_iter().zip(to_image))
            .map(|(is_empty, (text, image))| if is_empty { image } else { text })
            .collect();
        let best = best_rows(&similarities, self.candidates);
        let index = |device| row_index(&best, device);
        Ok(Kept {
            similarities: best.iter().map(|row| similarities[*row]).collect(),
            small: small.clone().select(0, index(&small.device())),
            image_embedding: image_embedding
                .clone()
                .select(0, index(&image_embedding.device())),
        })
    }
}
