//! How often CLIP tells a picture's caption from that of its twin.

use unclip::{
    ImageEncoder, TextEncoder, burn::tensor::Tensor, core::image::to_host, image::DynamicImage,
};

use super::{config, stages::Fallible};
use crate::demo::{
    caption::full_caption,
    render::render,
    rng::Rng,
    split::train_scene,
    twin::{Change, twin},
    world::Scene,
};

/// Scenes that are compared with their twins.
const SCENES: u64 = 400;

/// Scenes far from those of training and of the judge.
const FIRST: u64 = 1 << 41;

/// For each kind of twin, the share of pictures that CLIP finds closer to their own caption than to
/// the twin's; 0.5 is chance.
pub fn contrast(text: &dyn TextEncoder, image: &dyn ImageEncoder) -> Fallible<Vec<(Change, f64)>> {
    let changes = [Change::Colour, Change::Shape, Change::Size, Change::Place];
    changes
        .into_iter()
        .map(|change| Ok((change, share(text, image, change)?)))
        .collect()
}

fn share(text: &dyn TextEncoder, image: &dyn ImageEncoder, change: Change) -> Fallible<f64> {
    let pairs: Vec<(Scene, Scene)> = (FIRST..FIRST + SCENES)
        .filter_map(|seed| {
            let scene = train_scene(seed);
            let twin = twin(&scene, change, &mut Rng::new(seed))?;
            // Of sizes, the one in the middle is not said.
            (full_caption(&scene) != full_caption(&twin)).then_some((scene, twin))
        })
        .collect();
    let pictures: Vec<DynamicImage> = pairs
        .iter()
        .map(|(scene, _)| render(scene, config::SMALL as u32).into())
        .collect();
    let pictures = rows(image.encode_images(&pictures)?)?;
    let embed = |of: fn(&(Scene, Scene)) -> &Scene| {
        let captions: Vec<_> = pairs.iter().map(|pair| full_caption(of(pair))).collect();
        let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
        rows(text.encode_text(&captions)?.embedding)
    };
    let (own, other) = (embed(|pair| &pair.0)?, embed(|pair| &pair.1)?);
    let right = pictures.iter().zip(own.iter().zip(&other));
    let right =
        right.filter(|(picture, (own, other))| cosine(picture, own) > cosine(picture, other));
    Ok(right.count() as f64 / pairs.len().max(1) as f64)
}

fn rows(embeddings: Tensor<2>) -> Fallible<Vec<Vec<f32>>> {
    let width = embeddings.dims()[1];
    let values = to_host(embeddings, "embeddings")?;
    Ok(values.chunks(width).map(<[f32]>::to_vec).collect())
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
