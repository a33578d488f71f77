//! The geometry of objects: rings that span them, and what of them is seen.

use std::f32::consts::{FRAC_PI_2, TAU};

use super::{
    camera::{Camera, Vector, add, cross, dot, unit},
    geometry::{Point, hull},
    world::{Object, Shape},
};

/// A horizontal ring of points; a solid is the convex hull of its rings.
#[derive(Debug, Clone, Copy)]
pub struct Ring {
    /// Its middle.
    pub middle: Vector,
    /// Its radius.
    pub radius: f32,
    corners: usize,
    yaw: f32,
}

impl Ring {
    /// Its points if it had another radius.
    pub fn points(&self, radius: f32) -> impl Iterator<Item = Vector> + use<> {
        let Self {
            middle,
            corners,
            yaw,
            ..
        } = *self;
        (0..corners).map(move |i| {
            let (sin, cos) = (yaw + TAU * i as f32 / corners as f32).sin_cos();
            add(middle, [cos, sin, 0.0], radius)
        })
    }
}

/// An object as points in space.
#[derive(Debug, Clone, Copy)]
pub struct Solid<'a> {
    /// The object.
    pub object: &'a Object,
    corners: usize,
}

impl<'a> Solid<'a> {
    /// An object whose round outlines have so many corners.
    pub fn new(object: &'a Object, corners: usize) -> Self {
        let corners = if object.shape == Shape::Cube {
            4
        } else {
            corners
        };
        Self { object, corners }
    }

    /// A ring at a share of the height.
    pub fn ring(&self, share: f32, radius: f32) -> Ring {
        let object = self.object;
        Ring {
            middle: add(object.at, [0.0, 0.0, 1.0], share * object.height()),
            radius,
            corners: self.corners,
            yaw: object.yaw,
        }
    }

    /// Rings of which it is the hull.
    pub fn rings(&self) -> Vec<Ring> {
        let radius = self.object.radius();
        match self.object.shape {
            Shape::Cube | Shape::Cylinder => vec![self.ring(0.0, radius), self.ring(1.0, radius)],
            Shape::Cone => vec![self.ring(0.0, radius), self.ring(1.0, 0.0)],
            Shape::Sphere => (0..7)
                .map(|i| {
                    let (sin, cos) = (FRAC_PI_2 * (i - 3) as f32 / 3.0).sin_cos();
                    self.ring((1.0 + sin) / 2.0, radius * cos)
                })
                .collect(),
        }
    }

    /// Middle of a sphere, half way up others.
    pub fn middle(&self) -> Vector {
        self.ring(0.5, 0.0).middle
    }

    /// The top face, on its plane.
    pub fn top(&self) -> Vec<Point> {
        let ring = self.ring(1.0, self.object.radius());
        hull(ring.points(ring.radius).map(|[x, y, _]| [x, y]).collect())
    }

    /// The outline in the picture.
    pub fn outline(&self, camera: &Camera) -> Vec<Point> {
        if self.object.shape == Shape::Sphere {
            return self.sphere_outline(camera);
        }
        let rings = self.rings();
        let points = rings.iter().flat_map(|ring| ring.points(ring.radius));
        hull(points.map(|point| camera.project(point)).collect())
    }

    /// The circle in which lines of sight touch a sphere.
    fn sphere_outline(&self, camera: &Camera) -> Vec<Point> {
        let (middle, radius) = (self.middle(), self.object.radius());
        let away = add(middle, camera.eye(), -1.0);
        let distance = dot(away, away).sqrt();
        let away = unit(away);
        let right = unit(cross(away, [0.0, 0.0, 1.0]));
        let up = cross(right, away);
        let sine = radius / distance;
        let circle = radius * (1.0 - sine * sine).sqrt();
        let centre = add(middle, away, -radius * sine);
        (0..self.corners)
            .map(|i| {
                let (sin, cos) = (TAU * i as f32 / self.corners as f32).sin_cos();
                camera.project(add(add(centre, right, circle * cos), up, circle * sin))
            })
            .collect()
    }
}
