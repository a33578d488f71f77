//! What captions are read from: text files, and values of JSON.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Names under which captions are found.
pub(super) const CAPTION: [&str; 4] = ["caption", "captions", "text", "prompt"];

/// One of several captions, another one for another `draw`.
///
/// # Errors
/// [`Error::Data`] if there is none.
pub(super) fn chosen(mut captions: Vec<String>, draw: u64, name: &str) -> Result<String> {
    captions.retain(|c| !c.trim().is_empty());
    match captions.len() {
        0 => Err(Error::data(name, "it has no caption")),
        count => Ok(captions
            .swap_remove((draw % count as u64) as usize)
            .trim()
            .to_owned()),
    }
}

/// Bytes as text.
pub(super) fn text(bytes: Vec<u8>, name: &str) -> Result<String> {
    let text = String::from_utf8(bytes)
        .map_err(|e| Error::data(name, format!("not UTF-8: {}", e.utf8_error())))?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(text) => text.to_owned(),
        None => text,
    })
}

/// The captions of an object under any of `keys`: a string or a list of them.
pub(super) fn of_object(object: &Map<String, Value>, keys: &[&str]) -> Vec<String> {
    let found = keys.iter().find_map(|key| object.get(*key));
    match found {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(all)) => {
            let texts = all.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// A JSON object.
pub(super) fn object(bytes: &[u8], name: &str) -> Result<Map<String, Value>> {
    serde_json::from_slice(bytes).map_err(|e| Error::data(name, format!("not a JSON object: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_caption_has_its_turn() {
        let captions = || ["a", " ", "b \n"].map(String::from).to_vec();
        let found = |draw| chosen(captions(), draw, "x").unwrap();
        assert_eq!([found(0), found(1), found(2)], ["a", "b", "a"]);
        let message = chosen(vec![" ".into()], 3, "x.png")
            .unwrap_err()
            .to_string();
        assert_eq!(message, "x.png: it has no caption");
    }

    #[test]
    fn text_is_utf8_without_a_mark() {
        assert_eq!(text(b"\xef\xbb\xbfa".to_vec(), "x").unwrap(), "a");
        assert!(
            text(b"a\xff".to_vec(), "x")
                .unwrap_err()
                .to_string()
                .contains("not UTF-8")
        );
    }
}
