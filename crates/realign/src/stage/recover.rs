//! Recovery of a fine-tuned model directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use evaluation::Metric;
use prompts::Sample;
use recovery::{Inputs, Outcome, RecoverySettings, Run, recover};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Report;
use super::generate::{GenerateSettings, answers, named};
use crate::Compute;
use crate::loaded::{Loaded, encode_prompts, home_of_fine_tuned};

/// What a recovery reads.
#[derive(Debug, Clone)]
pub struct RecoverInputs<'a> {
    /// Directory of the aligned model.
    pub aligned: &'a Path,
    /// Directory of the fine-tuned model, or of a peft adapter on the aligned one.
    pub fine_tuned: &'a Path,
    /// Recovery prompts.
    pub prompts: &'a [Sample],
    /// The task's training prompts, for rollback.
    pub task: Option<&'a [Sample]>,
    /// What decides rollback and the answer.
    pub gate: Gate<'a>,
    /// Where a checkpoint is kept.
    pub checkpoint: Option<PathBuf>,
}

/// What decides rollback and the answer of a recovery.
#[derive(Debug, Clone, Copy)]
pub enum Gate<'a> {
    /// Nothing: all steps, with or without rollback.
    Fixed {
        /// Whether every step is followed by a rollback half-step.
        rollback: bool,
    },
    /// The score on a validation split.
    Validation {
        /// Samples with the right answers.
        samples: &'a [Sample],
        /// How they are scored.
        metric: Metric,
        /// How answers are made.
        generate: GenerateSettings,
    },
}

impl Gate<'_> {
    /// What decides, for people.
    fn name(&self) -> String {
        match self {
            Self::Fixed { .. } => "nothing".to_owned(),
            Self::Validation { samples, metric, .. } => format!("{} on {} samples", metric.name(), samples.len()),
        }
    }
}

/// What came of a recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoverySummary {
    /// Weights set to the aligned value.
    pub restored: usize,
    /// Whether the answer is a recovered model; else it is the fine-tuned one.
    pub recovered: bool,
    /// Steps that led to the answer.
    pub steps: usize,
    /// Whether rollback was on.
    pub rollback: bool,
    /// One sentence for people.
    pub note: String,
}

/// Recovers and writes the model to `out` and, where asked, the trace to `trace`. Both models are rounded to the
/// precision of the result, so that each of its weights is exactly one of theirs.
///
/// # Errors
/// When the models differ in shape, a prompt set is empty, a loss is not finite, or a file cannot
/// be read or written.
pub fn recover_model(
    inputs: RecoverInputs<'_>,
    settings: &RecoverySettings,
    (out, trace): (&Path, Option<&Path>),
    compute: Compute<'_>,
    report: &mut Report<'_>,
) -> Result<RecoverySummary> {
    settings.check()?;
    let gate = gate_key(&inputs.gate)?;
    let home = home_of_fine_tuned(inputs.fine_tuned, inputs.aligned);
    let dtype = compute.dtype_for(home)?;
    let aligned = Loaded::open_as(inputs.aligned, dtype, compute.device)?;
    let fine_tuned = Loaded::open_fine_tuned(inputs.fine_tuned, inputs.aligned, dtype, compute.device)?;
    let rows = encode_prompts(&fine_tuned.tokenizer, inputs.prompts)?;
    let task = inputs.task.map(|samples| encode_prompts(&fine_tuned.tokenizer, samples)).transpose()?;
    let recovery_inputs = Inputs {
        aligned: &aligned.decoder,
        fine_tuned: &fine_tuned.decoder,
        prompts: rows,
        task_prompts: task,
        checkpoint: inputs.checkpoint,
    };
    let mut score = |decoder: &model::Decoder| -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
        let Gate::Validation { samples, metric, generate } = inputs.gate else { return Ok(f64::NAN) };
        let model = Loaded { decoder: decoder.clone(), tokenizer: fine_tuned.tokenizer.clone() };
        let answers = answers(&model, samples, generate, &mut |_, _, _| {})?;
        Ok(metric.score(&answers)?.value)
    };
    let run = match inputs.gate {
        Gate::Fixed { rollback } => Run::Fixed { rollback },
        Gate::Validation { .. } => Run::Gated { measure: &mut score, by: &gate },
    };
    let _named = tracing::warn_span!("recover", fine_tuned = %inputs.fine_tuned.display()).entered();
    let recovered = recover(recovery_inputs, settings, run, &mut |step| {
        report(step.step + 1, settings.steps, &format!("loss {:.4}, restored {}", step.loss, step.restored));
    })?;
    if let Some(path) = trace {
        let text = serde_json::to_string_pretty(&recovered.trace)?;
        prompts::sample::write_whole(path, text.as_bytes()).with_context(|| path.display().to_string())?;
    }
    Loaded::save(&recovered.decoder, dtype, home, out)?;
    Ok(summary(&recovered.outcome, recovered.patch.len(), &inputs.gate))
}

/// What the gate decides by, for people and for a checkpoint: gates of one key give the same scores.
///
/// # Errors
/// When the metric cannot score the samples' own responses.
fn gate_key(gate: &Gate<'_>) -> Result<String> {
    let name = gate.name();
    let Gate::Validation { samples, metric, generate } = *gate else { return Ok(name) };
    let responses = samples.iter().map(|sample| sample.response.clone().unwrap_or_default()).collect();
    let references = named(samples, responses);
    metric
        .score(&references)
        .with_context(|| format!("the gate cannot score the right answers themselves by {name}"))?;
    let hash = format!("{:x}", Sha256::digest(serde_json::to_vec(&references)?));
    Ok(format!("{name} ({}, {} tokens at most)", &hash[..8], generate.max_new_tokens))
}

fn summary(outcome: &Outcome, restored: usize, gate: &Gate<'_>) -> RecoverySummary {
    match *outcome {
        Outcome::Recovered { steps, rollback } => RecoverySummary {
            restored,
            recovered: true,
            steps,
            rollback,
            note: format!("recovered after {steps} steps, rollback {}", if rollback { "on" } else { "off" }),
        },
        Outcome::NotRecovered { base, score, floor } => RecoverySummary {
            restored,
            recovered: false,
            steps: 0,
            rollback: true,
            note: format!(
                "not recovered: {} fell from {base:.3} to {score:.3}, and {floor:.3} is allowed",
                gate.name()
            ),
        },
    }
}
