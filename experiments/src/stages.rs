//! The stages of a sweep: settings and inputs make a key, and `realign` does the work.
//!
//! One file for each kind; here is what they share.

mod align;
mod baseline;
mod control;
mod evaluate;
mod finetune;
mod judge;
mod recover;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use ::finetune::{LoraSettings, Method};
use anyhow::{Context as _, Result};
use burn::tensor::Device;
use evaluation::{JudgeScores, Provenance};
use indicatif::ProgressBar;
use model::Dtype;
use realign::Compute;
use realign::stage::finetune::TrainSummary;

pub use align::align;
pub use baseline::{harmful_reference, resta, soft_sft, task_reference, unaligned};
pub use control::control;
pub use evaluate::{safety, task, task_questions};
pub use finetune::finetune;
pub use judge::{SweepJudge, judge};
pub use recover::recover;
pub use source::source;

use crate::interrupt;
use crate::progress::Progress;
use crate::scores::StageScores;
use crate::store::{Stage, Store};
use crate::sweep::{Lora, Sweep};

/// What every stage needs.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The sweep.
    pub sweep: &'a Sweep,
    /// Where results are kept.
    pub store: &'a Store,
    /// Where tensors are computed.
    pub device: &'a Device,
    /// For bars.
    pub progress: &'a Progress,
}

impl<'a> Context<'a> {
    /// Models of a sweep are f32, whatever they came as: stored results keep their meaning.
    fn compute(&self) -> Compute<'a> {
        Compute { device: self.device, dtype: Some(Dtype::F32) }
    }
}

fn method(lora: Option<&Lora>) -> Method {
    match lora {
        None => Method::Full,
        Some(lora) => Method::Lora(LoraSettings {
            rank: lora.rank,
            alpha: lora.alpha,
            dropout: lora.dropout,
            ..LoraSettings::default()
        }),
    }
}

/// What there is to say of a training.
#[must_use]
pub fn training_figure(stage: &Stage) -> String {
    match stage.summary::<TrainSummary>() {
        Ok(summary) => format!("loss {:.3} on {} samples", summary.final_loss, summary.samples),
        Err(_) => String::new(),
    }
}

/// What there is to say of scores.
#[must_use]
pub fn score_figure(scores: &StageScores) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rate = |word: &str, of: &Option<JudgeScores>| {
        let scores = of.as_ref()?;
        Some(format!("{word} {}", scores.rate.as_ref().map_or("unknown".to_owned(), |rate| percent(rate.rate))))
    };
    let task = scores.task.as_ref().map(|score| format!("task {}", percent(score.value)));
    let figures = [rate("harmful", &scores.harmful), rate("over-refusal", &scores.over_refusal), task];
    figures.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Shows a stage's progress on its bar; the stage is left from here when the user asked for it.
pub fn report(bar: &ProgressBar) -> impl FnMut(usize, usize, &str) + '_ {
    |done, all, word| {
        interrupt::leave_after_checkpoint();
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(word.to_owned());
    }
}

/// The provenance of scores; settings, revision and device stand in the stage's manifest.
#[must_use]
pub fn provenance(seed: u64) -> Provenance {
    let unknown = || "see stage.json".to_owned();
    Provenance { settings: serde_json::Value::Null, seed, git_revision: unknown(), device: unknown(), seconds: 0.0 }
}

/// Begins the file `name` in `dir` with what the directories `others` keep under that name. The lines of such a file have
/// keys, so that a reader finds what it needs among them and drops the rest when it finishes the file.
fn begin_with(others: &[PathBuf], name: &str, dir: &Path) -> Result<()> {
    let file = dir.join(name);
    if file.exists() {
        return Ok(()); // of an attempt that was cut off
    }
    let mut lines = Vec::new();
    for other in others.iter().map(|other| other.join(name)).filter(|other| other.exists()) {
        lines.extend(fs::read(&other).with_context(|| other.display().to_string())?);
    }
    if lines.is_empty() { Ok(()) } else { Ok(prompts::write_whole(&file, &lines)?) }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}
