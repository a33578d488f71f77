//! Pictures read back without a network: what is in them and where it stands.
//!
//! [Hues](super::segment) tell objects apart, and [solids laid over each](super::fit) tell its
//! shape, size and place. Two objects of one colour that touch are read as one; no scene has two.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{
    camera::{Camera, VIEW},
    fit::{Fit, Target},
    segment::{GRID, Pixel, Segments, segment},
    world::{Colour, Shape, Size},
};

/// Widths in units between small, medium and large.
const BETWEEN: [f32; 2] = [1.26, 1.61];
/// Loss below which two segments of a colour are one object behind another.
const ONE_OBJECT: f32 = 0.16;

/// An object that is seen in a picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its size, such distance being allowed for as tells from where objects stand.
    pub size: Size,
    /// Its width in units.
    pub width: f32,
    /// Where the middle of its base is seen, in shares of the side from the top left corner.
    pub base: [f32; 2],
    /// Where it stands: units to the right and away from the viewer, from the middle of all.
    pub floor: [f32; 2],
    /// Number of the object that it stands on.
    pub stands_on: Option<usize>,
    /// Share of pixels in which it differs from its shape: below 0.1 for clean pictures.
    pub loss: f32,
}

/// The objects in a picture of any size.
pub fn read(picture: &RgbImage) -> Vec<Seen> {
    let segments = segment(picture);
    let (fits, colours) = fits(&segments);
    let stands_on: Vec<_> = (0..fits.len())
        .map(|i| support(i, &fits, &segments))
        .collect();
    let floor = places(&fits, &stands_on);
    (0..fits.len())
        .map(|i| {
            let (at, nearness) = floor[i];
            let width = fits[i].0.width() / nearness;
            Seen {
                shape: fits[i].0.object.shape,
                colour: colours[i],
                size: size(width),
                width,
                base: fits[i].0.base(),
                floor: at,
                stands_on: stands_on[i],
                loss: fits[i].0.loss,
            }
        })
        .collect()
}

fn size(width: f32) -> Size {
    match width {
        x if x < BETWEEN[0] => Size::Small,
        x if x < BETWEEN[1] => Size::Medium,
        _ => Size::Large,
    }
}

/// A solid and the segments that it is laid over.
type Fitted = (Fit, Vec<usize>);

fn fits(segments: &Segments) -> (Vec<Fitted>, Vec<Colour>) {
    let (mut fits, mut colours): (Vec<Fitted>, Vec<Colour>) = Default::default();
    for (number, &colour) in segments.colours.iter().enumerate() {
        // What stands before an object may cut it in two.
        let joined = (0..fits.len())
            .filter(|&i| colours[i] == colour)
            .find_map(|i| {
                let both: Vec<_> = fits[i].1.iter().copied().chain([number]).collect();
                let fit = Target::new(segments, &both).fit();
                (fit.loss < ONE_OBJECT).then_some((i, (fit, both)))
            });
        if let Some((i, fit)) = joined {
            fits[i] = fit;
        } else {
            let numbers = vec![number];
            let fit = Target::new(segments, &numbers).fit();
            fits.push((fit, numbers));
            colours.push(colour);
        }
    }
    (fits, colours)
}

/// The object that one stands on.
fn support(upper: usize, fits: &[Fitted], segments: &Segments) -> Option<usize> {
    let mut others = (0..fits.len()).filter(|&i| i != upper);
    others.find(|&lower| {
        let (base, top) = (fits[upper].0.base(), fits[lower].0.top());
        let width = fits[lower].0.width() / VIEW;
        (base[0] - top[0]).abs() < 0.5 * width
            && (base[1] - top[1]).abs() < 0.36 * width
            && covers(&fits[upper], &fits[lower], segments)
    })
}

/// Whether of two objects in one place of the picture the first is the one that is seen: what
/// stands on something hides its top, what stands behind it does not.
fn covers(upper: &Fitted, lower: &Fitted, segments: &Segments) -> bool {
    let below = lower.0.rows();
    let (mut ours, mut theirs) = (0, 0);
    for (row, first, last) in upper.0.rows() {
        let Some(&(_, from, to)) = below.iter().find(|(other, ..)| *other == row) else {
            continue;
        };
        for at in first.max(from)..(last + 1).min(to + 1) {
            if let Pixel::Object(number) = segments.pixels[row * GRID + at] {
                ours += usize::from(upper.1.contains(&number));
                theirs += usize::from(lower.1.contains(&number));
            }
        }
    }
    ours > theirs
}

/// Where objects stand on the floor, and how much larger that makes them look.
fn places(fits: &[Fitted], stands_on: &[Option<usize>]) -> Vec<([f32; 2], f32)> {
    let bases: Vec<_> = (0..fits.len())
        .map(|i| fits[stands_on[i].unwrap_or(i)].0.base())
        .collect();
    let mean = |axis: usize| {
        let sum: f32 = bases.iter().map(|base| base[axis]).sum();
        sum / bases.len() as f32
    };
    // How the lens is shifted is not known: the middle of all objects is taken for that of the
    // scene.
    let camera = Camera::nominal([mean(0) - 0.5, mean(1) - 0.5]);
    let place = |&base: &[f32; 2]| {
        let point = camera.on_plane(base, 0.0);
        ([point[0], point[1]], camera.scale(point) * VIEW)
    };
    bases.iter().map(place).collect()
}
