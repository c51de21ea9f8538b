//! Reading text and YAML files, with the file in every error.

use std::io::{self, BufRead as _, BufReader};
use std::{iter, path::Path};

use serde::de::DeserializeOwned;

use crate::{EvaluationError, Result};

/// Bound of `max_new_tokens`, so that no sum of lengths overflows.
const MOST_NEW_TOKENS: usize = 1 << 20;

/// The lines of a text file with their numbers, from 1; blank ones and a byte order mark are left out. No more than one line
/// is in memory.
///
/// # Errors
/// When the file cannot be opened; a line, when it cannot be read or is not UTF-8, after which there is none.
pub fn lines(path: &Path) -> Result<impl Iterator<Item = Result<(usize, String)>>> {
    let mut file = BufReader::new(files::open_input(path)?);
    let (path, mut number, mut line) = (path.to_owned(), 0, Vec::new());
    let mut next = move || -> Result<Option<(usize, String)>> {
        loop {
            line.clear();
            if file.read_until(b'\n', &mut line).map_err(files::Error::io("read", &path))? == 0 {
                return Ok(None);
            }
            number += 1;
            let text = std::str::from_utf8(&line).map_err(|_| {
                let reason = format!("line {number} is not UTF-8 text; save it in this encoding");
                files::Error::io("read", &path)(io::Error::other(reason))
            })?;
            let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
            if !text.trim().is_empty() {
                return Ok(Some((number, text.trim_end_matches(['\n', '\r']).to_owned())));
            }
        }
    };
    let mut has_ended = false;
    Ok(iter::from_fn(move || {
        let line = if has_ended { None } else { next().transpose() };
        has_ended |= !matches!(line, Some(Ok(_)));
        line
    }))
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
