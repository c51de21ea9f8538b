//! The graph of a sweep's stages: values that are ready to run, each after those that it reads. `pipeline.rs` builds it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use realign::{Job, Stage};
use serde_json::Value;

/// A stage of a sweep, ready to run.
pub struct Node {
    /// The name of its result.
    pub key: String,
    /// Its kind in tables and directories.
    pub kind: &'static str,
    /// The version of its code.
    pub version: u32,
    /// What it works on, for people.
    pub name: String,
    /// The stages that it reads.
    pub parents: Vec<usize>,
    /// The key of the model that an evaluation, or the judging of one, is about.
    pub evaluated: Option<String>,
    stage: Box<dyn AnyStage>,
}

impl Node {
    /// A stage that reads `parents`.
    pub(crate) fn new<S: Stage + Send + Sync + 'static>(name: String, stage: S, parents: &[usize]) -> Result<Self> {
        let (key, kind, version) = (stage.key()?, stage.kind(), stage.version());
        let (parents, evaluated, stage) = (parents.to_vec(), None, Box::new(stage));
        Ok(Self { key, kind, version, name, parents, evaluated, stage })
    }

    /// Its value, of which the key is the hash. It is made when it is asked for: a large sweep has a hundred thousand stages.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn value(&self) -> Result<Value> {
        Ok(self.stage.value()?)
    }

    /// Runs the stage; see [`Stage::run`].
    ///
    /// # Errors
    /// Those of the stage.
    pub fn run(&self, out: &Path, job: &mut Job<'_>) -> realign::Result<Value> {
        self.stage.run(out, job)
    }
}

/// A [`Stage`] of any kind.
trait AnyStage: Send + Sync {
    fn value(&self) -> serde_json::Result<Value>;

    fn run(&self, out: &Path, job: &mut Job<'_>) -> realign::Result<Value>;
}

impl<S: Stage + Send + Sync> AnyStage for S {
    fn value(&self) -> serde_json::Result<Value> {
        serde_json::to_value(self)
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> realign::Result<Value> {
        Ok(serde_json::to_value(Stage::run(self, out, job)?)?)
    }
}

/// A model of a cell that is evaluated: the stages that a [`Record`](crate::record::Record) is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// Seed of the cell.
    pub seed: u64,
    /// Name of the variant; empty where all variants have the same model.
    pub variant: String,
    /// Name of the method in tables.
    pub method: String,
    /// Name of the method for people.
    pub label: String,
    /// The model.
    pub model: usize,
    /// Its answers to harmful and harmless prompts, with the refusal phrases' verdicts.
    pub safety: usize,
    /// Its answers to the task's test split, with their scores.
    pub task: usize,
    /// How far it is from the fine-tuned model; none of that itself, and where that is not compared.
    pub divergence: Option<usize>,
    /// The verdicts of the sweep's judges, with their names.
    pub judges: Vec<(String, usize)>,
    /// Its answers to harmless prompts that look harmful, where they are asked.
    pub looks_harmful: Option<Answered>,
    /// The answers of the unaligned model that the method reads.
    pub unaligned: Option<usize>,
    /// Its answers under each attack.
    pub attacks: Vec<AttackedNode>,
}

/// Answers with the refusal phrases' verdicts, and what the sweep's judges say of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answers.
    pub answers: usize,
    /// The verdicts of the sweep's judges, with their names.
    pub judges: Vec<(String, usize)>,
}

impl Answered {
    fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        std::iter::once(self.answers).chain(self.judges.iter().map(|one| one.1))
    }
}

/// The answers of an attacked model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttackedNode {
    /// Name of the attack.
    pub attack: String,
    /// Seed of a further training.
    pub seed: Option<u64>,
    /// The number of steps before each file of answers, where the model was trained further.
    pub steps: Vec<Option<usize>>,
    /// The answers to the harmful prompts.
    pub harmful: Answered,
    /// Those to the harmless prompts, of an attack that changes the model.
    pub harmless: Option<Answered>,
}

impl AttackedNode {
    fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.harmful.nodes().chain(self.harmless.iter().flat_map(Answered::nodes))
    }
}

impl Evaluated {
    /// Its stages.
    pub fn nodes(&self) -> impl Iterator<Item = usize> + '_ {
        self.without_divergence().chain(self.divergence)
    }

    /// Those that say nothing of the fine-tuned model.
    pub fn without_divergence(&self) -> impl Iterator<Item = usize> + '_ {
        [self.model, self.safety, self.task]
            .into_iter()
            .chain(self.unaligned)
            .chain(self.judges.iter().map(|one| one.1))
            .chain(self.looks_harmful.iter().flat_map(Answered::nodes))
            .chain(self.attacks.iter().flat_map(AttackedNode::nodes))
    }
}

/// A cell with all its seeds, variants and methods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellStages {
    /// Its stages, each after those that it reads; the models that cells share are among them.
    pub stages: Vec<usize>,
    /// What is evaluated, seed by seed and method by method.
    pub evaluated: Vec<Evaluated>,
    /// Why not all of its stages are known, such as a missing file.
    pub unknown: Option<String>,
}

/// The stages of a sweep.
#[derive(Default)]
pub struct Graph {
    /// Every stage once.
    pub nodes: Vec<Node>,
    /// By the cell's number in the grid.
    pub cells: BTreeMap<usize, CellStages>,
    /// The aligned models, and what they are made of: work that whole groups of cells wait for.
    pub models: Vec<usize>,
}

impl Graph {
    /// The number of a stage that is written `kind/key`.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, stage: &str) -> Result<usize> {
        let is_it = |node: &Node| stage.split_once('/') == Some((node.kind, &node.key));
        let found = self.nodes.iter().position(is_it);
        found.with_context(|| format!("no stage {stage} in this sweep: its settings or files may have changed since"))
    }
}
