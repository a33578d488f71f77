//! Token ids against the reference's fast tokenizer, on every row.

use std::path::Path;

use serde_json::Value;
use unclip::{Exclamation, clip::tokenizer::ClipTokenizer};

use crate::report::Report;

pub fn check(root: &Path, report: &mut Report) {
    let folder = root.join("tokenizer");
    check_built_in(&folder.join("openai_rows.json"), report);
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.strip_prefix("goldens_")?.strip_suffix(".json")?;
            Some(name.to_owned())
        })
        .collect();
    names.sort();
    for name in names {
        let tokenizer = ClipTokenizer::load(&folder.join(&name))
            .unwrap()
            .with_exclamation(Exclamation::AsStated);
        let text = std::fs::read(folder.join(format!("goldens_{name}.json"))).unwrap();
        let goldens: Value = serde_json::from_slice(&text).unwrap();
        let (mut found, mut expected) = (Vec::new(), Vec::new());
        for row in goldens["rows"].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            // `fast` stands in a row only where it differs from `ids`.
            let ids = row.get("fast").unwrap_or(&row["ids"]);
            let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
            found.push((text.to_owned(), tokenizer.encode(text).unwrap()));
            expected.push((text.to_owned(), ids));
        }
        report.exact(&format!("tokenizer {name}"), &found, &expected);
    }
}

/// The built-in vocabulary against OpenAI's, where the folder has rows of it.
fn check_built_in(path: &Path, report: &mut Report) {
    if !path.is_file() {
        return;
    }
    let tokenizer = ClipTokenizer::openai().unwrap();
    let goldens: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    for row in goldens["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(row["ids"].clone()).unwrap();
        found.push((text.to_owned(), tokenizer.encode(text).unwrap()));
        expected.push((text.to_owned(), ids));
    }
    report.exact("tokenizer built in", &found, &expected);
}
