//! The demo's world as training data.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use unclip::{
    Result,
    core::train::{Captioned, Samples},
    image::RgbImage,
    prior::EmbeddedCaption,
};

use crate::demo::{
    caption::{caption, full_caption, thorough_caption},
    render::render,
    rng::Rng,
    split::train_scene,
    twin::{Change, twin},
    world::Scene,
};

/// Scenes that training may see, drawn anew each time they are read.
pub struct World {
    /// Side of the pictures.
    side: u32,
    /// The scene of a seed.
    scene: fn(u64) -> Scene,
    /// Samples of each picture.
    crops: usize,
    /// The last pictures that were drawn, for their other samples.
    drawn: Mutex<VecDeque<(usize, RgbImage)>>,
}

/// Pictures that are kept: more than threads read at once.
const DRAWN: usize = 64;

impl World {
    /// The pictures of these scenes, of this side, each once or, for recipes that learn from a crop of it, so
    /// many times in a batch: large ones take longer to draw than to learn from.
    pub fn new(side: u32, scene: fn(u64) -> Scene, crops: usize) -> Self {
        Self {
            side,
            scene,
            crops,
            drawn: Mutex::new(VecDeque::new()),
        }
    }

    fn drawn(&self) -> MutexGuard<'_, VecDeque<(usize, RgbImage)>> {
        self.drawn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn picture(&self, place: usize, scene: &Scene) -> RgbImage {
        if self.crops == 1 {
            return render(scene, self.side);
        }
        if let Some((_, picture)) = self.drawn().iter().find(|(at, _)| *at == place) {
            return picture.clone();
        }
        let picture = render(scene, self.side);
        let mut drawn = self.drawn();
        drawn.truncate(DRAWN - 1);
        drawn.push_front((place, picture.clone()));
        picture
    }
}

/// More scenes than any run reads.
const SCENES: usize = 1 << 24;

impl Samples for World {
    type Item = Captioned;

    fn len(&self) -> usize {
        SCENES
    }

    fn get(&self, index: usize, draw: u64) -> Result<Captioned> {
        let place = index / self.crops;
        let scene = (self.scene)(place as u64);
        Ok(Captioned {
            picture: self.picture(place, &scene),
            caption: any_caption(&scene, draw),
        })
    }

    fn together(&self) -> usize {
        self.crops
    }

    fn name(&self, index: usize) -> String {
        format!("scene {}", index / self.crops)
    }
}

/// Scenes with their twins, for CLIP: captions of which only one fits, by the order of its words, a size
/// or what stands where.
pub struct Twins {
    /// Side of the pictures.
    pub side: u32,
}

/// A scene, a twin of each kind, and another of the kinds that are hardest to see.
const GROUP: usize = 6;

impl Twins {
    fn scene(index: usize) -> Scene {
        let scene = train_scene((index / GROUP) as u64);
        let mut rng = Rng::new(index as u64);
        let change = match index % GROUP {
            0 => return scene,
            1 => Change::Colour,
            2 => Change::Shape,
            3 => Change::Size,
            4 => Change::Place,
            _ => rng.pick(&[Change::Size, Change::Place]),
        };
        // A scene without a twin is there twice, which does little harm.
        twin(&scene, change, &mut rng).unwrap_or(scene)
    }
}

impl Samples for Twins {
    type Item = Captioned;

    fn len(&self) -> usize {
        SCENES - SCENES % GROUP
    }

    fn get(&self, index: usize, draw: u64) -> Result<Captioned> {
        let scene = Self::scene(index);
        Ok(Captioned {
            picture: render(&scene, self.side),
            caption: any_caption(&scene, draw),
        })
    }

    fn together(&self) -> usize {
        GROUP
    }

    fn name(&self, index: usize) -> String {
        format!("scene {} and its twins", index / GROUP)
    }
}

/// All there is to say of a scene, or some of it. What is left out teaches nothing, and a twin that differs
/// in it has a caption that fits both.
fn any_caption(scene: &Scene, draw: u64) -> String {
    let mut rng = Rng::new(draw);
    match rng.unit() {
        x if x < 0.45 => full_caption(scene),
        x if x < 0.8 => thorough_caption(scene, &mut rng),
        _ => caption(scene, &mut rng),
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
            caption: any_caption(&train_scene(index as u64), draw),
        })
    }
}
