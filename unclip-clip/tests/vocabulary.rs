//! The tokenizer: built-in vocabulary, files in every layout, readings of "!", bad files.
#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use unclip_clip::tokenizer::{ClipTokenizer, Exclamation};
use unclip_core::Error;

/// A vocabulary of 2014 ids that pads with "!", saved in both layouts by transformers 4.46.
fn reduced() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/reduced")
}

fn copy(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        std::fs::copy(reduced().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

#[test]
fn the_built_in_vocabulary_is_openais() {
    let tokenizer = ClipTokenizer::openai().unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 49_408);
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (49_406, 49_407));
    assert_eq!(tokenizer.pad_id(), 49_407);
    let words = |text| {
        let ids = tokenizer.encode(text).unwrap();
        ids[1..ids.len() - 1].to_vec()
    };
    assert_eq!(words("a photo of a cat"), [320, 1125, 539, 320, 2368]);
    assert_eq!(
        words("An astronaut riding a horse on Mars, trending on ArtStation"),
        [
            550, 18376, 6765, 320, 4558, 525, 7496, 267, 6087, 525, 1486, 2631
        ]
    );
    assert_eq!(words("!"), [256]);
    assert_eq!(words("!!"), [748]);
    assert_eq!(words("!!!"), [995]);
    assert_eq!(words(""), [0u32; 0]);
}

#[test]
fn decoding_gives_the_words_back() {
    let tokenizer = ClipTokenizer::openai().unwrap();
    let ids = tokenizer.encode("A tiny   red hat, 2 cats").unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), "a tiny red hat , 2 cats");
}

#[test]
fn rows_are_padded_and_truncated_to_the_context() {
    let tokenizer = ClipTokenizer::openai().unwrap();
    let long = "a corgi ".repeat(100);
    let batch = tokenizer.encode_batch(&["a cat", &long]).unwrap();
    assert_eq!((batch.rows, batch.length), (2, 77));
    assert_eq!(batch.ids.len(), 2 * 77);
    assert_eq!(batch.ids[..4], [49_406, 320, 2368, 49_407]);
    assert_eq!(batch.mask.iter().filter(|keep| **keep).count(), 4 + 77);
    assert_eq!(batch.ids[2 * 77 - 1], 49_407);
    assert_eq!(batch.ids[2 * 77 - 2], tokenizer.encode(&long).unwrap()[75]);
    let short = tokenizer.with_context_length(5);
    let ids = short.encode_batch(&["a photo of a cat"]).unwrap().ids;
    assert_eq!(ids, [49_406, 320, 1125, 539, 49_407]);
}

#[test]
fn both_layouts_of_the_files_give_the_same_ids() {
    let config = ["tokenizer_config.json", "special_tokens_map.json"];
    let parts = copy(&[&["vocab.json", "merges.txt"][..], &config].concat());
    let whole = copy(&[&["tokenizer.json"][..], &config].concat());
    // Files of 2022: no list of added tokens, only the map.
    let old = copy(&["vocab.json", "merges.txt", "special_tokens_map.json"]);
    let texts = [
        "a red cat!",
        "wow!! it's 1999",
        "Zoë — naïve",
        "<|endoftext|> end",
        "",
    ];
    for reading in [Exclamation::AsStated, Exclamation::Bpe] {
        let ids = |folder: &tempfile::TempDir| {
            let tokenizer = ClipTokenizer::load(folder.path()).unwrap();
            let batch = tokenizer.with_exclamation(reading).encode_batch(&texts);
            batch.unwrap()
        };
        assert_eq!(ids(&parts), ids(&whole));
        assert_eq!(ids(&parts), ids(&old));
    }
}

#[test]
fn an_exclamation_mark_is_a_word_unless_the_files_are_followed() {
    let tokenizer = ClipTokenizer::load(&reduced()).unwrap();
    assert_eq!(tokenizer.pad_id(), 0);
    let as_word = tokenizer.encode("cat!").unwrap();
    assert!(!as_word.contains(&0), "{as_word:?}");
    let stated = tokenizer.with_exclamation(Exclamation::AsStated);
    let as_padding = stated.encode("cat!").unwrap();
    assert_eq!(as_padding[as_padding.len() - 2], 0);
    assert_eq!(
        stated
            .with_exclamation(Exclamation::Bpe)
            .encode("cat!")
            .unwrap(),
        as_word
    );
}

#[test]
fn very_long_prompts_are_no_problem() {
    let tokenizer = ClipTokenizer::openai().unwrap();
    let words = "word ".repeat(20_000);
    let one_word = "a".repeat(100_000);
    let batch = tokenizer.encode_batch(&[&words, &one_word]).unwrap();
    assert_eq!(batch.ids.len(), 2 * 77);
    assert_eq!(batch.ids[76], tokenizer.eos_id());
}

#[test]
fn broken_files_are_typed_errors() {
    let missing = ClipTokenizer::load(Path::new("no/such/folder")).unwrap_err();
    assert!(matches!(missing, Error::NotFound { .. }), "{missing}");

    let folder = copy(&["vocab.json"]);
    let error = ClipTokenizer::load(folder.path()).unwrap_err();
    assert!(matches!(&error, Error::NotFound { path, .. } if path.ends_with("merges.txt")));

    for (vocabulary, merges) in [
        ("{}", ""),
        (r#"{"a": 0}"#, ""),
        (
            r#"{"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}"#,
            "a b\n",
        ),
        (
            r#"{"a": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}"#,
            "a b c\n",
        ),
    ] {
        std::fs::write(folder.path().join("vocab.json"), vocabulary).unwrap();
        std::fs::write(folder.path().join("merges.txt"), merges).unwrap();
        let error = ClipTokenizer::load(folder.path()).unwrap_err();
        assert!(
            matches!(error, Error::Tokenizer { .. }),
            "{vocabulary} {merges}: {error}"
        );
    }
    std::fs::write(folder.path().join("vocab.json"), "{").unwrap();
    let error = ClipTokenizer::load(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Json { .. }), "{error}");
}
