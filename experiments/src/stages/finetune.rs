//! Fine-tuning on a task with injected harmful samples (section 1 of the method).

use ::finetune::TrainSettings;
use anyhow::Result;
use realign::stage::finetune::FinetuneData;

use super::{Context, method, remove, report};
use crate::inputs::{self, Split};
use crate::store::{Output, Stage, StageKey};
use crate::sweep::Cell;

/// Fine-tuning of a cell.
///
/// # Errors
/// When samples are missing or training fails.
pub fn finetune(context: Context<'_>, cell: Cell<'_>, aligned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let settings = &sweep.finetune;
    let (task_file, harmful_file) = (sweep.data_file(&cell.task.train), sweep.data_file(&sweep.inject));
    let key = StageKey::new("finetune", 1, sweep.seed, &(settings, cell.task.validation, cell.harmful_count))?
        .parent("aligned", aligned)
        .input("task", &task_file)?
        .input("inject", &harmful_file)?;
    let bar = context.progress.bar("finetune", &cell.to_string());
    context.store.run(&key, |out| {
        let task = inputs::task(sweep, cell.task, Split::Train)?;
        let harmful = prompts::sample::read_training_jsonl(&harmful_file)?;
        let train = TrainSettings {
            epochs: settings.epochs,
            batch: settings.batch,
            learning_rate: settings.learning_rate,
            max_len: settings.max_len,
            seed: sweep.seed,
            method: method(settings.lora.as_ref()),
            ..TrainSettings::default()
        };
        let data =
            FinetuneData { task: (&task, &task_file), harmful: (&harmful, &harmful_file), count: cell.harmful_count };
        let (model, checkpoint) = (out.join("model"), out.join("train.checkpoint"));
        let summary = realign::stage::finetune::finetune(
            &aligned.dir.join("model"),
            data,
            &train,
            (&model, &checkpoint),
            context.device,
            &mut report(&bar),
        )?;
        remove(&checkpoint)?;
        Output::new(&summary, summary.samples)
    })
}
