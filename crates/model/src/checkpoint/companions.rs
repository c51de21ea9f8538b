//! What belongs to a model besides its weights: tokenizer, chat templates, settings of generation.
//!
//! Of an adapter and its base the copy reads as the two do together: files that only mean something together are taken from
//! one directory.

use std::path::{Path, PathBuf};

use files::inside;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Files that belong to a model but not to its weights.
pub const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    TOKENIZER_CONFIG,
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    TEMPLATE,
];

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// It goes before the template of `tokenizer_config.json` beside it.
const TEMPLATE: &str = "chat_template.jinja";
/// The directory of further templates.
const MORE_TEMPLATES: &str = "additional_chat_templates";

/// Files that go with the first of their list: those of another directory would be of another tokenizer.
const TOGETHER: [&[&str]; 2] = [
    &["tokenizer.json", "tokenizer.model", "added_tokens.json", "vocab.json", "merges.txt"],
    &[TOKENIZER_CONFIG, "special_tokens_map.json"],
];

/// A companion may have this many bytes.
const LARGEST: u64 = 512 << 20;

/// Keys of a source's `config.json` that describe its weights and not the saved ones.
const OF_THE_SOURCE: [&str; 3] = ["dtype", "torch_dtype", "quantization_config"];

/// Copies the companions of a model from one directory to another, and adds the keys of the source's `config.json` that the
/// target's has not, such as `eos_token_id`.
///
/// # Errors
/// When a file cannot be read or written, is a link to the outside of its directory, or a `config.json` is not an object.
pub fn copy_companions(from: &Path, to: &Path) -> Result<()> {
    copy_companions_of(&[from], to)
}

/// The same from several directories, each file from the first that has it or what it goes with: those of an adapter and its
/// base, whose `config.json` alone counts. What none of them has is removed from the target, where another model may have left it.
///
/// # Errors
/// As [`copy_companions`].
pub fn copy_companions_of(from: &[&Path], to: &Path) -> Result<()> {
    let of_template = dir_of_template(from)?;
    for name in COMPANIONS {
        let dir = if name == TEMPLATE { of_template } else { dir_of(from, name) };
        match dir.filter(|dir| has(dir, name)) {
            Some(dir) => copy(dir, name, to)?,
            None => files::remove(&to.join(name))?,
        }
    }
    files::remove(&to.join(MORE_TEMPLATES))?;
    if let Some(dir) = of_template.or_else(|| first(from, MORE_TEMPLATES)) {
        copy_more_templates(dir, to)?;
    }
    let path = to.join(TOKENIZER_CONFIG);
    let is_of_another = dir_of(from, TOKENIZER_CONFIG).is_some_and(|dir| Some(dir) != of_template);
    if let Some(dir) = of_template.filter(|dir| is_of_another && !has(dir, TEMPLATE)) {
        let mut config = read_object(&path)?;
        config.extend(template_in_config(dir)?.map(|template| (CHAT_TEMPLATE.to_owned(), template)));
        files::write_json(&path, &config)?;
    }
    let path = to.join("config.json");
    let mut config = read_object(&path)?;
    // Those of the model that the weights are of: an adapter has no configuration of a model.
    let of_weights = from.last().filter(|dir| has(dir, "config.json"));
    let keys = of_weights.map(|dir| read_object(&source(dir, "config.json")?)).transpose()?;
    for (key, value) in keys.unwrap_or_default() {
        if !OF_THE_SOURCE.contains(&key.as_str()) {
            config.entry(key).or_insert(value);
        }
    }
    Ok(files::write_json(&path, &config)?)
}

fn has(dir: &Path, name: &str) -> bool {
    dir.join(name).symlink_metadata().is_ok()
}

fn first<'a>(dirs: &[&'a Path], name: &str) -> Option<&'a Path> {
    dirs.iter().copied().find(|dir| has(dir, name))
}

/// The directory that a companion is taken from, if it has it.
fn dir_of<'a>(dirs: &[&'a Path], name: &str) -> Option<&'a Path> {
    let list = TOGETHER.iter().find(|list| list.contains(&name));
    list.and_then(|list| first(dirs, list[0])).or_else(|| first(dirs, name))
}

/// The directory whose template is the model's: the first that has one, as `prompts::ChatTemplate` reads them.
fn dir_of_template<'a>(dirs: &[&'a Path]) -> Result<Option<&'a Path>> {
    if let [only] = dirs {
        return Ok(Some(only)); // it is copied as it is
    }
    for dir in dirs {
        if has(dir, TEMPLATE) || template_in_config(dir)?.is_some() {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

const CHAT_TEMPLATE: &str = "chat_template";

/// The template of a directory's `tokenizer_config.json`: a string, or a list with one named "default".
fn template_in_config(dir: &Path) -> Result<Option<Value>> {
    if !has(dir, TOKENIZER_CONFIG) {
        return Ok(None);
    }
    let template = read_object(&source(dir, TOKENIZER_CONFIG)?)?.remove(CHAT_TEMPLATE);
    let is_default = |entry: &&Value| entry["name"] == "default";
    Ok(template.filter(|template| match template {
        Value::Array(list) => list.iter().find(is_default).is_some_and(|entry| entry["template"].is_string()),
        other => other.is_string(),
    }))
}

/// The path of a file, which must lie in its directory.
fn source(dir: &Path, name: &str) -> Result<PathBuf> {
    inside(dir, name).map_err(|reason| Error::checkpoint(dir.join(name), reason))
}

fn copy(dir: &Path, name: &str, to: &Path) -> Result<()> {
    let path = source(dir, name)?;
    files::check_sized(&path, LARGEST)?;
    let bytes = std::fs::read(&path).map_err(|source| Error::io(&path, source))?;
    Ok(files::write_whole(&to.join(name), &bytes)?)
}

/// Copies what the directory of further templates has, if there is one.
fn copy_more_templates(dir: &Path, to: &Path) -> Result<()> {
    let from = dir.join(MORE_TEMPLATES);
    if !from.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(&from).map_err(|source| Error::io(&from, source))? {
        let name = entry.map_err(|source| Error::io(&from, source))?.file_name();
        if let Some(name) = name.to_str().filter(|name| name.ends_with(".jinja")) {
            copy(dir, &format!("{MORE_TEMPLATES}/{name}"), to)?;
        }
    }
    Ok(())
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let value = files::json_value(&files::read_regular(path, LARGEST)?).and_then(serde_json::from_value);
    value.map_err(|source| Error::ConfigJson { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, numbered};
    use super::super::{load, save};
    use super::*;
    use burn::tensor::Device;
    use std::fs;

    #[test]
    fn companions_are_copied_and_unknown_keys_kept() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let decoder = numbered(&config("llama", true));
        let source = r#"{"model_type": "llama", "hidden_size": 3, "eos_token_id": [2, 5], "dtype": "bfloat16"}"#;
        fs::write(from.path().join("config.json"), source).unwrap();
        fs::write(from.path().join("tokenizer.json"), "{}").unwrap();
        save(&decoder, to.path()).unwrap();
        copy_companions(from.path(), to.path()).unwrap();
        let config = read_object(&to.path().join("config.json")).unwrap();
        assert_eq!(config["eos_token_id"], serde_json::json!([2, 5]));
        assert_eq!(config["hidden_size"], 16);
        assert!(!config.contains_key("dtype"));
        assert_eq!(fs::read_to_string(to.path().join("tokenizer.json")).unwrap(), "{}");
        assert!(load(to.path(), &Device::default()).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn a_companion_outside_its_directory_is_not_copied_and_a_stale_one_goes() {
        let root = tempfile::tempdir().unwrap();
        let [from, to, secret] = ["snapshots/main", "to", "secret"].map(|name| root.path().join(name));
        save(&numbered(&config("llama", true)), &from).unwrap();
        save(&numbered(&config("llama", true)), &to).unwrap();
        fs::write(&secret, "private").unwrap();
        let link = from.join("merges.txt");
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let message = copy_companions(&from, &to).unwrap_err().to_string();
        assert!(message.contains("merges.txt: points outside"), "{message}");
        assert!(!to.join("merges.txt").exists());
        fs::remove_file(&link).unwrap();
        // The layout of the hub's cache.
        fs::create_dir(root.path().join("blobs")).unwrap();
        fs::write(root.path().join("blobs/abc"), "merges").unwrap();
        std::os::unix::fs::symlink("../../blobs/abc", &link).unwrap();
        fs::write(to.join("chat_template.jinja"), "of an earlier model").unwrap();
        copy_companions(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("merges.txt")).unwrap(), "merges");
        assert!(!to.join("chat_template.jinja").exists());
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("/dev/zero", from.join("tokenizer.json")).unwrap();
        assert!(copy_companions(&from, &to).is_err());
        fs::remove_file(from.join("tokenizer.json")).unwrap();
        fs::remove_file(from.join("config.json")).unwrap();
        fs::write(&secret, r#"{"auths": {"host": "private"}}"#).unwrap();
        std::os::unix::fs::symlink(&secret, from.join("config.json")).unwrap();
        for message in [copy_companions(&from, &to).unwrap_err(), load(&from, &Device::default()).unwrap_err()] {
            assert!(message.to_string().contains("config.json: points outside"), "{message}");
        }
        // Beside an adapter it does not count.
        copy_companions_of(&[from.as_path(), to.as_path()], &to).unwrap();
        assert!(!fs::read_to_string(to.join("config.json")).unwrap().contains("private"));
        fs::remove_file(from.join("config.json")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", from.join("config.json")).unwrap();
        let message = load(&from, &Device::default()).unwrap_err().to_string();
        assert!(message.contains("not a regular file"), "{message}");
    }

    #[test]
    fn an_adapters_companions_go_before_its_bases() {
        let [base, adapter, to] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        save(&numbered(&config("llama", true)), base.path()).unwrap();
        save(&numbered(&config("llama", true)), to.path()).unwrap();
        fs::write(base.path().join("tokenizer.json"), "base").unwrap();
        fs::write(base.path().join("merges.txt"), "base").unwrap();
        files::write_whole(&base.path().join("additional_chat_templates/tools.jinja"), b"base").unwrap();
        copy_companions_of(&[adapter.path(), base.path()], to.path()).unwrap();
        let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
        assert_eq!([read("tokenizer.json"), read("merges.txt")], ["base", "base"]);
        assert_eq!(read("additional_chat_templates/tools.jinja"), "base");
        fs::write(adapter.path().join("generation_config.json"), "own").unwrap();
        fs::write(adapter.path().join("tokenizer.json"), "own").unwrap();
        copy_companions_of(&[adapter.path(), base.path()], to.path()).unwrap();
        assert_eq!([read("tokenizer.json"), read("generation_config.json")], ["own", "own"]);
        assert!(!to.path().join("merges.txt").exists(), "it is of another tokenizer");
    }

    #[test]
    fn a_tokenizers_files_are_of_one_directory() {
        let [base, adapter, to] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        save(&numbered(&config("llama", true)), base.path()).unwrap();
        save(&numbered(&config("llama", true)), to.path()).unwrap();
        for name in COMPANIONS {
            fs::write(base.path().join(name), "{\"of\": \"base\"}").unwrap();
        }
        let kept = |own: &[&str]| {
            own.iter().for_each(|name| fs::write(adapter.path().join(name), "{}").unwrap());
            copy_companions_of(&[adapter.path(), base.path()], to.path()).unwrap();
            own.iter().for_each(|name| fs::remove_file(adapter.path().join(name)).unwrap());
            COMPANIONS.into_iter().filter(|name| has(to.path(), name)).collect::<Vec<_>>()
        };
        assert_eq!(kept(&[]), COMPANIONS);
        assert_eq!(kept(&["special_tokens_map.json"]), COMPANIONS);
        let text = fs::read_to_string(to.path().join("special_tokens_map.json")).unwrap();
        assert!(text.contains("base"), "it is the one beside tokenizer_config.json");
        let whole = ["tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"];
        assert_eq!(kept(&["tokenizer.json", "tokenizer_config.json"]), whole);
    }
}
