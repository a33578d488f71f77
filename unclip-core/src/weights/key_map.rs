//! From a parameter's place in a Burn module to its name in a checkpoint.

/// Renames that turn a module path into a checkpoint key.
///
/// A rule replaces a run of whole path segments, wherever it stands, by another; rules are applied
/// in order, each to the result of the one before. Norms need no rule: Burn's `gamma` and `beta`
/// are always `weight` and `bias` outside. Modules are written so that most names agree already;
/// a format differs by its table, never by a second copy of the layers.
///
/// ```
/// use unclip_core::weights::KeyMap;
/// let keys = KeyMap::new(&[("attn", "attn1"), ("to_out", "to_out.0")]);
/// assert_eq!(keys.key("blocks.3.attn.to_out.weight"), "blocks.3.attn1.to_out.0.weight");
/// ```
#[derive(Clone, Debug, Default)]
pub struct KeyMap {
    prefix: String,
    rules: Vec<(Vec<String>, Vec<String>)>,
    ignored: Vec<String>,
    parts: Vec<(String, KeyMap)>,
}

impl KeyMap {
    /// A map with the given (module segments, checkpoint segments) rules.
    pub fn new(rules: &[(&str, &str)]) -> Self {
        let split = |s: &str| s.split('.').map(str::to_owned).collect();
        Self {
            prefix: String::new(),
            rules: rules.iter().map(|(a, b)| (split(a), split(b))).collect(),
            ignored: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Parameters of the module's field `name` have the keys of `keys`, as if that part stood alone
    /// in the checkpoint.
    ///
    /// ```
    /// use unclip_core::weights::KeyMap;
    /// let text = KeyMap::new(&[("layers", "text_model.layers")]);
    /// let keys = KeyMap::default().with_part("text", text);
    /// assert_eq!(keys.key("text.layers.0.weight"), "text_model.layers.0.weight");
    /// assert_eq!(keys.key("scale"), "scale");
    /// ```
    pub fn with_part(mut self, name: &str, keys: Self) -> Self {
        self.parts.push((name.to_owned(), keys));
        self
    }

    /// Every key starts with `prefix` (dot included) in the checkpoint.
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.to_owned();
        self
    }

    /// Tensors whose name ends so are known buffers without meaning, not surplus.
    pub fn ignoring(mut self, suffixes: &[&str]) -> Self {
        self.ignored = suffixes.iter().map(|s| (*s).to_owned()).collect();
        self
    }

    /// The checkpoint's name for the parameter at `path`.
    pub fn key(&self, path: &str) -> String {
        let part = self.parts.iter().find_map(|(name, keys)| {
            let below = path.strip_prefix(name.as_str())?.strip_prefix('.')?;
            Some(keys.key(below))
        });
        if let Some(key) = part {
            return format!("{}{key}", self.prefix);
        }
        let mut segments: Vec<String> = path.split('.').map(str::to_owned).collect();
        for (from, to) in &self.rules {
            let mut at = 0;
            while at + from.len() <= segments.len() {
                if segments[at..at + from.len()] == from[..] {
                    segments.splice(at..at + from.len(), to.iter().cloned());
                    at += to.len();
                } else {
                    at += 1;
                }
            }
        }
        format!("{}{}", self.prefix, segments.join("."))
    }

    /// Whether a tensor of the checkpoint belongs to this model and has to be used.
    pub(super) fn expects(&self, key: &str) -> bool {
        let is_ignored = |keys: &Self| keys.ignored.iter().any(|s| key.ends_with(s.as_str()));
        key.starts_with(&self.prefix)
            && !is_ignored(self)
            && !self.parts.iter().any(|(_, keys)| is_ignored(keys))
    }
}
