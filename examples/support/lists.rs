//! Files of named lists, `NAME: one | another`, and captions made of them.

use std::{error::Error, path::Path};

use unclip::Noise;

use super::read_lines;

/// A name, and the entries behind it.
pub type List = (String, Vec<String>);

/// Reads a file of lists.
pub fn read_lists(path: &Path) -> Result<Vec<List>, Box<dyn Error>> {
    read_lines(path)?
        .iter()
        .map(|line| {
            let parts = line.split_once(':').map(|(name, entries)| {
                let entries = entries.split('|').map(|e| e.trim().to_owned());
                let entries: Vec<String> = entries.filter(|e| !e.is_empty()).collect();
                (name.trim().to_owned(), entries)
            });
            let parts = parts.filter(|(_, entries)| !entries.is_empty());
            parts.ok_or_else(|| {
                let path = path.display();
                format!("{path}: `{line}` is not `NAME: one | another`").into()
            })
        })
        .collect()
}

/// `count` captions of a grammar: the first list's entries, in which `{NAME}` stands for any entry
/// of that list.
pub fn captions(grammar: &[List], count: usize, seed: u64) -> Result<Vec<String>, Box<dyn Error>> {
    let start = grammar.first().ok_or("the grammar has no lists")?;
    let mut noise = Noise::from_seed(seed);
    let mut pick = |list: &List| {
        let at = (noise.uniform_vec(1)[0] * list.1.len() as f32) as usize;
        list.1[at.min(list.1.len() - 1)].clone()
    };
    let mut made = Vec::new();
    for _ in 0..count {
        let mut text = pick(start);
        // Every round replaces one name; a grammar that leads back to itself would never end.
        for round in 0.. {
            let Some(open) = text.find('{') else { break };
            let close = text[open..].find('}').ok_or("a { without its }")? + open;
            let name = &text[open + 1..close];
            let list = grammar.iter().find(|(n, _)| n == name);
            let list = list.ok_or_else(|| format!("the grammar has no list `{name}`"))?;
            if round == 1000 {
                return Err(format!("the grammar's `{name}` leads back to itself").into());
            }
            text.replace_range(open..=close, &pick(list));
        }
        made.push(text);
    }
    Ok(made)
}
