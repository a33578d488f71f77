//! Parts of a picture painted anew: inpainting, removal, outpainting.

use image::{DynamicImage, RgbImage};
use serde_json::json;
use unclip_core::{
    error::{Error, Result},
    mask::Mask,
};

use super::{
    fit::{Fit, Fitted, resized, scaled, size_of},
    job::{Bench, Job, Kind, Plan, PlanBox},
};

/// How far a picture is extended on each side, in its own pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extend {
    /// To the left.
    pub left: usize,
    /// Upwards.
    pub top: usize,
    /// To the right.
    pub right: usize,
    /// Downwards.
    pub bottom: usize,
}

impl Extend {
    /// The same on every side.
    pub fn all(pixels: usize) -> Self {
        Self {
            left: pixels,
            top: pixels,
            right: pixels,
            bottom: pixels,
        }
    }

    /// With every side scaled.
    fn scaled(self, factor: f64) -> Self {
        // What is to be added stays at least a pixel.
        let scale = |n: usize| ((n as f64 * factor).round() as usize).max(n.min(1));
        Self {
            left: scale(self.left),
            top: scale(self.top),
            right: scale(self.right),
            bottom: scale(self.bottom),
        }
    }
}

#[derive(Debug)]
enum What {
    Inside(Mask),
    Around(Extend),
}

/// The kind of [`UnClip::edit`](crate::UnClip::edit), [`UnClip::remove`](crate::UnClip::remove) and
/// [`UnClip::outpaint`](crate::UnClip::outpaint).
#[derive(Debug)]
pub struct Edit {
    picture: DynamicImage,
    what: What,
    prompt: String,
    fit: Fit,
    strength: f64,
    rounds: usize,
    follows_picture: bool,
}

impl Edit {
    pub(crate) fn inside(picture: DynamicImage, mask: Mask, prompt: String) -> Self {
        Self::new(picture, What::Inside(mask), prompt)
    }

    pub(crate) fn around(picture: DynamicImage, extend: Extend, prompt: String) -> Self {
        Self::new(picture, What::Around(extend), prompt)
    }

    fn new(picture: DynamicImage, what: What, prompt: String) -> Self {
        Self {
            picture,
            what,
            prompt,
            fit: Fit::Trained,
            strength: 1.0,
            rounds: 1,
            follows_picture: false,
        }
    }

    /// The canvas and what of it is repainted, at the size it is worked on.
    fn canvas(&self, bench: &Bench<'_>) -> Result<Fitted> {
        let picture = self.picture.to_rgb8();
        let mut fitted = match &self.what {
            What::Inside(mask) => {
                Fitted::new(&bench.chain, &picture, Some(mask.clone()), self.fit)?
            }
            What::Around(extend) => {
                let own = size_of(&picture)?;
                let frames = bench.chain.frames()?;
                let trained = frames[frames.len() - 1].size;
                // The picture gets the trained size, and the canvas is larger.
                let size = match self.fit {
                    Fit::Own => own,
                    Fit::Trained => scaled(own, trained[0].max(trained[1])),
                };
                let factor = size[0].max(size[1]) as f64 / own[0].max(own[1]).max(1) as f64;
                let (canvas, mask) = extended(&resized(&picture, size), extend.scaled(factor))?;
                Fitted::new(&bench.chain, &canvas, Some(mask), Fit::Own)?
            }
        };
        fitted.strength = self.strength;
        fitted.rounds = self.rounds;
        Ok(fitted)
    }
}

/// `picture` on a larger canvas, its edges drawn out, and a mask of what is new.
fn extended(picture: &RgbImage, by: Extend) -> Result<(RgbImage, Mask)> {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let wide = width.saturating_add(by.left).saturating_add(by.right);
    let high = height.saturating_add(by.top).saturating_add(by.bottom);
    const MOST: usize = 1 << 14;
    if wide > MOST || high > MOST {
        let found = format!("{wide} × {high}");
        return Err(Error::setting(
            "canvas",
            found,
            format!("at most {MOST} pixels a side"),
        ));
    }
    let canvas = RgbImage::from_fn(wide as u32, high as u32, |x, y| {
        let x = (x as usize).saturating_sub(by.left).min(width - 1);
        let y = (y as usize).saturating_sub(by.top).min(height - 1);
        *picture.get_pixel(x as u32, y as u32)
    });
    let mask = Mask::filled(width, height, false).placed(wide, high, [by.left, by.top], true);
    Ok((canvas, mask))
}

impl Job<'_, Edit> {
    /// Works on the picture at its own size, however far that is from what the stages were trained
    /// for. Default: its longer side is scaled to the trained size, and so is the result's.
    pub fn at_own_size(mut self) -> Self {
        self.kind.fit = Fit::Own;
        self
    }

    /// How much of what was there shows through in the decoder's first steps: 1 is nothing. Less
    /// keeps the old content's layout.
    pub fn strength(mut self, strength: f64) -> Self {
        self.kind.strength = strength;
        self
    }

    /// How often each step is made, going back to more noise in between, so that new and old grow
    /// together (RePaint). Default: 1, once; 2 to 5 blend better and take as many times longer.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.kind.rounds = rounds;
        self
    }

    /// Conditions the decoder on the picture's own CLIP embedding instead of the prior's, so that
    /// what is painted is of its kind. Needs an image encoder, and no prior.
    pub fn following_the_picture(mut self) -> Self {
        self.kind.follows_picture = true;
        self
    }
}

impl Kind for Edit {
    const NAME: &'static str = "edit";

    fn needs_prior(&self) -> bool {
        !self.follows_picture
    }

    fn check(&self, bench: &Bench<'_>) -> Result<()> {
        if self.follows_picture {
            bench.chain.unclip.image_encoder()?;
        }
        let canvas = self.canvas(bench)?;
        bench.chain.sizes(Some(canvas.size()))?;
        canvas.check()
    }

    fn plan(self, bench: &mut Bench<'_>) -> Result<PlanBox> {
        let canvas = self.canvas(bench)?;
        let embeddings = match self.follows_picture {
            false => None,
            true => {
                let one = bench.chain.embed(std::slice::from_ref(&self.picture))?;
                Some(one.repeat_dim(0, bench.images))
            }
        };
        let extend = match &self.what {
            What::Inside(_) => None,
            What::Around(extend) => Some(*extend),
        };
        let [height, width] = canvas.size();
        Ok(PlanBox(Plan {
            embeddings,
            size: Some(canvas.size()),
            details: json!({
                "canvas": [width, height],
                "extend": extend,
                "strength": self.strength,
                "rounds": self.rounds,
                "follows_picture": self.follows_picture,
            }),
            canvas: Some(canvas),
            ..Plan::new(vec![self.prompt])
        }))
    }
}
