//! Recovery of a fine-tuned model (section 3 of the method).

use anyhow::Result;
use prompts::Sample;
use realign::stage::generate::GenerateSettings;
use realign::stage::recover::{Gate, RecoverInputs, recover_model};
use recovery::RecoverySettings;

use super::{Context, remove, report};
use crate::inputs::{self, Split};
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{Cell, Profile, Recovery};

/// Recovery of a cell.
///
/// # Errors
/// When prompts are missing or recovery fails.
pub fn recover(context: Context<'_>, cell: Cell<'_>, aligned: &Stage, tuned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let prompts_file = sweep.data_file(&sweep.recovery.prompts);
    let settings = recovery_settings(&sweep.recovery, sweep.profile);
    let answers = (cell.task.metric, cell.task.max_new_tokens, cell.task.validation);
    let key = StageKey::new("recover", 1, sweep.seed, &(&sweep.recovery, sweep.profile, answers))?
        .parent("aligned", aligned)
        .parent("fine_tuned", tuned)
        .input("prompts", &prompts_file)?
        .input("task", &sweep.data_file(&cell.task.train))?
        .input("test", &sweep.data_file(&cell.task.test))?;
    let bar = context.progress.bar("recover", &cell.to_string());
    context.store.run(&key, |out| {
        let prompts = prompts::sample::read_jsonl_first(&prompts_file, sweep.recovery.count)?;
        let mut task: Vec<Sample> = inputs::task(sweep, cell.task, Split::Train)?;
        task.truncate(sweep.recovery.task_prompts);
        // The released code decides on the split that it reports.
        let gate_split = match sweep.profile {
            Profile::Sound => Split::Validation,
            Profile::Released => Split::Test,
        };
        let samples = inputs::task(sweep, cell.task, gate_split)?;
        let generate = GenerateSettings { max_new_tokens: cell.task.max_new_tokens, batch: sweep.evaluation.batch };
        let checkpoint = out.join("recovery.checkpoint");
        let (aligned, tuned) = (aligned.dir.join("model"), tuned.dir.join("model"));
        let inputs = RecoverInputs {
            aligned: &aligned,
            fine_tuned: &tuned,
            prompts: &prompts,
            task: Some(&task),
            gate: Gate::Validation { samples: &samples, metric: cell.task.metric, generate },
            checkpoint: Some(checkpoint.clone()),
        };
        let outputs = (&*out.join("model"), Some(&*out.join("trace.json")));
        let summary = recover_model(inputs, &settings, outputs, context.device, &mut report(&bar))?;
        remove(&checkpoint)?;
        Output::new(&summary, prompts.len())
    })
}

pub(super) fn recovery_settings(settings: &Recovery, profile: Profile) -> RecoverySettings {
    let profile = match profile {
        Profile::Sound => recovery::Profile::Sound,
        Profile::Released => recovery::Profile::Released,
    };
    RecoverySettings {
        rate: settings.rate,
        steps: settings.steps,
        warmup: settings.warmup,
        save_every: settings.save_every,
        metric_drop: settings.metric_drop,
        rollback_rate: settings.rollback_rate,
        batch: settings.batch,
        ties: profile.ties(),
        ..RecoverySettings::default()
    }
}
