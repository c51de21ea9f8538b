//! The flags of a method that reads answered prompts, or whose knob is chosen by them.

use std::path::PathBuf;

use clap::Args;
use files::Hashes;
use realign::{Evidence, Parts, Pick, Result, Samples, Split, at_least_one};
use recovery::{MeritSettings, Method, Reference};

use crate::cli::RepairArgs;
use crate::commands::fields;

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
    let prompts = Pick { fields: fields(&args.prompt_key), ..Pick::default() };
    Ok(Some(Evidence {
        harmful: parts(harmful, prompts)?,
        harmless: parts(harmless, Pick::default())?,
        task: args.task.as_ref().map(|task| parts(task, Pick::answered())).transpose()?,
        max_new_tokens: own_tokens,
        reference,
        merit: MeritSettings::default(),
    }))
}
