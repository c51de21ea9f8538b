//! The JSON files of a Hugging Face directory, as far as this crate reads them; unknown keys are ignored.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result};

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
        let json = |dir: &&Path| Ok(read_json_if_there(&dir.join(Self::CONFIG))?.unwrap_or_default());
        let configs = dirs.iter().map(json).collect::<Result<_>>()?;
        let mut places = Self { dirs: dirs.to_vec(), configs, special_tokens_map: Value::Null };
        let map = "special_tokens_map.json";
        places.special_tokens_map = match places.configs.iter().position(|config| !config.is_null()) {
            Some(at) => read_json_if_there(&dirs[at].join(map))?.unwrap_or_default(),
            None => places.json(map)?.1,
        };
        Ok(places)
    }

    /// The path of a file in the first directory that has it, else where it is missed.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        let mut paths = self.dirs.iter().map(|dir| dir.join(file));
        let first = paths.next().unwrap_or_default();
        std::iter::once(first.clone()).chain(paths).find(|path| path.exists()).unwrap_or(first)
    }

    /// An object from a file, empty where no directory has the file.
    pub(crate) fn json(&self, file: &str) -> Result<(PathBuf, Value)> {
        let path = self.path(file);
        let json = read_json_if_there(&path)?.unwrap_or_default();
        Ok((path, json))
    }

    /// The file that special tokens are named in.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.path(Self::CONFIG)
    }

    /// The text of `bos_token` and its like: a plain string, or an object with `content`.
    pub(crate) fn special_token(&self, key: &str) -> Option<String> {
        let text = |json: &Value| {
            let token = &json[key];
            token.as_str().or_else(|| token["content"].as_str()).map(str::to_string)
        };
        let named = self.configs.iter().find(|config| !config.is_null());
        named.and_then(text).or_else(|| text(&self.special_tokens_map))
    }

    /// The template and where it is from: a file of its own, else in the configuration a string, or the one named
    /// "default" of a list.
    pub(crate) fn chat_template(&self) -> Result<(String, String)> {
        for (dir, config) in self.dirs.iter().zip(&self.configs) {
            let file = dir.join("chat_template.jinja");
            if file.exists() {
                let source = String::from_utf8(files::read_regular(&file, LARGEST)?);
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

/// A JSON object from a file, `None` where there is no file.
fn read_json_if_there(path: &Path) -> Result<Option<Value>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = files::read_regular(path, LARGEST)?;
    let config = |problem: String| Error::Config { path: path.to_path_buf(), problem };
    let value = files::json_value(&bytes).map_err(|error| config(format!("not valid JSON: {error}")))?;
    match value.is_object() {
        true => Ok(Some(value)),
        false => Err(config("expected a JSON object".into())),
    }
}
