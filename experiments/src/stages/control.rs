//! The control arms that a recovery is compared with.

use anyhow::{Result, bail};
use realign::stage::control::control_model;
use realign::stage::recover::RecoverySummary;
use recovery::Control;

use super::Context;
use super::recover::recovery_settings;
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{Cell, Method};

/// A control arm of a cell. An arm that [needs the recovery](Method::needs_recovery) restores as many weights as the
/// recovery did, none without one. The summary is the number that the arm set to the aligned value, none where it moved all
/// weights.
///
/// A recovery that is only looked for has no number yet. Its key stands for it then, so that the arms of several
/// recoveries are told apart; a run looks again when the recovery is there.
///
/// # Errors
/// When prompts are missing or the models do not fit each other.
pub fn control(
    context: Context<'_>,
    cell: Cell<'_>,
    method: Method,
    (aligned, tuned): (&Stage, &Stage),
    recovered: Option<&Stage>,
) -> Result<Stage> {
    let sweep = context.sweep;
    let (restored, awaited) = match recovered.filter(|_| method.needs_recovery()) {
        None => (0, None),
        Some(stage) if stage.finished => (stage.summary::<RecoverySummary>()?.restored, None),
        Some(stage) => (0, Some(stage)),
    };
    let arm = match method {
        Method::Random => Control::Random { count: restored, seed: sweep.seed },
        Method::LargestDifference => Control::LargestDifference { count: restored },
        Method::FullRevert => Control::FullRevert,
        Method::Interpolation(percent) => Control::Interpolation { lambda: f64::from(percent) / 100.0 },
        method => bail!("{method} is not a control arm"),
    };
    let prompts_file = sweep.data_file(&sweep.recovery.prompts);
    // What an arm does not read makes no other model: an interpolation knows no region, and only one arm asks prompts.
    let layer = sweep.recovery.layer.filter(|_| method.follows_recovery());
    let asked = (method == Method::Random).then_some((sweep.recovery.count, sweep.recovery.batch));
    let key = StageKey::new("control", 2, sweep.seed, &(method, restored, layer, asked))?
        .parent("aligned", aligned)
        .parent("fine_tuned", tuned);
    let key = if asked.is_some() { key.input("prompts", &prompts_file)? } else { key };
    let key = match awaited {
        Some(stage) => key.parent("recovered", stage),
        None => key,
    };
    let bar = context.progress.bar("control", &format!("{cell} {method}"));
    let stage = context.store.run(&key, |out| {
        let prompts = match asked {
            Some((count, _)) => prompts::sample::read_jsonl_first(&prompts_file, count)?,
            None => Vec::new(),
        };
        let models = (&*aligned.dir.join("model"), &*tuned.dir.join("model"));
        let settings = recovery_settings(&sweep.recovery, sweep.profile, models.1)?;
        let restored = control_model(models, &prompts, &settings, arm, &out.join("model"), context.compute())?;
        Output::new(&restored, prompts.len())
    })?;
    bar.finish_and_clear();
    Ok(stage)
}
