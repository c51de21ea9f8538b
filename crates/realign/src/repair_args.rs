//! The flags of a single method: what it works on, and what it reads or is chosen by.

use std::path::PathBuf;

use clap::Args;
use evaluation::Metric;
use files::Hashes;
use realign::{Evidence, Parts, Pick, Result, Samples, Split, at_least_one, metric_names};
use recovery::{MeritSettings, Method, Reference};

/// What a method works on; each says which of it is needed.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Directory of the aligned model, or org/name[@revision] of the hub, as for all models here.
    #[arg(long)]
    pub aligned: PathBuf,
    /// Directory of the fine-tuned model, or of a peft adapter on the aligned one.
    #[arg(long)]
    pub finetuned: PathBuf,
    /// Directory of the aligned model after fine-tuning on harmful samples alone, or of a peft adapter on it.
    #[arg(long)]
    pub unaligned: Option<PathBuf>,
    /// Directory of the model before alignment; its weights alone are read.
    #[arg(long)]
    pub before_alignment: Option<PathBuf>,
    /// Directory of the aligned model after fine-tuning on safe samples; its weights alone are read.
    #[arg(long)]
    pub safe: Option<PathBuf>,
    /// JSONL with the recovery prompts.
    #[arg(long)]
    pub prompts: Option<PathBuf>,
    /// The key of a line of --prompts that holds the prompt.
    #[arg(long, default_value = "prompt")]
    pub prompt_key: String,
    /// How many of the prompts are used; fewer in the file is an error [default: all].
    #[arg(long, requires = "prompts", value_parser = realign::at_least_one)]
    pub limit: Option<usize>,
    /// Ask both models so many of the prompts before, and warn where they answer as if recovery were out of place; ask the result
    /// after, which is no recovery where it declines no more of them; 0 does neither.
    #[arg(long, default_value_t = 16)]
    pub probe: usize,
    /// Answered prompts, of a method that reads them.
    #[command(flatten)]
    pub evidence: EvidenceArgs,
    /// JSONL with the task's training prompts, for rollback (the first 256), or with `prompt` and `response` for a method that
    /// reads --harmless.
    #[arg(long)]
    pub task: Option<PathBuf>,
    /// JSONL with `prompt` and `response` whose score decides rollback and the answer; without it all steps are done.
    #[arg(long, requires = "task")]
    pub validation: Option<PathBuf>,
    #[arg(long, default_value = "exact_match", requires = "validation",
        help = format!("How validation answers are scored: {}", metric_names()))]
    pub metric: Metric,
    /// New tokens of a validation answer at most.
    #[arg(long, default_value_t = 64, value_parser = at_least_one, requires = "validation")]
    pub max_new_tokens: usize,
    /// The directory to write.
    #[arg(long)]
    pub out: PathBuf,
    /// The JSON file for what each step did.
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// The file for the recovery patch, for `realign patch`.
    #[arg(long)]
    pub patch: Option<PathBuf>,
}

/// What a method reads besides harmful prompts, and how it is chosen.
#[derive(Debug, Args)]
pub struct EvidenceArgs {
    /// JSONL with harmless prompts, for a method that is to keep their answers.
    #[arg(long)]
    pub harmless: Option<PathBuf>,
    /// Try every value of the method's knob, or every step, and take the one of the best merit on held-out prompts.
    #[arg(long, requires = "harmless")]
    pub choose: bool,
    /// Share of the prompts, and of the task's samples, that are held out to decide.
    #[arg(long, default_value_t = 0.5, value_parser = share, requires = "harmless")]
    pub held_out: f64,
    /// Length of the models' own answers in tokens.
    #[arg(long, default_value_t = 16, value_parser = at_least_one, requires = "harmless")]
    pub own_tokens: usize,
    /// Whose answers to harmless prompts are to be kept.
    #[arg(long, value_enum, default_value_t, requires = "harmless")]
    pub reference: Reference,
}

/// A share that leaves something on both sides.
fn share(text: &str) -> std::result::Result<f64, String> {
    let share: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err(format!("{share} is not above 0 and below 1")) }
}

/// Whether a method reads evidence as it is asked for.
pub fn reads_evidence(method: &Method, args: &RepairArgs) -> bool {
    args.evidence.choose || method.repair().needs().evidence
}

/// The evidence of the arguments, where the method reads it.
///
/// # Errors
/// When a file cannot be read.
pub fn evidence(method: &Method, args: &RepairArgs, seed: u64, hashes: &Hashes) -> Result<Option<Evidence>> {
    let (Some(harmful), Some(harmless)) = (&args.prompts, &args.evidence.harmless) else { return Ok(None) };
    if !reads_evidence(method, args) {
        return Ok(None);
    }
    let EvidenceArgs { held_out: share, own_tokens, reference, .. } = args.evidence;
    let parts = |file: &PathBuf, pick: Pick| -> Result<Parts> {
        let part = |held_out| -> Result<Samples> {
            let split = Some(Split { held_out, share, seed });
            Samples::of(file, Pick { split, ..pick.clone() }, hashes)
        };
        Ok(Parts { train: part(false)?, held_out: part(true)? })
    };
    let prompts = Pick::by(&args.prompt_key, None, false);
    Ok(Some(Evidence {
        harmful: parts(harmful, prompts)?,
        harmless: parts(harmless, Pick::default())?,
        task: args.task.as_ref().map(|task| parts(task, Pick::answered())).transpose()?,
        max_new_tokens: own_tokens,
        reference,
        merit: MeritSettings::default(),
        screen: false,
    }))
}
