//! Fine-tuning of a model directory on a task with injected harmful samples.

use std::path::{Path, PathBuf};

use ::finetune::{ReferenceLogProbs, SoftSftSettings, StepReport, TrainSettings, inject, soft_sft, train};
use anyhow::Result;
use prompts::Sample;
use serde::{Deserialize, Serialize};

use super::Report;
use crate::Compute;
use crate::loaded::{Loaded, encode_samples};

/// What a training came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSummary {
    /// Samples trained on.
    pub samples: usize,
    /// Samples left out because they were too long.
    pub dropped: usize,
    /// Mean loss of the last tenth of the steps.
    pub final_loss: f64,
    /// Loss of each step.
    pub losses: Vec<f64>,
}

impl TrainSummary {
    /// Sums up a training by the loss of each step.
    pub fn new(samples: usize, dropped: usize, losses: Vec<f64>) -> Self {
        let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
        let final_loss = tail.iter().sum::<f64>() / tail.len().max(1) as f64;
        Self { samples, dropped, final_loss, losses }
    }
}

/// What a fine-tuning reads.
#[derive(Debug, Clone, Copy)]
pub struct FinetuneData<'a> {
    /// The task's samples and the file they are from.
    pub task: (&'a [Sample], &'a Path),
    /// The harmful samples and the file they are from.
    pub harmful: (&'a [Sample], &'a Path),
    /// How many harmful samples are injected.
    pub count: usize,
    /// What is minimised, and the files that it needs.
    pub objective: TuneObjective<'a>,
}

/// What is minimised.
#[derive(Debug, Clone, Copy)]
pub enum TuneObjective<'a> {
    /// The negative log-likelihood of the response tokens.
    Sft,
    /// The same, held back near the model that is fine-tuned (the baseline SoftSFT).
    SoftSft {
        /// How strongly.
        settings: SoftSftSettings,
        /// Files of [`reference_log_probs`](super::reference::reference_log_probs) under that model that
        /// hold all samples together.
        references: &'a [PathBuf],
    },
}

/// Fine-tunes the model in `source` and writes the result, merged and rounded, to `out`. Training is in
/// f32; a checkpoint is kept at `checkpoint` while it goes on.
///
/// # Errors
/// When fewer harmful samples are there than asked for, a sample has no response or no reference, the
/// loss is not finite, or a file cannot be read or written.
pub fn finetune(
    source: &Path,
    data: FinetuneData<'_>,
    settings: &TrainSettings,
    (out, checkpoint): (&Path, &Path),
    compute: Compute<'_>,
    report: &mut Report<'_>,
) -> Result<TrainSummary> {
    let dtype = compute.dtype_for(source)?;
    let model = Loaded::open_as(source, dtype, compute.device)?;
    let task = encode_samples(&model.tokenizer, data.task.0, data.task.1)?;
    let harmful = encode_samples(&model.tokenizer, data.harmful.0, data.harmful.1)?;
    let examples = inject(&task, &harmful, data.count, settings.seed)?;
    let mut step = |step: &StepReport| report(step.step, step.steps, &format!("loss {:.3}", step.loss));
    let trained = match data.objective {
        TuneObjective::Sft => train(model.decoder, &examples, settings, Some(checkpoint), &mut step)?,
        TuneObjective::SoftSft { settings: soft, references } => {
            let references = ReferenceLogProbs::read(references, &model.decoder)?;
            soft_sft(model.decoder, &examples, (settings, &soft), &references, Some(checkpoint), &mut step)?
        }
    };
    Loaded::save(&trained.decoder, dtype, source, out)?;
    Ok(TrainSummary::new(examples.len() - trained.dropped, trained.dropped, trained.losses))
}
