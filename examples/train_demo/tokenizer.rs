//! A byte-pair vocabulary of the demo's words, in the layout of CLIP's.

use std::{collections::BTreeMap, path::Path};

use serde_json::json;
use unclip::{Error, Result, clip::tokenizer::ClipTokenizer, core};

use super::config::CONTEXT;
use crate::demo::{caption::caption, rng::Rng, split::train_scene};

/// Captions that the words are taken from.
const CAPTIONS: u64 = 20_000;

/// Writes the tokenizer into `folder` and reads it back.
pub fn make(folder: &Path) -> Result<ClipTokenizer> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0..CAPTIONS {
        let text = caption(&train_scene(seed), &mut Rng::new(seed));
        for word in text.split(|c: char| !c.is_ascii_alphabetic()) {
            if word.len() > 1 {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
    }
    let mut words: Vec<(String, usize)> = counts.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    // Each word is built from the left, frequent words first.
    let mut merges: Vec<(String, String)> = Vec::new();
    for (word, _) in &words {
        let last = word.len() - 1;
        for at in 1..=last {
            let end = if at == last { "</w>" } else { "" };
            let pair = (word[..at].to_owned(), format!("{}{end}", &word[at..=at]));
            if !merges.contains(&pair) {
                merges.push(pair);
            }
        }
    }
    let bytes: Vec<String> = byte_symbols();
    let ends = bytes.iter().map(|symbol| format!("{symbol}</w>"));
    let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    let all = bytes
        .iter()
        .cloned()
        .chain(ends)
        .chain(merged)
        .chain(special);
    let mut vocabulary = BTreeMap::new();
    for symbol in all {
        let next = vocabulary.len();
        vocabulary.entry(symbol).or_insert(next);
    }
    let lines = merges.iter().map(|(a, b)| format!("{a} {b}\n"));
    let text = format!("#version: 0.2\n{}", lines.collect::<String>());
    core::json::write(&folder.join("vocab.json"), &vocabulary)?;
    core::weights::write_whole(&folder.join("merges.txt"), text.as_bytes())?;
    let [start, end] = ["<|startoftext|>", "<|endoftext|>"];
    let config = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT,
        "bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end,
    });
    core::json::write(&folder.join("tokenizer_config.json"), &config)?;
    ClipTokenizer::load(folder)
}

/// Takes over the tokenizer that given weights know: their rows follow its numbers.
pub fn copy(from: &Path, to: &Path) -> Result<ClipTokenizer> {
    std::fs::create_dir_all(to).map_err(|error| Error::io(to, error, "cannot be made"))?;
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        let path = from.join(name);
        let hint = "--from takes a checkpoint with its tokenizer";
        let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error, hint))?;
        core::weights::write_whole(&to.join(name), &bytes)?;
    }
    ClipTokenizer::load(to)
}

/// How byte-pair files write each byte: printable ones as themselves, the others moved up.
fn byte_symbols() -> Vec<String> {
    let is_printable = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let plain = (0..256).filter(|b| is_printable(*b));
    let moved = (0..256_u32).filter(|b| !is_printable(*b)).count() as u32;
    plain
        .chain(256..256 + moved)
        .filter_map(char::from_u32)
        .map(String::from)
        .collect()
}
