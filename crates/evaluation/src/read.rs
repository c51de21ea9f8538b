//! Reading text and YAML files, with the file in every error.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{EvaluationError, Result};

/// Bound of `max_new_tokens`, so that no sum of lengths overflows.
const MOST_NEW_TOKENS: usize = 1 << 20;

/// The text of a file, without a byte order mark.
pub fn read_text(path: &Path) -> Result<String> {
    let text = String::from_utf8(files::read_input(path)?).map_err(|_| {
        let reason = "it is not UTF-8 text; save it in this encoding";
        files::Error::io("read", path)(std::io::Error::other(reason))
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// What is wrong with a `max_new_tokens`, if it is below `least` or too large.
pub fn check_new_tokens(count: usize, least: usize) -> Result<(), String> {
    match count {
        _ if (least..=MOST_NEW_TOKENS).contains(&count) => Ok(()),
        _ => Err(format!("max_new_tokens is {count}, expected {least} to {MOST_NEW_TOKENS}")),
    }
}

/// A value of a YAML file.
pub fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_yaml::from_str(&files::read_yaml_text(path)?)
        .map_err(|source| EvaluationError::Yaml { path: path.to_owned(), source })
}
