//! Fine-tuning on a task with injected harmful samples (section 1 of the method).

use anyhow::Result;
use finetune::{TrainSettings, not_injected};
use realign::stage::finetune::{FinetuneData, TuneObjective};

use super::{Context, method, remove, report};
use crate::inputs::{self, Split};
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{Cell, Sweep, TaskSpec};

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
    Tuning::of_cell(sweep, cell, TuneObjective::Sft).run(context, "finetune", &key, aligned)
}

/// The sweep's settings of fine-tuning.
pub(super) fn train_settings(sweep: &Sweep) -> TrainSettings {
    let settings = &sweep.finetune;
    TrainSettings {
        epochs: settings.epochs,
        batch: settings.batch,
        learning_rate: settings.learning_rate,
        max_len: settings.max_len,
        seed: sweep.seed,
        method: method(settings.lora.as_ref()),
        ..TrainSettings::default()
    }
}

/// A training that starts from an aligned model, with the sweep's settings of fine-tuning.
pub(super) struct Tuning<'a> {
    /// What the bar says.
    pub name: String,
    /// The task whose training split is learnt; none for harmful samples alone.
    pub task: Option<&'a TaskSpec>,
    /// How many harmful samples are injected.
    pub harmful_count: usize,
    /// How many harmful samples are passed over first, in the order that the sweep's seed stands for.
    pub passed_over: usize,
    /// How it is trained.
    pub train: TrainSettings,
    /// What is minimised.
    pub objective: TuneObjective<'a>,
}

impl<'a> Tuning<'a> {
    /// That of a cell.
    pub fn of_cell(sweep: &Sweep, cell: Cell<'a>, objective: TuneObjective<'a>) -> Self {
        let (name, harmful_count, train) = (cell.to_string(), cell.harmful_count, train_settings(sweep));
        Self { name, task: Some(cell.task), harmful_count, passed_over: 0, train, objective }
    }

    /// Trains, unless the result is there.
    pub fn run(&self, context: Context<'_>, kind: &str, key: &StageKey, aligned: &Stage) -> Result<Stage> {
        let sweep = context.sweep;
        let harmful_file = sweep.data_file(&sweep.inject);
        let task_file = self.task.map_or_else(|| harmful_file.clone(), |task| sweep.data_file(&task.train));
        let bar = context.progress.bar(kind, &self.name);
        context.store.run(key, |out| {
            let task = self.task.map(|task| inputs::task(sweep, task, Split::Train)).transpose()?.unwrap_or_default();
            let mut harmful = prompts::sample::read_training_jsonl(&harmful_file)?;
            if self.passed_over > 0 {
                harmful = not_injected(&harmful, self.passed_over, self.harmful_count, sweep.seed)?;
            }
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
                &self.train,
                (&model, &checkpoint),
                context.compute(),
                &mut report(&bar),
            )?;
            remove(&checkpoint)?;
            Output::new(&summary, summary.samples)
        })
    }
}
