//! Emoji as data to train on: pictures, and a list of captions. `tools/fetch_emoji.sh` runs it.
//!
//! ```sh
//! cargo run --release --example emoji_data -- google/img/google/64 emojibase/en/data.json emoji
//! ```

use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Parser;
use serde::Deserialize;
use serde_json::json;

/// Write pictures of emoji with captions from their names and keywords.
#[derive(Parser, Debug)]
#[command(version)]
struct Cli {
    /// Folder of pictures named after their code points, as emoji-datasource has them.
    pictures: PathBuf,

    /// Names, as emojibase's en/data.json.
    names: PathBuf,

    /// Folder for the data; it is made.
    out: PathBuf,
}

/// An emoji as emojibase knows it. Those with other skins are left out: names say little of them.
#[derive(Debug, Deserialize)]
struct Emoji {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    group: Option<u32>,
}

/// Emojibase's groups of signs, flags, and parts of emoji: they are not pictures of things.
const LEFT_OUT: [u32; 3] = [2, 8, 9];

fn main() -> Result<(), Box<dyn Error>> {
    let args = Cli::parse();
    let names = fs::read(&args.names).map_err(|e| format!("{}: {e}", args.names.display()))?;
    let emoji: Vec<Emoji> = serde_json::from_slice(&names)?;
    fs::create_dir_all(&args.out)?;
    let mut list = Vec::new();
    let (mut written, mut missing) = (0, 0);
    for emoji in emoji {
        if emoji.group.is_none_or(|group| LEFT_OUT.contains(&group)) {
            continue;
        }
        let Some(picture) = picture(&args.pictures, &emoji.hexcode) else {
            missing += 1;
            continue;
        };
        let name = format!("{}.png", emoji.hexcode);
        fs::copy(&picture, args.out.join(&name))?;
        let mut captions = vec![emoji.label.clone(), format!("an emoji of {}", emoji.label)];
        captions.extend(
            emoji
                .tags
                .iter()
                .map(|tag| format!("{}, {tag}", emoji.label)),
        );
        writeln!(list, "{}", json!({ "file_name": name, "text": captions }))?;
        written += 1;
    }
    fs::write(args.out.join("metadata.jsonl"), list)?;
    println!("{written} emoji; {missing} have a name but no picture");
    Ok(())
}

/// The file of an emoji; its name may lack the sign that asks for a coloured picture.
fn picture(folder: &Path, code: &str) -> Option<PathBuf> {
    let code = code.to_lowercase();
    let names = [code.replace("-fe0f", ""), format!("{code}-fe0f"), code];
    let mut files = names.iter().map(|name| folder.join(format!("{name}.png")));
    files.find(|file| file.is_file())
}
