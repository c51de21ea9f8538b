//! The settings of a sweep: which models, tasks and harmful counts, and how each stage is run.
//! Section 1 of the paper's method is the grid, and [`Sweep::cells`] lists it.
//!
//! `settings.rs` holds the parts of a sweep, `method.rs` what is compared, `variant.rs` the ablations, `hub.rs` models of
//! the Hugging Face hub, `judges.rs` who judges, `load.rs` reads a sweep from YAML and finds its files, `check.rs` says which values make no
//! sense. Nothing here runs a stage.

mod check;
mod hub;
mod judges;
mod load;
mod method;
mod settings;
mod variant;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use evaluation::Judge;
use finetune::SoftSftSettings;
use glob::{MatchOptions, Pattern};
use serde::{Deserialize, Serialize};

pub use hub::{Hub, HubShape};
pub use judges::JudgeList;
pub use load::find;
pub use method::Method;
pub use settings::{
    Align, AnswerSet, DecoderShape, Evaluation, Finetune, FromNothing, Gguf, Lora, ModelSpec, Pretrain, PromptSet,
    Recovery, Resta, Source, TaskSpec,
};
pub use variant::{Layer, Rollback, Variant};

/// A sweep: every model x task x harmful count, and the settings of the stages they go through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// A sweep file beside this one whose keys hold where this one has none, and whose kept stages are
    /// shared: `store` is its name.
    #[serde(default)]
    pub base: Option<PathBuf>,
    /// Name of the sweep, and of its directory under `results/runs/`.
    pub name: String,
    /// Which of the paper's ambiguous choices are made, and how.
    #[serde(default)]
    pub profile: Profile,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Seeds of the cells, where there are several; the aligned models are those of `seed`, unless they are redrawn.
    #[serde(default)]
    pub seeds: Vec<u64>,
    /// Whether the aligned models, too, are made anew with each of `seeds`.
    #[serde(default)]
    pub redraw_models: bool,
    /// Directory of the sample files, relative to the repository that holds the sweep file.
    pub data: PathBuf,
    /// The aligned models, or what they are made from.
    pub models: Vec<ModelSpec>,
    /// The tasks that the models are fine-tuned on.
    pub tasks: Vec<TaskSpec>,
    /// How many harmful samples are injected into the task's training set, smallest first.
    pub harmful_counts: Vec<usize>,
    /// The cells that are run where the command line names none: a glob over `model/task/count`.
    #[serde(default)]
    pub cells: Option<String>,
    /// Cells in hand at a time, where the command line does not say; more than one pays for small models.
    #[serde(default)]
    pub jobs: Option<usize>,
    /// Harmful samples (`prompt`, `response`) to inject from, relative to `data`.
    pub inject: PathBuf,
    /// Fine-tuning on a task.
    #[serde(default)]
    pub finetune: Finetune,
    /// Recovery of the fine-tuned model.
    pub recovery: Recovery,
    /// The baseline SoftSFT; the rest of its training is as in `finetune`.
    #[serde(default)]
    pub softsft: SoftSftSettings,
    /// The baseline RESTA.
    #[serde(default)]
    pub resta: Resta,
    /// What is asked of every model, and how many of each.
    pub evaluation: Evaluation,
    /// Who judges the answers: the first judge's verdicts are the rates of the results, all of them stand in `judges.md`.
    /// Refusal phrases without it.
    #[serde(default)]
    pub judges: Option<JudgeList>,
    /// The models of a cell that are evaluated.
    #[serde(default = "all_methods")]
    pub methods: Vec<Method>,
    /// Recoveries that differ in some settings, each with a name (ablations); none is one without a name.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// Name of the sweep whose kept stages are shared; found by [`Sweep::load`].
    #[serde(skip)]
    pub store: Option<String>,
    /// The judges of `judges`, read by [`Sweep::load`].
    #[serde(skip)]
    pub judged_by: Vec<Judge>,
    /// Directory that `data` and scripts are relative to; found by [`Sweep::load`].
    #[serde(skip)]
    pub root: PathBuf,
}

fn default_seed() -> u64 {
    1
}

fn all_methods() -> Vec<Method> {
    Method::USUAL.to_vec()
}

/// Whose choices are followed where paper and released code differ (method, section 7).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// What we stand behind: a validation split decides, exactly k weights are restored.
    #[default]
    Sound,
    /// The released code's choices, for comparison with its tables.
    Released,
}

/// The settings of one variant with one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Name of the variant, empty where there is none.
    pub variant: String,
    /// The sweep with that seed and the variant's settings in it.
    pub sweep: Sweep,
}

/// A `*` stays within a model, a task or a count.
const WITHIN_PARTS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// One fine-tuned model of the grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell<'a> {
    /// The aligned model.
    pub model: &'a ModelSpec,
    /// The task.
    pub task: &'a TaskSpec,
    /// Number of injected harmful samples.
    pub harmful_count: usize,
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.model.name, self.task.name, self.harmful_count)
    }
}

impl Cell<'_> {
    /// The cell's name in patterns: `model/task/count`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.model.name, self.task.name, self.harmful_count)
    }
}

impl Sweep {
    /// The seeds of the cells.
    #[must_use]
    pub fn cell_seeds(&self) -> Vec<u64> {
        if self.seeds.is_empty() { vec![self.seed] } else { self.seeds.clone() }
    }

    /// The seed of the aligned models of the cells with a seed.
    #[must_use]
    pub fn model_seed(&self, seed: u64) -> u64 {
        if self.redraw_models { seed } else { self.seed }
    }

    /// The seeds of the aligned models, each once.
    #[must_use]
    pub fn model_seeds(&self) -> Vec<u64> {
        if self.redraw_models { self.cell_seeds() } else { vec![self.seed] }
    }

    /// The settings of every variant with one seed, in order.
    #[must_use]
    pub fn resolved(&self, seed: u64) -> Vec<Resolved> {
        let with = |variant: Option<&Variant>| {
            let mut sweep = Self { seed, seeds: Vec::new(), variants: Vec::new(), ..self.clone() };
            if let Some(variant) = variant {
                variant.apply(&mut sweep.recovery);
            }
            Resolved { variant: variant.map(|variant| variant.name.clone()).unwrap_or_default(), sweep }
        };
        if self.variants.is_empty() {
            return vec![with(None)];
        }
        self.variants.iter().map(|variant| with(Some(variant))).collect()
    }

    /// Every cell, model by model and task by task, counts in their order.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell<'_>> {
        let mut cells = Vec::new();
        for model in &self.models {
            for task in &self.tasks {
                for &harmful_count in &self.harmful_counts {
                    cells.push(Cell { model, task, harmful_count });
                }
            }
        }
        cells
    }

    /// The numbers in [`cells`](Self::cells) of those whose paths fit one of some patterns; all without a pattern.
    ///
    /// # Errors
    /// When a pattern is none, or fits no cell.
    pub fn choose(&self, patterns: &[String]) -> Result<BTreeSet<usize>> {
        let paths: Vec<String> = self.cells().iter().map(Cell::path).collect();
        let mut chosen = BTreeSet::new();
        for text in patterns {
            let pattern = Pattern::new(text).with_context(|| format!("--cells {text:?} is no pattern"))?;
            let fits = |&at: &usize| pattern.matches_with(&paths[at], WITHIN_PARTS);
            let fitting: Vec<usize> = (0..paths.len()).filter(fits).collect();
            if fitting.is_empty() {
                let some = paths[..paths.len().min(3)].join(", ");
                bail!("no cell fits --cells {text:?}; cells are model/task/count, as {some}");
            }
            chosen.extend(fitting);
        }
        if patterns.is_empty() { Ok((0..paths.len()).collect()) } else { Ok(chosen) }
    }

    /// The models of some cells, with their places in `models`.
    #[must_use]
    pub fn models_of(&self, chosen: &BTreeSet<usize>) -> Vec<(usize, &ModelSpec)> {
        let of_model = self.tasks.len() * self.harmful_counts.len();
        let used = |i: usize| chosen.range(i * of_model..(i + 1) * of_model).next().is_some();
        self.models.iter().enumerate().filter(|(i, _)| used(*i)).collect()
    }

    /// The tasks of some cells, with their places in `tasks`.
    #[must_use]
    pub fn tasks_of(&self, chosen: &BTreeSet<usize>) -> Vec<(usize, &TaskSpec)> {
        let used: BTreeSet<usize> =
            chosen.iter().map(|cell| cell / self.harmful_counts.len() % self.tasks.len()).collect();
        used.into_iter().map(|i| (i, &self.tasks[i])).collect()
    }
}

#[cfg(test)]
mod tests;
