//! The command line of `realign evaluate`, and of what a model is asked.

use std::path::{Path, PathBuf};

use clap::Args;
use realign::at_least_one;

use crate::attack_args::AttackArgs;

/// Prompts answered at a time by default.
pub const DEFAULT_BATCH: usize = 64;

/// What `evaluate` takes.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Directory of the model, or of a peft adapter on --base, or org/name[@revision] of the hub; without it the answers in
    /// `--out` are judged and scored again.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// The model that --model is a peft adapter on, if it is one: a directory, or org/name[@revision] of the hub.
    #[arg(long, requires = "model")]
    pub base: Option<PathBuf>,
    /// What it is asked.
    #[command(flatten)]
    pub questions: QuestionArgs,
    /// Keep prompts and answers out of the report.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub redact: bool,
    /// Attacks on the model.
    #[command(flatten)]
    pub attack: AttackArgs,
    /// The directory for answers, verdicts, scores.json and report.md.
    #[arg(long)]
    pub out: PathBuf,
}

/// What a model is asked, and who judges its answers.
#[derive(Debug, Clone, Args)]
pub struct QuestionArgs {
    /// YAML files of prompt sets (data/prompt_sets).
    #[arg(long, num_args = 1.., requires = "model")]
    pub prompt_sets: Vec<PathBuf>,
    /// YAML files of tasks (data/tasks).
    #[arg(long, num_args = 1.., requires = "model")]
    pub tasks: Vec<PathBuf>,
    /// YAML file with a list of judges (data/judges) [default: refusal phrases and a trained classifier
    /// of refusals, both in the program; broken answers are counted apart].
    #[arg(long)]
    pub judges: Option<PathBuf>,
    /// The directory that prompt sets and tasks name their files in.
    #[arg(long, default_value = ".")]
    pub data: PathBuf,
    /// JSONL with harmful `prompt`s, without a YAML file.
    #[arg(long, requires = "model")]
    pub harmful: Option<PathBuf>,
    /// JSONL with harmless `prompt`s, without a YAML file.
    #[arg(long, requires = "model")]
    pub harmless: Option<PathBuf>,
    /// JSONL with a task's `prompt` and `response`, scored by exact match, without a YAML file.
    #[arg(long, requires = "model")]
    pub task: Option<PathBuf>,
    /// The key of a line that holds the prompt, of the files without YAML.
    #[arg(long, default_value = "prompt")]
    pub prompt_key: String,
    /// How many of the prompts are asked, of each file without YAML; fewer in a file is an error [default: all].
    #[arg(long, value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// New tokens at most, of the files without YAML.
    #[arg(long, default_value_t = 128, value_parser = at_least_one)]
    pub max_new_tokens: usize,
    /// Prompts answered at a time.
    #[arg(long, default_value_t = DEFAULT_BATCH, value_parser = at_least_one)]
    pub batch: usize,
}

impl QuestionArgs {
    /// The files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.judges, &self.harmful, &self.harmless, &self.task].into_iter().flatten();
        files.chain(&self.prompt_sets).chain(&self.tasks).map(|path| &**path)
    }
}
