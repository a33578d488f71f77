//! CLIP's byte-pair tokenizer.
//!
//! Token ids are those of transformers' `CLIPTokenizerFast`. Its Python sibling differs where text
//! is unusual (with `ftfy` it repairs mojibake and entities, without it it spaces CJK out), and
//! OpenAI's own differs in the reading of "!" by [`Exclamation`]. On plain prompts all agree.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::Tokenizer;
use unclip_core::{
    error::{Error, Result},
    json,
};

const BOS: &str = "<|startoftext|>";
const EOS: &str = "<|endoftext|>";
const CONTEXT: usize = 77;

/// OpenAI's merges (MIT licence, beside the file); the vocabulary follows from them.
const OPENAI_MERGES: &str = include_str!("vocabulary/merges.txt");

/// How "!" in a prompt is read by a tokenizer that pads with "!", as Karlo's does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exclamation {
    /// As the word it is in OpenAI's vocabulary (256, or part of a longer token), as in the
    /// original Karlo. Padding is still the pad id.
    #[default]
    Bpe,
    /// As the tokenizer's files state: as the pad token's id 0, as in diffusers.
    AsStated,
}

/// Prompts as token ids, padded and truncated to one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// Ids, row after row, `rows × length`.
    pub ids: Vec<u32>,
    /// True from the start token to the end token, false for padding; `rows × length`.
    pub mask: Vec<bool>,
    /// Number of prompts.
    pub rows: usize,
    /// Tokens of each row: the context length.
    pub length: usize,
}

/// CLIP's byte-pair tokenizer.
#[derive(Clone)]
pub struct ClipTokenizer {
    engine: Tokenizer,
    files: Files,
    exclamation: Exclamation,
    bos: u32,
    eos: u32,
    pad: u32,
    context: usize,
}

/// What the engine is built from, kept to build it again for another reading of "!".
#[derive(Clone)]
struct Files {
    path: PathBuf,
    /// A `tokenizer.json` as a whole.
    engine: Value,
    pad: String,
    context: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenizerConfig {
    added_tokens_decoder: BTreeMap<u32, Value>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
    pad_token: Option<Value>,
    model_max_length: Option<f64>,
}

impl ClipTokenizer {
    /// OpenAI's tokenizer, from the vocabulary that is built in: 49,408 ids, padded with the end
    /// token.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn openai() -> Result<Self> {
        let merges = parse_merges(OPENAI_MERGES);
        let mut words: Vec<String> = byte_symbols().iter().map(char::to_string).collect();
        words.extend(byte_symbols().iter().map(|c| format!("{c}</w>")));
        words.extend(merges.iter().map(|pair| pair.replace(' ', "")));
        words.extend([BOS.to_owned(), EOS.to_owned()]);
        let vocabulary = words.into_iter().zip(0u32..).collect();
        Self::from_parts(
            Path::new("built-in vocabulary"),
            vocabulary,
            merges,
            TokenizerConfig::default(),
        )
    }

    /// Reads a tokenizer's folder: `vocab.json` and `merges.txt`, or `tokenizer.json`; and, where
    /// they are, `tokenizer_config.json` and `special_tokens_map.json`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Json`], or [`Error::Tokenizer`] for files that do not fit
    /// together.
    pub fn load(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::NotFound {
                path: folder.to_owned(),
                hint: "a tokenizer's folder holds vocab.json and merges.txt, or tokenizer.json"
                    .into(),
            });
        }
        let optional = |name: &str| {
            let path = folder.join(name);
            path.is_file().then_some(path)
        };
        let mut config: TokenizerConfig = match optional("tokenizer_config.json") {
            Some(path) => json::read(&path)?,
            None => TokenizerConfig::default(),
        };
        if let Some(path) = optional("special_tokens_map.json") {
            let map: TokenizerConfig = json::read(&path)?;
            config.bos_token = config.bos_token.or(map.bos_token);
            config.eos_token = config.eos_token.or(map.eos_token);
            config.pad_token = config.pad_token.or(map.pad_token);
        }
        if optional("vocab.json").is_none()
            && let Some(path) = optional("tokenizer.json")
        {
            let engine: Value = json::read(&path)?;
            return Self::from_engine(path, engine, &config);
        }
        let vocabulary: HashMap<String, u32> = json::read(&folder.join("vocab.json"))?;
        let path = folder.join("merges.txt");
        let merges = std::fs::read_to_string(&path)
            .map_err(|e| Error::io(&path, e, "a CLIP tokenizer has this file"))?;
        Self::from_parts(folder, vocabulary, parse_merges(&merges), config)
    }

    fn from_parts(
        path: &Path,
        vocabulary: HashMap<String, u32>,
        merges: Vec<String>,
        config: TokenizerConfig,
    ) -> Result<Self> {
        // The two regular expressions are CLIP's own: contractions, words, single digits, rest.
        let engine = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added_tokens(&vocabulary, &config),
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "NFC" },
                { "type": "Replace", "pattern": { "Regex": r"\s+" }, "content": " " },
                { "type": "Lowercase" },
            ]},
            "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": { "Regex":
                        r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+" },
                    "behavior": "Removed",
                    "invert": true,
                },
                { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
            ]},
            "post_processor": null,
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true },
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": EOS,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>",
                "fuse_unk": false,
                "vocab": vocabulary,
                "merges": merges,
            },
        });
        Self::from_engine(path.to_owned(), engine, &config)
    }

    fn from_engine(path: PathBuf, engine: Value, config: &TokenizerConfig) -> Result<Self> {
        let files = Files {
            path,
            engine,
            pad: content(&config.pad_token).unwrap_or(EOS).to_owned(),
            // transformers writes 1e30 for "unknown".
            context: config
                .model_max_length
                .filter(|n| (3.0..=1e6).contains(n))
                .map_or(CONTEXT, |n| n as usize),
        };
        let (bos, eos) = (
            content(&config.bos_token).unwrap_or(BOS),
            content(&config.eos_token).unwrap_or(EOS),
        );
        Self::build(files, bos, eos, Exclamation::default())
    }

    fn build(files: Files, bos: &str, eos: &str, exclamation: Exclamation) -> Result<Self> {
        let wrong = |reason: String| Error::Tokenizer {
            path: files.path.clone(),
            reason,
        };
        let mut engine = files.engine.clone();
        if exclamation == Exclamation::Bpe
            && ![bos, eos].contains(&files.pad.as_str())
            && let Some(Value::Array(added)) = engine.get_mut("added_tokens")
        {
            added.retain(|token| token["content"] != files.pad.as_str());
        }
        if let Some(model) = engine.get("model") {
            check_merges(model).map_err(wrong)?;
        }
        let bytes = serde_json::to_vec(&engine).map_err(|e| wrong(e.to_string()))?;
        let engine = Tokenizer::from_bytes(bytes).map_err(|e| wrong(e.to_string()))?;
        let id = |token: &str| {
            engine
                .token_to_id(token)
                .ok_or_else(|| wrong(format!("its vocabulary lacks `{token}`")))
        };
        let (bos, eos, pad) = (id(bos)?, id(eos)?, id(&files.pad)?);
        Ok(Self {
            engine,
            exclamation,
            bos,
            eos,
            pad,
            context: files.context,
            files,
        })
    }

    /// The same tokenizer with another reading of "!".
    pub fn with_exclamation(self, exclamation: Exclamation) -> Self {
        if exclamation == self.exclamation {
            return self;
        }
        let token = |id| self.engine.id_to_token(id).unwrap_or_default();
        let (bos, eos) = (token(self.bos), token(self.eos));
        let context = self.context;
        match Self::build(self.files.clone(), &bos, &eos, exclamation) {
            Ok(other) => other.with_context_length(context),
            // The same files have been built before, but for one special token.
            Err(_) => self,
        }
    }

    /// The same tokenizer for another context length, at least 3.
    pub fn with_context_length(mut self, length: usize) -> Self {
        self.context = length.max(3);
        self
    }

    /// Tokens of each padded row.
    pub fn context_length(&self) -> usize {
        self.context
    }

    /// Id of the start token.
    pub fn bos_id(&self) -> u32 {
        self.bos
    }

    /// Id of the end token.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// Id that fills rows up.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// Number of ids.
    pub fn vocabulary_size(&self) -> usize {
        self.engine.get_vocab_size(true)
    }

    /// All ids of `text` with start and end token, not truncated.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the engine fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .engine
            .encode(text, false)
            .map_err(|e| self.failed(&e.to_string()))?;
        let mut ids = Vec::with_capacity(encoding.len() + 2);
        ids.push(self.bos);
        ids.extend(encoding.get_ids());
        ids.push(self.eos);
        Ok(ids)
    }

    /// Ids of each text, padded to the context length; longer ones lose their end, and keep the
    /// end token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the engine fails.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<TokenBatch> {
        let length = self.context;
        let mut batch = TokenBatch {
            ids: Vec::with_capacity(texts.len() * length),
            mask: Vec::with_capacity(texts.len() * length),
            rows: texts.len(),
            length,
        };
        for text in texts {
            let mut ids = self.encode(text)?;
            if ids.len() > length {
                ids.truncate(length - 1);
                ids.push(self.eos);
            }
            let padding = length - ids.len();
            batch.mask.extend(ids.iter().map(|_| true));
            batch.mask.extend(std::iter::repeat_n(false, padding));
            batch.ids.extend(ids);
            batch.ids.extend(std::iter::repeat_n(self.pad, padding));
        }
        Ok(batch)
    }

    /// The text of `ids`, without special tokens, lower-cased and with single spaces as the
    /// tokenizer left it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the engine fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let special = [self.bos, self.eos, self.pad];
        let ids: Vec<u32> = ids
            .iter()
            .copied()
            .filter(|id| !special.contains(id))
            .collect();
        let text = self
            .engine
            .decode(&ids, true)
            .map_err(|e| self.failed(&e.to_string()))?;
        Ok(text.replace("</w>", " ").trim().to_owned())
    }

    fn failed(&self, reason: &str) -> Error {
        Error::Tokenizer {
            path: self.files.path.clone(),
            reason: reason.to_owned(),
        }
    }
}

impl std::fmt::Debug for ClipTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClipTokenizer")
            .field("path", &self.files.path)
            .field("exclamation", &self.exclamation)
            .finish_non_exhaustive()
    }
}

/// The text of a special token, which is a string or an object.
fn content(token: &Option<Value>) -> Option<&str> {
    match token {
        Some(Value::String(text)) => Some(text),
        Some(object) => object.get("content").and_then(Value::as_str),
        None => None,
    }
}

/// The special tokens in the form of `tokenizer.json`.
fn added_tokens(vocabulary: &HashMap<String, u32>, config: &TokenizerConfig) -> Vec<Value> {
    let mut tokens = BTreeMap::new();
    let mut add = |id: u32, text: &str, given: &Value, normalized: bool| {
        let flag = |key: &str, default: bool| given[key].as_bool().unwrap_or(default);
        let token = json!({
            "id": id,
            "content": text,
            "single_word": flag("single_word", false),
            "lstrip": flag("lstrip", false),
            "rstrip": flag("rstrip", false),
            "normalized": flag("normalized", normalized),
            "special": true,
        });
        tokens.entry(id).or_insert(token);
    };
    for (id, given) in &config.added_tokens_decoder {
        if let Some(text) = given["content"].as_str() {
            add(*id, text, given, true);
        }
    }
    // Files of 2022 have no list: the special tokens stand alone, start and end with the
    // tokenizer class's flags, padding as a plain special token.
    for (token, default, normalized) in [
        (&config.bos_token, Some(BOS), true),
        (&config.eos_token, Some(EOS), true),
        (&config.pad_token, None, false),
    ] {
        if let Some(text) = content(token).or(default)
            && let Some(id) = vocabulary.get(text)
        {
            add(
                *id,
                text,
                token.as_ref().unwrap_or(&Value::Null),
                normalized,
            );
        }
    }
    tokens.into_values().collect()
}

/// The pairs of a `merges.txt`, without its version line.
fn parse_merges(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.starts_with("#version") && !line.trim().is_empty())
        .map(|line| line.trim_end().to_owned())
        .collect()
}

/// Every merge has to be a pair whose parts and whole are in the vocabulary: the engine does not
/// check all of it before it indexes.
fn check_merges(model: &Value) -> std::result::Result<(), String> {
    let Some(vocabulary) = model["vocab"].as_object().filter(|v| !v.is_empty()) else {
        return Err("its vocabulary is empty".into());
    };
    for merge in model["merges"].as_array().into_iter().flatten() {
        let parts: Vec<&str> = match merge {
            Value::String(pair) => pair.split(' ').collect(),
            Value::Array(pair) => pair.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let [a, b] = parts[..] else {
            return Err(format!("the merge {merge} is not a pair"));
        };
        for word in [a.to_owned(), b.to_owned(), format!("{a}{b}")] {
            if !vocabulary.contains_key(&word) {
                return Err(format!("the merge {merge} needs `{word}`, which has no id"));
            }
        }
    }
    Ok(())
}

/// One printable character for each byte, in the order of CLIP's vocabulary.
fn byte_symbols() -> Vec<char> {
    let printable: Vec<u8> = (b'!'..=b'~')
        .chain(0xa1..=0xac)
        .chain(0xae..=0xff)
        .collect();
    let others = (0..=255u8).filter(|b| !printable.contains(b)).count() as u32;
    printable
        .iter()
        .map(|b| char::from(*b))
        .chain((0..others).filter_map(|n| char::from_u32(256 + n)))
        .collect()
}
