//! Where lines of sight meet solids, and how well the light on an object agrees with a solid's
//! surface.
//!
//! Matte surfaces are as bright as the light's direction times the normal, so brightness is linear
//! in the normal wherever the light is: a cube has flat faces, a cylinder a gradient.

use super::{
    camera::{Vector, add, dot},
    fit::Fit,
    segment::{GRID, Pixel, Segments},
    world::{Object, Shape},
};

/// Deviation, in its own standard, from which a pixel is taken for a highlight or an edge.
const OUTLIER: f32 = 1.8;

/// The normal of an object where a line from a point first meets it.
pub fn normal(object: &Object, from: Vector, along: Vector) -> Option<Vector> {
    let start = add(from, object.at, -1.0);
    let (radius, height) = (object.radius(), object.height());
    match object.shape {
        Shape::Cube => cube(start, along, height, object.yaw),
        Shape::Sphere => {
            let centre = [0.0, 0.0, radius];
            let start = add(start, centre, -1.0);
            let t = nearest(
                dot(along, along),
                dot(start, along),
                dot(start, start) - radius * radius,
            )?;
            Some(add(start, along, t).map(|x| x / radius))
        }
        Shape::Cylinder => {
            let top = add(start, along, (height - start[2]) / along[2]);
            if top[0] * top[0] + top[1] * top[1] <= radius * radius {
                return Some([0.0, 0.0, 1.0]);
            }
            let [a, b, c] = [
                flat(along, along),
                flat(start, along),
                flat(start, start) - radius * radius,
            ];
            let at = add(start, along, nearest(a, b, c)?);
            let inside = (0.0..=height).contains(&at[2]);
            inside.then(|| [at[0] / radius, at[1] / radius, 0.0])
        }
        Shape::Cone => {
            let slope = radius / height;
            let start = add(start, [0.0, 0.0, height], -1.0);
            let steep = slope * slope;
            let [a, b, c] = [
                flat(along, along) - steep * along[2] * along[2],
                flat(start, along) - steep * start[2] * along[2],
                flat(start, start) - steep * start[2] * start[2],
            ];
            let at = add(start, along, nearest(a, b, c)?);
            let away = flat(at, at).sqrt().max(1e-6);
            let length = (1.0 + steep).sqrt();
            let inside = (-height..=0.0).contains(&at[2]);
            inside.then(|| [at[0] / away / length, at[1] / away / length, slope / length])
        }
    }
}

fn flat(a: Vector, b: Vector) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

/// The smaller root of `a t² + 2 b t + c`.
fn nearest(a: f32, b: f32, c: f32) -> Option<f32> {
    let under = b * b - a * c;
    (under >= 0.0).then(|| (-b - under.sqrt()) / a)
}

fn cube(start: Vector, along: Vector, side: f32, yaw: f32) -> Option<Vector> {
    let (sin, cos) = (yaw + std::f32::consts::FRAC_PI_4).sin_cos();
    let axes = [[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]];
    let start = add(start, [0.0, 0.0, side / 2.0], -1.0);
    let (mut enter, mut leave, mut found) = (f32::MIN, f32::MAX, None);
    for axis in axes {
        let (s, d) = (dot(start, axis), dot(along, axis));
        let (near, far) = (
            (-side / 2.0 * d.signum() - s) / d,
            (side / 2.0 * d.signum() - s) / d,
        );
        if near > enter {
            enter = near;
            found = Some(axis.map(|x| -x * d.signum()));
        }
        leave = leave.min(far);
    }
    found.filter(|_| enter < leave)
}

/// How much the brightness of an object's pixels differs from the best light on a solid, as a
/// share of the mean brightness; highlights and edges are left out.
pub fn unevenness(fit: &Fit, numbers: &[usize], segments: &Segments) -> f32 {
    let mut samples = samples(fit, numbers, segments);
    let (mut deviation, mut light) = (0.0, [0.0; 4]);
    for _ in 0..3 {
        light = brightest_fit(&samples);
        let off = |(n, brightness): &([f32; 4], f32)| brightness - product(&light, n);
        let sum: f32 = samples.iter().map(|sample| off(sample).powi(2)).sum();
        deviation = (sum / samples.len().max(1) as f32).sqrt();
        samples.retain(|sample| off(sample).abs() <= OUTLIER * deviation);
    }
    let total: f32 = samples.iter().map(|(n, _)| product(&light, n)).sum();
    deviation / (total / samples.len().max(1) as f32).max(0.05)
}

/// Normals with a 1 for the light from everywhere, and brightness, of the pixels that object and
/// solid share.
fn samples(fit: &Fit, numbers: &[usize], segments: &Segments) -> Vec<([f32; 4], f32)> {
    let camera = fit.camera();
    let eye = camera.eye();
    let mut samples = Vec::new();
    for (row, first, last) in fit.rows() {
        for column in first..=last {
            let at = row * GRID + column;
            let own = matches!(segments.pixels[at], Pixel::Object(k) if numbers.contains(&k));
            let place = [column, row].map(|x| (x as f32 + 0.5) / GRID as f32);
            let normal = own
                .then(|| normal(&fit.object, eye, camera.ray(place)))
                .flatten();
            if let Some([x, y, z]) = normal {
                samples.push(([1.0, x, y, z], segments.brightness[at]));
            }
        }
    }
    samples
}

fn product(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Weights of the normal that give the brightness with the least squares, by Gauss.
fn brightest_fit(samples: &[([f32; 4], f32)]) -> [f32; 4] {
    let mut rows = [[0.0f32; 5]; 4];
    for (normal, brightness) in samples {
        for (row, a) in rows.iter_mut().zip(normal) {
            for (cell, b) in row.iter_mut().zip(normal.iter().chain([brightness])) {
                *cell += a * b;
            }
        }
    }
    for (i, row) in rows.iter_mut().enumerate() {
        // A cube's three faces do not tell all four weights: a little keeps them small.
        row[i] += 1e-3 * (samples.len() as f32 + 1.0);
    }
    for i in 0..4 {
        let pivot = rows[i].map(|x| x / rows[i][i]);
        rows[i] = pivot;
        for (k, row) in rows.iter_mut().enumerate() {
            if k != i {
                let factor = row[i];
                row.iter_mut()
                    .zip(pivot)
                    .for_each(|(x, p)| *x -= factor * p);
            }
        }
    }
    rows.map(|row| row[4])
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            camera::{Camera, unit},
            world::{Colour, Material, Size},
        },
        *,
    };

    #[test]
    fn normals_are_of_length_one_and_face_the_viewer() {
        for shape in Shape::ALL {
            let object = Object {
                shape,
                colour: Colour::Red,
                size: Size::Large,
                material: Material::Matte,
                at: [0.2, 0.1, 0.3],
                yaw: 0.6,
            };
            let camera = Camera::nominal([0.0; 2]);
            let mut met = 0;
            for i in 0..400 {
                let place = [(i % 20) as f32 / 20.0, (i / 20) as f32 / 20.0];
                let ray = camera.ray(place);
                if let Some(normal) = normal(&object, camera.eye(), ray) {
                    assert!(
                        (dot(normal, normal) - 1.0).abs() < 1e-3,
                        "{shape:?} {normal:?}"
                    );
                    assert!(dot(normal, unit(ray)) < 0.02, "{shape:?} {normal:?}");
                    met += 1;
                }
            }
            assert!((15..120).contains(&met), "{shape:?} {met}");
        }
    }
}
