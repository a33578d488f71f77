//! Which pixels of a picture belong together: hues told apart whatever the shading.

use image::{RgbImage, imageops};

use super::world::Colour;

/// Side of the grid on which pictures are read.
pub const GRID: usize = 128;
/// Pixels of the grid that an object shows, at least; the smallest whole one has some 450.
const SMALLEST: usize = 90;

/// Half the width of the widest seam between two colours, rounded up.
const SEAM: usize = 3;
/// Widest streak of light on an object. No object is hollow, so little else is bridged.
const STREAK: usize = 13;

/// What a pixel of the grid shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixel {
    /// Floor or shadow.
    Floor,
    /// Something coloured that belongs to no object, as where two colours meet.
    Unsure,
    /// The object of this number.
    Object(usize),
}

/// A picture told apart into objects.
#[derive(Debug, Clone)]
pub struct Segments {
    /// What each pixel shows, rows from the top.
    pub pixels: Vec<Pixel>,
    /// Colours of the objects.
    pub colours: Vec<Colour>,
    /// Brightness of each pixel, from 0 to 1.
    pub brightness: Vec<f32>,
}

/// Tells a picture of any size apart.
pub fn segment(picture: &RgbImage) -> Segments {
    let small = on_grid(picture);
    let hues: Vec<_> = small.pixels().map(|pixel| colour_of(pixel.0)).collect();
    let mut hues = smoothed(&hues);
    bridge(&mut hues);
    let (mut pixels, colours) = connected(&hues);
    fill_holes(&mut pixels);
    let sum = |rgb: [u8; 3]| rgb.iter().map(|&x| f32::from(x)).sum::<f32>();
    Segments {
        pixels,
        colours,
        brightness: small.pixels().map(|pixel| sum(pixel.0) / 765.0).collect(),
    }
}

fn on_grid(picture: &RgbImage) -> RgbImage {
    let side = GRID as u32;
    imageops::resize(picture, side, side, imageops::FilterType::Triangle)
}

/// The colour of objects that has a pixel's hue, none if the pixel has nearly no hue.
fn colour_of(rgb: [u8; 3]) -> Option<Colour> {
    let rgb = rgb.map(|x| f32::from(x) / 255.0);
    let (hue, chroma) = hue(rgb);
    let largest = rgb.into_iter().fold(0.0, f32::max);
    // Floors have up to 0.15 and 0.17, the darkest side of an object 0.18 and 0.6.
    if chroma < 0.155 || chroma < 0.34 * largest {
        return None;
    }
    let distance = |colour: &Colour| {
        let apart = (self::hue(colour.rgb()).0 - hue).rem_euclid(6.0);
        apart.min(6.0 - apart)
    };
    let nearest = |a: &Colour, b: &Colour| distance(a).total_cmp(&distance(b));
    Colour::ALL.into_iter().min_by(nearest)
}

/// Hue in sixths of a turn, and chroma.
fn hue([r, g, b]: [f32; 3]) -> (f32, f32) {
    let (high, low) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = high - low;
    let hue = match chroma {
        0.0 => 0.0,
        _ if high == r => (g - b) / chroma,
        _ if high == g => 2.0 + (b - r) / chroma,
        _ => 4.0 + (r - g) / chroma,
    };
    (hue.rem_euclid(6.0), chroma)
}

/// The pixels beside and above and below one.
fn around(at: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (at % GRID, at / GRID);
    [
        (x > 0).then(|| at - 1),
        (x + 1 < GRID).then(|| at + 1),
        (y > 0).then(|| at - GRID),
        (y + 1 < GRID).then(|| at + GRID),
    ]
    .into_iter()
    .flatten()
}

/// Gives each pixel what most of the pixels about it have, which takes away specks and noise.
fn smoothed(hues: &[Option<Colour>]) -> Vec<Option<Colour>> {
    let inside = |i: usize| i > 0 && i + 1 < GRID;
    let most = |at: usize| {
        if !inside(at % GRID) || !inside(at / GRID) {
            return hues[at];
        }
        let mut votes = [0; 8];
        for row in [at - GRID, at, at + GRID] {
            for &hue in &hues[row - 1..=row + 1] {
                votes[hue.map_or(7, |colour| colour as usize)] += 1;
            }
        }
        let own = hues[at].map_or(7, |colour| colour as usize);
        let best = (0..8).max_by_key(|&i| 2 * votes[i] + usize::from(i == own));
        best.and_then(|i| Colour::ALL.get(i).copied())
    };
    (0..hues.len()).map(most).collect()
}

/// Gives streaks of white light on shiny objects the colour to both sides of them.
fn bridge(hues: &mut [Option<Colour>]) {
    for row in hues.chunks_mut(GRID) {
        let mut last: Option<(usize, Colour)> = None;
        for x in 0..GRID {
            let Some(colour) = row[x] else { continue };
            if let Some((from, before)) = last
                && before == colour
                && x - from <= STREAK
            {
                row[from..x].fill(Some(colour));
            }
            last = Some((x, colour));
        }
    }
}

/// Connected pixels of a colour that are enough for an object.
fn connected(hues: &[Option<Colour>]) -> (Vec<Pixel>, Vec<Colour>) {
    let start = |hue: &Option<Colour>| hue.map_or(Pixel::Floor, |_| Pixel::Unsure);
    let mut pixels: Vec<_> = hues.iter().map(start).collect();
    let mut colours = Vec::new();
    let mut seen = vec![false; hues.len()];
    for first in 0..hues.len() {
        let Some(colour) = hues[first].filter(|_| !seen[first]) else {
            continue;
        };
        let members = flood(first, &mut seen, |at| hues[at] == Some(colour));
        if members.len() >= SMALLEST && is_thick(&members) {
            for at in members {
                pixels[at] = Pixel::Object(colours.len());
            }
            colours.push(colour);
        }
    }
    (pixels, colours)
}

/// Whether pixels are more than the seam between two colours, which may be of the hue between them.
fn is_thick(members: &[usize]) -> bool {
    let mut own = vec![false; GRID * GRID];
    members.iter().for_each(|&at| own[at] = true);
    let inner = |&&at: &&usize| {
        let (x, y) = (at % GRID, at / GRID);
        let whole = |y: usize| {
            own[y * GRID + x - SEAM..=y * GRID + x + SEAM]
                .iter()
                .all(|&is| is)
        };
        let reach = SEAM..GRID - SEAM;
        reach.contains(&x) && reach.contains(&y) && (y - SEAM..=y + SEAM).all(whole)
    };
    members.iter().filter(inner).count() >= 4
}

/// All pixels of a kind that are connected to one of them.
fn flood(first: usize, seen: &mut [bool], of_kind: impl Fn(usize) -> bool) -> Vec<usize> {
    seen[first] = true;
    let mut members = vec![first];
    let mut next = 0;
    while let Some(&at) = members.get(next) {
        next += 1;
        for near in around(at) {
            if !seen[near] && of_kind(near) {
                seen[near] = true;
                members.push(near);
            }
        }
    }
    members
}

/// Gives highlights, which have no hue, to the object that encloses them.
fn fill_holes(pixels: &mut [Pixel]) {
    let mut seen = vec![false; pixels.len()];
    let free = |pixel: Pixel| !matches!(pixel, Pixel::Object(_));
    for first in 0..pixels.len() {
        if seen[first] || !free(pixels[first]) {
            continue;
        }
        let members = flood(first, &mut seen, |at| free(pixels[at]));
        let mut edge =
            members
                .iter()
                .flat_map(|&at| around(at))
                .filter_map(|at| match pixels[at] {
                    Pixel::Object(owner) => Some(owner),
                    _ => None,
                });
        let Some(owner) = edge
            .next()
            .filter(|owner| edge.all(|other| other == *owner))
        else {
            continue;
        };
        let border = |at: usize| around(at).count() < 4;
        if !members.iter().any(|&at| border(at)) {
            for at in members {
                pixels[at] = Pixel::Object(owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_colour_is_known_in_light_and_shade() {
        for colour in Colour::ALL {
            for light in [0.45, 0.7, 1.0] {
                let rgb = colour.rgb().map(|x| (x * light * 255.0) as u8);
                assert_eq!(colour_of(rgb), Some(colour), "at {light}");
            }
        }
    }

    #[test]
    fn floors_have_no_colour_in_light_and_shade() {
        for floor in super::super::world::Background::ALL {
            for light in [0.3, 0.7, 1.0] {
                let rgb = floor.rgb().map(|x| (x * light * 255.0) as u8);
                assert_eq!(colour_of(rgb), None, "{floor:?} at {light}");
            }
        }
    }

    #[test]
    fn a_disc_with_a_hole_is_one_object() {
        let side = 200;
        let picture = RgbImage::from_fn(side, side, |x, y| {
            let away = (x as f32 - 100.0).hypot(y as f32 - 90.0);
            image::Rgb(if (10.0..50.0).contains(&away) {
                [200, 30, 40]
            } else {
                [230; 3]
            })
        });
        let segments = segment(&picture);
        assert_eq!(segments.colours, [Colour::Red]);
        let own = segments
            .pixels
            .iter()
            .filter(|&&pixel| pixel == Pixel::Object(0));
        let expected = std::f32::consts::PI * 32.0 * 32.0;
        assert!((own.count() as f32 / expected - 1.0).abs() < 0.05);
    }
}
