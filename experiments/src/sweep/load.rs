//! Reads a sweep from YAML and finds its files. An error names the file, the line and the key.
//!
//! Whether the values make sense is decided in `check.rs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use evaluation::Judge;

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
    let wanted = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let known = sweeps_in(&["", "experiments"]);
    let hint = closest(&wanted, known.iter().map(String::as_str))
        .map(|close| format!("; the closest sweep here is {close:?}"))
        .unwrap_or_default();
    bail!("no sweep file at {} or {}{hint}", places[0].display(), places[1].display());
}

/// Names of the YAML files in some directories.
fn sweeps_in(dirs: &[&str]) -> Vec<String> {
    dirs.iter()
        .filter_map(|dir| std::fs::read_dir(Path::new(".").join(dir)).ok())
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml"))
        .collect()
}

impl Sweep {
    /// Reads a sweep and checks its values. Whether its files are there says [`check_files`](Self::check_files).
    ///
    /// # Errors
    /// When the file cannot be read or is not YAML, a key is unknown, missing or of the wrong
    /// type, a value makes no sense, or a file of the judges cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the sweep {}", path.display()))?;
        let mut sweep = Self::parse(&text, path)?;
        sweep.root = root_of(path)?;
        if let Some(judges) = &sweep.judges {
            let read = judges.read(&|file| sweep.root_file(file));
            sweep.judged_by = read.with_context(|| path.display().to_string())?;
        }
        Ok(sweep)
    }

    /// Reads a sweep from text; `path` is named in errors. No file is looked for but the sweep's `base`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let sweep = match base_of(text) {
            None => serde_yaml::from_str(text).map_err(|error| anyhow!(explain(&error, path)))?,
            Some(base) => Self::parse_over(text, path, &path.with_file_name(base))?,
        };
        let problems = sweep.problems();
        if !problems.is_empty() {
            bail!("{}: {}", path.display(), problems.join(&format!("\n{}: ", path.display())));
        }
        Ok(sweep)
    }

    /// Reads a sweep whose missing keys are those of another file.
    fn parse_over(text: &str, path: &Path, base: &Path) -> Result<Self> {
        let mapping = |text: &str, path: &Path| -> Result<serde_yaml::Mapping> {
            serde_yaml::from_str(text).map_err(|error| anyhow!(explain(&error, path)))
        };
        let below = std::fs::read_to_string(base)
            .with_context(|| format!("{}: base: cannot read {}", path.display(), base.display()))?;
        if base_of(&below).is_some() {
            bail!("{}: base: {} has a base itself; name that one", path.display(), base.display());
        }
        let store = Self::parse(&below, base)?.name;
        let mut keys = mapping(&below, base)?;
        keys.extend(mapping(text, path)?);
        let sweep: Self = serde_yaml::from_value(serde_yaml::Value::Mapping(keys))
            .map_err(|error| anyhow!("{} over {}", explain(&error, path), base.display()))?;
        if sweep.name == store {
            bail!(
                "{}: name: {store:?} is the base's; give it one of its own, or its results replace those",
                path.display()
            );
        }
        Ok(Self { store: Some(store), ..sweep })
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
        // What a script makes is not needed before; the script is.
        let made = |key: String, script: &Option<PathBuf>, file: &Path| match script {
            Some(script) => (format!("{key}.fetch"), self.root_file(script)),
            None => (format!("{key}.file"), self.data_file(file)),
        };
        for (name, set) in self.evaluation.sets() {
            files.push(made(format!("evaluation.{name}"), &set.fetch, &set.file));
        }
        for (i, model) in self.models_of(chosen) {
            let key = |rest: &str| format!("models[{i}].{rest}");
            match &model.source {
                Source::Pretrain(pretrain) => {
                    let tokenizer = self.data_file(&pretrain.training.tokenizer);
                    files.push((key("source.pretrain.training.tokenizer"), tokenizer));
                    files.push((key("source.pretrain.training.corpus"), self.data_file(&pretrain.training.corpus)));
                }
                Source::Gguf(gguf) => files.push(match &gguf.fetch {
                    Some(script) => (key("source.gguf.fetch"), self.root_file(script)),
                    None => (key("source.gguf.file"), self.root_file(&gguf.file)),
                }),
                Source::Dir(dir) => files.push((key("source.dir"), self.root_file(dir).join("config.json"))),
                Source::Hub(_) => {}
            }
            if let Some(align) = &model.align {
                let made =
                    |(name, set): (String, &PromptSet)| made(key(&format!("align.{name}")), &set.fetch, &set.file);
                files.extend(align.sets().map(made));
            }
        }
        for (i, task) in self.tasks_of(chosen) {
            files.push((format!("tasks[{i}].train"), self.data_file(&task.train)));
            files.push((format!("tasks[{i}].test"), self.data_file(&task.test)));
        }
        for (i, variant) in self.variants.iter().enumerate() {
            files.extend(variant.prompts.iter().map(|file| (format!("variants[{i}].prompts"), self.data_file(file))));
        }
        for (i, judge) in self.judged_by.iter().enumerate() {
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
        let mut missing: Vec<String> =
            files.map(|(key, file)| format!("{key}: {} is missing", file.display())).collect();
        for (i, model) in self.models_of(chosen) {
            let Source::Hub(hub) = &model.source else { continue };
            let dir = self.root_file(&hub.dir);
            if !dir.join("config.json").is_file() {
                let (dir, get) = (dir.display(), hub.how_to_get());
                missing.push(format!(
                    "models[{i}].source.hub.dir: the weights of {} are not in {dir}; get them with {get}, or set `dir` to \
                     where they are",
                    hub.id
                ));
            }
        }
        missing
    }

    /// Checks that every file is there that some cells need before they start; `path` is named in errors.
    ///
    /// # Errors
    /// When one is missing; the message says what to do.
    pub fn check_files(&self, path: &Path, chosen: &BTreeSet<usize>) -> Result<()> {
        let missing = self.missing(chosen);
        if !missing.is_empty() {
            let path = path.display();
            bail!("{path}: {}", missing.join(&format!("\n{path}: ")));
        }
        Ok(())
    }
}

/// The `base` key of a sweep's text, where it is YAML and has one.
fn base_of(text: &str) -> Option<PathBuf> {
    let keys: serde_yaml::Mapping = serde_yaml::from_str(text).ok()?;
    keys.get("base")?.as_str().map(PathBuf::from)
}

fn under(dir: &Path, file: &Path) -> PathBuf {
    match (file.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => dir.join(file),
    }
}

/// The repository that holds the sweep file: the nearest directory above with a `Cargo.lock`,
/// else the current directory.
fn root_of(path: &Path) -> Result<PathBuf> {
    let path = path.canonicalize().with_context(|| format!("cannot find the directory of {}", path.display()))?;
    match path.ancestors().find(|dir| dir.join("Cargo.lock").is_file()) {
        Some(root) => Ok(root.to_owned()),
        None => std::env::current_dir().context("cannot tell the current directory"),
    }
}

/// The reader's error as `file:line:column: key: what is wrong; the closest right key`.
fn explain(error: &serde_yaml::Error, path: &Path) -> String {
    let place =
        error.location().map_or(String::new(), |location| format!(":{}:{}", location.line(), location.column()));
    let full = error.to_string();
    let message = full.rsplit_once(" at line ").map_or(full.as_str(), |(message, _)| message);
    // "unknown field `a`, expected one of `b`, `c`": what stands between backticks are names.
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = message.contains("unknown field") || message.contains("unknown variant");
    let hint = match names.next() {
        Some(wrong) if unknown => {
            closest(wrong, names).map(|close| format!("; the closest right name is `{close}`")).unwrap_or_default()
        }
        _ => String::new(),
    };
    format!("{}{place}: {message}{hint}", path.display())
}

/// The name that takes the fewest edits.
fn closest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names.min_by_key(|name| strsim::damerau_levenshtein(wrong, name))
}
