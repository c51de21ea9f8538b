//! The recovery itself: warm-up, rollback, checkpoints and the answer (METHOD.md section 3).

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use direction::{Objective, accumulate, default_layer, mean_direction};
use model::{Decoder, weights};

use crate::region::is_in_region;
use crate::rollback::select_rollback;
use crate::selection::{Candidates, select};
use crate::state::{Origin, Progress, State, fingerprint};
use crate::{Error, GradientMode, Patch, RecoverySettings, Region, Result, Trace, TraceGate, TraceStep};

/// The task's score of a decoder, 0 or more and higher is better, on a split that is not reported.
pub type Measure<'a> = dyn FnMut(&Decoder) -> std::result::Result<f64, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// What a recovery works on.
pub struct Inputs<'a> {
    /// The aligned model.
    pub aligned: &'a Decoder,
    /// The fine-tuned model.
    pub fine_tuned: &'a Decoder,
    /// Token ids of the recovery prompts.
    pub prompts: Vec<Vec<u32>>,
    /// Token ids of the task's training prompts; rollback needs them.
    pub task_prompts: Option<Vec<Vec<u32>>>,
    /// Where a checkpoint is kept and looked for.
    pub checkpoint: Option<PathBuf>,
}

/// How rollback and the answer are decided.
pub enum Run<'a> {
    /// All steps, the last one is the answer; rollback in every step or in none.
    Fixed {
        /// Whether every step is followed by a rollback half-step.
        rollback: bool,
    },
    /// The task's score decides (METHOD.md section 3, Flow).
    Gated {
        /// The score.
        measure: &'a mut Measure<'a>,
        /// What it is of, for people, and different for different scores: a checkpoint goes on by the same alone.
        by: &'a str,
    },
}

impl Run<'_> {
    fn decided_by(&self) -> String {
        match self {
            Self::Fixed { rollback: true } => "nothing, with rollback in every step".to_owned(),
            Self::Fixed { rollback: false } => "nothing, without rollback".to_owned(),
            Self::Gated { by, .. } => (*by).to_owned(),
        }
    }
}

/// What came of a recovery.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The answer was taken after this many steps.
    Recovered {
        /// Number of steps.
        steps: usize,
        /// Whether rollback was on.
        rollback: bool,
    },
    /// The first checkpoint lost more of the task than allowed, with rollback, too; the answer is
    /// the fine-tuned model.
    NotRecovered {
        /// The fine-tuned model's score.
        base: f64,
        /// The score of the first checkpoint with rollback.
        score: f64,
        /// The lowest score allowed.
        floor: f64,
    },
}

/// The answer of a recovery.
pub struct Recovered {
    /// The recovered model, or the fine-tuned one when not recovered.
    pub decoder: Decoder,
    /// The restored weights.
    pub patch: Patch,
    /// What came of it.
    pub outcome: Outcome,
    /// What was done.
    pub trace: Trace,
}

/// Recovers the fine-tuned model. `report` is called after each step.
///
/// # Errors
/// When settings are out of range, the models differ in shape, a loss is not finite, rollback is
/// asked for without task prompts, the task cannot be scored or the checkpoint cannot be written.
pub fn recover(
    inputs: Inputs<'_>,
    settings: &RecoverySettings,
    run: Run<'_>,
    report: &mut dyn FnMut(&TraceStep),
) -> Result<Recovered> {
    settings.check()?;
    let start = Instant::now();
    let mut recovery = Recovery::new(&inputs, settings, run.decided_by(), report)?;
    let direction_s = start.elapsed().as_secs_f64();
    let outcome = match run {
        Run::Fixed { rollback } => recovery.run_fixed(rollback)?,
        Run::Gated { measure, by } => recovery.run_gated(measure, by)?,
    };
    recovery.finish(outcome, direction_s, start)
}

/// The moving parts of a recovery.
struct Recovery<'a> {
    settings: &'a RecoverySettings,
    region: Region,
    layer: usize,
    /// Weights restored per step.
    k: usize,
    harm: Objective,
    task: Option<Objective>,
    decoder: Decoder,
    fine_tuned: &'a Decoder,
    gradients: HashMap<String, Vec<f32>>,
    progress: Progress,
    kept: Patch,
    /// The checkpoint's file, and what it is of.
    checkpoint: Option<(PathBuf, Origin)>,
    report: &'a mut dyn FnMut(&TraceStep),
}

impl<'a> Recovery<'a> {
    fn new(
        inputs: &Inputs<'a>,
        settings: &'a RecoverySettings,
        decided_by: String,
        report: &'a mut dyn FnMut(&TraceStep),
    ) -> Result<Self> {
        let config = inputs.fine_tuned.config();
        let layer = settings.layer.unwrap_or_else(|| default_layer(config.num_hidden_layers));
        let region = Region::new(inputs.aligned, inputs.fine_tuned, layer)?;
        let objective = |decoder, rows: &Vec<Vec<u32>>| -> Result<Objective> {
            let direction = mean_direction(decoder, rows, layer)?;
            Ok(Objective { rows: rows.clone(), direction, layer, batch: settings.batch })
        };
        let harm = objective(inputs.aligned, &inputs.prompts)?;
        let task = inputs.task_prompts.as_ref().map(|rows| objective(inputs.fine_tuned, rows)).transpose()?;
        let objectives: Vec<&Objective> = [&harm].into_iter().chain(&task).collect();
        let checkpoint = inputs.checkpoint.clone().map(|path| {
            let inputs = fingerprint(&region, &objectives);
            (path, Origin { settings: settings.clone(), inputs, decided_by })
        });
        let mut recovery = Self {
            settings,
            layer,
            k: (config.hidden_parameters() as f64 * settings.rate).ceil() as usize,
            harm,
            task,
            decoder: weights::track(inputs.fine_tuned.clone(), |info| is_in_region(info, layer)),
            fine_tuned: inputs.fine_tuned,
            region,
            gradients: HashMap::new(),
            progress: Progress::default(),
            kept: Patch::default(),
            checkpoint,
            report,
        };
        recovery.resume()?;
        Ok(recovery)
    }

    fn run_fixed(&mut self, rollback: bool) -> Result<Outcome> {
        self.progress.rollback = rollback;
        while self.progress.step < self.settings.steps {
            self.step()?;
            if self.is_checkpoint() {
                self.save()?;
            }
        }
        Ok(Outcome::Recovered { steps: self.settings.steps, rollback })
    }

    fn run_gated(&mut self, measure: &mut Measure<'_>, by: &str) -> Result<Outcome> {
        let base = match self.progress.base_score {
            Some(score) => score,
            None => score_of(measure, self.fine_tuned)?,
        };
        self.progress.base_score = Some(base);
        if base <= 0.0 {
            tracing::warn!(
                "the fine-tuned model scores 0 by {by}: no loss of the task can be seen, and all steps will be done; \
                 another metric or other samples may tell more"
            );
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
        while self.progress.step < self.settings.steps {
            self.step()?;
            if !self.is_checkpoint() {
                continue;
            }
            let score = self.measure(measure)?;
            if !is_below(score, floor) {
                self.keep()?;
            } else if self.progress.kept_step.is_some() {
                break;
            } else {
                self.region.reset();
                return Ok(Outcome::NotRecovered { base, score, floor });
            }
        }
        self.region.apply(&self.kept);
        Ok(Outcome::Recovered { steps: self.progress.kept_step.unwrap_or(0), rollback: self.progress.rollback })
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
        let loss = accumulate(&self.decoder, &self.harm, &mut self.gradients)?;
        let grad_s = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let selected =
            select(&candidates(&self.region, &self.region.aligned, &self.gradients), self.k, self.settings.ties);
        set(&mut self.region.values, &self.region.aligned, &selected.indices);
        self.upload();
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
            self.roll_back(&selected.indices, &mut row)?;
        }
        row.equal = self.region.equal();
        (self.report)(&row);
        self.progress.steps.push(row);
        self.progress.step += 1;
        Ok(())
    }

    fn roll_back(&mut self, restored: &[Vec<u32>], row: &mut TraceStep) -> Result<()> {
        let reason = "no task prompts were given, and rollback needs them".to_owned();
        let task = self.task.as_ref().ok_or(Error::Setting { key: "task", reason })?;
        self.gradients.clear();
        accumulate(&self.decoder, task, &mut self.gradients)?;
        let (rate, ties) = (self.settings.rollback_rate, self.settings.ties);
        let back = select_rollback(&self.region, restored, &self.gradients, rate, ties);
        set(&mut self.region.values, &self.region.fine_tuned, &back.indices);
        self.gradients.clear();
        self.upload();
        row.rolled_back = Some(back.len());
        row.rollback_threshold = back.threshold.map(f64::from);
        Ok(())
    }

    fn upload(&mut self) {
        self.decoder = self.region.write(self.decoder.clone());
    }

    /// Whether a checkpoint is taken after the step just done.
    fn is_checkpoint(&self) -> bool {
        let step = self.progress.step;
        step.is_multiple_of(self.settings.save_every) || step == self.settings.steps
    }

    fn measure(&mut self, measure: &mut Measure<'_>) -> Result<f64> {
        use burn::module::Module as _;
        let score = score_of(measure, &self.decoder.valid())?;
        if let Some(row) = self.progress.steps.last_mut() {
            row.score = Some(score);
        }
        Ok(score)
    }

    fn start_again_with_rollback(&mut self) -> Result<()> {
        self.region.reset();
        self.upload();
        self.gradients.clear();
        self.progress.rollback = true;
        self.progress.step = 0;
        self.save()
    }

    /// Keeps the weights restored now as the answer so far.
    fn keep(&mut self) -> Result<()> {
        self.kept = self.region.patch();
        self.progress.kept_step = Some(self.progress.step);
        self.save()
    }

    fn save(&self) -> Result<()> {
        let Some((path, origin)) = &self.checkpoint else { return Ok(()) };
        let gradients = if self.progress.rollback { HashMap::new() } else { self.gradients.clone() };
        let state =
            State { progress: self.progress.clone(), current: self.region.patch(), kept: self.kept.clone(), gradients };
        state.save(path, origin)
    }

    fn resume(&mut self) -> Result<()> {
        let Some((path, origin)) = &self.checkpoint else { return Ok(()) };
        let Some(state) = State::load(path, origin)? else { return Ok(()) };
        tracing::info!(step = state.progress.step, "recovery goes on from {}", path.display());
        self.region.apply(&state.current);
        self.progress = state.progress;
        self.kept = state.kept;
        self.gradients = state.gradients;
        self.upload();
        Ok(())
    }

    fn finish(self, outcome: Outcome, direction_s: f64, start: Instant) -> Result<Recovered> {
        let norm = self.harm.direction.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>().sqrt();
        Ok(Recovered {
            decoder: self.region.write(self.fine_tuned.clone()),
            patch: self.region.patch(),
            outcome,
            trace: Trace {
                params: self.fine_tuned.config().hidden_parameters(),
                region: self.region.len(),
                layer: self.layer,
                direction_s,
                direction_norm: norm,
                total_s: start.elapsed().as_secs_f64(),
                gate: self.progress.base_score.map(|base| TraceGate { base_score: base, floor: self.floor(base) }),
                steps: self.progress.steps,
            },
        })
    }
}

fn score_of(measure: &mut Measure<'_>, decoder: &Decoder) -> Result<f64> {
    let score = measure(decoder).map_err(Error::Measure)?;
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

/// The region's tensors with their gradients; a tensor without a gradient has no candidate.
pub(crate) fn candidates<'a>(
    region: &'a Region,
    target: &'a [Vec<f32>],
    gradients: &'a HashMap<String, Vec<f32>>,
) -> Vec<Candidates<'a>> {
    region
        .infos
        .iter()
        .zip(&region.values)
        .zip(target)
        .map(|((info, values), target)| match gradients.get(&info.name) {
            Some(gradient) => Candidates { values, target, gradient },
            None => Candidates { values: &[], target: &[], gradient: &[] },
        })
        .collect()
}

/// Sets the weights at `indices` to their values in `source`.
pub(crate) fn set(values: &mut [Vec<f32>], source: &[Vec<f32>], indices: &[Vec<u32>]) {
    for ((values, source), indices) in values.iter_mut().zip(source).zip(indices) {
        for &index in indices {
            values[index as usize] = source[index as usize];
        }
    }
}
