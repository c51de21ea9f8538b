//! The settings of a sweep: which models, tasks and harmful counts, and how each stage is run.
//! Section 1 of the paper's method is the grid, and [`Sweep::cells`] lists it.
//!
//! `settings.rs` holds the parts of a sweep, `method.rs` what is compared, `load.rs` reads it from YAML and finds its files,
//! `check.rs` says which values make no sense. Nothing here runs a stage.

mod check;
mod load;
mod method;
mod settings;

use std::fmt;
use std::path::PathBuf;

use finetune::SoftSftSettings;
use serde::{Deserialize, Serialize};

pub use load::find;
pub use method::Method;
pub use settings::{
    Align, AnswerSet, DecoderShape, Evaluation, Finetune, Gguf, Lora, ModelSpec, Pretrain, PromptSet, Recovery, Resta,
    Source, TaskSpec,
};

/// A sweep: every model x task x harmful count, and the settings of the stages they go through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Name of the sweep, and of its directory under `results/runs/`.
    pub name: String,
    /// Which of the paper's ambiguous choices are made, and how.
    #[serde(default)]
    pub profile: Profile,
    /// Seed of everything random.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Directory of the sample files, relative to the repository that holds the sweep file.
    pub data: PathBuf,
    /// The aligned models, or what they are made from.
    pub models: Vec<ModelSpec>,
    /// The tasks that the models are fine-tuned on.
    pub tasks: Vec<TaskSpec>,
    /// How many harmful samples are injected into the task's training set, smallest first.
    pub harmful_counts: Vec<usize>,
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
    /// The models of a cell that are evaluated.
    #[serde(default = "all_methods")]
    pub methods: Vec<Method>,
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

impl Sweep {
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
}

#[cfg(test)]
mod tests;
