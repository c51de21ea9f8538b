//! YAML files of settings, with file, line and key in every error.

use std::{fs, path::Path};

use serde::de::DeserializeOwned;

use crate::EvaluationError;

/// Reads a YAML file.
pub fn read_yaml<T: DeserializeOwned>(path: &Path) -> Result<T, EvaluationError> {
    let text = fs::read_to_string(path).map_err(|source| EvaluationError::Read { path: path.to_owned(), source })?;
    serde_yaml::from_str(&text).map_err(|source| EvaluationError::Yaml { path: path.to_owned(), source })
}
