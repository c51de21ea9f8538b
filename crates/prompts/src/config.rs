//! The JSON files of a Hugging Face directory, as far as this crate reads them; unknown keys are ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

/// The keys of tokenizer_config.json that name special tokens, and that a template may use as variables.
pub(crate) const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A JSON file or template may have this many bytes.
const LARGEST: u64 = 64 << 20;

/// What is read of the directories that a model's text files are looked for in, the first before the others: an adapter
/// may have its own, and what it lacks is its base's.
pub(crate) struct Places<'a> {
    dirs: Vec<&'a Path>,
    /// `tokenizer_config.json` of each directory.
    configs: Vec<Value>,
    /// The one beside the first of them.
    special_tokens_map: Value,
}

impl<'a> Places<'a> {
    const CONFIG: &'static str = "tokenizer_config.json";

    /// Reads the small files of the directories.
    pub(crate) fn new(dirs: &[&'a Path]) -> Result<Self> {
        let json = |dir: &&Path| Ok(read_json_if_there(dir, Self::CONFIG)?.unwrap_or_default());
        let configs = dirs.iter().map(json).collect::<Result<_>>()?;
        let mut places = Self { dirs: dirs.to_vec(), configs, special_tokens_map: Value::Null };
        let map = "special_tokens_map.json";
        places.special_tokens_map = match places.configs.iter().position(|config| !config.is_null()) {
            Some(at) => read_json_if_there(dirs[at], map)?.unwrap_or_default(),
            None => places.json(map)?.1,
        };
        Ok(places)
    }

    /// The first directory that has a file, else the first. The model's configuration is that of the base, as its weights are.
    fn dir(&self, file: &str) -> &'a Path {
        // Its ids are those of the vocabulary beside it.
        let file = if file == "added_tokens.json" { "tokenizer.json" } else { file };
        let has = |dir: &&&Path| dir.join(file).exists();
        let base = self.dirs.last().filter(|_| file == "config.json");
        base.or_else(|| self.dirs.iter().find(has)).or(self.dirs.first()).copied().unwrap_or(Path::new(""))
    }

    /// The path of a file in the first directory that has it, else where it is missed.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir(file).join(file)
    }

    /// The bytes of a file that must be there.
    pub(crate) fn bytes(&self, file: &str, largest: u64) -> Result<Vec<u8>> {
        Ok(files::read_inside(self.dir(file), file, largest)?)
    }

    /// An object from a file, empty where no directory has the file.
    pub(crate) fn json(&self, file: &str) -> Result<(PathBuf, Value)> {
        let json = read_json_if_there(self.dir(file), file)?.unwrap_or_default();
        Ok((self.path(file), json))
    }

    /// The file that special tokens are named in.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.path(Self::CONFIG)
    }

    /// The text of `bos_token` and its like.
    pub(crate) fn special_token(&self, key: &str) -> Option<String> {
        let text = |json: &Value| text_of(&json[key]).map(str::to_owned);
        text(self.config().1).or_else(|| text(&self.special_tokens_map))
    }

    /// The first `tokenizer_config.json`, and where it is.
    pub(crate) fn config(&self) -> (PathBuf, &Value) {
        let found = self.configs.iter().find(|config| !config.is_null());
        (self.config_path(), found.unwrap_or(&Value::Null))
    }

    /// The special tokens that the files name besides [`SPECIAL_TOKENS`], with the names that some have.
    fn more_special_tokens(&self) -> Vec<(Option<&str>, &str)> {
        let lists = ["additional_special_tokens", "extra_special_tokens"];
        let mut tokens = Vec::new();
        for (of, key) in
            [self.config().1, &self.special_tokens_map].into_iter().flat_map(|of| lists.map(|key| (of, key)))
        {
            match &of[key] {
                Value::Array(list) => tokens.extend(list.iter().filter_map(|token| Some((None, text_of(token)?)))),
                Value::Object(named) => {
                    tokens.extend(named.iter().filter_map(|(name, token)| Some((Some(name.as_str()), text_of(token)?))))
                }
                _ => {}
            }
        }
        tokens
    }

    /// The texts of the special tokens under [`SPECIAL_TOKENS`], and of the others.
    pub(crate) fn special_tokens(&self) -> (Vec<String>, Vec<String>) {
        let more = self.more_special_tokens().into_iter().map(|(_, token)| token.to_owned());
        (SPECIAL_TOKENS.into_iter().filter_map(|key| self.special_token(key)).collect(), more.collect())
    }

    /// The special tokens that a template may use as variables, by their names.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let more = self.more_special_tokens().into_iter();
        let more = more.filter_map(|(name, token)| Some((name?.to_owned(), token.to_owned())));
        let named = SPECIAL_TOKENS.into_iter().filter_map(|key| Some((key.to_owned(), self.special_token(key)?)));
        more.chain(named).collect()
    }

    /// The template and where it is from: a file of its own, else in the configuration a string, or the one named
    /// "default" of a list.
    pub(crate) fn chat_template(&self) -> Result<(String, String)> {
        for (dir, config) in self.dirs.iter().zip(&self.configs) {
            const OWN: &str = "chat_template.jinja";
            let file = dir.join(OWN);
            if file.exists() {
                let source = String::from_utf8(files::read_inside(dir, OWN, LARGEST)?);
                let problem = |error| Error::Config { path: file.clone(), problem: format!("not text: {error}") };
                return Ok((file.display().to_string(), source.map_err(problem)?));
            }
            let template = &config["chat_template"];
            let named = || template.as_array()?.iter().find(|entry| entry["name"] == "default")?["template"].as_str();
            if let Some(source) = template.as_str().or_else(named) {
                return Ok((format!("of {}", dir.join(Self::CONFIG).display()), source.to_owned()));
            }
        }
        Err(Error::NoTemplate { dir: self.dirs.first().map(|dir| dir.to_path_buf()).unwrap_or_default() })
    }
}

/// The text of a special token: a plain string, or an object with `content`.
fn text_of(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// A JSON object from a file, `None` where there is no file.
fn read_json_if_there(dir: &Path, file: &str) -> Result<Option<Value>> {
    if !dir.join(file).exists() {
        return Ok(None);
    }
    let bytes = files::read_inside(dir, file, LARGEST)?;
    let config = |problem: String| Error::Config { path: dir.join(file), problem };
    let value = files::json_value(&bytes).map_err(|error| config(format!("not valid JSON: {error}")))?;
    match value.is_object() {
        true => Ok(Some(value)),
        false => Err(config("expected a JSON object".into())),
    }
}
