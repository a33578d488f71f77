//! Where the objects of a random scene stand, so that all are in the picture and can be told.
//!
//! Only sums, products, quotients and square roots are used here: a seed then gives the same scene
//! on every machine.

use super::{
    camera::{COS_PITCH, Camera, PITCH, SIN_PITCH},
    rng::Rng,
    world::{CameraJitter, Colour, Material, Object, Relation, Shape, Size},
};

/// Widest tilt of the camera from [`PITCH`], in radians.
const TILT: f32 = 0.045;
/// Share of the side that stays free around all objects.
const MARGIN: f32 = 0.03;
/// Share of an object's box that others in front of it leave to be seen, at least.
const SEEN: f32 = 0.56;

/// What is settled first about a scene, so that rejected places do not make relations rare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Objects, from 1 to 3.
    pub count: usize,
    /// How the first stands to the second.
    pub relation: Option<Relation>,
}

impl Plan {
    /// A random plan.
    pub fn draw(rng: &mut Rng) -> Self {
        Self::with_shares(rng, 0.3, 0.55)
    }

    /// A random plan, more often of two or three objects: one picture then teaches more.
    pub fn draw_busy(rng: &mut Rng) -> Self {
        Self::with_shares(rng, 0.1, 0.5)
    }

    /// A plan of one, two or three objects, in shares of `one`, `two` and the rest.
    fn with_shares(rng: &mut Rng, one: f32, two: f32) -> Self {
        let count = match rng.unit() {
            x if x < one => 1,
            x if x < one + two => 2,
            _ => 3,
        };
        let related = count > 1 && rng.chance(0.85);
        let stacked = rng.chance(0.3);
        let relation = match (related, stacked) {
            (false, _) => None,
            (true, true) => Some(Relation::OnTopOf),
            (true, false) => Some(rng.pick(&Relation::ALL[1..])),
        };
        Self { count, relation }
    }
}

/// Random objects that stand well.
pub fn sample(plan: Plan, rng: &mut Rng) -> Vec<Object> {
    loop {
        let mut objects = draw(plan.count, rng);
        if place(&mut objects, plan.relation, rng) {
            return objects;
        }
    }
}

/// The same objects placed anew in a relation; nothing where they do not fit.
pub fn placed(
    objects: &[Object],
    relation: Option<Relation>,
    rng: &mut Rng,
) -> Option<Vec<Object>> {
    let mut objects = objects.to_vec();
    let fits = (0..8).any(|_| place(&mut objects, relation, rng));
    fits.then_some(objects)
}

fn draw(count: usize, rng: &mut Rng) -> Vec<Object> {
    let colours = rng.shuffled(&Colour::ALL);
    let object = |&colour: &Colour| Object {
        shape: rng.pick(&Shape::ALL),
        colour,
        size: rng.pick(&Size::ALL),
        material: rng.pick(&[Material::Matte, Material::Shiny]),
        at: [0.0; 3],
        yaw: rng.between(0.42, 1.15),
    };
    colours[..count].iter().map(object).collect()
}

/// Puts objects on the floor or on each other; false where they do not fit.
fn place(objects: &mut [Object], relation: Option<Relation>, rng: &mut Rng) -> bool {
    match (&mut *objects, relation) {
        ([one], _) => one.at = [0.0, rng.between(-0.7, 0.7), 0.0],
        ([upper, lower, ..], Some(Relation::OnTopOf)) => {
            if !stack(upper, lower, rng) {
                return false;
            }
        }
        ([first, second, ..], Some(relation)) => beside(first, second, relation, rng),
        ([first, second, ..], None) => {
            first.at = somewhere(rng);
            second.at = somewhere(rng);
        }
        _ => return false,
    }
    if let [_, _, third] = objects {
        third.at = somewhere(rng);
    }
    centre(objects);
    let apart = pairs(objects).all(|(a, b)| apart(a, b));
    apart && objects.iter().all(|object| seen(object, objects) >= SEEN)
}

fn somewhere(rng: &mut Rng) -> [f32; 3] {
    [rng.between(-1.6, 1.6), rng.between(-1.3, 1.3), 0.0]
}

fn stack(upper: &mut Object, lower: &mut Object, rng: &mut Rng) -> bool {
    // Much more would hide the top by which the lower one's shape is known.
    let classes = upper.size as i32 - lower.size as i32;
    let too_wide = classes > if upper.shape == Shape::Cone { 0 } else { 1 };
    if !lower.shape.supports() || too_wide {
        return false;
    }
    lower.at = [0.0, rng.between(-0.3, 0.3), 0.0];
    let slack = 0.14 * lower.radius();
    upper.at = [
        lower.at[0] + rng.between(-slack, slack),
        lower.at[1] + rng.between(-slack, slack),
        lower.height(),
    ];
    true
}

fn beside(first: &mut Object, second: &mut Object, relation: Relation, rng: &mut Rng) {
    let touching = first.radius() + second.radius();
    let gap = rng.between(0.06, 0.5);
    let across = (touching + gap).max(1.3) / 2.0;
    let deep = (touching + gap).max(1.55) / 2.0;
    let aside = rng.between(-0.18, 0.18);
    let (x, y) = match relation {
        Relation::LeftOf | Relation::OnTopOf => (-across, aside),
        Relation::RightOf => (across, aside),
        Relation::InFrontOf => (1.3 * aside, -deep),
        Relation::Behind => (1.3 * aside, deep),
    };
    first.at = [x, y, 0.0];
    second.at = [-x, -y, 0.0];
}

/// Moves all so that their middle is where the camera looks.
fn centre(objects: &mut [Object]) {
    let count = objects.len() as f32;
    if count < 2.0 {
        return;
    }
    for axis in 0..2 {
        let mean = objects.iter().map(|object| object.at[axis]).sum::<f32>() / count;
        for object in &mut *objects {
            object.at[axis] -= mean;
        }
    }
}

fn pairs(objects: &[Object]) -> impl Iterator<Item = (&Object, &Object)> {
    let rest = |i: usize| objects[i + 1..].iter();
    (0..objects.len()).flat_map(move |i| rest(i).map(move |other| (&objects[i], other)))
}

/// Whether two objects do not meet: beside each other, or one on the other.
fn apart(a: &Object, b: &Object) -> bool {
    let [dx, dy] = [a.at[0] - b.at[0], a.at[1] - b.at[1]];
    let reach = a.radius() + b.radius() + 0.04;
    let on_floor = a.at[2] == b.at[2];
    !on_floor || dx * dx + dy * dy >= reach * reach
}

/// Left, top, right and bottom of what an object covers, in shares of the side.
fn bounds(object: &Object, camera: &Camera) -> [f32; 4] {
    let [x, y, z] = object.at;
    let (radius, height) = (object.radius(), object.height());
    let [cx, cy] = camera.project([x, y, z + height / 2.0]);
    let scale = camera.scale([x, y, z + height / 2.0]);
    let (above, below) = match object.shape {
        Shape::Sphere => (radius, radius),
        Shape::Cone => (height / 2.0 * COS_PITCH, extent(radius, height)),
        Shape::Cube | Shape::Cylinder => (extent(radius, height), extent(radius, height)),
    };
    [
        cx - scale * radius,
        cy - scale * above,
        cx + scale * radius,
        cy + scale * below,
    ]
}

fn extent(radius: f32, height: f32) -> f32 {
    height / 2.0 * COS_PITCH + radius * SIN_PITCH
}

/// Share of an object's box that no object nearer to the viewer covers.
fn seen(object: &Object, all: &[Object]) -> f32 {
    let camera = Camera::nominal([0.0; 2]);
    let own = bounds(object, &camera);
    let area = |b: [f32; 4]| (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0);
    let covered = all
        .iter()
        .filter(|other| nearer(other, object))
        .map(|other| {
            let b = bounds(other, &camera);
            area([
                own[0].max(b[0]),
                own[1].max(b[1]),
                own[2].min(b[2]),
                own[3].min(b[3]),
            ])
        })
        .sum::<f32>();
    1.0 - covered / area(own)
}

/// Whether the first of two objects hides the second where both are in the same place of the
/// picture.
pub fn nearer(a: &Object, b: &Object) -> bool {
    let [dx, dy] = [a.at[0] - b.at[0], a.at[1] - b.at[1]];
    let over = a.at[2] != b.at[2] && dx * dx + dy * dy < (a.radius() + b.radius()).powi(2) / 4.0;
    if over { a.at[2] > b.at[2] } else { dy < 0.0 }
}

/// A camera that has all objects in its picture, if one can.
pub fn frame(objects: &[Object], rng: &mut Rng) -> Option<CameraJitter> {
    let zoom = rng.between(0.97, 1.03);
    let camera = Camera::nominal([0.0; 2]);
    let mut all = [1.0f32, 1.0, 0.0, 0.0];
    for object in objects {
        let b = bounds(object, &camera).map(|x| 0.5 + (x - 0.5) * zoom);
        all = [
            all[0].min(b[0]),
            all[1].min(b[1]),
            all[2].max(b[2]),
            all[3].max(b[3]),
        ];
    }
    let mut shift = [0.0; 2];
    for axis in 0..2 {
        let free = 1.0 - 2.0 * MARGIN - (all[axis + 2] - all[axis]);
        if free < 0.0 {
            return None;
        }
        let middle = (all[axis] + all[axis + 2]) / 2.0;
        let play = (free / 2.0).min(0.16);
        shift[axis] = 0.5 - middle + rng.between(-play, play);
    }
    Some(CameraJitter {
        pitch: PITCH + rng.between(-TILT, TILT),
        zoom,
        shift,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenes(seed: u64, count: usize) -> impl Iterator<Item = (Vec<Object>, Plan)> {
        let mut rng = Rng::new(seed);
        (0..count).map(move |_| {
            let plan = Plan::draw(&mut rng);
            (sample(plan, &mut rng), plan)
        })
    }

    #[test]
    fn what_stands_on_something_stands_on_a_flat_top() {
        let stacked = Some(Relation::OnTopOf);
        let mut count = 0;
        for (objects, _) in scenes(1, 1000).filter(|(_, plan)| plan.relation == stacked) {
            assert!(objects[1].shape.supports());
            assert_eq!(objects[0].at[2], objects[1].height());
            count += 1;
        }
        assert!(count > 150, "{count}");
    }

    #[test]
    fn objects_are_wide_enough_to_be_told_at_64() {
        for (objects, _) in scenes(2, 2000) {
            for object in &objects {
                let b = bounds(object, &Camera::nominal([0.0; 2]));
                // A yawed cube is somewhat narrower than its circle.
                assert!((b[2] - b[0]) * 64.0 > 12.5, "{object:?} {b:?}");
            }
        }
    }

    #[test]
    fn most_scenes_fit() {
        let mut rng = Rng::new(3);
        let fit = scenes(3, 1000).filter(|(objects, _)| frame(objects, &mut rng).is_some());
        assert!(fit.count() > 600);
    }
}
