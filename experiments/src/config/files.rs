//! Where a sweep's files are: the sweep itself, its data, and where results are kept.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Sweep;
use super::layers::closest;

/// Finds a sweep file: beside the current directory, then in its `experiments/`.
///
/// # Errors
/// When there is no such file; the message names the paths and the closest sweep there is.
pub fn find(name: &Path) -> Result<PathBuf> {
    let paths = [name.to_owned(), Path::new("experiments").join(name)];
    if let Some(found) = paths.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let entries = ["./", "./experiments"].iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let known: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    let wanted = name.file_name().unwrap_or_default().to_string_lossy();
    let hint = closest(&wanted, known.iter().map(String::as_str))
        .map(|close| format!("; the closest sweep here is {close:?}"))
        .unwrap_or_default();
    bail!("no sweep file at {} or {}{hint}", paths[0].display(), paths[1].display());
}

/// The repository that holds the sweep file: the nearest directory above with a `Cargo.lock`,
/// else the current directory.
pub(super) fn root_of(path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize().with_context(|| format!("cannot find the directory of {}", path.display()))?;
    match path.ancestors().find(|dir| dir.join("Cargo.lock").is_file()) {
        Some(root) => Ok(root.to_owned()),
        None => std::env::current_dir().context("cannot tell the current directory"),
    }
}

/// Where a sweep's results and stages are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The directory of the results.
    pub results: PathBuf,
    /// The directory that stages are written to.
    pub own: PathBuf,
    /// The directory whose finished stages are only read.
    pub base: Option<PathBuf>,
}

impl Sweep {
    /// Where results and stages are kept. `out` is the directory that the user names.
    ///
    /// Without it results are in results/runs/ of the repository under the sweep's name, and stages beside them, or, of a
    /// sweep with a `base`, in the base's directory. With it everything new is below `out`, and the finished stages of the
    /// base are only read.
    #[must_use]
    pub fn paths(&self, out: Option<&Path>) -> Paths {
        let named = |name: &str| self.root.join("results/runs").join(name);
        let results = out.map_or_else(|| named(&self.name), Path::to_owned);
        match (&self.store, out) {
            (None, _) => Paths { own: results.clone(), results, base: None },
            (Some(base), None) => Paths { results, own: named(base), base: None },
            (Some(base), Some(out)) => Paths { results, own: out.to_owned(), base: Some(named(base)) },
        }
    }

    /// Where a file of the data directory is; `~/` is the home directory.
    #[must_use]
    pub fn data_file(&self, file: &Path) -> PathBuf {
        files::under(&self.root.join(&self.data), file)
    }

    /// Where a file of the repository is; `~/` is the home directory.
    #[must_use]
    pub fn root_file(&self, file: &Path) -> PathBuf {
        files::under(&self.root, file)
    }
}
