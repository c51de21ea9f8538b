//! The recovery itself: warm-up, rollback, checkpoints and the answer (METHOD.md section 3).

use std::collections::HashMap;
use std::time::Instant;

use burn::module::Module as _;
use direction::{Objective, accumulate, mean_direction};
use model::Decoder;

use super::progress::{Progress, fingerprint};
use super::rollback::select_rollback;
use super::{GradientMode, Recover, Rollback};
use crate::checkpoint::{Checkpoint, Origin};
use crate::{
    Error, Inputs, Measure, Needs, Outcome, Path, Region, Repair as _, Repaired, Report, Result, StepsTrace, Trace,
    TraceGate, TraceStep,
};

/// Recovers the fine-tuned model.
pub(super) fn recover(settings: &Recover, mut inputs: Inputs<'_>) -> Result<Repaired> {
    let start = Instant::now();
    let gate = inputs.gate.take().filter(|_| settings.rollback == Rollback::Auto);
    let always = settings.rollback == Rollback::On;
    let needs = Needs { task_prompts: always || gate.is_some(), ..settings.needs() };
    inputs.check_prompts(Recover::WORD, needs)?;
    let decided_by = match &gate {
        Some(gate) => gate.by.clone(),
        None if always => "nothing, with rollback in every step".to_owned(),
        None => "nothing, without rollback".to_owned(),
    };
    let mut recovery = Recovery::new(settings.clone(), inputs, needs, decided_by)?;
    if recovery.region.is_same() {
        return Ok(recovery.finish(Outcome::Nothing, 0.0, start));
    }
    let direction_s = start.elapsed().as_secs_f64();
    let outcome = match gate {
        Some(gate) => recovery.run_gated(gate.measure)?,
        None => recovery.run_all(always)?,
    };
    Ok(recovery.finish(outcome, direction_s, start))
}

/// The moving parts of a recovery.
struct Recovery<'a> {
    settings: Recover,
    region: Region,
    /// Weights restored per step.
    k: usize,
    harm: Objective,
    task: Option<Objective>,
    fine_tuned: &'a Decoder,
    gradients: HashMap<String, Vec<f32>>,
    progress: Progress,
    path: Path,
    checkpoint: Option<Checkpoint<Recover>>,
    report: &'a mut Report<'a>,
}

impl<'a> Recovery<'a> {
    fn new(settings: Recover, inputs: Inputs<'a>, needs: Needs, decided_by: String) -> Result<Self> {
        let region = Region::new(inputs.aligned, inputs.fine_tuned, settings.layer)?;
        let layer = region.layer();
        let objective = |decoder, read: &[Vec<u32>], rows: Vec<Vec<u32>>| -> Result<Objective> {
            let direction = mean_direction(decoder, read, layer)?;
            Ok(Objective { rows, direction, layer, batch: settings.batch })
        };
        let harm = objective(inputs.aligned, inputs.of_aligned(), inputs.prompts.clone())?;
        let Inputs { fine_tuned, task_prompts, checkpoint, report, .. } = inputs;
        let task = || objective(fine_tuned, &task_prompts, task_prompts.clone());
        let task = needs.task_prompts.then(task).transpose()?;
        let checkpoint = checkpoint.map(|path| {
            let objectives: Vec<&Objective> = [&harm].into_iter().chain(&task).collect();
            let inputs = fingerprint(&region, &objectives);
            Checkpoint { path, origin: Origin { settings: settings.clone(), inputs, decided_by } }
        });
        let mut recovery = Self {
            k: (fine_tuned.config().hidden_parameters() as f64 * settings.rate).ceil() as usize,
            settings,
            harm,
            task,
            fine_tuned,
            region: region.tracked(),
            gradients: HashMap::new(),
            progress: Progress::default(),
            path: Path::default(),
            checkpoint,
            report,
        };
        recovery.resume()?;
        Ok(recovery)
    }

    /// All steps; the last one is the answer.
    fn run_all(&mut self, rollback: bool) -> Result<Outcome> {
        self.progress.rollback = rollback;
        while self.progress.step < self.settings.steps {
            self.step()?;
            if self.is_checkpoint() {
                self.save()?;
            }
        }
        Ok(Outcome::Recovered { steps: self.settings.steps, rollback })
    }

    /// The task's score decides (METHOD.md section 3, Flow).
    fn run_gated(&mut self, measure: &mut Measure<'_>) -> Result<Outcome> {
        let base = match self.progress.base_score {
            Some(score) => score,
            None => score_of(measure, self.fine_tuned)?,
        };
        self.progress.base_score = Some(base);
        if base <= 0.0 {
            self.give_back();
            return Ok(Outcome::CannotGate);
        }
        let floor = self.floor(base);
        if self.progress.warmup_score.is_none() {
            let warmup = self.settings.warmup.min(self.settings.steps);
            while self.progress.step < warmup {
                self.step()?;
            }
            let score = self.measure(measure)?;
            self.progress.warmup_score = Some(score);
            if is_below(score, floor) {
                self.start_again_with_rollback()?;
            } else {
                self.keep()?;
            }
        }
        loop {
            if self.is_checkpoint() && self.is_unscored() {
                let score = self.measure(measure)?;
                if !is_below(score, floor) {
                    self.keep()?;
                } else if self.progress.kept_step.is_some() {
                    break;
                } else {
                    self.give_back();
                    return Ok(Outcome::NotRecovered { base, score, floor });
                }
            }
            if self.progress.step >= self.settings.steps {
                break;
            }
            self.step()?;
        }
        let steps = self.progress.kept_step.unwrap_or(0);
        self.path.choose(steps);
        self.region.apply(&self.path.answer())?;
        Ok(Outcome::Recovered { steps, rollback: self.progress.rollback })
    }

    /// The lowest score that the gate allows, of the fine-tuned model's.
    fn floor(&self, base: f64) -> f64 {
        base * (1.0 - self.settings.metric_drop)
    }

    /// One step: gradient, selection, restoration and, when it is on, the rollback half-step.
    fn step(&mut self) -> Result<()> {
        let rollback = self.progress.rollback;
        if rollback || self.settings.gradient == GradientMode::PerStep {
            self.gradients.clear();
        }
        let start = Instant::now();
        let loss = accumulate(self.region.decoder(), &self.harm, &mut self.gradients)?;
        let grad_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut selected = self.region.restore_largest(&self.gradients, self.k, self.settings.ties)?;
        let mut row = TraceStep {
            step: self.progress.step,
            loss,
            threshold: selected.threshold.map(f64::from),
            restored: selected.len(),
            grad_s,
            select_s: start.elapsed().as_secs_f64(),
            rolled_back: None,
            rollback_threshold: None,
            equal: 0,
            score: None,
        };
        if rollback {
            self.roll_back(&mut selected.indices, &mut row)?;
        }
        self.path.push(self.region.named(selected.indices));
        row.equal = self.region.equal();
        self.progress.step += 1;
        let word = format!("loss {:.4}, restored {}", row.loss, row.restored);
        self.progress.steps.push(row);
        let stop = (self.report)(self.progress.step, self.settings.steps, &word).is_break();
        if stop {
            self.save()?;
            return Err(Error::Stopped);
        }
        Ok(())
    }

    /// Gives some of the weights restored in this step back, and takes them out of `restored`.
    fn roll_back(&mut self, restored: &mut [Vec<u32>], row: &mut TraceStep) -> Result<()> {
        let missing = Error::Missing { method: Recover::WORD, what: "the task's training prompts" };
        let task = self.task.as_ref().ok_or(missing)?;
        self.gradients.clear();
        accumulate(self.region.decoder(), task, &mut self.gradients)?;
        let (rate, ties) = (self.settings.rollback_rate, self.settings.ties);
        let back = select_rollback(&self.region, restored, &self.gradients, rate, ties)?;
        self.region.roll_back(&back.indices)?;
        self.gradients.clear();
        row.rolled_back = Some(back.len());
        row.rollback_threshold = back.threshold.map(f64::from);
        for (restored, back) in restored.iter_mut().zip(&back.indices) {
            restored.retain(|index| back.binary_search(index).is_err());
        }
        Ok(())
    }

    /// Whether a checkpoint is taken after the step just done.
    fn is_checkpoint(&self) -> bool {
        let step = self.progress.step;
        step.is_multiple_of(self.settings.save_every) || step == self.settings.steps
    }

    /// Whether the last step has no score yet.
    fn is_unscored(&self) -> bool {
        self.progress.steps.last().is_some_and(|row| row.score.is_none())
    }

    /// Scores the last step; when that fails, the steps before it are kept in the checkpoint.
    fn measure(&mut self, measure: &mut Measure<'_>) -> Result<f64> {
        let score = match score_of(measure, &self.region.decoder().valid()) {
            Ok(score) => score,
            Err(error) => {
                self.save()?;
                return Err(error);
            }
        };
        if let Some(row) = self.progress.steps.last_mut() {
            row.score = Some(score);
        }
        Ok(score)
    }

    /// Makes the fine-tuned model the answer.
    fn give_back(&mut self) {
        self.region.reset();
        self.path.choose(0);
    }

    fn start_again_with_rollback(&mut self) -> Result<()> {
        self.region.reset();
        self.gradients.clear();
        self.progress.rollback = true;
        self.progress.step = 0;
        self.path = Path::default();
        self.save()
    }

    /// Keeps the weights restored now as the answer so far.
    fn keep(&mut self) -> Result<()> {
        self.progress.kept_step = Some(self.progress.step);
        self.save()
    }

    fn save(&self) -> Result<()> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let fresh = HashMap::new();
        let adds_up = !self.progress.rollback && self.settings.gradient == GradientMode::Cumulative;
        let gradients = if adds_up { &self.gradients } else { &fresh };
        checkpoint.save(&self.progress, &self.path, gradients)
    }

    fn resume(&mut self) -> Result<()> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let Some(state) = checkpoint.load::<Progress>(&self.region.infos)? else { return Ok(()) };
        tracing::info!(step = state.progress.step, "recovery goes on from {}", checkpoint.path.display());
        self.region.apply(&state.path.last())?;
        self.progress = state.progress;
        self.path = state.path;
        self.gradients = state.gradients;
        Ok(())
    }

    fn finish(self, outcome: Outcome, direction_s: f64, start: Instant) -> Repaired {
        let trace = StepsTrace {
            params: self.fine_tuned.config().hidden_parameters(),
            region: self.region.len(),
            layer: self.region.layer(),
            direction_s,
            direction_norm: self.harm.direction.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>().sqrt(),
            total_s: start.elapsed().as_secs_f64(),
            gate: self.progress.base_score.map(|base| TraceGate { base_score: base, floor: self.floor(base) }),
            steps: self.progress.steps,
        };
        Repaired {
            decoder: self.region.decoder().valid(),
            restored: Some(self.path.answer().len()),
            path: Some(self.path),
            outcome,
            trace: Some(Trace::Steps(trace)),
        }
    }
}

fn score_of(measure: &mut Measure<'_>, decoder: &Decoder) -> Result<f64> {
    let score = match measure(decoder) {
        Ok(score) => score,
        Err(error) if matches!(error.downcast_ref(), Some(Error::Stopped)) => return Err(Error::Stopped),
        Err(error) => return Err(Error::Measure(error)),
    };
    if score.is_finite() && score >= 0.0 {
        return Ok(score);
    }
    Err(Error::Measure(format!("the score is {score}, and must be 0 or more").into()))
}

/// Whether the gate refuses a score. One on the floor is kept (METHOD.md section 7), also where the floor's product was
/// rounded upwards: nine of ten right is not below 1 - 0.1.
fn is_below(score: f64, floor: f64) -> bool {
    score < floor * (1.0 - 1e-12)
}
