//! Patterns in names: `*`, `?`, and braces.

/// Numbers that braces may stand for: far more than a data set has shards.
const MOST: u64 = 1_000_000;

/// Whether `text` is of the form of `pattern`, in which `*` stands for any letters and `?` for one.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // Where the last star was, and the text that it stands for up to now.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, end)) => {
                    star = Some((at, end + 1));
                    (p, t) = (at + 1, end + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Every text that the braces of `pattern` stand for: `{00..12}` for numbers of that width, `{a,b}`
/// for either. A range of more than [`MOST`] numbers is no range.
pub(super) fn expanded(pattern: &str) -> Vec<String> {
    let open = pattern.find('{');
    let close = open.and_then(|open| pattern[open..].find('}').map(|at| open + at));
    let (Some(open), Some(close)) = (open, close) else {
        return vec![pattern.to_owned()];
    };
    let inside = &pattern[open + 1..close];
    let range = inside.split_once("..").and_then(|(first, last)| {
        let numbers = first.parse::<u64>().ok()?..=last.parse::<u64>().ok()?;
        let count = numbers.end().saturating_sub(*numbers.start());
        (count < MOST).then_some((numbers, first.len()))
    });
    let choices: Vec<String> = match range {
        Some((numbers, width)) => numbers.map(|n| format!("{n:0width$}")).collect(),
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let rest = expanded(&pattern[close + 1..]);
    let each = choices
        .iter()
        .flat_map(|c| rest.iter().map(move |r| (c, r)));
    each.map(|(choice, rest)| format!("{}{choice}{rest}", &pattern[..open]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, is_match) in [
            ("*", "", true),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*.weight", "unet.conv_in.weight", true),
            ("?b*b?", "abxbc", true),
            ("?", "", false),
            ("*ab*", "aab", true),
            ("ä*", "äö", true),
        ] {
            assert_eq!(matches(pattern, text), is_match, "{pattern} {text}");
        }
    }

    #[test]
    fn braces() {
        assert_eq!(expanded("{08..10}.tar"), ["08.tar", "09.tar", "10.tar"]);
        assert_eq!(expanded("{a,b}-{0..1}"), ["a-0", "a-1", "b-0", "b-1"]);
        assert_eq!(expanded("a{b"), ["a{b"]);
        assert_eq!(expanded("plain"), ["plain"]);
        // A slip of the finger does not fill the memory.
        assert_eq!(expanded("{0..99999999999}"), ["0..99999999999"]);
    }
}
