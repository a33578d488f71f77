//! Outlines, gradients and lines in shares of a picture's side, drawn antialiased.

use tiny_skia::{
    BlendMode, Color, FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path,
    PathBuilder, Pixmap, PremultipliedColorU8, RadialGradient, Shader, SpreadMode, Stroke,
    SweepGradient, Transform,
};

use super::geometry::Point;

/// Red, green and blue from 0 to 1; above 1 is cut off.
pub type Rgb = [f32; 3];

/// A colour with its opacity.
pub fn colour(rgb: Rgb, opacity: f32) -> Color {
    let [r, g, b] = rgb.map(|x| x.clamp(0.0, 1.0));
    Color::from_rgba(r, g, b, opacity.clamp(0.0, 1.0)).unwrap_or(Color::BLACK)
}

/// What an outline is filled with; points are in shares of the side.
#[derive(Debug, Clone)]
pub enum Ink {
    /// One colour.
    Plain(Color),
    /// Colours along a line.
    Linear(Point, Point, Vec<(f32, Color)>),
    /// Colours by the distance from a point, up to a radius.
    Radial(Point, f32, Vec<(f32, Color)>),
    /// Colours by the direction from a point, between two angles in degrees, clockwise from the
    /// right.
    Sweep(Point, [f32; 2], Vec<(f32, Color)>),
}

/// A square picture that is being drawn.
#[derive(Debug)]
pub struct Canvas {
    pixels: Pixmap,
    side: f32,
}

impl Canvas {
    /// A transparent picture.
    ///
    /// # Panics
    ///
    /// If the side is 0 or too long for memory to hold the picture.
    pub fn new(side: u32) -> Self {
        let pixels = Pixmap::new(side, side).expect("a side from 1 up");
        let side = side as f32;
        Self { pixels, side }
    }

    /// Pixels on its side.
    pub fn side(&self) -> u32 {
        self.pixels.width()
    }

    /// Its pixels, rows from the top.
    pub fn pixels(&self) -> &[PremultipliedColorU8] {
        self.pixels.pixels()
    }

    /// Fills everything.
    pub fn flood(&mut self, ink: Ink) {
        self.fill(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], ink);
    }

    /// Fills an outline.
    pub fn fill(&mut self, outline: &[Point], ink: Ink) {
        self.fill_by(outline, ink, BlendMode::SourceOver);
    }

    /// Fills an outline with an ink in place of what is there.
    pub fn replace(&mut self, outline: &[Point], ink: Ink) {
        self.fill_by(outline, ink, BlendMode::Source);
    }

    fn fill_by(&mut self, outline: &[Point], ink: Ink, blend_mode: BlendMode) {
        let (Some(path), Some(shader)) = (self.path(outline, true), self.shader(ink)) else {
            return;
        };
        let paint = Paint {
            shader,
            blend_mode,
            ..Paint::default()
        };
        let rule = FillRule::Winding;
        self.pixels
            .fill_path(&path, &paint, rule, Transform::identity(), None);
    }

    /// Draws a line through points.
    pub fn line(&mut self, points: &[Point], width: f32, ink: Ink) {
        let (Some(path), Some(shader)) = (self.path(points, false), self.shader(ink)) else {
            return;
        };
        let paint = Paint {
            shader,
            ..Paint::default()
        };
        let stroke = Stroke {
            width: width * self.side,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        self.pixels
            .stroke_path(&path, &paint, &stroke, Transform::identity(), None);
    }

    /// Lays another canvas of the same side over this one.
    pub fn lay(&mut self, over: &Self, opacity: f32) {
        let paint = tiny_skia::PixmapPaint {
            opacity,
            ..Default::default()
        };
        let whole = Transform::identity();
        self.pixels
            .draw_pixmap(0, 0, over.pixels.as_ref(), &paint, whole, None);
    }

    /// Makes each byte of every pixel the larger of its own and the other canvas's, which must be as
    /// large: shadows of one lamp do not add up.
    pub fn join(&mut self, other: &Self) {
        let theirs = other.pixels.data();
        for (own, &their) in self.pixels.data_mut().iter_mut().zip(theirs) {
            *own = (*own).max(their);
        }
    }

    fn path(&self, points: &[Point], closed: bool) -> Option<Path> {
        let mut path = PathBuilder::with_capacity(points.len() + 1, points.len());
        for (i, &[x, y]) in points.iter().enumerate() {
            let (x, y) = (x * self.side, y * self.side);
            match i {
                0 => path.move_to(x, y),
                _ => path.line_to(x, y),
            }
        }
        if closed {
            path.close();
        }
        path.finish()
    }

    fn shader(&self, ink: Ink) -> Option<Shader<'static>> {
        let at = |[x, y]: Point| tiny_skia::Point::from_xy(x * self.side, y * self.side);
        let (pad, whole) = (SpreadMode::Pad, Transform::identity());
        match ink {
            Ink::Plain(color) => Some(Shader::SolidColor(color)),
            Ink::Linear(from, to, colours) => {
                LinearGradient::new(at(from), at(to), stops(colours), pad, whole)
            }
            Ink::Radial(middle, radius, colours) => {
                let (middle, radius) = (at(middle), radius * self.side);
                RadialGradient::new(middle, 0.0, middle, radius, stops(colours), pad, whole)
            }
            Ink::Sweep(middle, [from, to], colours) => {
                SweepGradient::new(at(middle), from, to, stops(colours), pad, whole)
            }
        }
    }
}

fn stops(colours: Vec<(f32, Color)>) -> Vec<GradientStop> {
    let stop = |(at, color)| GradientStop::new(at, color);
    colours.into_iter().map(stop).collect()
}
