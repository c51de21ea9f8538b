//! The baselines SoftSFT and RESTA (section 5 of the method), and what their cells share.

use std::path::{Path, PathBuf};

use anyhow::Result;
use finetune::{TrainSettings, inject};
use prompts::Sample;
use prompts::sample::read_training_jsonl;
use realign::stage::finetune::TuneObjective;
use realign::stage::reference::reference_log_probs;
use realign::stage::resta::{RestaModels, resta_model};
use recovery::RestaSettings;

use super::finetune::{Tuning, train_settings};
use super::{Context, report};
use crate::inputs::{self, Split};
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{Cell, ModelSpec, Resta, TaskSpec};

const REFERENCE: &str = "reference.safetensors";

/// What the aligned model gives to the task's training samples; all counts of a task share it. The
/// summary is the number of distinct samples.
///
/// # Errors
/// When samples are missing or a file cannot be written.
pub fn task_reference(context: Context<'_>, task: &TaskSpec, aligned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let file = sweep.data_file(&task.train);
    let key = StageKey::new("reference", 1, sweep.seed, &(sweep.finetune.max_len, task.validation))?
        .parent("aligned", aligned)
        .input("task", &file)?;
    reference(context, &task.name, &key, aligned, &file, || inputs::task(sweep, task, Split::Train))
}

/// The same of the harmful samples of the largest count, or of all where there are fewer; all tasks and counts share it.
/// None where the cell injects none.
///
/// # Errors
/// When a file cannot be read or written.
pub fn harmful_reference(context: Context<'_>, cell: Cell<'_>, aligned: &Stage) -> Result<Option<Stage>> {
    if cell.harmful_count == 0 {
        return Ok(None);
    }
    let sweep = context.sweep;
    let file = sweep.data_file(&sweep.inject);
    let harmful = read_training_jsonl(&file)?;
    let largest = sweep.harmful_counts.iter().copied().max().unwrap_or(0).min(harmful.len());
    let key = StageKey::new("reference", 1, sweep.seed, &(sweep.finetune.max_len, largest))?
        .parent("aligned", aligned)
        .input("inject", &file)?;
    let samples = || Ok(inject(&[], &harmful, largest, sweep.seed)?);
    reference(context, "harmful samples", &key, aligned, &file, samples).map(Some)
}

fn reference(
    context: Context<'_>,
    name: &str,
    key: &StageKey,
    aligned: &Stage,
    file: &Path,
    samples: impl FnOnce() -> Result<Vec<Sample>>,
) -> Result<Stage> {
    let bar = context.progress.bar("reference", name);
    context.store.run(key, |out| {
        let (samples, model) = (samples()?, aligned.dir.join("model"));
        let max_len = context.sweep.finetune.max_len;
        let report = &mut report(&bar);
        let number =
            reference_log_probs(&model, (&samples, file), max_len, &out.join(REFERENCE), context.compute(), report)?;
        Output::new(&number, samples.len())
    })
}

/// SoftSFT of a cell: its fine-tuning with another loss.
///
/// # Errors
/// When samples are missing or training fails.
pub fn soft_sft(context: Context<'_>, cell: Cell<'_>, aligned: &Stage, references: &[Stage]) -> Result<Stage> {
    let sweep = context.sweep;
    let settings = (&sweep.finetune, cell.task.validation, cell.harmful_count, &sweep.softsft);
    // The references follow from the aligned model and the samples, which are in the key.
    let key = StageKey::new("softsft", 1, sweep.seed, &settings)?
        .parent("aligned", aligned)
        .input("task", &sweep.data_file(&cell.task.train))?
        .input("inject", &sweep.data_file(&sweep.inject))?;
    let references: Vec<PathBuf> = references.iter().map(|stage| stage.dir.join(REFERENCE)).collect();
    let objective = TuneObjective::SoftSft { settings: sweep.softsft, references: &references };
    Tuning::of_cell(sweep, cell, objective).run(context, "softsft", &key, aligned)
}

/// The unaligned model of RESTA: the aligned one fine-tuned on harmful samples alone, on none that a cell injects and
/// from another start, so that the safety vector knows nothing of the fine-tuning that it repairs. All cells of an
/// aligned model and a seed share it.
///
/// # Errors
/// When there are fewer harmful samples than asked for, or training fails.
pub fn unaligned(context: Context<'_>, spec: &ModelSpec, aligned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let Resta { samples, epochs, learning_rate, .. } = sweep.resta;
    let file = sweep.data_file(&sweep.inject);
    let largest = sweep.harmful_counts.iter().copied().max().unwrap_or(0);
    // Where the file is short the run has checked that the cells that it goes through inject none of these.
    let passed_over = largest.min(read_training_jsonl(&file)?.len().saturating_sub(samples));
    let key =
        StageKey::new("unaligned", 2, sweep.seed, &(&sweep.finetune, samples, epochs, learning_rate, passed_over))?
            .parent("aligned", aligned)
            .input("inject", &file)?;
    let settings = train_settings(sweep);
    let learning_rate = learning_rate.unwrap_or(settings.learning_rate);
    let train = TrainSettings { epochs, learning_rate, seed: !sweep.seed, ..settings };
    let (name, objective) = (spec.name.clone(), TuneObjective::Sft);
    let tuning = Tuning { name, task: None, harmful_count: samples, passed_over, train, objective };
    tuning.run(context, "unaligned", &key, aligned)
}

/// RESTA of a cell.
///
/// # Errors
/// When the models do not fit each other or a file cannot be written.
pub fn resta(context: Context<'_>, cell: Cell<'_>, aligned: &Stage, tuned: &Stage, unaligned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let settings = RestaSettings { gamma: sweep.resta.gamma, dare: sweep.resta.dare };
    let key = StageKey::new("resta", 1, sweep.seed, &settings)?
        .parent("aligned", aligned)
        .parent("fine_tuned", tuned)
        .parent("unaligned", unaligned);
    let bar = context.progress.bar("resta", &cell.to_string());
    let stage = context.store.run(&key, |out| {
        let [fine_tuned, aligned, unaligned] = [tuned, aligned, unaligned].map(|stage| stage.dir.join("model"));
        let models = RestaModels { fine_tuned: &fine_tuned, aligned: &aligned, unaligned: &unaligned };
        resta_model(models, &settings, sweep.seed, &out.join("model"), context.compute())?;
        Output::new(&(), 0)
    })?;
    bar.finish_and_clear();
    Ok(stage)
}
