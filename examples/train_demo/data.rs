//! The demo's world as training data.

use std::sync::Arc;

use unclip::{
    Result,
    core::train::{Captioned, Samples},
    prior::EmbeddedCaption,
};

use crate::demo::{
    caption::caption, render::render, rng::Rng, split::train_scene, twin::twin, world::Scene,
};

/// Scenes that training may see, drawn anew each time they are read.
pub struct World {
    /// Side of the pictures.
    pub side: u32,
}

/// More scenes than any run reads.
const SCENES: usize = 1 << 24;

impl Samples for World {
    type Item = Captioned;

    fn len(&self) -> usize {
        SCENES
    }

    fn get(&self, index: usize, draw: u64) -> Result<Captioned> {
        let scene = train_scene(index as u64);
        Ok(Captioned {
            picture: render(&scene, self.side),
            caption: caption(&scene, &mut Rng::new(draw)),
        })
    }

    fn name(&self, index: usize) -> String {
        format!("scene {index}")
    }
}

/// Scenes with their twins, for CLIP: captions of which only one word order fits.
pub struct Twins {
    /// Side of the pictures.
    pub side: u32,
}

impl Twins {
    fn scene(index: usize) -> Scene {
        let scene = train_scene(index as u64 / 2);
        match index % 2 {
            0 => scene,
            // A scene without a twin is there twice, which does little harm.
            _ => twin(&scene, &mut Rng::new(index as u64)).unwrap_or(scene),
        }
    }
}

impl Samples for Twins {
    type Item = Captioned;

    fn len(&self) -> usize {
        SCENES
    }

    fn get(&self, index: usize, draw: u64) -> Result<Captioned> {
        let scene = Self::scene(index);
        Ok(Captioned {
            picture: render(&scene, self.side),
            caption: caption(&scene, &mut Rng::new(draw)),
        })
    }

    fn together(&self) -> usize {
        2
    }

    fn name(&self, index: usize) -> String {
        format!("scene {} and its twin", index / 2)
    }
}

/// The embeddings of the first scenes, with a new caption each time one is read.
pub struct Embedded {
    pub embeddings: Arc<Vec<Vec<f32>>>,
}

impl Samples for Embedded {
    type Item = EmbeddedCaption;

    fn len(&self) -> usize {
        self.embeddings.len()
    }

    fn get(&self, index: usize, draw: u64) -> Result<EmbeddedCaption> {
        Ok(EmbeddedCaption {
            embedding: self.embeddings[index].clone(),
            caption: caption(&train_scene(index as u64), &mut Rng::new(draw)),
        })
    }
}
