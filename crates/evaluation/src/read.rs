//! Reading text and YAML files, with the file in every error.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::{EvaluationError, Result};

/// The text of a file.
pub fn read_text(path: &Path) -> Result<String> {
    Ok(fs::read_to_string(path).map_err(files::Error::io("read", path))?)
}

/// A value of a YAML file.
pub fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_yaml::from_str(&read_text(path)?).map_err(|source| EvaluationError::Yaml { path: path.to_owned(), source })
}
