//! Pictures of scenes.

use image::{Rgb, RgbImage};

use super::{
    camera::{Camera, Vector},
    layout::nearer,
    paint::{Canvas, Ink, colour},
    shading::{Shader, towards},
    shadow::cast,
    solid::Solid,
    world::{Background, Object, Scene},
};

/// Largest side that is drawn at twice the size and averaged, for smoother edges and gradients.
const SUPERSAMPLED: u32 = 99;

/// Draws a scene on a square of this side; the same picture at every side.
///
/// # Panics
///
/// If the side is 0.
pub fn render(scene: &Scene, side: u32) -> RgbImage {
    if side > SUPERSAMPLED {
        return rgb(&draw(scene, side));
    }
    halved(&draw(scene, 2 * side))
}

fn draw(scene: &Scene, side: u32) -> Canvas {
    let mut canvas = Canvas::new(side);
    let camera = Camera::new(&scene.camera);
    let light = towards(&scene.light);
    let corners = if side < 200 { 32 } else { 112 };
    floor(&mut canvas, scene.background);
    let solids: Vec<_> = back_to_front(&scene.objects)
        .into_iter()
        .map(|object| Solid::new(object, corners))
        .collect();
    let strength = match scene.background {
        Background::Dark => 0.7,
        _ => 0.5,
    };
    let mut shadows = Canvas::new(side);
    for solid in &solids {
        let mut shadow = Canvas::new(side);
        cast(&mut shadow, &camera, (solid, light), (0.0, None));
        shadows.join(&shadow);
    }
    canvas.lay(&shadows, strength);
    let shader = Shader {
        camera: &camera,
        light,
    };
    for (i, solid) in solids.iter().enumerate() {
        if solid.object.at[2] > 0.0 {
            let below = solids[..i]
                .iter()
                .rfind(|it| holds(it.object, solid.object));
            shade_top(&mut canvas, &camera, (solid, light), below);
        }
        shader.draw(&mut canvas, solid);
    }
    canvas
}

/// A floor in a pool of light.
fn floor(canvas: &mut Canvas, background: Background) {
    let lit = |by: f32| colour(background.rgb().map(|x| x * by), 1.0);
    let colours = vec![(0.0, lit(1.07)), (0.45, lit(1.0)), (1.0, lit(0.76))];
    canvas.flood(Ink::Radial([0.5, 0.46], 0.86, colours));
}

/// The shadow of an object on the one it stands on.
fn shade_top(
    canvas: &mut Canvas,
    camera: &Camera,
    (solid, light): (&Solid, Vector),
    below: Option<&Solid>,
) {
    let Some(below) = below else { return };
    let mut shade = Canvas::new(canvas.side());
    let top = below.top();
    cast(
        &mut shade,
        camera,
        (solid, light),
        (solid.object.at[2], Some(&top)),
    );
    canvas.lay(&shade, 0.5);
}

fn holds(lower: &Object, upper: &Object) -> bool {
    lower.at[2] == 0.0 && (lower.height() - upper.at[2]).abs() < 1e-4
}

fn back_to_front(objects: &[Object]) -> Vec<&Object> {
    let mut left: Vec<_> = objects.iter().collect();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        // The farthest is one that hides none of the others.
        let hides = |a: &Object| left.iter().any(|b| *b != a && nearer(a, b));
        let next = left.iter().position(|object| !hides(object)).unwrap_or(0);
        order.push(left.remove(next));
    }
    order
}

fn rgb(canvas: &Canvas) -> RgbImage {
    let side = canvas.side();
    let bytes = canvas.pixels().iter();
    let bytes = bytes.flat_map(|pixel| [pixel.red(), pixel.green(), pixel.blue()]);
    RgbImage::from_vec(side, side, bytes.collect()).expect("three bytes for each pixel")
}

fn halved(canvas: &Canvas) -> RgbImage {
    let (side, pixels) = (canvas.side() / 2, canvas.pixels());
    RgbImage::from_fn(side, side, |x, y| {
        let first = (2 * y * 2 * side + 2 * x) as usize;
        let below = first + 2 * side as usize;
        let four = [first, first + 1, below, below + 1].map(|i| pixels[i]);
        let mean = |channel: fn(&tiny_skia::PremultipliedColorU8) -> u8| {
            let sum: u16 = four.iter().map(|pixel| u16::from(channel(pixel))).sum();
            ((sum + 2) / 4) as u8
        };
        Rgb([mean(|p| p.red()), mean(|p| p.green()), mean(|p| p.blue())])
    })
}

#[cfg(test)]
mod tests {
    use image::imageops::{FilterType, resize};

    use super::{super::split::train_scene, *};

    fn difference(a: &RgbImage, b: &RgbImage) -> f32 {
        assert_eq!(a.dimensions(), b.dimensions());
        let sum: u32 = a
            .iter()
            .zip(b.iter())
            .map(|(&a, &b)| u32::from(a.abs_diff(b)))
            .sum();
        sum as f32 / a.len() as f32
    }

    #[test]
    fn every_side_shows_the_same() {
        for seed in 0..12 {
            let scene = train_scene(seed);
            let small = render(&scene, 64);
            for side in [128, 256, 401] {
                let large = resize(&render(&scene, side), 64, 64, FilterType::Triangle);
                let difference = difference(&small, &large);
                assert!(difference < 2.0, "{seed} at {side}: {difference}");
            }
        }
    }

    #[test]
    fn all_objects_are_in_the_picture() {
        for seed in 0..200 {
            let mut scene = train_scene(seed);
            let whole = render(&scene, 48);
            scene.objects.pop();
            assert!(difference(&whole, &render(&scene, 48)) > 1.0, "{seed}");
        }
    }

    #[test]
    fn odd_and_tiny_sides_are_drawn() {
        for side in [1, 7, 33, 99, 101] {
            assert_eq!(render(&train_scene(1), side).dimensions(), (side, side));
        }
    }
}
