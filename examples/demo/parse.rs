//! What a caption asks for.

use serde::{Deserialize, Serialize};

use super::{
    caption::{
        FLOORS, OPENINGS, RELATION_WORDS, background_words, colour_words, material_words,
        shape_words, size_words,
    },
    world::{Background, Colour, Material, Object, Relation, Scene, Shape, Size},
};

/// An object that a caption asks for; what is left out may be any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub colour: Option<Colour>,
    /// Its size, small or large.
    pub size: Option<Size>,
    /// Its surface.
    pub material: Option<Material>,
}

/// What a caption asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The objects, all of them.
    pub objects: Vec<Wanted>,
    /// How the first is to stand to the second.
    pub relation: Option<Relation>,
    /// The floor.
    pub background: Option<Background>,
}

impl Wanted {
    /// Whether an object is one that is asked for.
    pub fn fits(&self, object: &Object) -> bool {
        self.shape == object.shape
            && self.colour.is_none_or(|colour| colour == object.colour)
            && self.size.is_none_or(|size| size == object.size)
            && self.material.is_none_or(|it| it == object.material)
    }
}

/// A relation's words said from the other object: what is under something has it on top.
fn turned(relation: Relation, turned: bool) -> (Relation, bool) {
    match (relation, turned) {
        (Relation::LeftOf, true) => (Relation::RightOf, false),
        (Relation::RightOf, true) => (Relation::LeftOf, false),
        (Relation::InFrontOf, true) => (Relation::Behind, false),
        (Relation::Behind, true) => (Relation::InFrontOf, false),
        other => other,
    }
}

/// Reads a caption: any that [`super::caption`] makes, with any article, the words of a noun in any
/// order, capital letters and a full stop.
pub fn parse(caption: &str) -> Option<Request> {
    let lower = caption.to_lowercase();
    let mut text = lower.trim().trim_end_matches(['.', '!']).trim();
    for opening in OPENINGS {
        text = strip_words(text, opening).unwrap_or(text);
    }
    let (text, background) = split_floor(text);
    let (text, third) = match text.split_once(", and ") {
        Some((text, third)) => (text, Some(wanted(third)?)),
        None => (text, None),
    };
    let mut request = related(text).or_else(|| listed(text))?;
    request.objects.extend(third);
    request.background = background;
    (request.objects.len() <= 3).then_some(request)
}

fn strip_words<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.strip_prefix(words)?.strip_prefix(' ')
}

/// Takes a mention of the floor off the end.
fn split_floor(text: &str) -> (&str, Option<Background>) {
    let bare = FLOORS.iter().find_map(|floor| text.strip_suffix(floor));
    let Some(bare) = bare.map(str::trim_end) else {
        return (text, None);
    };
    for background in Background::ALL {
        for words in background_words(background) {
            let before = bare.strip_suffix(words).map(str::trim_end);
            let before = before.and_then(|text| strip_last(text, &["a", "the"]));
            if let Some(rest) = before.and_then(|text| strip_last(text, &["on", "against"])) {
                return (rest.trim_end_matches(','), Some(background));
            }
        }
    }
    (text, None)
}

fn strip_last<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    let (rest, last) = text.rsplit_once(' ')?;
    words.contains(&last).then_some(rest)
}

/// Two objects with a relation's words between them.
fn related(text: &str) -> Option<Request> {
    let (at, words, relation, swap) = RELATION_WORDS
        .iter()
        .filter_map(|&(words, relation, swap)| {
            let at = text.find(&format!(" {words} "))?;
            let (relation, swap) = turned(relation, swap);
            Some((at, words, relation, swap))
        })
        // "On top of" also begins with "on": the longest words at the first place count.
        .min_by_key(|&(at, words, ..)| (at, usize::MAX - words.len()))?;
    let first = text[..at].trim_end_matches(" is");
    let second = &text[at + words.len() + 2..];
    let (a, b) = (wanted(first)?, wanted(second)?);
    Some(Request {
        objects: if swap { vec![b, a] } else { vec![a, b] },
        relation: Some(relation),
        background: None,
    })
}

/// One to three objects with nothing said of how they stand.
fn listed(text: &str) -> Option<Request> {
    let objects = text
        .split(" and ")
        .flat_map(|part| part.split(", "))
        .map(wanted)
        .collect::<Option<Vec<_>>>()?;
    Some(Request {
        objects,
        relation: None,
        background: None,
    })
}

fn named<T: Copy>(all: &[T], words: fn(T) -> &'static [&'static str], word: &str) -> Option<T> {
    all.iter().copied().find(|&it| words(it).contains(&word))
}

/// A noun with its adjectives.
fn wanted(text: &str) -> Option<Wanted> {
    let mut words = text.split_whitespace().peekable();
    words.next_if(|word| ["a", "an", "the", "one"].contains(word));
    let (mut shape, mut colour, mut size, mut material) = (None, None, None, None);
    for word in words {
        if shape.is_some() {
            return None;
        }
        let known = fill(&mut shape, named(&Shape::ALL, shape_words, word))
            || fill(&mut colour, named(&Colour::ALL, colour_words, word))
            || fill(&mut size, named(&Size::ALL, size_words, word))
            || fill(&mut material, named(&MATERIALS, material_words, word));
        if !known {
            return None;
        }
    }
    Some(Wanted {
        shape: shape?,
        colour,
        size,
        material,
    })
}

const MATERIALS: [Material; 2] = [Material::Matte, Material::Shiny];

fn fill<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let new = slot.is_none() && value.is_some();
    if new {
        *slot = value;
    }
    new
}

/// Whether a scene is one that a caption may have been asking for.
pub fn is_of(request: &Request, scene: &Scene) -> bool {
    let Some((first, second)) = order(request.relation, scene) else {
        return false;
    };
    let mut objects: Vec<_> = scene.objects.iter().collect();
    if first > second {
        objects.swap(0, 1);
    }
    request.objects.len() == objects.len()
        && request.background.is_none_or(|it| it == scene.background)
        && request
            .objects
            .iter()
            .zip(objects)
            .all(|(wanted, it)| wanted.fits(it))
}

/// Which objects of a scene are the first and second of a relation that holds in it.
fn order(relation: Option<Relation>, scene: &Scene) -> Option<(usize, usize)> {
    match (relation, scene.relation) {
        (None, _) => Some((0, 1)),
        (Some(a), Some(b)) if a == b => Some((0, 1)),
        (Some(a), Some(b)) if turned(a, true) == (b, false) => Some((1, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        caption::{caption, full_caption},
        rng::Rng,
    };
    use super::*;

    #[test]
    fn every_caption_asks_for_its_scene() {
        for seed in 0..5000 {
            let mut rng = Rng::new(seed);
            let scene = Scene::sample(&mut rng);
            for text in [caption(&scene, &mut rng), full_caption(&scene)] {
                let request = parse(&text).unwrap_or_else(|| panic!("{text}"));
                assert!(is_of(&request, &scene), "{text}: {request:?} {scene:?}");
            }
        }
    }

    #[test]
    fn a_full_caption_says_everything() {
        for seed in 0..500 {
            let scene = Scene::sample(&mut Rng::new(seed));
            let request = parse(&full_caption(&scene)).unwrap();
            assert_eq!(request.relation, scene.relation);
            assert_eq!(request.background, Some(scene.background));
            for (wanted, object) in request.objects.iter().zip(&scene.objects) {
                assert_eq!(wanted.colour, Some(object.colour));
                assert_eq!(wanted.size.is_none(), object.size == Size::Medium);
            }
        }
    }

    #[test]
    fn what_people_write_is_read() {
        let cubes = parse("a red cube on top of a blue cube").unwrap();
        assert_eq!(cubes.relation, Some(Relation::OnTopOf));
        assert_eq!(cubes.objects[0].colour, Some(Colour::Red));
        for same in [
            "A red cube on top of a blue cube.",
            "the red block is on a blue box",
            "there is a blue cube under a red cube",
        ] {
            assert_eq!(parse(same).as_ref(), Some(&cubes), "{same}");
        }
        let floor = parse("a shiny large green ball on a pale blue floor").unwrap();
        assert_eq!(floor.background, Some(Background::PaleBlue));
        assert_eq!(floor.objects[0].size, Some(Size::Large));
        assert_eq!(parse("a corgi playing a trumpet"), None);
        assert_eq!(parse("a red green cube"), None);
        assert_eq!(parse(""), None);
    }
}
