//! More pictures made than are wanted, of which CLIP chooses.

use burn::tensor::{Int, Tensor, TensorData};
use image::DynamicImage;
use unclip_core::{
    error::{Error, Result},
    image::{to_host, to_images},
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
        let pictures: Vec<DynamicImage> = to_images(small.clone())?
            .into_iter()
            .map(DynamicImage::from)
            .collect();
        let seen = rows(self.embed(&pictures)?)?;
        let texts = rows(encoded.text.embedding.clone())?;
        let asked = rows(image_embedding.clone())?;
        let per_prompt = pictures.len() / prompts.len().max(1);
        let similarities = seen.iter().enumerate().map(|(row, seen)| {
            let target = match prompts[row / per_prompt].is_empty() {
                true => &asked[row],
                false => &texts[row],
            };
            cosine(seen, target)
        });
        let similarities = similarities.collect::<Result<Vec<f32>>>()?;
        let best = best_rows(&similarities, self.candidates);
        let index: Vec<i64> = best.iter().map(|row| *row as i64).collect();
        let index = TensorData::new(index, [best.len()]);
        let of = |device| Tensor::<1, Int>::from_data(index.clone(), device);
        Ok(Kept {
            small: small.clone().select(0, of(&small.device())),
            image_embedding: image_embedding
                .clone()
                .select(0, of(&image_embedding.device())),
            similarities: best.iter().map(|row| similarities[*row]).collect(),
        })
    }
}

fn rows(embeddings: Tensor<2>) -> Result<Vec<Vec<f32>>> {
    let width = embeddings.dims()[1];
    let values = to_host(embeddings, "CLIP embeddings")?;
    Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> Result<f32> {
    if a.len() != b.len() {
        let expected = format!("[{}], the image encoder's width", a.len());
        return Err(Error::shape(
            "the embedding that candidates are compared with",
            &[b.len()],
            expected,
        ));
    }
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    // Of nothing (no caption, and no prior) nothing is near.
    let norms = (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE);
    Ok(dot(a, b) / norms)
}

/// The row with the largest value in each group; the first of equals.
fn best_rows(values: &[f32], group: usize) -> Vec<usize> {
    let groups = values.chunks(group).enumerate();
    groups
        .map(|(i, values)| {
            let best = (0..values.len())
                .rev()
                .max_by(|a, b| values[*a].total_cmp(&values[*b]));
            i * group + best.unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_is_kept_in_each_group() {
        let values = [0.1, 0.3, 0.2, 0.5, 0.5, -1.0];
        assert_eq!(best_rows(&values, 3), [1, 3]);
        assert_eq!(best_rows(&values, 1), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn a_cosine_needs_equal_widths_and_survives_zeros() {
        assert!((cosine(&[3.0, 4.0], &[6.0, 8.0]).unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]).unwrap(), 0.0);
        assert!(matches!(
            cosine(&[1.0], &[1.0, 2.0]),
            Err(Error::Shape { .. })
        ));
    }
}
