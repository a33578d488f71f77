//! From units in the world to shares of a picture: perspective from slightly above.

use super::world::CameraJitter;

/// A point or direction: to the right, away from the viewer, up.
pub type Vector = [f32; 3];

/// Units that fill the width of a picture at the middle of the scene.
pub const VIEW: f32 = 4.3;

/// Units from the camera to the middle of the scene.
pub const DISTANCE: f32 = 11.0;

/// Radians by which the camera looks down when not jittered, with its sine and cosine.
///
/// As numbers, so that choosing a scene needs no function whose last bit differs among machines.
pub const PITCH: f32 = 0.56;
/// Sine of [`PITCH`].
pub const SIN_PITCH: f32 = 0.531_186_2;
/// Cosine of [`PITCH`].
pub const COS_PITCH: f32 = 0.847_255_1;

/// Sum of two vectors, the second one scaled.
pub fn add(a: Vector, b: Vector, scale: f32) -> Vector {
    [
        a[0] + b[0] * scale,
        a[1] + b[1] * scale,
        a[2] + b[2] * scale,
    ]
}

/// Scalar product.
pub fn dot(a: Vector, b: Vector) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// Vector product.
pub fn cross(a: Vector, b: Vector) -> Vector {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// The same direction at length 1.
pub fn unit(a: Vector) -> Vector {
    let length = dot(a, a).sqrt();
    a.map(|x| x / length)
}

/// A pinhole camera with a shifted lens.
#[derive(Debug, Clone, Copy)]
pub struct Camera {
    sin: f32,
    cos: f32,
    zoom: f32,
    shift: [f32; 2],
}

impl Camera {
    /// The camera of a scene.
    pub fn new(jitter: &CameraJitter) -> Self {
        Self {
            sin: jitter.pitch.sin(),
            cos: jitter.pitch.cos(),
            zoom: jitter.zoom,
            shift: jitter.shift,
        }
    }

    /// The camera without jitter, shifted.
    pub fn nominal(shift: [f32; 2]) -> Self {
        Self {
            sin: SIN_PITCH,
            cos: COS_PITCH,
            zoom: 1.0,
            shift,
        }
    }

    /// Direction in which it looks.
    pub fn forward(&self) -> Vector {
        [0.0, self.cos, -self.sin]
    }

    /// Direction that is up in the picture.
    pub fn up(&self) -> Vector {
        [0.0, self.sin, self.cos]
    }

    /// Where it stands.
    pub fn eye(&self) -> Vector {
        self.forward().map(|x| -DISTANCE * x)
    }

    /// Shares of the picture's side that a unit takes at a point.
    pub fn scale(&self, point: Vector) -> f32 {
        self.zoom / VIEW * DISTANCE / (DISTANCE + dot(point, self.forward()))
    }

    /// Where a point is seen, in shares of the picture's side from its top left corner.
    pub fn project(&self, point: Vector) -> [f32; 2] {
        let scale = self.scale(point);
        [
            0.5 + self.shift[0] + scale * point[0],
            0.5 + self.shift[1] - scale * dot(point, self.up()),
        ]
    }

    /// The direction in which a point of the picture is seen, not of length 1.
    pub fn ray(&self, [x, y]: [f32; 2]) -> Vector {
        let right = (x - 0.5 - self.shift[0]) * VIEW / self.zoom;
        let up = -(y - 0.5 - self.shift[1]) * VIEW / self.zoom;
        let ahead = add([right, 0.0, 0.0], self.up(), up);
        add(ahead, self.forward(), DISTANCE)
    }

    /// The point of a horizontal plane that is seen at a point of the picture.
    pub fn on_plane(&self, at: [f32; 2], height: f32) -> Vector {
        let (eye, ray) = (self.eye(), self.ray(at));
        add(eye, ray, (height - eye[2]) / ray[2])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_of_the_pitch() {
        assert!((PITCH.sin() - SIN_PITCH).abs() < 1e-5);
        assert!((PITCH.cos() - COS_PITCH).abs() < 1e-5);
    }

    #[test]
    fn a_point_of_the_floor_is_found_again() {
        let camera = Camera::nominal([0.02, -0.05]);
        let point = [0.7, -0.9, 0.4];
        let back = camera.on_plane(camera.project(point), 0.4);
        for (a, b) in point.iter().zip(back) {
            assert!((a - b).abs() < 1e-4);
        }
    }
}
