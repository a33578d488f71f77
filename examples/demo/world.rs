//! What a picture can show: objects, how they stand to each other, the floor, light and camera.

use serde::{Deserialize, Serialize};

use super::{
    layout::{self, Plan},
    rng::Rng,
};

/// Shapes of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// Stands on a face, turned to show two sides and the top.
    Cube,
    /// A ball.
    Sphere,
    /// Stands upright.
    Cylinder,
    /// Stands on its base.
    Cone,
}

/// Colours of objects: hues far enough apart to be told under any shading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Colour {
    /// Hue 359°.
    Red,
    /// Hue 129°.
    Green,
    /// Hue 224°.
    Blue,
    /// Hue 50°.
    Yellow,
    /// Hue 277°.
    Purple,
    /// Hue 26°.
    Orange,
    /// Hue 184°.
    Cyan,
}

/// Sizes of objects; captions have no word for the one in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Size {
    /// About 16 pixels wide in a picture of 64.
    Small,
    /// About 21.
    Medium,
    /// About 27.
    Large,
}

/// Surfaces of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Material {
    /// No highlights.
    Matte,
    /// White highlights.
    Shiny,
}

/// How the first object stands to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Relation {
    /// Stands on it.
    OnTopOf,
    /// To the left of it as the viewer sees it.
    LeftOf,
    /// To the right of it as the viewer sees it.
    RightOf,
    /// Nearer to the viewer.
    InFrontOf,
    /// Farther from the viewer.
    Behind,
}

/// Colours of the floor, all of little chroma so that objects stand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Background {
    /// Neutral, of middle brightness.
    Grey,
    /// Neutral and bright.
    White,
    /// Neutral, near black.
    Dark,
    /// Warm and bright.
    Beige,
    /// Bright with a little blue.
    PaleBlue,
    /// Bright with a little green.
    PaleGreen,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cube, Self::Sphere, Self::Cylinder, Self::Cone];

    /// Whether something can stand on it.
    pub fn supports(self) -> bool {
        matches!(self, Self::Cube | Self::Cylinder)
    }
}

impl Colour {
    /// All of them, in the order by which [the held-out rule](super::split) numbers them.
    pub const ALL: [Self; 7] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::Orange,
        Self::Cyan,
    ];

    /// sRGB of a surface in full light.
    pub fn rgb(self) -> [f32; 3] {
        let [r, g, b] = match self {
            Self::Red => [218, 38, 42],
            Self::Green => [52, 172, 70],
            Self::Blue => [44, 94, 226],
            Self::Yellow => [250, 214, 40],
            Self::Purple => [146, 62, 198],
            Self::Orange => [244, 118, 22],
            Self::Cyan => [42, 200, 210],
        };
        [r as f32 / 255.0, g as f32 / 255.0, b as f32 / 255.0]
    }
}

impl Size {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Small, Self::Medium, Self::Large];

    /// Nominal width in units, of which [`super::camera::VIEW`] fill a picture.
    pub fn width(self) -> f32 {
        match self {
            Self::Small => 1.08,
            Self::Medium => 1.4,
            Self::Large => 1.82,
        }
    }
}

impl Relation {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::OnTopOf,
        Self::LeftOf,
        Self::RightOf,
        Self::InFrontOf,
        Self::Behind,
    ];
}

impl Background {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Grey,
        Self::White,
        Self::Dark,
        Self::Beige,
        Self::PaleBlue,
        Self::PaleGreen,
    ];

    /// sRGB of the floor in full light.
    pub fn rgb(self) -> [f32; 3] {
        let [r, g, b] = match self {
            Self::Grey => [176, 176, 179],
            Self::White => [240, 240, 240],
            Self::Dark => [66, 68, 74],
            Self::Beige => [228, 214, 190],
            Self::PaleBlue => [184, 202, 222],
            Self::PaleGreen => [190, 214, 192],
        };
        [r as f32 / 255.0, g as f32 / 255.0, b as f32 / 255.0]
    }
}

/// An object and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub colour: Colour,
    /// Its size.
    pub size: Size,
    /// Its surface.
    pub material: Material,
    /// Middle of its base: to the right, away from the viewer, and above the floor, in units.
    pub at: [f32; 3],
    /// Turn about the vertical in radians; a cube shows two sides from 0.3 to 1.27.
    pub yaw: f32,
}

impl Object {
    /// Largest distance of its surface from its vertical axis.
    pub fn radius(&self) -> f32 {
        let width = self.size.width();
        match self.shape {
            Shape::Cube => 0.56 * width,
            Shape::Sphere => 0.5 * width,
            Shape::Cylinder => 0.44 * width,
            Shape::Cone => 0.47 * width,
        }
    }

    /// How tall it is.
    pub fn height(&self) -> f32 {
        let width = self.size.width();
        match self.shape {
            Shape::Cube => 0.56 * std::f32::consts::SQRT_2 * width,
            Shape::Sphere => width,
            Shape::Cylinder => 0.92 * width,
            Shape::Cone => 1.12 * width,
        }
    }
}

/// Where the light comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Light {
    /// Radians to the right of the viewer; from the left where negative.
    pub azimuth: f32,
    /// Radians above the floor.
    pub elevation: f32,
}

/// How the camera differs from picture to picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CameraJitter {
    /// Radians by which it looks down.
    pub pitch: f32,
    /// Magnification.
    pub zoom: f32,
    /// Shift of the picture to the right and down, in shares of its side.
    pub shift: [f32; 2],
}

/// All that a picture shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// One to three objects, each of another colour.
    pub objects: Vec<Object>,
    /// How the first stands to the second, where the scene was made for that; without it they stand
    /// anyhow, none on another.
    pub relation: Option<Relation>,
    /// The floor.
    pub background: Background,
    /// The light.
    pub light: Light,
    /// The camera.
    pub camera: CameraJitter,
}

impl Scene {
    /// A random scene of either split.
    pub fn sample(rng: &mut Rng) -> Self {
        let plan = Plan::draw(rng);
        Self::of_plan(plan, rng)
    }

    /// A random scene with so many objects in such a relation.
    pub fn of_plan(plan: Plan, rng: &mut Rng) -> Self {
        let (objects, camera) = loop {
            let objects = layout::sample(plan, rng);
            if let Some(camera) = layout::frame(&objects, rng) {
                break (objects, camera);
            }
        };
        let side = if rng.chance(0.5) { -1.0 } else { 1.0 };
        Self {
            objects,
            relation: plan.relation,
            background: rng.pick(&Background::ALL),
            light: Light {
                azimuth: side * rng.between(0.5, 1.1),
                elevation: rng.between(0.8, 1.0),
            },
            camera,
        }
    }
}
