//! Names of models on the hub.

use std::fmt;
use std::path::Path;

use hf_hub::{Repo, RepoType};

use crate::Result;
use crate::error::invalid;

/// `org/name`, with the revision, and with the one file of it that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubId {
    /// `org/name`.
    pub name: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// A GGUF file of the repository.
    pub file: Option<String>,
}

/// The revision when none is named.
const MAIN: &str = "main";

impl HubId {
    /// What `path` names on the hub, if it is no path. A path that is there is a path, and so is one whose first part is a
    /// directory here: a slip in a path is not sent to the hub. `hf://` goes before both.
    ///
    /// # Errors
    /// When `hf://` is followed by something that is no model's name.
    pub fn named_by(path: &Path) -> Result<Option<Self>> {
        let Some(text) = path.to_str() else { return Ok(None) };
        if let Some(id) = text.strip_prefix("hf://") {
            let help = "write hf://org/name, hf://org/name@revision or hf://org/name/FILE.gguf";
            return Self::parse(id)
                .map_or_else(|| invalid(format!("{text} names no model: {help}")), |id| Ok(Some(id)));
        }
        let is_path = path.is_absolute() || path.symlink_metadata().is_ok();
        let org_is_here = || path.components().next().is_some_and(|org| Path::new(&org).is_dir());
        if is_path || org_is_here() {
            return Ok(None);
        }
        Ok(Self::parse(text).filter(|id| id.file.is_none()))
    }

    /// `org/name[@revision][/file.gguf]`.
    fn parse(text: &str) -> Option<Self> {
        let (org, rest) = text.split_once('/')?;
        let end = rest.find(['/', '@']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let (revision, file) = match (rest.strip_prefix('@'), rest.strip_prefix('/')) {
            (Some(rest), _) => match rest.split_once('/').filter(|(_, file)| file.ends_with(".gguf")) {
                Some((revision, file)) => (revision, Some(file)),
                None => (rest, None),
            },
            (None, Some(file)) if file.ends_with(".gguf") => (MAIN, Some(file)),
            (None, Some(_)) => return None,
            (None, None) => (MAIN, None),
        };
        let is_part = |part: &str| is_plain(part) && part.len() <= 96 && !part.contains("--");
        let valid = is_part(org) && is_part(name) && is_place(revision) && file.is_none_or(is_place);
        valid.then(|| Self {
            name: format!("{org}/{name}"),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    /// As hf-hub has it.
    pub(super) fn repo(&self) -> Repo {
        Repo::with_revision(self.name.clone(), RepoType::Model, self.revision.clone())
    }
}

impl fmt::Display for HubId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if self.revision != MAIN {
            write!(f, "@{}", self.revision)?;
        }
        self.file.as_ref().map_or(Ok(()), |file| write!(f, "/{file}"))
    }
}

/// Whether a text is one part of a path, without a meaning of its own there or in an address.
pub(super) fn is_plain(part: &str) -> bool {
    let is_sign = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && part.chars().all(is_sign) && !part.starts_with(['.', '-']) && !part.contains("..")
}

/// Whether a text is a relative path of such parts.
pub(super) fn is_place(text: &str) -> bool {
    text.split('/').all(is_plain)
}

/// Whether a text is the hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Option<String> {
        HubId::named_by(Path::new(text)).unwrap().map(|id| format!("{} {} {:?}", id.name, id.revision, id.file))
    }

    #[test]
    fn names_of_the_hub_are_told_from_paths() {
        let id = |name: &str, revision: &str| Some(format!("{name} {revision} None"));
        assert_eq!(named("Qwen/Qwen2.5-0.5B"), id("Qwen/Qwen2.5-0.5B", "main"));
        assert_eq!(named("org/name@v1.0"), id("org/name", "v1.0"));
        assert_eq!(named("org/name@refs/pr/3"), id("org/name", "refs/pr/3"));
        assert_eq!(named("hf://src/lib"), id("src/lib", "main"), "though src is a directory here");
        assert_eq!(named("hf://o/n/a.gguf"), Some("o/n main Some(\"a.gguf\")".into()));
        assert_eq!(named("hf://o/n@v2/q/a.gguf"), Some("o/n v2 Some(\"q/a.gguf\")".into()));
        for path in [
            "model",
            "src/none",
            "./org/name",
            "../org/name",
            "/org/name",
            "org/name/",
            "a/b/c",
            "o/n/a.gguf",
            "o/..",
            "a/.b",
        ] {
            assert_eq!(named(path), None, "{path}");
        }
        for wrong in [
            "hf://name",
            "hf://org/name@",
            "hf://org/name@../x",
            "hf://org/na me",
            "hf://org/name/x.bin",
            "hf://../name",
        ] {
            assert!(HubId::named_by(Path::new(wrong)).unwrap_err().to_string().contains("hf://org/name"), "{wrong}");
        }
        assert_eq!(HubId::parse("o/n@v2/a.gguf").unwrap().to_string(), "o/n@v2/a.gguf");
    }
}
