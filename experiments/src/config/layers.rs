//! The layers of a sweep: its base files, the overlay of its profile, the file itself and a variant. One deep merge puts
//! each over those below it, and every mistake is reported with the file, the line and the key that it comes from.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_yaml::{Mapping, Value};

/// Bases that a sweep may have below it.
const MOST_BASES: usize = 16;

/// The merged keys of a sweep, and the texts that they come from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Layers {
    /// The merged keys.
    pub value: Value,
    /// The files with their texts, the sweep's own last.
    files: Vec<(PathBuf, String)>,
    /// The key of the variant that is merged in, such as `variants[1]`.
    variant: Option<String>,
}

impl Layers {
    /// Reads a sweep's text and, where it names a `base`, that file and its bases.
    ///
    /// # Errors
    /// When a file cannot be read or is not a YAML mapping, or the bases form a circle or are too many.
    pub fn read(path: &Path, text: String) -> Result<Self> {
        let (mut path, mut text) = (path.to_owned(), text);
        let (mut files, mut values) = (Vec::new(), Vec::new());
        let mut places = vec![files::followed(&path)]; // one file has many names
        loop {
            let value: Value = serde_yaml::from_str(&text).map_err(|error| anyhow!(at_place(&error, &path)))?;
            ensure!(value.is_mapping(), "{}: a sweep is a mapping of keys to values", path.display());
            let base = value.get("base").map(|base| base.as_str().map(|base| path.with_file_name(base)));
            files.insert(0, (path.clone(), text));
            values.insert(0, value);
            let base = match base {
                None => break,
                Some(base) => base.with_context(|| format!("{}: base: must be the path of a file", path.display()))?,
            };
            let place = files::followed(&base);
            ensure!(!places.contains(&place), "{}: base: {} is its own base", path.display(), base.display());
            ensure!(
                places.len() <= MOST_BASES,
                "{}: base: {MOST_BASES} bases lie below a sweep at most",
                path.display()
            );
            places.push(place);
            text = files::read_yaml_text(&base).with_context(|| format!("{}: base", path.display()))?;
            path = base;
        }
        let value = values.into_iter().fold(Value::Mapping(Mapping::new()), over);
        Ok(Self { value, files, variant: None })
    }

    /// The names of the sweeps below this one, the lowest first.
    pub fn base_names(&self) -> Vec<String> {
        let below = &self.files[..self.files.len().saturating_sub(1)];
        let name = |(_, text): &(PathBuf, String)| {
            let value: Value = serde_yaml::from_str(text).ok()?;
            Some(value.get("name")?.as_str()?.to_owned())
        };
        below.iter().filter_map(name).collect()
    }

    /// The layers with a variant's keys on top; `key` is the variant's own, such as `variants[1]`.
    pub fn with(&self, key: String, overlay: Value) -> Self {
        Self { value: over(self.value.clone(), overlay), files: self.files.clone(), variant: Some(key) }
    }

    /// The merged keys as a value.
    ///
    /// # Errors
    /// When a key is unknown, missing or of the wrong type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        // Only a text's reader names the path of a mistake.
        let text = serde_yaml::to_string(&self.value).context("cannot write the sweep's keys")?;
        serde_yaml::from_str(&text).map_err(|error| {
            let full = error.to_string();
            let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message);
            match message.split_once(": ").filter(|(key, _)| !key.contains(' ')) {
                Some((key, what)) => anyhow!(self.problem(key, what)),
                None => anyhow!(self.problem("", message)),
            }
        })
    }

    /// The key and the length of the longest list.
    pub fn longest_list(&self) -> Option<(String, usize)> {
        longest(&self.value, "")
    }

    /// The topmost file.
    pub fn file(&self) -> &Path {
        self.files.last().map_or(Path::new(""), |(path, _)| path)
    }

    /// What is wrong with a key, as `file:line:column: key: what; the closest right name`. A name in backticks that is a key
    /// below it gives the line.
    pub fn problem(&self, key: &str, what: &str) -> String {
        // "unknown field `a`, expected one of `b`, `c`": between backticks are names.
        let unknown = ["unknown field `", "unknown variant `"].into_iter().find_map(|words| what.find(words));
        let mut names = what[unknown.unwrap_or(0)..].split('`').skip(1).step_by(2);
        let first = names.next();
        let close = first.filter(|_| unknown.is_some()).and_then(|wrong| closest(wrong, names));
        let hint = close.map(|close| format!("; the closest right name is `{close}`"));
        let place = first
            .and_then(|name| self.find(&join(key, name)))
            .or_else(|| parents(key).into_iter().find_map(|key| self.find(key)));
        let own = self.files.last().map(|(path, _)| path.display().to_string()).unwrap_or_default();
        let key = match (&self.variant, key) {
            (None, "") => String::new(),
            (None, key) => format!("{key}: "),
            (Some(variant), key) => format!("{}: ", join(variant, key)),
        };
        format!("{}: {key}{what}{}", place.unwrap_or(own), hint.unwrap_or_default())
    }

    /// File, line and column of a key: in the variant, else in the topmost file that has it.
    fn find(&self, key: &str) -> Option<String> {
        let in_variant = self.variant.as_ref().map(|variant| join(variant, key));
        in_variant.iter().map(String::as_str).chain([key]).find_map(|key| {
            self.files.iter().rev().find_map(|(path, text)| {
                let (line, column) = place_of(text, key)?;
                Some(format!("{}:{line}:{column}", path.display()))
            })
        })
    }
}

/// One layer over those below it; the overlay of a profile that it names lies between.
fn over(below: Value, layer: Value) -> Value {
    match layer.get("profile").and_then(Value::as_str).and_then(super::Profile::overlay) {
        Some(profile) => merge(merge(below, profile), layer),
        None => merge(below, layer),
    }
}

/// Mappings are merged key by key; anything else, a list and `null` included, replaces what is below.
pub fn merge(below: Value, over: Value) -> Value {
    match (below, over) {
        (Value::Mapping(mut below), Value::Mapping(over)) => {
            for (key, value) in over {
                match below.get_mut(&key) {
                    Some(old) => *old = merge(std::mem::take(old), value),
                    None => drop(below.insert(key, value)),
                }
            }
            Value::Mapping(below)
        }
        (_, over) => over,
    }
}

/// The longest list below a key, with its key and length.
fn longest(value: &Value, key: &str) -> Option<(String, usize)> {
    let mut all = Vec::new();
    match value {
        Value::Sequence(list) => {
            all.push((key.to_owned(), list.len()));
            all.extend(list.iter().enumerate().filter_map(|(i, value)| longest(value, &format!("{key}[{i}]"))));
        }
        Value::Mapping(map) => {
            let below = |(name, value): (&Value, _)| longest(value, &join(key, name.as_str().unwrap_or_default()));
            all.extend(map.iter().filter_map(below));
        }
        Value::Tagged(tagged) => return longest(&tagged.value, key),
        _ => {}
    }
    all.into_iter().max_by_key(|(_, length)| *length)
}

/// The name that takes the fewest edits.
pub fn closest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.min_by_key(|name| strsim::damerau_levenshtein(wrong, name))
}

/// A reader's error with its file, line and column.
fn at_place(error: &serde_yaml::Error, path: &Path) -> String {
    let full = error.to_string();
    let place = error.location().map(|place| format!(":{}:{}", place.line(), place.column())).unwrap_or_default();
    let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message);
    format!("{}{place}: {message}", path.display())
}

fn join(key: &str, below: &str) -> String {
    if key.is_empty() || below.is_empty() { format!("{key}{below}") } else { format!("{key}.{below}") }
}

/// A key and those above it, the longest first.
fn parents(key: &str) -> Vec<&str> {
    let ends = key.char_indices().rev().filter(|(_, c)| ".[".contains(*c)).map(|(at, _)| &key[..at]);
    std::iter::once(key).chain(ends).filter(|key| !key.is_empty()).collect()
}

/// Line and column of a key such as `models[1].align` in a YAML text, from 1.
fn place_of(text: &str, key: &str) -> Option<(usize, usize)> {
    let steps: Vec<&str> = key.split(['.', '[']).map(|step| step.trim_end_matches(']')).collect();
    let error = Seek(&steps).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    let place = error.location().filter(|_| error.to_string().contains(FOUND))?;
    Some((place.line(), place.column()))
}

/// Marks the error by which [`Seek`] gives back a place: a reader's errors know theirs, its values do not.
const FOUND: &str = "\u{1}here";

/// Reads on to the key or element that some steps lead to, and fails there.
struct Seek<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { FOUND } else { "more below" })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        while let Some(fits) = map.next_key_seed(Key { step, last: rest.is_empty() })? {
            if fits {
                return map.next_value_seed(Seek(rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Err(A::Error::custom("no such key"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.0.split_first() else { return Err(A::Error::custom(FOUND)) };
        for _ in 0..step.parse().map_err(A::Error::custom)? {
            list.next_element::<IgnoredAny>()?;
        }
        list.next_element_seed(Seek(rest)).map(drop)
    }
}

/// Whether a key is the wanted one; fails at it where it is the last step.
struct Key<'a> {
    step: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        if self.last && key == self.step { Err(E::custom(FOUND)) } else { Ok(key == self.step) }
    }
}
