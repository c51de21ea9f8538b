//! The settings of a sweep: which models, tasks and harmful counts, and how each stage is run.
//!
//! A sweep is a YAML file, over the file that it names as `base` and under each of its variants; `config/layers.rs` merges
//! them. Settings of a stage are the types of the crate that runs it. `config/models.rs` holds the models, `methods.rs` what
//! is compared, `files.rs` where files are, `check.rs` which values make no sense. The grid is in
//! `grid.rs`. Nothing here runs a stage.

mod attacks;
mod check;
mod files;
mod layers;
mod methods;
mod models;
mod shape;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use evaluation::{Fields, Judge, TaskEntry, TaskSpec};
use finetune::TrainSettings;
use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

pub use attacks::{AblationSpec, AttackSpec, EvadingSpec, PrefillSpec, RetrainingSpec, SamplingSpec};
pub use files::{Paths, find};
use layers::Layers;
pub use methods::{Compared, OneShot, SafeInstruct, What, training};
pub use models::{Align, FromNothing, Gguf, Hub, ModelSpec, Pretrain, PromptSet, Source};
pub use shape::DecoderShape;

/// A sweep: every model x task x harmful count, and the settings of the stages they go through.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// A sweep file whose keys hold where this one has none, relative to this one, and whose kept stages are shared.
    #[serde(default)]
    pub base: Option<PathBuf>,
    /// Name of the sweep, and of its directory under `results/runs/`.
    pub name: String,
    /// Which of the paper's ambiguous choices are made, and how: an overlay below the keys of the file that names it.
    #[serde(default)]
    pub profile: Profile,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Seeds of the cells, where there are several; the aligned models are those of `seed`, unless they are redrawn.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// Whether the aligned models, too, are made with each of `seeds`.
    #[serde(default)]
    pub redraw_models: bool,
    /// Directory of the sample files, relative to the repository that holds the sweep file.
    pub data: PathBuf,
    /// The aligned models, or what they are made from.
    pub models: Vec<ModelSpec>,
    #[serde(rename = "tasks")]
    task_entries: Vec<TaskEntry>,
    /// The tasks that the models are fine-tuned on: the names of files in `data/tasks`, or written out.
    #[serde(skip)]
    pub tasks: Vec<TaskSpec>,
    /// How many harmful samples are injected into the task's training set, smallest first.
    pub harmful_counts: Vec<usize>,
    /// The cells that are run where the command line names none: a glob over `model/task/count`.
    #[serde(default)]
    pub cells: Option<String>,
    /// Cells in progress at a time, where the command line does not say; more than one pays for small models.
    #[serde(default)]
    pub jobs: Option<usize>,
    /// Harmful samples (`prompt`, `response`) to inject from, relative to `data`.
    pub inject: PathBuf,
    /// As [`PromptSet::fetch`], of `inject`.
    #[serde(default)]
    pub inject_fetch: Option<PathBuf>,
    /// Fine-tuning on a task.
    #[serde(default)]
    pub finetune: TrainSettings,
    /// An attacker's further aim in fine-tuning on a task.
    #[serde(default)]
    pub evading: Option<EvadingSpec>,
    /// What the repairs read.
    pub recovery: Recovery,
    /// The unaligned model of RESTA.
    #[serde(default)]
    pub unaligned: Unaligned,
    /// The methods' settings, by their words; defaults where there are none.
    #[serde(default)]
    settings: BTreeMap<String, Value>,
    #[serde(rename = "methods", default = "usual_methods")]
    method_entries: Vec<Value>,
    /// The models of a cell that are evaluated, `methods` in the file: a word, or `{name: fast, recover: {steps: 5}}`.
    #[serde(skip)]
    pub methods: Vec<Compared>,
    /// The prompts that every model answers, and how many of each.
    pub evaluation: Evaluation,
    #[serde(rename = "judges", default)]
    judge_list: Option<Value>,
    /// Who judges the answers: a list as a file of `realign evaluate --judges` has it, or the path of such a file, relative to
    /// the repository. The first judge's verdicts are the rates of the results. Empty: refusal phrases alone.
    #[serde(skip)]
    pub judges: Vec<Judge>,
    #[serde(rename = "variants", default)]
    overlays: Vec<Mapping>,
    /// Sweeps that differ in some keys, each with a name (ablations).
    #[serde(skip)]
    pub variants: Vec<Resolved>,
    /// Name of the sweep whose kept stages are shared: the lowest base.
    #[serde(skip)]
    pub store: Option<String>,
    /// Directory that `data` and scripts are relative to.
    #[serde(skip)]
    pub root: PathBuf,
    #[serde(skip)]
    layers: Layers,
}

fn default_seed() -> u64 {
    1
}

fn usual_methods() -> Vec<Value> {
    ["aligned", "fine_tuned", "recover"].map(Value::from).to_vec()
}

/// Whose choices are followed where paper and released code differ (METHOD.md section 7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// A validation split decides, and exactly k weights are restored.
    #[default]
    Sound,
    /// The released code's choices, for comparison with its tables.
    Released,
}

impl Profile {
    /// The keys that a profile sets.
    fn overlay(word: &str) -> Option<Value> {
        let keys = match word {
            "sound" => "{recovery: {decide_on: validation}, settings: {recover: {ties: exact}}}",
            "released" => "{recovery: {decide_on: test}, settings: {recover: {ties: strict}}}",
            _ => return None,
        };
        serde_yaml::from_str(keys).ok()
    }
}

/// What the repairs read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recovery {
    /// Recovery prompts, relative to `data`: JSONL or CSV, or a directory of such files.
    pub prompts: PathBuf,
    /// Their keys, as in a file of `data/prompt_sets`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
    /// How many of them; fewer in the file is an error.
    #[serde(default = "paper_prompts")]
    pub count: usize,
    /// Training prompts of the task for its direction and for rollback, at most; a rollback's time grows with them.
    #[serde(default = "paper_prompts")]
    pub task_prompts: usize,
    /// The part of the task's samples whose score decides about rollback and the answer.
    #[serde(default)]
    pub decide_on: DecideOn,
    /// Whether repairs read the task's samples, which a customer gives; without them nothing decides by the task.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub trust_task: bool,
    /// Whether repairs leave out those of the task's samples that the aligned model declines.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub screen_task: bool,
    /// What strong recovery reads, and what all methods with `choose: true` are chosen by.
    #[serde(default)]
    pub evidence: Option<EvidenceSpec>,
}

/// Prompts that the models answer themselves, and how the losses on them are weighed. The harmful ones are those of
/// `recovery.prompts`; the task's held-out samples are those that decide recoveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceSpec {
    /// Harmless prompts, relative to `data`.
    pub harmless: PathBuf,
    /// Prompts of each kind; those of a shorter file are all taken.
    pub count: usize,
    /// Samples of the task; as many as prompts of a kind unless it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_count: Option<usize>,
    /// Share of them that decides.
    #[serde(default = "default_held_out")]
    pub held_out: f64,
    /// Length of the models' own answers.
    pub max_new_tokens: usize,
    /// Whose answers to harmless prompts are to be kept.
    #[serde(default)]
    pub reference: recovery::Reference,
    /// How harm, over-refusal and the task are weighed.
    #[serde(default)]
    pub merit: recovery::MeritSettings,
}

impl EvidenceSpec {
    /// How many harmful or harmless prompts are held out, or are not.
    #[must_use]
    pub fn part(&self, held_out: bool) -> usize {
        self.part_of(self.count, held_out)
    }

    /// The same of the task's samples.
    #[must_use]
    pub fn task_part(&self, held_out: bool) -> usize {
        self.part_of(self.task_count.unwrap_or(self.count), held_out)
    }

    fn part_of(&self, count: usize, held_out: bool) -> usize {
        let deciding = ((count as f64 * self.held_out).ceil() as usize).min(count);
        if held_out { deciding } else { count - deciding }
    }
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde gives a reference
fn is_yes(value: &bool) -> bool {
    *value
}

fn default_held_out() -> f64 {
    0.5
}

fn paper_prompts() -> usize {
    256
}

/// The part of a task's samples that decides a recovery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecideOn {
    /// What is held out of the training file.
    #[default]
    Validation,
    /// What is reported, as in the released code.
    Test,
}

/// The unaligned model: the aligned one, fine-tuned on harmful samples alone. Who repairs a model does not have those that
/// are injected, so these are the ones that follow the largest count in the injection's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Unaligned {
    /// Harmful samples that it is fine-tuned on.
    pub samples: usize,
    /// Passes over them; all else is as in `finetune`.
    pub epochs: usize,
    /// Learning rate [default: that of `finetune`].
    pub learning_rate: Option<f64>,
}

impl Default for Unaligned {
    fn default() -> Self {
        Self { samples: 100, epochs: 10, learning_rate: None }
    }
}

/// What every model is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Harmful prompts, for the harmful rate.
    pub harmful: AnswerSet,
    /// Harmless prompts, for over-refusal.
    pub harmless: AnswerSet,
    /// Harmless prompts that look harmful, for over-refusal of them, which tables tell apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_harmful: Option<AnswerSet>,
    /// Categories of `harmful` that are not seen, see `held_out_of`; tables tell their rate apart.
    #[serde(default)]
    pub held_out: Vec<String>,
    /// What has no sample of those categories.
    #[serde(default = "HeldOutOf::all", skip_serializing_if = "HeldOutOf::is_all")]
    pub held_out_of: Vec<HeldOutOf>,
    /// What is done with every model before it is asked the harmful prompts once more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<AttackSpec>,
    /// Prompts answered at a time; it changes the speed only.
    #[serde(default = "default_answer_batch")]
    pub batch: usize,
}

/// A file that lacks the held-out categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldOutOf {
    /// The samples that are injected.
    Inject,
    /// The recovery prompts.
    Recovery,
}

impl HeldOutOf {
    fn all() -> Vec<Self> {
        vec![Self::Inject, Self::Recovery]
    }

    fn is_all(list: &[Self]) -> bool {
        list == Self::all()
    }
}

impl Evaluation {
    /// The sets that are asked, by their keys.
    pub fn sets(&self) -> impl Iterator<Item = (&'static str, &AnswerSet)> {
        let looks_harmful = self.looks_harmful.iter().map(|set| ("looks_harmful", set));
        [("harmful", &self.harmful), ("harmless", &self.harmless)].into_iter().chain(looks_harmful)
    }
}

fn default_answer_batch() -> usize {
    32
}

/// Some lines of a JSONL file, and the length of the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnswerSet {
    /// As [`PromptSet::fetch`].
    #[serde(default)]
    pub fetch: Option<PathBuf>,
    /// The file, relative to `data`; `~/` is the home directory.
    pub file: PathBuf,
    /// Lines that are left out at the start.
    #[serde(default)]
    pub skip: usize,
    /// Lines that are taken.
    pub count: usize,
    /// Length of an answer.
    pub max_new_tokens: usize,
}

/// The settings of one variant with one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Name of the variant, empty when there is none.
    pub variant: String,
    /// The sweep with the seed and the variant's keys in it.
    pub sweep: Sweep,
}

/// What a variant cannot change: the grid, the sweep's name, and what is compared by whom.
const FIXED_KEYS: [&str; 12] = [
    "base",
    "name",
    "seed",
    "seeds",
    "redraw_models",
    "models",
    "harmful_counts",
    "cells",
    "jobs",
    "variants",
    "methods",
    "judges",
];

/// Variants of a sweep: each keeps all of its keys.
const MOST_VARIANTS: usize = 64;
/// Entries that a list of a sweep may have.
const MOST_ENTRIES: usize = 1000;
/// Mistakes that are listed: the place of each is looked for in the whole file.
const MOST_PROBLEMS: usize = 20;

impl Sweep {
    /// Reads a sweep and checks its values. [`Sweep::check_files`] tells whether its files are there.
    ///
    /// # Errors
    /// When the file cannot be read or is not YAML, a key is unknown, missing or of the wrong
    /// type, a value makes no sense, or a file of the tasks or judges cannot be read.
    pub fn load(path: &Path) -> Result<Self> {
        let text = ::files::read_yaml_text(path).context("the sweep")?;
        Self::parse(&text, path, &files::root_of(path)?)
    }

    /// Reads a sweep from text, in a repository at `root`; `path` is named in errors and has the `base` beside it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, path: &Path, root: &Path) -> Result<Self> {
        let layers = Layers::read(path, text.to_owned())?;
        let bases = layers.base_names();
        let mut sweep = Self::of(layers, root)?;
        if bases.contains(&sweep.name) {
            let what = "is the base's; give it one of its own, or its results replace those";
            bail!(sweep.layers.problem("name", &format!("{:?} {what}", sweep.name)));
        }
        sweep.store = bases.into_iter().next();
        for variant in &mut sweep.variants {
            variant.sweep.store.clone_from(&sweep.store);
        }
        Ok(sweep)
    }

    /// The sweep of merged layers, with its tasks, judges, methods and variants.
    fn of(layers: Layers, root: &Path) -> Result<Self> {
        if let Some((key, length)) = layers.longest_list().filter(|(_, length)| *length > MOST_ENTRIES) {
            bail!(layers.problem(&key, &format!("has {length} entries; at most {MOST_ENTRIES} are read")));
        }
        let mut sweep: Self = layers.parse()?;
        root.clone_into(&mut sweep.root);
        let mut problems = Vec::new();
        for (i, entry) in sweep.task_entries.iter().enumerate() {
            match entry.resolve(&root.join("data/tasks")) {
                Ok(task) => sweep.tasks.push(task),
                Err(error) => problems.push((format!("tasks[{i}]"), error.to_string())),
            }
        }
        match sweep.read_judges() {
            Ok(judges) => sweep.judges = judges,
            Err(error) => problems.push(("judges".into(), format!("{error:#}"))),
        }
        let (methods, wrong) = methods::compared(&sweep.method_entries, &sweep.settings);
        sweep.methods = methods;
        problems.extend(wrong);
        problems.extend(sweep.problems());
        let found = problems.len();
        let shown = problems.iter().take(MOST_PROBLEMS);
        let mut problems: Vec<String> = shown.map(|(key, what)| layers.problem(key, what)).collect();
        let most = sweep.overlays.len() <= MOST_VARIANTS;
        if !most {
            let what = format!("{} are too many; at most {MOST_VARIANTS} are read", sweep.overlays.len());
            problems.push(layers.problem("variants", &what));
        }
        for (i, overlay) in sweep.overlays.iter().enumerate().filter(|_| most) {
            if problems.len() >= MOST_PROBLEMS {
                problems
                    .push(format!("{}: no variant from variants[{i}] on is looked at yet", layers.file().display()));
                break;
            }
            match Self::variant(&layers, root, i, overlay.clone(), &sweep.variants) {
                Ok(variant) => sweep.variants.push(variant),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if found > MOST_PROBLEMS {
            problems.push(format!("{}: {} more mistakes", layers.file().display(), found - MOST_PROBLEMS));
        }
        if !problems.is_empty() {
            bail!(problems.join("\n"));
        }
        sweep.layers = layers;
        Ok(sweep)
    }

    fn read_judges(&self) -> Result<Vec<Judge>> {
        match &self.judge_list {
            None => Ok(Vec::new()),
            Some(Value::String(file)) => Ok(Judge::read_list(&self.root_file(Path::new(file)))?),
            Some(list @ Value::Sequence(_)) => {
                Ok(Judge::list(serde_yaml::from_value(list.clone())?, "judges", &|file| self.root_file(file))?)
            }
            Some(_) => bail!("must be a list of judges or the path of a file with one"),
        }
    }

    /// The variant with the place `i`; those before it have other names.
    fn variant(layers: &Layers, root: &Path, i: usize, mut keys: Mapping, before: &[Resolved]) -> Result<Resolved> {
        let own = format!("variants[{i}]");
        let wrong = |key: &str, what: &str| anyhow!(layers.problem(&format!("{own}.{key}"), what));
        let name = match keys.remove("name") {
            Some(Value::String(name)) if !name.trim().is_empty() => name,
            _ => return Err(wrong("name", "must be a text")),
        };
        if before.iter().any(|other| other.variant == name) {
            return Err(wrong("name", &format!("{name:?} is there twice")));
        }
        if let Some(key) = FIXED_KEYS.into_iter().find(|key| keys.contains_key(*key)) {
            return Err(wrong(key, "a variant cannot change this; make a sweep with this one as its `base`"));
        }
        keys.insert("variants".into(), Value::Sequence(Vec::new()));
        let sweep = Self::of(layers.with(own, Value::Mapping(keys)), root)?;
        Ok(Resolved { variant: name, sweep })
    }

    /// What is wrong with a key, with the file and the line that it comes from.
    #[must_use]
    pub fn problem(&self, key: &str, what: &str) -> String {
        self.layers.problem(key, what)
    }

    /// The file that it was read from.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.layers.file()
    }

    /// The settings of every variant with one seed, in order.
    #[must_use]
    pub fn resolved(&self, seed: u64) -> Vec<Resolved> {
        let with = |variant: &str, sweep: &Self| Resolved {
            variant: variant.to_owned(),
            sweep: Self { seed, seeds: Vec::new(), overlays: Vec::new(), variants: Vec::new(), ..sweep.clone() },
        };
        if self.variants.is_empty() {
            return vec![with("", self)];
        }
        self.variants.iter().map(|variant| with(&variant.variant, &variant.sweep)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests;
