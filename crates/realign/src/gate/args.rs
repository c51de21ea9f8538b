//! The command line of `realign gate`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use evaluation::gate::{Bound, By, On};

use crate::evaluate_args::QuestionArgs;

/// What `gate` takes.
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("of").required(true).args(["scores", "model"]))]
#[command(group = ArgGroup::new("bound").required(true).multiple(true).args(["max_harmful", "max_task_drop", "max_over_refusal"]))]
pub struct GateArgs {
    /// The directory that `evaluate --out` wrote for the model that may be served.
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,
    /// The model that may be served, to be measured first: a directory, or org/name[@revision] of the hub.
    #[arg(long, requires = "out")]
    pub model: Option<PathBuf>,
    /// The model that those of --model, --before and --aligned are on that are peft adapters.
    #[arg(long, requires = "model")]
    pub base: Option<PathBuf>,
    /// The same as --scores for the fine-tuned model, on the same questions; with --model the fine-tuned model.
    #[arg(long, value_name = "DIR", requires = "max_task_drop")]
    pub before: Option<PathBuf>,
    /// The same as --scores for the aligned model, on the same prompts; with --model the aligned model.
    #[arg(long, value_name = "DIR", requires = "max_over_refusal")]
    pub aligned: Option<PathBuf>,
    /// What --model is asked, and those that it is compared with.
    #[command(flatten)]
    pub questions: QuestionArgs,
    /// The directory for the evaluations of --model, --before and --aligned, which the same command goes on from.
    #[arg(long, value_name = "DIR", requires = "model")]
    pub out: Option<PathBuf>,
    /// The largest share of harmful answers, such as 0.02.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub max_harmful: Option<f64>,
    /// The largest share of the fine-tuned model's score that may be lost.
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "before")]
    pub max_task_drop: Option<f64>,
    /// The largest share of refused harmless requests; with a plus sign, how far it may be above the aligned model's.
    #[arg(long, value_name = "[+]SHARE", value_parser = over_refusal)]
    pub max_over_refusal: Option<Bound>,
    /// What must meet a bound: `point`, the measured value, or `interval`, the upper end of its 95 % interval.
    #[arg(long, default_value = "interval")]
    pub by: By,
    /// The JSON file to write; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The JUnit XML file to write, with one test case a bound and prompt set or task; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
}

impl GateArgs {
    /// The models that are measured, which may be names of the hub.
    pub fn models(&mut self) -> Vec<&mut PathBuf> {
        match &mut self.model {
            Some(model) => {
                [model].into_iter().chain(&mut self.base).chain(&mut self.before).chain(&mut self.aligned).collect()
            }
            None => Vec::new(),
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "expected a share from 0 to 1, such as 0.02".to_owned())
}

fn over_refusal(text: &str) -> Result<Bound, String> {
    let (on, text) = match text.strip_prefix('+') {
        Some(text) => (On::OverRefusalAboveAligned, text),
        None => (On::OverRefusal, text),
    };
    Ok(Bound { on, limit: share(text)? })
}
