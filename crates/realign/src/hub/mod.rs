//! Models of the Hugging Face hub: what names one, and where it lies once it is fetched.
//!
//! The files lie in the hub's own cache, as the Python library lays it out, so that either uses what the other fetched.
//! hf-hub gives the cache; the transfer is ours, because hf-hub 0.5 sends the token to the host that a file is redirected
//! to, checks no hash and trusts file names, and 1.0 neither resumes nor checks.

mod client;
mod fetch;
mod id;
mod wanted;

use std::path::{Path, PathBuf};

use hf_hub::Cache;

use crate::error::invalid;
use crate::{Error, Job, Result};
use client::{Client, Failure};
pub use id::HubId;

/// The hub, its cache, and what may be asked of it.
pub struct Hub {
    cache: Cache,
    client: Option<Client>,
}

impl Hub {
    /// As the environment says: `HF_HOME` or `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`, and `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// When there is no home directory, the endpoint is no address, or the token cannot be sent.
    pub fn from_env() -> Result<Self> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if variable("HF_HOME").is_none() && std::env::home_dir().is_none() {
            return invalid("there is no home directory for models of the hub: set HF_HOME");
        }
        let home = Cache::from_env();
        let is_on = |value: String| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str());
        let client = match variable("HF_HUB_OFFLINE").is_some_and(is_on) {
            true => None,
            false => Some(Client::new(variable("HF_ENDPOINT"), variable("HF_TOKEN").or_else(|| home.token()))?),
        };
        let cache = variable("HF_HUB_CACHE").map_or(home, |dir| Cache::new(dir.into()));
        Ok(Self { cache, client })
    }

    /// The directory of a model, or the one file that is named, once it is fetched. What is in the cache is not fetched
    /// again; when the hub cannot be reached, the cached revision is used, with a warning.
    ///
    /// # Errors
    /// When the hub refuses it or has no such model, a transfer breaks off time and again, what came is not what the hub
    /// announced, the disk is full, or the caller asks to stop.
    pub fn fetch(&self, id: &HubId, job: &mut Job<'_>) -> Result<PathBuf> {
        let wrong = |reason: String| Error::Hub { model: id.to_string(), reason };
        let Some(client) = &self.client else {
            let reason = format!("is not in {}, and HF_HUB_OFFLINE is set", self.cache.path().display());
            return self.cached(id).ok_or_else(|| wrong(reason));
        };
        match fetch::fetch(client, &self.cache, id, job) {
            Ok(path) => Ok(path),
            Err(Failure::Error(error)) => Err(error),
            Err(Failure::Refused(reason)) => Err(wrong(reason)),
            Err(Failure::Unreached(reason, _)) => match self.cached(id) {
                Some(path) => {
                    tracing::warn!("{id}: {reason}; what was fetched before is used: {}", path.display());
                    Ok(path)
                }
                None => Err(wrong(reason)),
            },
        }
    }

    /// What of a model was fetched before.
    fn cached(&self, id: &HubId) -> Option<PathBuf> {
        let repo = self.cache.repo(id.repo());
        let commit = match id::is_commit(&id.revision) {
            true => Some(id.revision.clone()),
            false => {
                std::fs::read_to_string(self.cache.path().join(id.repo().folder_name()).join("refs").join(&id.revision))
                    .ok()
                    .map(|commit| commit.trim().to_owned())
                    .filter(|commit| id::is_commit(commit))
            }
        }?;
        let dir = repo.pointer_path(&commit);
        match &id.file {
            Some(file) => Some(dir.join(file)).filter(|path| path.is_file()),
            None => Some(dir)
                .filter(|dir| ["config.json", "adapter_config.json"].iter().any(|name| dir.join(name).is_file())),
        }
    }
}

/// Puts where a model lies in the place of the hub's name for it, if that is what a path is.
///
/// # Errors
/// As [`Hub::fetch`], and when `hf://` is followed by no model's name.
pub fn localize(path: &mut PathBuf, job: &mut Job<'_>) -> Result<()> {
    if let Some(id) = HubId::named_by(path)? {
        *path = Hub::from_env()?.fetch(&id, job)?;
    }
    Ok(())
}

/// The name of a model whose directory is a snapshot in the hub's cache.
#[must_use]
pub fn name_of(dir: &Path) -> Option<String> {
    let snapshots = dir.parent().filter(|parent| parent.ends_with("snapshots"))?;
    let name = snapshots.parent()?.file_name()?.to_str()?.strip_prefix("models--")?;
    Some(name.replacen("--", "/", 1))
}
