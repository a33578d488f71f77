//! Whether a picture shows what its caption asks for.

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{
    parse::{Request, Wanted},
    reading::{Seen, read},
    world::Relation,
};

/// Units by which one object is farther to a side than another, at least, to be called so.
const ASIDE: f32 = 0.6;
/// Units by which one object is nearer than another, at least, to be in front of it.
const AHEAD: f32 = 0.75;

/// What of a request a picture shows; what the request leaves open is taken as shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The shapes are those asked for, and no others.
    pub object: bool,
    /// The objects have the colours asked for.
    pub colour: bool,
    /// They have the sizes asked for.
    pub size: bool,
    /// They stand as asked for.
    pub relation: bool,
    /// All of these.
    pub all: bool,
}

/// Reads a picture and compares it with what was asked for.
///
/// Surfaces (matte or shiny) and the floor are not judged.
pub fn judge(picture: &RgbImage, request: &Request) -> Verdict {
    verdict(&read(picture), request)
}

/// Compares what is seen with what was asked for, in the way that is best for the picture.
pub fn verdict(seen: &[Seen], request: &Request) -> Verdict {
    let mut ways = Vec::new();
    assign(
        seen.len(),
        request.objects.len(),
        &mut Vec::new(),
        &mut ways,
    );
    let verdicts = ways.iter().map(|way| compare(seen, request, way));
    verdicts
        .max_by_key(|(score, _)| *score)
        .map_or_else(Verdict::default, |(_, best)| best)
}

/// All ways to take seen objects for wanted ones; some wanted ones may go without.
fn assign(
    seen: usize,
    wanted: usize,
    begun: &mut Vec<Option<usize>>,
    ways: &mut Vec<Vec<Option<usize>>>,
) {
    if begun.len() == wanted {
        ways.push(begun.clone());
        return;
    }
    let free: Vec<_> = (0..seen)
        .filter(|i| !begun.contains(&Some(*i)))
        .map(Some)
        .collect();
    let missing = seen < wanted;
    for choice in free.into_iter().chain(missing.then_some(None)) {
        begun.push(choice);
        assign(seen, wanted, begun, ways);
        begun.pop();
    }
}

/// How well one way fits, and its verdict.
fn compare(seen: &[Seen], request: &Request, way: &[Option<usize>]) -> (usize, Verdict) {
    let pairs = || {
        let taken = way.iter().map(|choice| choice.map(|i| seen[i]));
        request.objects.iter().zip(taken)
    };
    let count = |fits: fn(&Wanted, &Seen) -> bool| {
        let fits = |(wanted, it): &(&Wanted, Option<Seen>)| it.is_some_and(|it| fits(wanted, &it));
        pairs().filter(fits).count()
    };
    let shapes = count(|wanted, it| wanted.shape == it.shape);
    let colours = count(|wanted, it| wanted.colour.is_none_or(|colour| colour == it.colour));
    let sizes = count(|wanted, it| wanted.size.is_none_or(|size| size == it.size));
    let relation = related(seen, request, way);
    let wanted = request.objects.len();
    let mut verdict = Verdict {
        object: shapes == wanted && seen.len() == wanted,
        colour: colours == wanted,
        size: sizes == wanted,
        relation,
        all: false,
    };
    verdict.all = verdict.object && verdict.colour && verdict.size && verdict.relation;
    // What a caption and a picture agree in most tells which object is meant, colour first.
    let score = 100 * usize::from(verdict.all)
        + 7 * colours
        + 6 * shapes
        + 2 * sizes
        + 3 * usize::from(relation);
    (score, verdict)
}

fn related(seen: &[Seen], request: &Request, way: &[Option<usize>]) -> bool {
    let Some(relation) = request.relation else {
        return true;
    };
    match way {
        [Some(a), Some(b), ..] => holds(relation, seen, *a, *b),
        _ => false,
    }
}

/// Whether one object that is seen stands to another in a relation.
pub fn holds(relation: Relation, seen: &[Seen], first: usize, second: usize) -> bool {
    let (a, b) = (&seen[first], &seen[second]);
    let stacked = a.stands_on == Some(second) || b.stands_on == Some(first);
    let [right, away] = [a.floor[0] - b.floor[0], a.floor[1] - b.floor[1]];
    match relation {
        Relation::OnTopOf => a.stands_on == Some(second),
        _ if stacked => false,
        Relation::LeftOf => right < -ASIDE,
        Relation::RightOf => right > ASIDE,
        Relation::InFrontOf => away < -AHEAD,
        Relation::Behind => away > AHEAD,
    }
}
