//! Pictures with captions, what most recipes learn from.

use burn::tensor::{Device, Tensor, TensorData};
use image::{
    DynamicImage, RgbImage,
    imageops::{FilterType, crop_imm, resize},
};

use super::inputs::{Given, Inputs};
use crate::{
    error::{Error, Result},
    image::to_host,
    stage::TextEncoding,
};

/// A picture and what it shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Captioned {
    /// The picture, of any size.
    pub picture: RgbImage,
    /// Its caption.
    pub caption: String,
}

/// A CLIP image embedding in CLIP's own units, and the caption of its picture.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddedCaption {
    /// The embedding.
    pub embedding: Vec<f32>,
    /// The caption.
    pub caption: String,
}

/// The middle square of a picture at `size` × `size`.
pub fn square(picture: &RgbImage, size: usize) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = width.min(height).max(1);
    let crop = crop_imm(picture, (width - side) / 2, (height - side) / 2, side, side);
    match side as usize == size {
        true => crop.to_image(),
        false => resize(
            &crop.to_image(),
            size as u32,
            size as u32,
            FilterType::CatmullRom,
        ),
    }
}

/// Values in [-1, 1], channel by channel.
pub fn pixel_values(picture: &RgbImage) -> Vec<f32> {
    let pixels = picture.as_raw().chunks_exact(3);
    let mut values = Vec::with_capacity(picture.as_raw().len());
    for channel in 0..3 {
        let bytes = pixels.clone().map(|pixel| pixel[channel]);
        values.extend(bytes.map(|byte| f32::from(byte) / 127.5 - 1.0));
    }
    values
}

/// The pictures as encoders take them.
pub fn pictures(samples: &[Captioned]) -> Vec<DynamicImage> {
    samples.iter().map(|s| s.picture.clone().into()).collect()
}

/// Rows of equal length, one for each example, as a tensor of `[rows, ..shape]`.
///
/// # Errors
/// [`Error::Shape`] if a row has another length.
pub fn stack<'a, const D: usize>(
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
    shape: &[usize],
    device: &Device,
) -> Result<Tensor<D>> {
    let (count, length) = (rows.len(), shape.iter().product::<usize>());
    let mut values = Vec::with_capacity(count * length);
    for row in rows {
        if row.len() != length {
            let expected = format!("{length} values: {shape:?}");
            return Err(Error::shape("an example's values", &[row.len()], expected));
        }
        values.extend_from_slice(row);
    }
    let shape: Vec<usize> = std::iter::once(count)
        .chain(shape.iter().copied())
        .collect();
    Ok(Tensor::from_data(TensorData::new(values, shape), device))
}

/// One row of a [`TextEncoding`] on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct TextRow {
    /// The text's embedding.
    pub embedding: Vec<f32>,
    /// Its tokens, one after the other.
    pub tokens: Vec<f32>,
    /// Which of them count.
    pub mask: Vec<bool>,
}

impl TextRow {
    /// The rows of an encoding.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn of(encoding: &TextEncoding) -> Result<Vec<Self>> {
        let [rows, count, width] = encoding.tokens.dims();
        let embeddings = to_host(encoding.embedding.clone(), "text encoder")?;
        let tokens = to_host(encoding.tokens.clone(), "text encoder")?;
        let mask: Vec<bool> = encoding.mask.clone().into_data().iter::<bool>().collect();
        Ok(embeddings
            .chunks(embeddings.len() / rows.max(1))
            .zip(tokens.chunks(count * width))
            .zip(mask.chunks(count))
            .map(|((embedding, tokens), mask)| Self {
                embedding: embedding.to_vec(),
                tokens: tokens.to_vec(),
                mask: mask.to_vec(),
            })
            .collect())
    }

    /// Puts rows together to a loss's inputs; [`given`](Self::given) has them back.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows differ in length.
    pub fn put(inputs: &mut Inputs, rows: &[&Self]) -> Result<()> {
        let Some(first) = rows.first() else {
            return Err(Error::shape("the captions", &[0], "at least one"));
        };
        let (width, count) = (first.embedding.len(), first.mask.len());
        let tokens = first.tokens.len() / count.max(1);
        let masks: Vec<Vec<f32>> = rows
            .iter()
            .map(|row| row.mask.iter().map(|is| f32::from(u8::from(*is))).collect())
            .collect();
        let of_each = |of: fn(&Self) -> &[f32]| rows.iter().map(move |row| of(row));
        inputs.put_rows("text embedding", &[width], of_each(|row| &row.embedding))?;
        inputs.put_rows("tokens", &[count, tokens], of_each(|row| &row.tokens))?;
        inputs.put_rows("mask", &[count], masks.iter().map(|mask| &mask[..]))
    }

    /// The encoding of what [`put`](Self::put) put there.
    ///
    /// # Errors
    /// [`Error::Shape`] if it is not there.
    pub fn given(given: &Given) -> Result<TextEncoding> {
        Ok(TextEncoding {
            embedding: given.get("text embedding")?,
            tokens: given.get("tokens")?,
            mask: given.get_bool("mask")?,
        })
    }

    /// Rows together again.
    ///
    /// # Errors
    /// [`Error::Shape`] if rows differ in length.
    pub fn stack(rows: &[&Self], device: &Device) -> Result<TextEncoding> {
        let mut inputs = Inputs::default();
        Self::put(&mut inputs, rows)?;
        Self::given(&inputs.on(device))
    }
}
