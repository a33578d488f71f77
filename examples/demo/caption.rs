//! Captions of scenes, from a small grammar with synonyms.
//!
//! All objects are named with their shape; colour, size, surface, relation and floor are sometimes
//! left out, and then a picture may show any. "Medium" is never said.

use super::{
    rng::Rng,
    world::{Background, Colour, Material, Object, Relation, Scene, Shape, Size},
};

/// Words for a shape, the usual one first.
pub fn shape_words(shape: Shape) -> &'static [&'static str] {
    match shape {
        Shape::Cube => &["cube", "block", "box"],
        Shape::Sphere => &["sphere", "ball"],
        Shape::Cylinder => &["cylinder", "can"],
        Shape::Cone => &["cone"],
    }
}

/// Words for a colour, the usual one first.
pub fn colour_words(colour: Colour) -> &'static [&'static str] {
    match colour {
        Colour::Red => &["red"],
        Colour::Green => &["green"],
        Colour::Blue => &["blue"],
        Colour::Yellow => &["yellow"],
        Colour::Purple => &["purple", "violet"],
        Colour::Orange => &["orange"],
        Colour::Cyan => &["cyan", "turquoise"],
    }
}

/// Words for a size, the usual one first; none for the one in the middle.
pub fn size_words(size: Size) -> &'static [&'static str] {
    match size {
        Size::Small => &["small", "little"],
        Size::Medium => &[],
        Size::Large => &["large", "big"],
    }
}

/// Words for a surface, the usual one first.
pub fn material_words(material: Material) -> &'static [&'static str] {
    match material {
        Material::Matte => &["matte"],
        Material::Shiny => &["shiny", "glossy"],
    }
}

/// Words for a floor, the usual one first.
pub fn background_words(background: Background) -> &'static [&'static str] {
    match background {
        Background::Grey => &["grey", "gray"],
        Background::White => &["white"],
        Background::Dark => &["dark"],
        Background::Beige => &["beige"],
        Background::PaleBlue => &["pale blue"],
        Background::PaleGreen => &["pale green"],
    }
}

/// Words between the first object and the second, the usual ones first, and whether the caption
/// names the second object of the scene first.
pub const RELATION_WORDS: [(&str, Relation, bool); 16] = [
    ("on top of", Relation::OnTopOf, false),
    ("stacked on", Relation::OnTopOf, false),
    ("sitting on", Relation::OnTopOf, false),
    ("on", Relation::OnTopOf, false),
    ("under", Relation::OnTopOf, true),
    ("to the left of", Relation::LeftOf, false),
    ("left of", Relation::LeftOf, false),
    ("on the left of", Relation::LeftOf, false),
    ("to the right of", Relation::LeftOf, true),
    ("to the right of", Relation::RightOf, false),
    ("right of", Relation::RightOf, false),
    ("on the right of", Relation::RightOf, false),
    ("to the left of", Relation::RightOf, true),
    ("in front of", Relation::InFrontOf, false),
    ("behind", Relation::InFrontOf, true),
    ("behind", Relation::Behind, false),
];

/// Beginnings of captions, an empty one the most common.
pub const OPENINGS: [&str; 4] = ["there is", "a picture of", "a render of", "a photo of"];

/// What captions call the floor.
pub const FLOORS: [&str; 2] = ["floor", "background"];

fn word(words: &[&'static str], rng: &mut Rng) -> &'static str {
    if rng.chance(0.65) {
        words[0]
    } else {
        rng.pick(words)
    }
}

fn article(noun: &str) -> String {
    let vowel = noun.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {noun}", if vowel { "an" } else { "a" })
}

/// Which attributes of objects a caption names.
#[derive(Debug, Clone, Copy)]
struct Detail {
    colour: f32,
    size: f32,
    material: f32,
}

fn noun(object: &Object, detail: Detail, rng: &mut Rng) -> String {
    let mut words = Vec::new();
    let size = size_words(object.size);
    if !size.is_empty() && rng.chance(detail.size) {
        words.push(word(size, rng));
    }
    if rng.chance(detail.material) {
        words.push(word(material_words(object.material), rng));
    }
    if rng.chance(detail.colour) {
        words.push(word(colour_words(object.colour), rng));
    }
    words.push(word(shape_words(object.shape), rng));
    article(&words.join(" "))
}

fn relation_words(relation: Relation, rng: &mut Rng) -> (&'static str, bool) {
    let fitting = RELATION_WORDS
        .iter()
        .filter(|(_, meaning, _)| *meaning == relation);
    let phrases: Vec<_> = fitting.map(|&(words, _, turned)| (words, turned)).collect();
    if rng.chance(0.5) {
        phrases[0]
    } else {
        rng.pick(&phrases)
    }
}

fn body(scene: &Scene, nouns: &[String], relation: Option<Relation>, rng: &mut Rng) -> String {
    let (a, b) = match (nouns, relation) {
        ([a], _) => return a.clone(),
        ([a, b], None) => return format!("{a} and {b}"),
        ([a, b, c], None) => return format!("{a}, {b} and {c}"),
        ([a, b, ..], Some(_)) => (a, b),
        _ => unreachable!("one to three objects"),
    };
    let relation = relation.or(scene.relation).unwrap_or(Relation::OnTopOf);
    let (words, turned) = relation_words(relation, rng);
    let (a, b) = if turned { (b, a) } else { (a, b) };
    match nouns.get(2) {
        Some(c) => format!("{a} {words} {b}, and {c}"),
        None => format!("{a} {words} {b}"),
    }
}

/// A caption of a scene in random words, attributes sometimes left out.
pub fn caption(scene: &Scene, rng: &mut Rng) -> String {
    // Two objects of which neither colour nor relation is said would teach little.
    let detail = Detail {
        colour: if rng.chance(0.9) { 1.0 } else { 0.0 },
        size: if rng.chance(0.5) { 1.0 } else { 0.2 },
        material: if rng.chance(0.3) { 0.9 } else { 0.05 },
    };
    let relation = scene.relation.filter(|_| rng.chance(0.92));
    worded(scene, detail, relation, 0.25, rng)
}

/// A caption of a scene in random words that says all there is to say but, mostly, surfaces and floor.
pub fn thorough_caption(scene: &Scene, rng: &mut Rng) -> String {
    let detail = Detail {
        colour: 1.0,
        size: 1.0,
        material: if rng.chance(0.4) { 1.0 } else { 0.0 },
    };
    worded(scene, detail, scene.relation, 0.4, rng)
}

fn worded(
    scene: &Scene,
    detail: Detail,
    relation: Option<Relation>,
    floor: f32,
    rng: &mut Rng,
) -> String {
    let nouns: Vec<_> = scene
        .objects
        .iter()
        .map(|object| noun(object, detail, rng))
        .collect();
    let mut text = body(scene, &nouns, relation, rng);
    if rng.chance(0.15) {
        text = format!("{} {text}", rng.pick(&OPENINGS));
    }
    if rng.chance(floor) {
        let floor = word(background_words(scene.background), rng);
        text = format!("{text} on a {floor} {}", word(&FLOORS, rng));
    }
    text
}

/// The caption of a scene that says all there is to say, in the usual words.
pub fn full_caption(scene: &Scene) -> String {
    let first = |words: &[&'static str]| words.first().copied();
    let noun = |object: &Object| {
        let words = [
            first(size_words(object.size)),
            first(material_words(object.material)),
            first(colour_words(object.colour)),
            first(shape_words(object.shape)),
        ];
        article(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    };
    let nouns: Vec<_> = scene.objects.iter().map(noun).collect();
    let joined = match (&nouns[..], scene.relation) {
        ([a], _) => a.clone(),
        ([a, b], None) => format!("{a} and {b}"),
        ([a, b, rest @ ..], Some(relation)) => {
            let fits =
                |(_, meaning, turned): &&(&str, Relation, bool)| *meaning == relation && !turned;
            let words = RELATION_WORDS
                .iter()
                .find(fits)
                .map_or("and", |entry| entry.0);
            let third = rest.first().map_or(String::new(), |c| format!(", and {c}"));
            format!("{a} {words} {b}{third}")
        }
        (all, None) => format!(
            "{} and {}",
            all[..all.len() - 1].join(", "),
            all[all.len() - 1]
        ),
        (_, Some(_)) => unreachable!("a relation is of two"),
    };
    let floor = background_words(scene.background)[0];
    format!("{joined} on a {floor} floor")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_plain() {
        for seed in 0..2000 {
            let mut rng = Rng::new(seed);
            let scene = Scene::sample(&mut rng);
            for text in [
                caption(&scene, &mut rng),
                thorough_caption(&scene, &mut rng),
                full_caption(&scene),
            ] {
                let plain = |c: char| c.is_ascii_lowercase() || c == ' ' || c == ',';
                assert!(text.chars().all(plain), "{text}");
                assert!(!text.contains("  "), "{text}");
            }
        }
    }

    #[test]
    fn vowels_take_an() {
        assert_eq!(article("orange cone"), "an orange cone");
        assert_eq!(article("big orange cone"), "a big orange cone");
    }
}
