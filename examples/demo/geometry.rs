//! Convex outlines in a plane.

/// A point of a plane.
pub type Point = [f32; 2];

fn turn(a: Point, b: Point, c: Point) -> f32 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// The smallest convex outline around points, by Andrew's monotone chain.
pub fn hull(mut points: Vec<Point>) -> Vec<Point> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    let mut outline = half(points.iter());
    outline.pop();
    outline.extend(half(points.iter().rev()));
    outline.pop();
    outline
}

fn half<'a>(points: impl Iterator<Item = &'a Point>) -> Vec<Point> {
    let mut chain: Vec<Point> = Vec::new();
    for &point in points {
        while let [.., a, b] = chain[..]
            && turn(a, b, point) <= 0.0
        {
            chain.pop();
        }
        chain.push(point);
    }
    chain
}

/// What two convex outlines share, both as [`hull`] turns, by Sutherland and Hodgman.
pub fn intersection(outline: &[Point], window: &[Point]) -> Vec<Point> {
    let mut left = outline.to_vec();
    for (i, &a) in window.iter().enumerate() {
        let b = window[(i + 1) % window.len()];
        left = clip(&left, a, b);
    }
    left
}

/// The part of an outline to the left of a line.
fn clip(outline: &[Point], a: Point, b: Point) -> Vec<Point> {
    let mut kept = Vec::with_capacity(outline.len() + 1);
    for (i, &to) in outline.iter().enumerate() {
        let from = outline[(i + outline.len() - 1) % outline.len()];
        let (before, after) = (turn(a, b, from), turn(a, b, to));
        if (before >= 0.0) != (after >= 0.0) {
            let t = before / (before - after);
            kept.push([
                from[0] + t * (to[0] - from[0]),
                from[1] + t * (to[1] - from[1]),
            ]);
        }
        if after >= 0.0 {
            kept.push(to);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: [Point; 4] = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];

    #[test]
    fn inner_points_are_not_of_the_hull() {
        let mut points = SQUARE.to_vec();
        points.push([0.5, 0.4]);
        points.push([0.5, 0.0]);
        let outline = hull(points);
        assert_eq!(outline.len(), 4);
        assert!(SQUARE.iter().all(|corner| outline.contains(corner)));
    }

    #[test]
    fn shifted_squares_share_a_quarter() {
        let shifted = SQUARE.map(|[x, y]| [x + 0.5, y + 0.5]);
        let shared = intersection(&hull(SQUARE.to_vec()), &hull(shifted.to_vec()));
        let area: f32 = (1..shared.len() - 1)
            .map(|i| turn(shared[0], shared[i], shared[i + 1]) / 2.0)
            .sum();
        assert!((area - 0.25).abs() < 1e-6);
    }
}
