//! How light falls on objects.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_PI_4, PI, TAU};

use tiny_skia::Color;

use super::{
    camera::{Camera, Vector, add, dot, unit},
    geometry::Point,
    paint::{Canvas, Ink, Rgb, colour},
    solid::Solid,
    world::{Light, Material, Shape},
};

/// Light from everywhere.
const AMBIENT: f32 = 0.46;
/// Light from above.
const SKY: f32 = 0.1;
/// Light from the lamp.
const DIRECT: f32 = 0.6;
/// Steps in gradients around round surfaces.
const STEPS: usize = 14;

/// The direction in which the light is.
pub fn towards(light: &Light) -> Vector {
    let (sin, cos) = light.azimuth.sin_cos();
    let (up, flat) = light.elevation.sin_cos();
    [sin * flat, -cos * flat, up]
}

/// Draws objects by one camera in one light.
#[derive(Debug)]
pub struct Shader<'a> {
    /// The camera.
    pub camera: &'a Camera,
    /// The direction in which the light is.
    pub light: Vector,
}

impl Shader<'_> {
    /// Draws an object without its shadow.
    pub fn draw(&self, canvas: &mut Canvas, solid: &Solid) {
        let outline = solid.outline(self.camera);
        match solid.object.shape {
            Shape::Cube => self.cube(canvas, solid, &outline),
            Shape::Sphere => self.sphere(canvas, solid, &outline),
            Shape::Cylinder => self.cylinder(canvas, solid, &outline),
            Shape::Cone => self.cone(canvas, solid, &outline),
        }
    }

    /// A surface's colour without highlights.
    fn matte(&self, solid: &Solid, normal: Vector) -> Rgb {
        let direct = dot(normal, self.light).max(0.0);
        let intensity = AMBIENT + SKY * normal[2] + DIRECT * direct;
        lit(solid.object.colour.rgb(), intensity)
    }

    /// The colour of an upright round surface, where it is shiny with the streak that a long lamp
    /// leaves on it.
    fn round(&self, solid: &Solid, normal: Vector) -> Color {
        let mut rgb = self.matte(solid, normal);
        if solid.object.material == Material::Shiny {
            let half = self.half();
            let flat = |v: Vector| (v[0] * v[0] + v[1] * v[1]).sqrt();
            let along = (normal[0] * half[0] + normal[1] * half[1]) / (flat(normal) * flat(half));
            let glow = 0.75 * along.max(0.0).powi(50);
            rgb = rgb.map(|x| x + (1.0 - x) * glow);
        }
        colour(rgb, 1.0)
    }

    /// The direction in which a mirror shows the light.
    fn half(&self) -> Vector {
        unit(add(self.light, self.camera.forward(), -1.0))
    }

    fn cube(&self, canvas: &mut Canvas, solid: &Solid, outline: &[Point]) {
        let side_on = self.matte(solid, [0.0, 0.0, 1.0]);
        // Under the faces, so that no floor shows through where they meet.
        canvas.fill(outline, Ink::Plain(colour(side_on, 1.0)));
        let ring = |share| solid.ring(share, solid.object.radius());
        let bottom: Vec<_> = self.seen(ring(0.0).points(ring(0.0).radius));
        let top: Vec<_> = self.seen(ring(1.0).points(ring(1.0).radius));
        let mut edges = Vec::new();
        let sides: Vec<_> = (0..4).filter(|&k| self.is_seen(solid, k)).collect();
        for &k in &sides {
            let next = (k + 1) % 4;
            let face = [top[k], top[next], bottom[next], bottom[k]];
            self.face(
                canvas,
                &face,
                self.matte(solid, side_normal(solid, k)),
                (1.05, 0.88),
            );
            self.sheen(canvas, solid, &face);
            edges.push([top[k], top[next]]);
            if sides.contains(&next) {
                edges.push([top[next], bottom[next]]);
            }
        }
        self.face(
            canvas,
            &[top[0], top[1], top[2], top[3]],
            side_on,
            (0.97, 1.04),
        );
        self.sheen(canvas, solid, &[top[3], top[0], top[1], top[2]]);
        self.bevel(canvas, solid, &edges);
    }

    /// Whether the viewer sees a side of a cube.
    fn is_seen(&self, solid: &Solid, side: usize) -> bool {
        let sight = add(solid.middle(), self.camera.eye(), -1.0);
        let outwards = FRAC_1_SQRT_2 * solid.object.radius();
        dot(side_normal(solid, side), sight) + outwards < 0.0
    }

    /// A flat face that is brighter or darker at its first edge than at the one across.
    fn face(&self, canvas: &mut Canvas, face: &[Point; 4], rgb: Rgb, (near, far): (f32, f32)) {
        let ink = Ink::Linear(
            middle(face[0], face[1]),
            middle(face[2], face[3]),
            vec![
                (0.0, colour(lit(rgb, near), 1.0)),
                (1.0, colour(lit(rgb, far), 1.0)),
            ],
        );
        canvas.fill(face, ink);
    }

    /// The reflection of a window along a shiny face.
    fn sheen(&self, canvas: &mut Canvas, solid: &Solid, face: &[Point; 4]) {
        if solid.object.material == Material::Matte {
            return;
        }
        let (from, to) = if self.light[0] < 0.0 {
            (face[0], face[2])
        } else {
            (face[1], face[3])
        };
        let stops = [
            (0.0, 0.14),
            (0.22, 0.36),
            (0.32, 0.36),
            (0.42, 0.05),
            (1.0, 0.0),
        ];
        let white = stops.map(|(at, opacity)| (at, colour([1.0; 3], opacity)));
        canvas.fill(face, Ink::Linear(from, to, white.to_vec()));
    }

    /// Bright lines on edges.
    fn bevel(&self, canvas: &mut Canvas, solid: &Solid, edges: &[[Point; 2]]) {
        let bright = lit(solid.object.colour.rgb(), 1.25);
        let width = 0.016 * solid.object.radius() * self.camera.scale(solid.middle()) * 2.0;
        for edge in edges {
            canvas.line(edge, width, Ink::Plain(colour(bright, 0.55)));
        }
    }

    fn sphere(&self, canvas: &mut Canvas, solid: &Solid, outline: &[Point]) {
        let centre = self.camera.project(solid.middle());
        let scale = self.camera.scale(solid.middle());
        let radius = scale * solid.object.radius();
        let (right, up) = (self.light[0], dot(self.light, self.camera.up()));
        let across = (right * right + up * up).sqrt();
        let brightest = [centre[0] + radius * right, centre[1] - radius * up];
        let reach = 1.0 + across;
        let tilt = across.min(1.0).asin();
        let stops = (0..=STEPS).map(|i| {
            let share = i as f32 / STEPS as f32;
            let turn = (across - reach * share).clamp(-1.0, 1.0).asin() - tilt;
            // Any direction this far from the light: a sphere is lit by that alone.
            let normal = self.turned(turn);
            (share, self.surface_by_angle(solid, turn, normal[2]))
        });
        canvas.fill(
            outline,
            Ink::Radial(brightest, radius * reach, stops.collect()),
        );
        self.ground(canvas, outline, centre, radius, 0.16);
        if solid.object.material == Material::Shiny {
            self.glint(canvas, centre, radius);
        }
    }

    /// The light's direction turned away from it in the plane of light and sight.
    fn turned(&self, angle: f32) -> Vector {
        let ahead = self.camera.forward();
        let aside = unit(add(self.light, ahead, -dot(self.light, ahead)));
        let across = dot(self.light, aside).asin() + angle;
        add(aside.map(|x| x * across.sin()), ahead, -across.cos())
    }

    fn surface_by_angle(&self, solid: &Solid, angle: f32, up: f32) -> Color {
        let intensity = AMBIENT + SKY * up + DIRECT * angle.cos().max(0.0);
        colour(lit(solid.object.colour.rgb(), intensity), 1.0)
    }

    /// The highlight of a shiny sphere.
    fn glint(&self, canvas: &mut Canvas, centre: Point, radius: f32) {
        let half = self.half();
        let at = [
            centre[0] + radius * half[0],
            centre[1] - radius * dot(half, self.camera.up()),
        ];
        let stops = [(0.0, 0.95), (0.35, 0.85), (0.6, 0.35), (1.0, 0.0)];
        let white = stops.map(|(at, opacity)| (at, colour([1.0; 3], opacity)));
        let size = 0.34 * radius;
        canvas.fill(&disc(at, size), Ink::Radial(at, size, white.to_vec()));
    }

    fn cylinder(&self, canvas: &mut Canvas, solid: &Solid, outline: &[Point]) {
        let (middle, radius) = (solid.middle(), solid.object.radius());
        let left = self.camera.project(add(middle, [-1.0, 0.0, 0.0], radius));
        let right = self.camera.project(add(middle, [1.0, 0.0, 0.0], radius));
        let stops = (0..=STEPS).map(|i| {
            let share = i as f32 / STEPS as f32;
            let (sin, cos) = (PI * (share - 0.5)).sin_cos();
            ((1.0 + sin) / 2.0, self.round(solid, [sin, -cos, 0.0]))
        });
        canvas.fill(outline, Ink::Linear(left, right, stops.collect()));
        let centre = self.camera.project(middle);
        let scale = self.camera.scale(middle);
        self.ground(canvas, outline, centre, scale * radius, 0.14);
        let ring = solid.ring(1.0, radius);
        let top = self.seen(ring.points(radius));
        let flat = self.matte(solid, [0.0, 0.0, 1.0]);
        let height = |by: f32| {
            self.camera
                .project(add(ring.middle, [0.0, by, 0.0], radius))
        };
        let ink = Ink::Linear(
            height(1.0),
            height(-1.0),
            vec![
                (0.0, colour(lit(flat, 0.97), 1.0)),
                (1.0, colour(lit(flat, 1.05), 1.0)),
            ],
        );
        canvas.fill(&top, ink);
        if solid.object.material == Material::Shiny {
            let [x0, y0, x1, y1] = [left[0], height(1.0)[1], right[0], height(-1.0)[1]];
            let quarter = self.camera.project(ring.middle);
            let glow = [(0.0, 0.45), (0.5, 0.2), (1.0, 0.0)];
            let white = glow.map(|(at, opacity)| (at, colour([1.0; 3], opacity)));
            let from = if self.light[0] < 0.0 {
                [x0, y0]
            } else {
                [x1, y0]
            };
            let to = [quarter[0], (quarter[1] + y1) / 2.0];
            canvas.fill(&top, Ink::Linear(from, to, white.to_vec()));
        }
        let edges: Vec<_> = (0..top.len())
            .map(|i| [top[i], top[(i + 1) % top.len()]])
            .collect();
        let front: Vec<_> = edges
            .into_iter()
            .filter(|[a, b]| a[1].min(b[1]) >= self.camera.project(ring.middle)[1])
            .collect();
        self.bevel(canvas, solid, &front);
    }

    fn cone(&self, canvas: &mut Canvas, solid: &Solid, outline: &[Point]) {
        let (radius, height) = (solid.object.radius(), solid.object.height());
        let slant = unit([height, 0.0, radius]);
        let base = solid.ring(0.0, radius).middle;
        let apex = self.camera.project(solid.ring(1.0, 0.0).middle);
        let mut stops: Vec<(f32, Color)> = (0..=2 * STEPS)
            .map(|i| {
                // From the right over the front to the left, a little beyond what is seen.
                let (sin, cos) = (0.5 - (PI + 1.0) * i as f32 / (2 * STEPS) as f32).sin_cos();
                let [x, y] = self.camera.project(add(base, [cos, sin, 0.0], radius));
                let angle = (y - apex[1]).atan2(x - apex[0]).to_degrees();
                let normal = [cos * slant[0], sin * slant[0], slant[2]];
                (angle, self.round(solid, normal))
            })
            .collect();
        let mut widest = f32::MIN;
        stops.retain(|&(angle, _)| {
            let farther = angle > widest;
            widest = widest.max(angle);
            farther
        });
        let (from, to) = (stops[0].0, widest);
        for stop in &mut stops {
            stop.0 = (stop.0 - from) / (to - from);
        }
        canvas.fill(outline, Ink::Sweep(apex, [from, to], stops));
        let centre = self.camera.project(base);
        let scale = self.camera.scale(base);
        self.ground(
            canvas,
            outline,
            [centre[0], centre[1] - scale * 0.2],
            scale * radius,
            0.14,
        );
    }

    /// Darkens the lower part of an object, to which the floor lets less light.
    fn ground(&self, canvas: &mut Canvas, outline: &[Point], at: Point, reach: f32, by: f32) {
        let black = |opacity| colour([0.0; 3], opacity);
        let ink = Ink::Linear(
            [at[0], at[1]],
            [at[0], at[1] + 1.1 * reach],
            vec![(0.0, black(0.0)), (1.0, black(by))],
        );
        canvas.fill(outline, ink);
    }

    fn seen(&self, points: impl Iterator<Item = Vector>) -> Vec<Point> {
        points.map(|point| self.camera.project(point)).collect()
    }
}

/// A colour in so much light; towards white where that is more than it can show.
fn lit(rgb: Rgb, intensity: f32) -> Rgb {
    let over = (intensity - 1.0).max(0.0);
    rgb.map(|x| (x * intensity.min(1.0)) + (1.0 - x) * 0.6 * over)
}

fn middle(a: Point, b: Point) -> Point {
    [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0]
}

fn disc(at: Point, radius: f32) -> Vec<Point> {
    let corner = |i| {
        let (sin, cos) = (TAU * i as f32 / 48.0).sin_cos();
        [at[0] + radius * cos, at[1] + radius * sin]
    };
    (0..48).map(corner).collect()
}

/// The direction that a side of a cube faces, the one after its corner of that number.
fn side_normal(solid: &Solid, side: usize) -> Vector {
    let (sin, cos) = (solid.object.yaw + FRAC_PI_4 + TAU * side as f32 / 4.0).sin_cos();
    [cos, sin, 0.0]
}
