//! Finished stages by the stage that they read. Where a changed setting makes a new stage, an old one may hold part of its
//! result.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use serde::Deserialize;

use super::{MANIFEST, Roots};

/// Directories by the key of a stage that they read.
pub(super) type Readers = BTreeMap<String, Vec<PathBuf>>;

/// What is read of a manifest.
#[derive(Deserialize)]
struct Parents {
    parents: BTreeMap<String, String>,
}

/// All finished stages of a kind, by what they read, in the order of their keys. What cannot be read is no stage.
pub(super) fn of_kind(roots: &Roots, kind: &str) -> Readers {
    let listed = roots.all().filter_map(|root| fs::read_dir(root.join(kind)).ok()).flatten();
    let mut dirs: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
    dirs.sort();
    let mut readers = Readers::new();
    for dir in dirs.into_iter().filter(|dir| dir.extension().is_none()) {
        let manifest = fs::read_to_string(dir.join(MANIFEST)).ok();
        let Some(Parents { parents }) = manifest.and_then(|text| serde_json::from_str(&text).ok()) else { continue };
        for parent in parents.into_values() {
            readers.entry(parent).or_default().push(dir.clone());
        }
    }
    readers
}
