//! Recovery of a fine-tuned model (section 3 of the method).

use std::path::Path;

use anyhow::Result;
use model::DecoderConfig;
use prompts::Sample;
use realign::stage::generate::GenerateSettings;
use realign::stage::recover::{Gate, RecoverInputs, recover_model};
use recovery::RecoverySettings;

use super::{Context, remove, report};
use crate::inputs::{self, Split};
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{Cell, Profile, Recovery, Rollback};

/// Recovery of a cell.
///
/// # Errors
/// When prompts are missing or recovery fails.
pub fn recover(context: Context<'_>, cell: Cell<'_>, aligned: &Stage, tuned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let prompts_file = sweep.data_file(&sweep.recovery.prompts);
    let answers = (cell.task.metric, cell.task.max_new_tokens, cell.task.validation);
    let key = StageKey::new("recover", 1, sweep.seed, &(&sweep.recovery, sweep.profile, answers))?
        .parent("aligned", aligned)
        .parent("fine_tuned", tuned)
        .input("prompts", &prompts_file)?
        .input("task", &sweep.data_file(&cell.task.train))?;
    // The released code decides on the split that it reports.
    let (gate_split, key) = match sweep.profile {
        Profile::Sound => (Split::Validation, key),
        Profile::Released => (Split::Test, key.input("test", &sweep.data_file(&cell.task.test))?),
    };
    let bar = context.progress.bar("recover", &cell.to_string());
    context.store.run(&key, |out| {
        let prompts = prompts::sample::read_jsonl_first(&prompts_file, sweep.recovery.count)?;
        let mut task: Vec<Sample> = inputs::task(sweep, cell.task, Split::Train)?;
        task.truncate(sweep.recovery.task_prompts);
        let samples = inputs::task(sweep, cell.task, gate_split)?;
        let generate = GenerateSettings { max_new_tokens: cell.task.max_new_tokens, batch: sweep.evaluation.batch };
        let checkpoint = out.join("recovery.checkpoint");
        let (aligned, tuned) = (aligned.dir.join("model"), tuned.dir.join("model"));
        let settings = recovery_settings(&sweep.recovery, sweep.profile, &tuned)?;
        let inputs = RecoverInputs {
            aligned: &aligned,
            fine_tuned: &tuned,
            prompts: &prompts,
            task: Some(&task),
            gate: match sweep.recovery.rollback {
                Rollback::Auto => Gate::Validation { samples: &samples, metric: cell.task.metric, generate },
                Rollback::On => Gate::Fixed { rollback: true },
                Rollback::Off => Gate::Fixed { rollback: false },
            },
            checkpoint: Some(checkpoint.clone()),
        };
        let (model, trace) = (out.join("model"), out.join("trace.json"));
        let recover =
            || recover_model(inputs.clone(), &settings, (&model, Some(&trace)), context.compute(), &mut report(&bar));
        let summary = match recover() {
            // The stage's key fixes all that a checkpoint is of, so this one is damaged or of another version.
            Err(error)
                if matches!(error.downcast_ref(), Some(recovery::Error::State { .. })) && checkpoint.exists() =>
            {
                tracing::warn!("{error:#}: {cell} starts again");
                remove(&checkpoint)?;
                recover()?
            }
            outcome => outcome?,
        };
        remove(&checkpoint)?;
        Output::new(&summary, prompts.len())
    })
}

/// Settings for the model in the directory `tuned`.
pub(super) fn recovery_settings(settings: &Recovery, profile: Profile, tuned: &Path) -> Result<RecoverySettings> {
    let layer = match settings.layer {
        Some(layer) => Some(layer.of_blocks(DecoderConfig::from_dir(tuned)?.num_hidden_layers)),
        None => None,
    };
    let profile = match profile {
        Profile::Sound => recovery::Profile::Sound,
        Profile::Released => recovery::Profile::Released,
    };
    Ok(RecoverySettings {
        rate: settings.rate,
        steps: settings.steps,
        warmup: settings.warmup,
        save_every: settings.save_every,
        metric_drop: settings.metric_drop,
        rollback_rate: settings.rollback_rate,
        batch: settings.batch,
        ties: profile.ties(),
        layer,
        ..RecoverySettings::default()
    })
}
