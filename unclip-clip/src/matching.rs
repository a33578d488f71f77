//! Matching pictures with texts, which is what CLIP was trained for (arXiv 2103.00020, section
//! 3.1).

use std::fmt;

use burn::tensor::Tensor;
use image::DynamicImage;
use unclip_core::{
    error::{Error, Result},
    image::to_host,
    stage::{ImageEncoder, TextEncoder},
};

use crate::contrastive::{cosine_similarity, normalize};

/// The factor on cosines with which OpenAI's models ended, the most that training allows.
pub const OPENAI_LOGIT_FACTOR: f32 = 100.0;

/// Sentences for zero-shot classification; `{}` is the class.
pub const PHOTO_TEMPLATES: [&str; 7] = [
    "a photo of a {}.",
    "a close-up photo of a {}.",
    "a blurry photo of a {}.",
    "a photo of one {} among other things.",
    "a drawing of a {}.",
    "a painting of a {}.",
    "a picture of a small {}.",
];

/// Texts that go through the text encoder together.
const TEXT_BATCH: usize = 64;
/// Pictures that go through the image encoder together.
const IMAGE_BATCH: usize = 16;

/// One of the things that were compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// Its place in the list that was given.
    pub index: usize,
    /// Cosine of the two embeddings, -1 to 1. CLIP's lie close together: 0.3 is a good match.
    pub cosine: f32,
    /// The softmax of factor · cosine over the list: how likely this one is if one of the list is
    /// right. In a list of one it is 1.
    pub probability: f32,
}

/// A text and an image encoder of one embedding space.
///
/// The encoders may be any: CLIP's own (see [`ClipEncoders`](crate::ClipEncoders), which reads a
/// folder), one stage of a pipeline and one read beside it, or others of yours.
#[derive(Clone, Copy)]
pub struct Matcher<'a> {
    text: &'a dyn TextEncoder,
    image: &'a dyn ImageEncoder,
    logit_factor: f32,
}

impl fmt::Debug for Matcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matcher")
            .field("logit_factor", &self.logit_factor)
            .finish_non_exhaustive()
    }
}

impl<'a> Matcher<'a> {
    /// A matcher with the factor of OpenAI's models.
    pub fn new(text: &'a dyn TextEncoder, image: &'a dyn ImageEncoder) -> Self {
        Self {
            text,
            image,
            logit_factor: OPENAI_LOGIT_FACTOR,
        }
    }

    /// The model's own factor on cosines, exp(logit_scale). It sharpens probabilities and moves
    /// no ranking.
    pub fn with_logit_factor(self, logit_factor: f32) -> Self {
        Self {
            logit_factor,
            ..self
        }
    }

    /// Embeddings of `texts`, scaled to length 1, `[texts, d]`.
    ///
    /// # Errors
    /// [`Error::Setting`] without texts, and those of the encoder.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Tensor<2>> {
        embed(texts, "texts", TEXT_BATCH, |batch| {
            Ok(self.text.encode_text(batch)?.embedding)
        })
    }

    /// Embeddings of `images`, scaled to length 1, `[images, d]`.
    ///
    /// # Errors
    /// [`Error::Setting`] without pictures, and those of the encoder.
    pub fn embed_images(&self, images: &[DynamicImage]) -> Result<Tensor<2>> {
        embed(images, "pictures", IMAGE_BATCH, |batch| {
            self.image.encode_images(batch)
        })
    }

    /// Cosine of each picture with each text: a row for each picture.
    ///
    /// # Errors
    /// [`Error::Setting`] without pictures or texts, [`Error::Shape`] if the encoders are not of
    /// one space, [`Error::NotFinite`], and those of the encoders.
    pub fn image_text_similarity(
        &self,
        images: &[DynamicImage],
        texts: &[&str],
    ) -> Result<Vec<Vec<f32>>> {
        let texts = self.embed_texts(texts)?;
        cosines(self.embed_images(images)?, texts)
    }

    /// The captions of a picture, the best first.
    ///
    /// # Errors
    /// As [`image_text_similarity`](Self::image_text_similarity).
    pub fn rank_captions(&self, image: &DynamicImage, captions: &[&str]) -> Result<Vec<Match>> {
        let rows = self.image_text_similarity(std::slice::from_ref(image), captions)?;
        Ok(self.rank(rows.into_iter().flatten()))
    }

    /// The pictures of a caption, the best first.
    ///
    /// # Errors
    /// As [`image_text_similarity`](Self::image_text_similarity).
    pub fn rank_images(&self, caption: &str, images: &[DynamicImage]) -> Result<Vec<Match>> {
        let rows = self.image_text_similarity(images, &[caption])?;
        Ok(self.rank(rows.into_iter().flatten()))
    }

    /// An embedding for each class, scaled to length 1, `[classes, d]`: the mean of the
    /// embeddings of all templates with the class in place of `{}`.
    ///
    /// # Errors
    /// [`Error::Setting`] without classes, without templates or for a template without `{}`; and
    /// those of the encoder.
    pub fn embed_classes(&self, classes: &[&str], templates: &[&str]) -> Result<Tensor<2>> {
        if classes.is_empty() {
            return Err(Error::setting("classes", 0, "at least 1 is needed"));
        }
        if templates.is_empty() {
            return Err(Error::setting("templates", 0, "at least 1 is needed"));
        }
        if let Some(template) = templates.iter().find(|template| !template.contains("{}")) {
            let expected = "the place of the class is missing, as in \"a photo of a {}.\"";
            return Err(Error::setting("template", template, expected));
        }
        let mut embeddings = Vec::with_capacity(classes.len());
        // A class after the other: no more texts in memory than there are templates.
        for class in classes {
            let texts: Vec<String> = templates
                .iter()
                .map(|template| template.replace("{}", class))
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            embeddings.push(normalize(self.embed_texts(&texts)?.mean_dim(0)));
        }
        Ok(Tensor::cat(embeddings, 0))
    }

    /// For each picture the classes of [`embed_classes`](Self::embed_classes), the best first.
    ///
    /// # Errors
    /// As [`image_text_similarity`](Self::image_text_similarity).
    pub fn classify(
        &self,
        images: &[DynamicImage],
        class_embeddings: Tensor<2>,
    ) -> Result<Vec<Vec<Match>>> {
        self.classify_embeddings(self.embed_images(images)?, class_embeddings)
    }

    /// The same for pictures that are embedded already, a row each.
    ///
    /// # Errors
    /// [`Error::Shape`] if the embeddings are not of one space, [`Error::NotFinite`].
    pub fn classify_embeddings(
        &self,
        image_embeddings: Tensor<2>,
        class_embeddings: Tensor<2>,
    ) -> Result<Vec<Vec<Match>>> {
        let rows = cosines(image_embeddings, class_embeddings)?;
        Ok(rows.into_iter().map(|row| self.rank(row)).collect())
    }

    fn rank(&self, cosines: impl IntoIterator<Item = f32>) -> Vec<Match> {
        let mut found: Vec<Match> = cosines
            .into_iter()
            .enumerate()
            .map(|(index, cosine)| Match {
                index,
                cosine,
                probability: 0.0,
            })
            .collect();
        // Stable: of equals the first stays first.
        found.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
        let best = found.first().map_or(0.0, |best| best.cosine);
        let mut sum = 0.0;
        for one in &mut found {
            one.probability = (self.logit_factor * (one.cosine - best)).exp();
            sum += one.probability;
        }
        for one in &mut found {
            one.probability /= sum;
        }
        found
    }
}

/// Embeds `things` in batches and scales to length 1.
fn embed<T>(
    things: &[T],
    name: &str,
    batch: usize,
    encode: impl Fn(&[T]) -> Result<Tensor<2>>,
) -> Result<Tensor<2>> {
    if things.is_empty() {
        return Err(Error::setting(name, 0, "at least 1 is needed"));
    }
    let mut rows = Vec::with_capacity(things.len().div_ceil(batch));
    for batch in things.chunks(batch) {
        let found = encode(batch)?;
        let dims = found.dims();
        if dims[0] != batch.len() {
            let expected = format!("[{}, d], a row for each of the {name}", batch.len());
            return Err(Error::shape("the embeddings", &dims, expected));
        }
        rows.push(normalize(found));
    }
    Ok(Tensor::cat(rows, 0))
}

/// A row for each picture.
fn cosines(images: Tensor<2>, texts: Tensor<2>) -> Result<Vec<Vec<f32>>> {
    let (text_dims, image_dims) = (texts.dims(), images.dims());
    if text_dims[1] != image_dims[1] {
        let expected = format!(
            "[n, {}] like the text embedding; both encoders have to be of one model",
            text_dims[1]
        );
        return Err(Error::shape("the image embedding", &image_dims, expected));
    }
    let texts = texts.to_device(&images.device());
    let values = to_host(cosine_similarity(images, texts), "text or image encoder")?;
    let rows = values.chunks(text_dims[0]);
    Ok(rows.map(<[f32]>::to_vec).collect())
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use image::{Rgb, RgbImage};
    use unclip_core::stage::TextEncoding;

    use super::*;

    /// Embeds a text by how often it says red, green and blue, a picture by its mean colour.
    struct Colours(usize);

    fn rows(rows: Vec<[f32; 3]>) -> Tensor<2> {
        let count = rows.len();
        let data = TensorData::new(rows.concat(), [count, 3]);
        Tensor::from_data(data, &Device::flex())
    }

    impl TextEncoder for Colours {
        fn encode_text(&self, prompts: &[&str]) -> Result<TextEncoding> {
            let embedding = rows(
                prompts
                    .iter()
                    .map(|text| {
                        ["red", "green", "blue"].map(|colour| text.matches(colour).count() as f32)
                    })
                    .collect(),
            );
            let device = embedding.device();
            Ok(TextEncoding {
                embedding: embedding.narrow(1, 0, self.0),
                tokens: Tensor::zeros([prompts.len(), 1, 1], &device),
                mask: Tensor::<2>::ones([prompts.len(), 1], &device).greater_elem(0),
            })
        }
    }

    impl ImageEncoder for Colours {
        fn encode_images(&self, images: &[DynamicImage]) -> Result<Tensor<2>> {
            let colour = |image: &DynamicImage| image.to_rgb8().get_pixel(0, 0).0.map(f32::from);
            Ok(rows(images.iter().map(colour).collect()))
        }
    }

    fn picture(colour: [u8; 3]) -> DynamicImage {
        RgbImage::from_pixel(2, 2, Rgb(colour)).into()
    }

    #[test]
    fn the_right_caption_and_picture_come_first() {
        let matcher = Matcher::new(&Colours(3), &Colours(3)).with_logit_factor(2.0);
        let captions = ["a blue sky", "a red rose", "grey", "red and blue"];
        let found = matcher
            .rank_captions(&picture([200, 0, 0]), &captions)
            .unwrap();
        let order: Vec<usize> = found.iter().map(|one| one.index).collect();
        assert_eq!(order, [1, 3, 0, 2]);
        assert!((found[0].cosine - 1.0).abs() < 1e-6);
        // A text without any colour is like nothing.
        assert_eq!(found[3].cosine, 0.0);
        let sum: f32 = found.iter().map(|one| one.probability).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        let ratio = found[0].probability / found[3].probability;
        assert!((ratio - 2f32.exp()).abs() < 1e-4, "{ratio}");

        let pictures = [[0, 0, 9], [0, 7, 0], [0, 7, 1]].map(picture);
        let found = matcher.rank_images("a green leaf", &pictures).unwrap();
        let order: Vec<usize> = found.iter().map(|one| one.index).collect();
        assert_eq!(order, [1, 2, 0]);
        let similarity = matcher
            .image_text_similarity(&pictures, &["green", "blue"])
            .unwrap();
        assert_eq!(similarity.len(), 3);
        assert_eq!(similarity[0], [0.0, 1.0]);
    }

    #[test]
    fn classes_are_means_over_templates() {
        let matcher = Matcher::new(&Colours(3), &Colours(3));
        // The second template is half green whatever the class.
        let templates = ["{}", "green {}"];
        let classes = matcher.embed_classes(&["red", "blue"], &templates).unwrap();
        let half = 0.5f32.sqrt();
        let sum = [1.0 + half, half];
        let length = (sum[0] * sum[0] + sum[1] * sum[1]).sqrt();
        let values = to_host(classes.clone(), "test").unwrap();
        for (found, expected) in values
            .iter()
            .zip([sum[0], sum[1], 0.0, 0.0, sum[1], sum[0]])
        {
            assert!((found - expected / length).abs() < 1e-6, "{values:?}");
        }
        let pictures = [picture([0, 1, 9]), picture([9, 1, 0])];
        let found = matcher.classify(&pictures, classes).unwrap();
        assert_eq!([found[0][0].index, found[1][0].index], [1, 0]);
        for template in PHOTO_TEMPLATES {
            assert_eq!(template.matches("{}").count(), 1, "{template}");
        }
    }

    #[test]
    fn more_than_a_batch_stays_in_order() {
        let matcher = Matcher::new(&Colours(3), &Colours(3));
        let texts: Vec<&str> = (0..150)
            .map(|i| if i == 130 { "red" } else { "blue" })
            .collect();
        let found = matcher.rank_captions(&picture([9, 0, 0]), &texts).unwrap();
        assert_eq!((found.len(), found[0].index), (150, 130));
    }

    #[test]
    fn nothing_to_compare_is_refused() {
        let matcher = Matcher::new(&Colours(3), &Colours(3));
        let red = picture([9, 0, 0]);
        let setting = |error: Error, expected: &str| match error {
            Error::Setting { name, .. } => assert_eq!(name, expected),
            other => panic!("{other}"),
        };
        setting(matcher.rank_captions(&red, &[]).unwrap_err(), "texts");
        setting(matcher.rank_images("red", &[]).unwrap_err(), "pictures");
        let error = matcher.embed_classes(&[], &["{}"]).unwrap_err();
        setting(error, "classes");
        let error = matcher.embed_classes(&["red"], &[]).unwrap_err();
        setting(error, "templates");
        let error = matcher.embed_classes(&["red"], &["{}", "a photo"]);
        setting(error.unwrap_err(), "template");
        let strangers = Matcher::new(&Colours(2), &Colours(3));
        let error = strangers.rank_captions(&red, &["red"]).unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
    }
}
