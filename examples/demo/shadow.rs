//! Soft shadows: dark at the foot of an object and wider and paler the higher what casts them.

use tiny_skia::Color;

use super::{
    camera::{Camera, Vector},
    geometry::{Point, hull, intersection},
    paint::{Canvas, Ink},
    solid::Solid,
};

/// How fast a shadow's edge widens with the height of what casts it.
const SOFTNESS: f32 = 0.15;
/// Half the width of a shadow's edge where the object touches the floor.
const CONTACT: f32 = 0.05;

/// Draws the shadow of an object on a horizontal plane at some height, within an outline of that
/// plane if one is given, as opacities of black.
pub fn cast(
    canvas: &mut Canvas,
    camera: &Camera,
    (solid, light): (&Solid, Vector),
    (height, within): (f32, Option<&[Point]>),
) {
    let layers = if canvas.side() < 200 { 10 } else { 32 };
    for layer in 0..layers {
        let spread = 1.0 - 2.0 * (layer as f32 + 0.5) / layers as f32;
        let mut outline = hull(fallen(solid, light, height, spread));
        if let Some(window) = within {
            outline = intersection(&outline, window);
        }
        let seen: Vec<_> = outline
            .iter()
            .map(|&[x, y]| camera.project([x, y, height]))
            .collect();
        let share = (layer + 1) as f32 / layers as f32;
        let opacity = share * share * (3.0 - 2.0 * share);
        let black = Color::from_rgba(0.0, 0.0, 0.0, opacity).unwrap_or(Color::BLACK);
        // Each layer lies within the one before, so it replaces rather than adds.
        canvas.replace(&seen, Ink::Plain(black));
    }
}

/// Where the light would throw the points of an object whose rings are made wider or narrower.
fn fallen(solid: &Solid, light: Vector, height: f32, spread: f32) -> Vec<Point> {
    let mut points = Vec::new();
    for ring in solid.rings() {
        let above = (ring.middle[2] - height).max(0.0);
        let wider = spread * (CONTACT + SOFTNESS * above);
        let radius = (ring.radius + wider).max(0.0);
        // A tip too small for its full shadow loses length instead.
        let above = (above + 1.8 * (ring.radius + wider).min(0.0)).max(0.0);
        let (dx, dy) = (above * light[0] / light[2], above * light[1] / light[2]);
        let shift = |[x, y, _]: Vector| [x - dx, y - dy];
        points.extend(ring.points(radius).map(shift));
    }
    points
}
