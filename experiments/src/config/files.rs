//! Where a sweep's files are: the sweep itself, what its stages read, and where results are kept.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use evaluation::Judge;

use super::layers::closest;
use super::{PromptSet, Source, Sweep};

/// Finds a sweep file: beside the current directory, then in its `experiments/`.
///
/// # Errors
/// When there is no such file; the message names the places and the closest sweep there is.
pub fn find(name: &Path) -> Result<PathBuf> {
    let places = [name.to_owned(), Path::new("experiments").join(name)];
    if let Some(found) = places.iter().find(|place| place.is_file()) {
        return Ok(found.clone());
    }
    let entries = ["./", "./experiments"].iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let known: Vec<String> = names.filter(|name| name.ends_with(".yaml")).collect();
    let wanted = name.file_name().unwrap_or_default().to_string_lossy();
    let hint = closest(&wanted, known.iter().map(String::as_str))
        .map(|close| format!("; the closest sweep here is {close:?}"))
        .unwrap_or_default();
    bail!("no sweep file at {} or {}{hint}", places[0].display(), places[1].display());
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
pub struct Places {
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
    pub fn places(&self, out: Option<&Path>) -> Places {
        let named = |name: &str| self.root.join("results/runs").join(name);
        let results = out.map_or_else(|| named(&self.name), Path::to_owned);
        match (&self.store, out) {
            (None, _) => Places { own: results.clone(), results, base: None },
            (Some(base), None) => Places { results, own: named(base), base: None },
            (Some(base), Some(out)) => Places { results, own: out.to_owned(), base: Some(named(base)) },
        }
    }

    /// Where a file of the data directory is; `~/` is the home directory.
    #[must_use]
    pub fn data_file(&self, file: &Path) -> PathBuf {
        under(&self.root.join(&self.data), file)
    }

    /// Where a file of the repository is; `~/` is the home directory.
    #[must_use]
    pub fn root_file(&self, file: &Path) -> PathBuf {
        under(&self.root, file)
    }

    /// Every file that some cells need before they start, with the key that names it.
    fn files(&self, chosen: &BTreeSet<usize>) -> Vec<(String, PathBuf)> {
        let mut files = vec![
            ("inject".to_owned(), self.data_file(&self.inject)),
            ("recovery.prompts".to_owned(), self.data_file(&self.recovery.prompts)),
        ];
        // A file that a script makes need not be there; the script must be.
        let made = |key: String, script: &Option<PathBuf>, file: PathBuf| match script {
            Some(script) => (format!("{key}.fetch"), self.root_file(script)),
            None => (format!("{key}.file"), file),
        };
        for (name, set) in self.evaluation.sets() {
            files.push(made(format!("evaluation.{name}"), &set.fetch, self.data_file(&set.file)));
        }
        for (i, model) in self.models_of(chosen) {
            let key = |rest: &str| format!("models[{i}].{rest}");
            match &model.source {
                Source::Pretrain(pretrain) => {
                    let key = |rest: &str| key(&format!("source.pretrain.training.{rest}"));
                    files.push((key("tokenizer"), self.data_file(&pretrain.training.tokenizer)));
                    files.push((key("corpus"), self.data_file(&pretrain.training.corpus)));
                }
                Source::Gguf(gguf) => files.push(made(key("source.gguf"), &gguf.fetch, self.root_file(&gguf.file))),
                Source::Dir(dir) => files.push((key("source.dir"), self.root_file(dir).join("config.json"))),
                Source::Hub(_) => {}
            }
            let set = |(name, set): (String, &PromptSet)| {
                made(key(&format!("align.{name}")), &set.fetch, self.data_file(&set.file))
            };
            files.extend(model.align.iter().flat_map(|align| align.sets()).map(set));
        }
        for (i, task) in self.tasks_of(chosen) {
            files.push((format!("tasks[{i}].train"), self.data_file(&task.train)));
            files.push((format!("tasks[{i}].test"), self.data_file(&task.test)));
        }
        for (i, variant) in self.variants.iter().enumerate() {
            let prompts = &variant.sweep.recovery.prompts;
            if *prompts != self.recovery.prompts {
                files.push((format!("variants[{i}].recovery.prompts"), self.data_file(prompts)));
            }
        }
        for (i, judge) in self.judges.iter().enumerate() {
            if let Judge::Guard(settings, _) = judge {
                files.push((format!("judges[{i}].model"), settings.model.clone()));
            }
        }
        files
    }

    /// What is missing before some cells can be run, one sentence with its key each.
    #[must_use]
    pub fn missing(&self, chosen: &BTreeSet<usize>) -> Vec<String> {
        let files = self.files(chosen).into_iter().filter(|(_, file)| !file.exists());
        let missing = files.map(|(key, file)| (key, format!("{} is missing", file.display())));
        let hubs = self.models_of(chosen).into_iter().filter_map(|(i, model)| {
            let Source::Hub(hub) = &model.source else { return None };
            let dir = self.root_file(&hub.dir);
            let (place, id, get) = (dir.display(), &hub.id, hub.how_to_get());
            let what =
                format!("the weights of {id} are not in {place}; get them with {get}, or set `dir` to where they are");
            (!dir.join("config.json").is_file()).then(|| (format!("models[{i}].source.hub.dir"), what))
        });
        missing.chain(hubs).map(|(key, what)| self.layers.problem(&key, &what)).collect()
    }

    /// Checks that every file is there that some cells need before they start.
    ///
    /// # Errors
    /// When one is missing; the message says what to do.
    pub fn check_files(&self, chosen: &BTreeSet<usize>) -> Result<()> {
        let missing = self.missing(chosen);
        if missing.is_empty() { Ok(()) } else { bail!(missing.join("\n")) }
    }
}

fn under(dir: &Path, file: &Path) -> PathBuf {
    match (file.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => dir.join(file),
    }
}
