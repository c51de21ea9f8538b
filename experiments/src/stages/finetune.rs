//! Fine-tuning on a task with injected harmful samples (section 1 of the method).

use anyhow::Result;
use finetune::TrainSettings;
use realign::stage::finetune::{FinetuneData, TuneObjective};

use super::{Context, method, remove, report};
use crate::inputs::{self, Split};
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{Cell, TaskSpec};

/// Fine-tuning of a cell.
///
/// # Errors
/// When samples are missing or training fails.
pub fn finetune(context: Context<'_>, cell: Cell<'_>, aligned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let key = StageKey::new("finetune", 1, sweep.seed, &(&sweep.finetune, cell.task.validation, cell.harmful_count))?
        .parent("aligned", aligned)
        .input("task", &sweep.data_file(&cell.task.train))?
        .input("inject", &sweep.data_file(&sweep.inject))?;
    Tuning::of_cell(cell, sweep.finetune.epochs, TuneObjective::Sft).run(context, "finetune", &key, aligned)
}

/// A training that starts from an aligned model, with the sweep's settings of fine-tuning.
pub(super) struct Tuning<'a> {
    /// What the bar says.
    pub name: String,
    /// The task whose training split is learnt; none for harmful samples alone.
    pub task: Option<&'a TaskSpec>,
    /// How many harmful samples are injected.
    pub harmful_count: usize,
    /// Passes over the samples.
    pub epochs: usize,
    /// What is minimised.
    pub objective: TuneObjective<'a>,
}

impl<'a> Tuning<'a> {
    /// That of a cell.
    pub fn of_cell(cell: Cell<'a>, epochs: usize, objective: TuneObjective<'a>) -> Self {
        Self { name: cell.to_string(), task: Some(cell.task), harmful_count: cell.harmful_count, epochs, objective }
    }

    /// Trains, unless the result is there.
    pub fn run(&self, context: Context<'_>, kind: &str, key: &StageKey, aligned: &Stage) -> Result<Stage> {
        let (sweep, settings) = (context.sweep, &context.sweep.finetune);
        let harmful_file = sweep.data_file(&sweep.inject);
        let task_file = self.task.map_or_else(|| harmful_file.clone(), |task| sweep.data_file(&task.train));
        let bar = context.progress.bar(kind, &self.name);
        context.store.run(key, |out| {
            let task = self.task.map(|task| inputs::task(sweep, task, Split::Train)).transpose()?.unwrap_or_default();
            let harmful = prompts::sample::read_training_jsonl(&harmful_file)?;
            let train = TrainSettings {
                epochs: self.epochs,
                batch: settings.batch,
                learning_rate: settings.learning_rate,
                max_len: settings.max_len,
                seed: sweep.seed,
                method: method(settings.lora.as_ref()),
                ..TrainSettings::default()
            };
            let data = FinetuneData {
                task: (&task, &task_file),
                harmful: (&harmful, &harmful_file),
                count: self.harmful_count,
                objective: self.objective,
            };
            let (model, checkpoint) = (out.join("model"), out.join("train.checkpoint"));
            let summary = realign::stage::finetune::finetune(
                &aligned.dir.join("model"),
                data,
                &train,
                (&model, &checkpoint),
                context.compute(),
                &mut report(&bar),
            )?;
            remove(&checkpoint)?;
            Output::new(&summary, summary.samples)
        })
    }
}
