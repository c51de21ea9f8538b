//! Typed access to the keys of `config.json`, with errors that name file and key.

use std::path::Path;

use serde_json::Value;

use crate::{Error, Result};

/// Sizes above this are taken for a damaged or hostile file.
const LARGEST_SIZE: usize = 1 << 24;

/// An object of the file.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub json: &'a Value,
    pub path: &'a Path,
    /// The key that holds the object, with a dot; empty for the file itself.
    pub prefix: &'a str,
}

impl<'a> Keys<'a> {
    pub fn error(&self, key: &str, reason: impl Into<String>) -> Error {
        let key = format!("{}{key}", self.prefix);
        Error::Config { path: self.path.to_path_buf(), key, reason: reason.into() }
    }

    /// The value; none when the key is not there or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.json.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, be it as null.
    pub fn has(&self, key: &str) -> bool {
        self.json.get(key).is_some()
    }

    pub fn text(&self, key: &str) -> Result<&'a str> {
        let value = self.get(key).ok_or_else(|| self.error(key, "is missing"))?;
        value.as_str().ok_or_else(|| self.error(key, format!("`{value}` is not a string")))
    }

    pub fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(key).ok_or_else(|| self.error(key, "is missing"))?;
        match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
            Some(size) if size > LARGEST_SIZE => {
                Err(self.error(key, format!("{size} is not between 1 and {LARGEST_SIZE}")))
            }
            Some(size) if size > 0 => Ok(size),
            _ => Err(self.error(key, format!("`{value}` is not a whole number above 0"))),
        }
    }

    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.size(key) } else { Ok(default) }
    }

    /// A size that null turns off; `default` holds when the key is not there.
    pub fn size_or_null(&self, key: &str, default: usize) -> Result<Option<usize>> {
        match (self.has(key), self.get(key)) {
            (false, _) => Ok(Some(default)),
            (true, None) => Ok(None),
            (true, Some(_)) => self.size(key).map(Some),
        }
    }

    pub fn number(&self, key: &str) -> Result<f64> {
        let value = self.get(key).ok_or_else(|| self.error(key, "is missing"))?;
        match value.as_f64() {
            // The arithmetic is in f32, where it must be a number, too.
            Some(number) if number as f32 > 0.0 && (number as f32).is_finite() => Ok(number),
            _ => Err(self.error(key, format!("`{value}` is not a number above 0 that f32 can hold"))),
        }
    }

    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.get(key).is_some() { self.number(key) } else { Ok(default) }
    }

    /// A number that null turns off; `default` holds when the key is not there.
    pub fn number_or_null(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        match (self.has(key), self.get(key)) {
            (false, _) => Ok(default),
            (true, None) => Ok(None),
            (true, Some(_)) => self.number(key).map(Some),
        }
    }

    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => {
                value.as_bool().ok_or_else(|| self.error(key, format!("`{value}` is neither true nor false")))
            }
        }
    }
}
