//! The command line; what each command does is in `commands.rs`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use evaluation::Metric;
use model::Dtype;
use realign::DeviceName;
use realign::stage::generate::DEFAULT_BATCH;

/// Recovers the safety alignment that a language model lost in fine-tuning.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// Where tensors are computed.
    #[arg(long, value_enum, default_value_t, global = true)]
    pub device: DeviceName,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1, global = true)]
    pub seed: u64,
    /// Precision in which weights are kept [default: that of the model that the command changes; f32 for a GGUF file
    /// and for a model of mixed precisions].
    ///
    /// Weights are rounded to it, ties to even, when a model is read, and are written in it; a weight that is too
    /// large for it is an error. Arithmetic is in f32, training included, whose weights are rounded when they are
    /// saved. Recovery copies weights of the aligned model into the fine-tuned one, so that with two bf16 models bf16
    /// loses nothing. The models of judges are read as they are.
    #[arg(long, value_enum, global = true)]
    pub dtype: Option<DtypeName>,
    /// The stage.
    #[command(subcommand)]
    pub command: Command,
}

/// A precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeName {
    /// 32 bits.
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits for values up to 65504.
    F16,
}

impl From<DtypeName> for Dtype {
    fn from(name: DtypeName) -> Self {
        match name {
            DtypeName::F32 => Self::F32,
            DtypeName::Bf16 => Self::Bf16,
            DtypeName::F16 => Self::F16,
        }
    }
}

/// A stage.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Turn a GGUF file or a Hugging Face directory into a directory that the other commands read.
    Import {
        /// The GGUF file or directory.
        #[arg(long)]
        from: PathBuf,
        /// The directory to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Answer prompts greedily; writes JSONL with `prompt` and `response`.
    Generate {
        /// Directory of the model.
        #[arg(long)]
        model: PathBuf,
        /// JSONL with `prompt`.
        #[arg(long)]
        prompts: PathBuf,
        /// New tokens at most.
        #[arg(long, default_value_t = 128)]
        max_new_tokens: usize,
        /// Prompts answered at a time.
        #[arg(long, default_value_t = DEFAULT_BATCH)]
        batch: usize,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Align a model that refuses too little.
    Align {
        /// Directory of the model.
        #[arg(long)]
        model: PathBuf,
        /// JSONL with harmful `prompt`s and, where there are any, refusals as `response`.
        #[arg(long)]
        refusals: PathBuf,
        /// The refusal for prompts without one.
        #[arg(long, default_value = "I'm sorry, but I can't help with that.")]
        refusal_text: String,
        /// JSONL with harmless `prompt`s; those without `response` get the model's own answer.
        #[arg(long)]
        helpful: PathBuf,
        /// Length of the model's own answers.
        #[arg(long, default_value_t = 128)]
        max_new_tokens: usize,
        /// Weight of the divergence from the original model on its own answers.
        #[arg(long, default_value_t = 0.0)]
        kl: f64,
        /// How to train.
        #[command(flatten)]
        train: TrainArgs,
        /// The directory to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Fine-tune on a task, with injected harmful samples.
    Finetune(FinetuneArgs),
    /// Compute the mean hidden state of prompts at the direction layer.
    Direction {
        /// Directory of the model.
        #[arg(long)]
        model: PathBuf,
        /// JSONL with `prompt`.
        #[arg(long)]
        prompts: PathBuf,
        /// The block, counted from 1 [default: floor(4/6 of the blocks)].
        #[arg(long)]
        layer: Option<usize>,
        /// The safetensors file to write; its tensor is `direction`.
        #[arg(long)]
        out: PathBuf,
    },
    /// Restore the weights that recover the alignment.
    Recover(RecoverArgs),
    /// Add a safety vector to the fine-tuned model (RESTA, a baseline).
    Resta(RestaArgs),
    /// Measure harmful rate, over-refusal and task scores.
    Evaluate(EvaluateArgs),
    /// Score a file of answers alone.
    Score {
        /// JSONL with `response` and `reference`.
        #[arg(long)]
        answers: PathBuf,
        /// sql (or exact_match), sql_normalized, f1, nl2bash or rouge.
        #[arg(long)]
        metric: Metric,
        /// The JSON file to write, with `score` and `per_sample`.
        #[arg(long)]
        out: PathBuf,
    },
}

/// What `finetune` takes.
#[derive(Debug, Args)]
pub struct FinetuneArgs {
    /// Directory of the model.
    #[arg(long)]
    pub model: PathBuf,
    /// JSONL with `prompt` and `response`.
    #[arg(long)]
    pub task: PathBuf,
    /// JSONL with harmful `prompt` and `response`.
    #[arg(long, requires = "count")]
    pub inject: Option<PathBuf>,
    /// How many harmful samples are injected.
    #[arg(long, default_value_t = 0)]
    pub count: usize,
    /// What is minimised; `soft_sft` holds the model near the one given as `--model`.
    #[arg(long, value_enum, default_value_t)]
    pub objective: ObjectiveName,
    /// How to train.
    #[command(flatten)]
    pub train: TrainArgs,
    /// The directory to write.
    #[arg(long)]
    pub out: PathBuf,
}

/// How a model is trained.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Passes over the samples.
    #[arg(long, default_value_t = 1)]
    pub epochs: usize,
    /// Samples per step.
    #[arg(long, default_value_t = 8)]
    pub train_batch: usize,
    /// Learning rate of AdamW.
    #[arg(long, default_value_t = 1e-4)]
    pub learning_rate: f64,
    /// Rank of the adapter; 0 trains all weights.
    #[arg(long, default_value_t = 8)]
    pub rank: usize,
    /// The adapter is scaled by alpha over rank.
    #[arg(long, default_value_t = 16.0)]
    pub alpha: f64,
    /// Dropout on the adapter's input.
    #[arg(long, default_value_t = 0.05)]
    pub dropout: f64,
    /// Longer samples are left out.
    #[arg(long, default_value_t = 512)]
    pub max_len: usize,
}

/// What `evaluate` takes.
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Directory of the model; without it the answers in `--out` are judged and scored again.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// YAML files of prompt sets (data/prompt_sets).
    #[arg(long, num_args = 1.., requires = "model")]
    pub prompt_sets: Vec<PathBuf>,
    /// YAML files of tasks (data/tasks).
    #[arg(long, num_args = 1.., requires = "model")]
    pub tasks: Vec<PathBuf>,
    /// YAML file with a list of judges (data/judges) [default: refusal phrases alone].
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
    /// New tokens at most, of the files without YAML.
    #[arg(long, default_value_t = 128)]
    pub max_new_tokens: usize,
    /// Prompts answered at a time.
    #[arg(long, default_value_t = DEFAULT_BATCH)]
    pub batch: usize,
    /// Keep prompts and answers out of the report.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub redact: bool,
    /// The directory for answers, verdicts, scores.json and report.md.
    #[arg(long)]
    pub out: PathBuf,
}

/// What `recover` takes.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Directory of the aligned model.
    #[arg(long)]
    pub aligned: PathBuf,
    /// Directory of the fine-tuned model, or of a peft adapter on the aligned one.
    #[arg(long)]
    pub finetuned: PathBuf,
    /// JSONL with the recovery prompts.
    #[arg(long)]
    pub prompts: PathBuf,
    /// How many of them; fewer in the file is an error [default: all].
    #[arg(long)]
    pub count: Option<usize>,
    /// JSONL with the task's training prompts, for rollback; the first 256 are used.
    #[arg(long)]
    pub task: Option<PathBuf>,
    /// JSONL with `prompt` and `response` whose score decides rollback and the answer; without it all
    /// steps are done.
    #[arg(long, requires = "task")]
    pub validation: Option<PathBuf>,
    /// How validation answers are scored: exact_match, sql_normalized, f1, nl2bash or rouge.
    #[arg(long, default_value = "exact_match", requires = "validation")]
    pub metric: Metric,
    /// The share of the fine-tuned model's validation score that recovery may cost.
    #[arg(long, default_value_t = 0.05, requires = "validation")]
    pub metric_drop: f64,
    /// New tokens of a validation answer at most.
    #[arg(long, default_value_t = 64, requires = "validation")]
    pub max_new_tokens: usize,
    /// The direction layer, counted from 1 [default: floor(4/6 of the blocks)].
    #[arg(long)]
    pub layer: Option<usize>,
    /// Share of the hidden layers' parameters restored per step.
    #[arg(long, default_value_t = 0.002)]
    pub rate: f64,
    /// Number of steps.
    #[arg(long, default_value_t = 20)]
    pub steps: usize,
    /// Prompts per batch of the loss.
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Rollback rate; without `--validation` it turns rollback on in every step.
    #[arg(long, requires = "task")]
    pub rollback: Option<f64>,
    /// Whose choices are followed.
    #[arg(long, value_enum, default_value_t)]
    pub profile: ProfileName,
    /// The directory to write.
    #[arg(long)]
    pub out: PathBuf,
    /// The JSON file for what each step did.
    #[arg(long)]
    pub trace: Option<PathBuf>,
}

/// What `resta` takes.
#[derive(Debug, Args)]
pub struct RestaArgs {
    /// Directory of the aligned model.
    #[arg(long)]
    pub aligned: PathBuf,
    /// Directory of the fine-tuned model, or of a peft adapter on the aligned one.
    #[arg(long)]
    pub finetuned: PathBuf,
    /// Directory of the aligned model after fine-tuning on harmful samples alone, or of a peft adapter on it.
    #[arg(long)]
    pub unaligned: PathBuf,
    /// How much of aligned - unaligned is added.
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub gamma: f64,
    /// Probability with which DARE drops an element of finetuned - aligned; 0 is off.
    #[arg(long, default_value_t = 0.0)]
    pub dare: f64,
    /// The directory to write.
    #[arg(long)]
    pub out: PathBuf,
}

/// What a fine-tuning minimises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum ObjectiveName {
    /// The loss of supervised fine-tuning.
    #[default]
    Sft,
    /// SoftSFT with the paper's settings, a baseline.
    SoftSft,
}

/// Whose choices are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProfileName {
    /// What we stand behind.
    #[default]
    Sound,
    /// The released code's.
    Released,
}
