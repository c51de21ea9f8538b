//! Where stages are kept: new ones in one directory; finished ones are also found in a second one, which is only read.

use std::path::{Path, PathBuf};

/// The directory that stages are written to, and one of another sweep whose finished stages are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    own: PathBuf,
    base: Option<PathBuf>,
}

impl From<&Path> for Roots {
    fn from(own: &Path) -> Self {
        Self { own: own.to_owned(), base: None }
    }
}

impl Roots {
    /// Writes to `own`; what is finished in `base` is read there. Neither needs to be there.
    #[must_use]
    pub fn over(own: &Path, base: &Path) -> Self {
        Self { own: own.to_owned(), base: Some(base.to_owned()) }
    }

    /// The directory that is written to.
    #[must_use]
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// The directories of stages, the own one first.
    pub fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.own).chain(&self.base).map(PathBuf::as_path)
    }

    /// The directories that a finished stage may have, the own one first. What is in one of them may be unfinished.
    pub fn places(&self, kind: &str, key: &str) -> impl Iterator<Item = PathBuf> {
        self.all().map(move |root| root.join(kind).join(key))
    }
}
