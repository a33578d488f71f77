//! Solids laid over what is seen of an object: which one covers just its pixels.

use super::{
    camera::{Camera, PITCH},
    geometry::Point,
    segment::{GRID, Pixel, Segments},
    solid::Solid,
    surface::unevenness,
    world::{CameraJitter, Colour, Material, Object, Shape, Size},
};

/// Corners of round outlines.
const CORNERS: usize = 28;
/// Turns of cubes that are tried; a quarter of a turn looks the same.
const YAWS: [f32; 5] = [0.4, 0.6, 0.785, 0.97, 1.17];
/// What a pixel counts that may be covered by something else.
const HIDDEN: f32 = 0.015;

/// What wrong light counts beside wrong pixels.
const LIGHT: f32 = 0.4;

/// A solid of medium size that stands at the origin of the world before a camera of its own, which
/// gives it its place and size.
#[derive(Debug, Clone, Copy)]
pub struct Fit {
    /// The solid.
    pub object: Object,
    view: CameraJitter,
    /// Share of pixels in which solid and object differ.
    pub loss: f32,
    /// How badly the light on the object agrees with the solid, if that was looked at.
    pub unevenness: f32,
}

impl Fit {
    /// The lower, the likelier it is that the object is of this shape.
    pub fn cost(&self) -> f32 {
        self.loss + LIGHT * self.unevenness
    }

    fn new(shape: Shape, yaw: f32) -> Self {
        let object = Object {
            shape,
            colour: Colour::Red,
            size: Size::Medium,
            material: Material::Matte,
            at: [0.0; 3],
            yaw,
        };
        let view = CameraJitter {
            pitch: PITCH - 0.03,
            zoom: 1.0,
            shift: [0.0; 2],
        };
        Self {
            object,
            view,
            loss: f32::MAX,
            unevenness: 0.0,
        }
    }

    /// The camera before which the solid stands.
    pub fn camera(&self) -> Camera {
        Camera::new(&self.view)
    }

    /// Width in units, if the middle of the scene is as far away.
    pub fn width(&self) -> f32 {
        self.view.zoom * Size::Medium.width()
    }

    /// Where the middle of its base is seen, in shares of the side.
    pub fn base(&self) -> Point {
        self.camera().project([0.0; 3])
    }

    /// Where the middle of its top is seen.
    pub fn top(&self) -> Point {
        self.camera().project([0.0, 0.0, self.object.height()])
    }

    /// First and last pixel in each row of the grid that it covers, with the row.
    pub fn rows(&self) -> Vec<(usize, usize, usize)> {
        let outline = Solid::new(&self.object, CORNERS).outline(&self.camera());
        let outline: Vec<_> = outline.iter().map(|p| p.map(|x| x * GRID as f32)).collect();
        let (low, high) = span(outline.iter().map(|p| p[1]));
        let last = (high.ceil().max(0.0) as usize).min(GRID);
        (low.floor().max(0.0) as usize..last)
            .filter_map(|row| {
                let (left, right) = crossing(&outline, row as f32 + 0.5)?;
                // A pixel is covered where its middle is.
                let first = (left + 0.5).floor().max(0.0) as usize;
                let end = ((right + 0.5).floor().max(0.0) as usize).min(GRID);
                (first < end).then(|| (row, first, end - 1))
            })
            .collect()
    }

    /// Adapts place, size, tilt and turn to an object's pixels.
    fn settle(&mut self, target: &Target) {
        self.loss = target.loss(self);
        let mut step = 0.12;
        while step > 0.004 {
            let before = self.loss;
            let parameters = if self.object.shape == Shape::Cube {
                5
            } else {
                4
            };
            for parameter in 0..parameters {
                for sign in [-1.0, 1.0] {
                    let mut moved = self.moved(parameter, sign * step);
                    moved.loss = target.loss(&moved);
                    if moved.loss < self.loss {
                        *self = moved;
                    }
                }
            }
            if self.loss >= before - 1e-4 {
                step /= 2.0;
            }
        }
    }

    fn moved(&self, parameter: usize, step: f32) -> Self {
        let mut moved = *self;
        let view = &mut moved.view;
        match parameter {
            0 => view.shift[0] += 0.3 * step * view.zoom,
            1 => view.shift[1] += 0.3 * step * view.zoom,
            2 => view.zoom *= 1.0 + step,
            3 => view.pitch = (view.pitch + step).clamp(PITCH - 0.17, PITCH + 0.09),
            _ => moved.object.yaw = (moved.object.yaw + 2.0 * step).clamp(0.3, 1.27),
        }
        moved
    }
}

/// The pixels that a solid has to cover.
#[derive(Debug)]
pub struct Target<'a> {
    segments: &'a Segments,
    numbers: Vec<usize>,
    area: usize,
    bounds: [f32; 4],
}

impl<'a> Target<'a> {
    /// The pixels of the segments of some numbers, which are taken for one object.
    pub fn new(segments: &'a Segments, numbers: &[usize]) -> Self {
        let own = |(_, pixel): &(usize, &Pixel)| matches!(pixel, Pixel::Object(number) if numbers.contains(number));
        let members: Vec<_> = segments
            .pixels
            .iter()
            .enumerate()
            .filter(own)
            .map(|(i, _)| i)
            .collect();
        let (left, right) = span(members.iter().map(|i| (i % GRID) as f32));
        let (top, bottom) = span(members.iter().map(|i| (i / GRID) as f32));
        let bounds = [left, top, right + 1.0, bottom + 1.0].map(|x| x / GRID as f32);
        Self {
            segments,
            numbers: numbers.to_vec(),
            area: members.len(),
            bounds,
        }
    }

    /// The best fit of any shape.
    pub fn fit(&self) -> Fit {
        let fits = Shape::ALL.iter().map(|&shape| {
            let mut fit = self.fit_shape(shape);
            fit.unevenness = unevenness(&fit, &self.numbers, self.segments);
            fit
        });
        fits.min_by(|a, b| a.cost().total_cmp(&b.cost()))
            .expect("a shape")
    }

    /// The best fit of a shape.
    pub fn fit_shape(&self, shape: Shape) -> Fit {
        let yaws = if shape == Shape::Cube {
            &YAWS[..]
        } else {
            &YAWS[..1]
        };
        let fits = yaws.iter().map(|&yaw| {
            let mut fit = self.start(shape, yaw);
            fit.settle(self);
            fit
        });
        fits.min_by(|a, b| a.loss.total_cmp(&b.loss))
            .expect("a yaw")
    }

    /// A solid that just fills the width and the middle of the object.
    fn start(&self, shape: Shape, yaw: f32) -> Fit {
        let mut fit = Fit::new(shape, yaw);
        let outline = |fit: &Fit| {
            let points = Solid::new(&fit.object, CORNERS).outline(&fit.camera());
            let (left, right) = span(points.iter().map(|p| p[0]));
            let (top, bottom) = span(points.iter().map(|p| p[1]));
            [left, top, right, bottom]
        };
        let [left, top, right, bottom] = outline(&fit);
        let b = self.bounds;
        fit.view.zoom = ((b[2] - b[0]) / (right - left)).max((b[3] - b[1]) / (bottom - top));
        let now = outline(&fit);
        for axis in 0..2 {
            fit.view.shift[axis] = (b[axis] + b[axis + 2] - now[axis] - now[axis + 2]) / 2.0;
        }
        fit
    }

    /// Pixels that solid or object have alone, by those that either has.
    fn loss(&self, fit: &Fit) -> f32 {
        let (mut shared, mut extra, mut hidden) = (0, 0, 0);
        for (row, first, last) in fit.rows() {
            for pixel in &self.segments.pixels[row * GRID + first..=row * GRID + last] {
                match *pixel {
                    Pixel::Object(number) if self.numbers.contains(&number) => shared += 1,
                    Pixel::Floor => extra += 1,
                    _ => hidden += 1,
                }
            }
        }
        let missed = self.area - shared;
        let wrong = (missed + extra) as f32 + HIDDEN * hidden as f32;
        wrong / (self.area + extra) as f32
    }
}

/// Smallest and largest of numbers.
fn span(numbers: impl Iterator<Item = f32>) -> (f32, f32) {
    numbers.fold((f32::MAX, f32::MIN), |(low, high), x| {
        (low.min(x), high.max(x))
    })
}

/// Where a convex outline crosses a height.
fn crossing(outline: &[Point], height: f32) -> Option<(f32, f32)> {
    let edges = (0..outline.len()).map(|i| (outline[i], outline[(i + 1) % outline.len()]));
    let crossed = edges.filter(|(a, b)| (a[1] <= height) != (b[1] <= height));
    let (left, right) =
        span(crossed.map(|(a, b)| a[0] + (height - a[1]) / (b[1] - a[1]) * (b[0] - a[0])));
    (left <= right).then_some((left, right))
}
