//! The rounds of a strong recovery.

use std::collections::HashMap;
use std::time::Instant;

use model::Decoder;
use rayon::prelude::*;

use super::Strong;
use super::sides::{Flips, Sides, count};
use crate::checkpoint::{Checkpoint, Origin, Progress};
use crate::merit::{Merit, Standing};
use crate::objective::Objective;
use crate::region::Members;
use crate::trace::{Round, StrongTrace, Trial};
use crate::{Error, Evidence, Inputs, Outcome, Path, Repaired, Report, Result, Trace};

/// A round tries no fewer flips than the first number over this: what so few gain is not worth the trials.
const FEWEST: usize = 32;

/// Recovers the fine-tuned model.
pub(super) fn recover(settings: &Strong, inputs: Inputs<'_>) -> Result<Repaired> {
    let start = Instant::now();
    let (aligned, fine_tuned) = (inputs.aligned, inputs.fine_tuned);
    let evidence = inputs.evidence(Strong::WORD)?;
    let merit = Merit::new(Strong::WORD, evidence, aligned, fine_tuned)?;
    let members = match settings.all_tensors == Some(true) {
        true => Members::all_that_differ(aligned, fine_tuned)?,
        false => Members::of_all_blocks(fine_tuned),
    };
    let sides = Sides::new(members.clone(), aligned, fine_tuned)?;
    let checkpoint = inputs.checkpoint.as_ref().map(|path| {
        let inputs = fingerprint(&sides, evidence, inputs.seed);
        let decided_by = "held-out merit".to_owned();
        Checkpoint { path: path.clone(), origin: Origin { settings: settings.clone(), inputs, decided_by } }
    });
    let mut recovery = Recovery {
        settings,
        evidence,
        fine_tuned,
        objective: Objective::new(&inputs, evidence, members, settings.lambda, settings.drawn),
        sides,
        checkpoint,
        path: Path::default(),
        standing: merit.base,
        merit,
        rounds: Vec::new(),
        gradients: HashMap::new(),
        costs: HashMap::new(),
    };
    let outcome = match recovery.sides.region.is_same() {
        true => Outcome::Nothing,
        false => recovery.run(inputs.report)?,
    };
    Ok(recovery.finish(outcome, start))
}

impl Progress for Vec<Round> {
    fn steps(&self) -> usize {
        self.len()
    }
}

/// What rounds may do.
struct Allowed {
    /// Share of the hidden layers' parameters that is restored at most.
    cap: f64,
    /// Rounds at most.
    rounds: usize,
}

/// The moving parts.
struct Recovery<'a> {
    settings: &'a Strong,
    evidence: &'a Evidence,
    fine_tuned: &'a Decoder,
    objective: Objective<'a>,
    merit: Merit,
    sides: Sides,
    checkpoint: Option<Checkpoint<Strong>>,
    path: Path,
    standing: Standing,
    rounds: Vec<Round>,
    /// The mean over rounds, over the costs, where the settings ask for one.
    gradients: HashMap<String, Vec<f32>>,
    /// What a flip of each weight costs; computed for the first round.
    costs: HashMap<String, Vec<f32>>,
}

impl Recovery<'_> {
    fn run(&mut self, report: &mut Report<'_>) -> Result<Outcome> {
        self.resume()?;
        while self.rounds.len() < self.allowed().rounds && !self.is_at_rest() {
            let round = self.round(report)?;
            self.rounds.push(round);
            if let Some(checkpoint) = &self.checkpoint {
                checkpoint.save(&self.rounds, &self.path, &self.gradients)?;
            }
            self.tell(report, "")?;
        }
        let broken = self.merit.broken(&self.standing);
        Ok(Outcome::Decided { at: format!("round {}", self.rounds.len()), standing: self.standing, broken })
    }

    /// Goes on from the checkpoint, if there is one, with the round after its last.
    fn resume(&mut self) -> Result<()> {
        let Some(checkpoint) = &self.checkpoint else { return Ok(()) };
        let Some(state) = checkpoint.load::<Vec<Round>>(&self.sides.region.infos)? else { return Ok(()) };
        tracing::info!(round = state.progress.len(), "recovery goes on from {}", checkpoint.path.display());
        self.sides.flip(&self.sides.indices(&state.path.last()))?;
        self.standing = state.progress.last().map_or(self.standing, |round| round.standing);
        (self.path, self.rounds, self.gradients) = (state.path, state.progress, state.gradients);
        Ok(())
    }

    /// What is allowed after the rounds so far: a cap that a round reached while more harm was left than the bound allows is
    /// doubled, and has rounds of its own.
    fn allowed(&self) -> Allowed {
        let Strong { cap, max_cap, rounds, .. } = *self.settings;
        let mut allowed = Allowed { cap, rounds };
        for (round, done) in self.rounds.iter().zip(1..) {
            let is_full = round.restored >= self.weights(allowed.cap);
            if is_full && allowed.cap < max_cap && self.leaves_harm(&round.standing) {
                allowed = Allowed { cap: max_cap.min(2.0 * allowed.cap), rounds: done + rounds };
            }
        }
        allowed
    }

    /// How many weights a share of the hidden layers' parameters is.
    fn weights(&self, share: f64) -> usize {
        (self.fine_tuned.config().hidden_parameters() as f64 * share).ceil() as usize
    }

    fn leaves_harm(&self, standing: &Standing) -> bool {
        standing.harmful > self.evidence.merit.max_harmful
    }

    /// Reports how far it is.
    fn tell(&self, report: &mut Report<'_>, trial: &str) -> Result<()> {
        let Standing { harmful, harmless, .. } = self.standing;
        let restored = self.sides.restored();
        let word = format!("held-out harmful {harmful:.3}, harmless {harmless:.3}, restored {restored}{trial}");
        match report(self.rounds.len(), self.allowed().rounds, &word).is_break() {
            true => Err(Error::Stopped),
            false => Ok(()),
        }
    }

    /// Whether the last rounds gained little, and no more harm is left than may be.
    fn is_at_rest(&self) -> bool {
        if self.leaves_harm(&self.standing) {
            return false;
        }
        let last = self.rounds.iter().rev().take(self.settings.patience);
        last.clone().count() == self.settings.patience && last.into_iter().all(|round| round.is_little)
    }

    /// One round: the gradient, then trials of more or fewer of the best flips.
    fn round(&mut self, report: &mut Report<'_>) -> Result<Round> {
        let started = Instant::now();
        let before = self.standing;
        if self.costs.is_empty() {
            self.costs = self.sides.costs(self.objective.fisher(self.fine_tuned)?);
        }
        let mut gradients = self.gradient(self.rounds.len())?;
        let grad_s = started.elapsed().as_secs_f64();
        let started = Instant::now();
        self.sides.orient(&mut gradients);
        let (flips, trials) = self.search(&gradients, report)?;
        self.sides.orient(&mut gradients);
        if self.settings.momentum > 0.0 {
            self.gradients = gradients;
        }
        self.sides.flip(&flips)?;
        let flipped = count(&flips);
        self.path.push(self.sides.region.named(flips));
        let left = before.harmful + self.evidence.merit.mu * before.harmless;
        Ok(Round {
            flipped,
            restored: self.sides.restored(),
            standing: self.standing,
            is_little: before.merit - self.standing.merit < self.settings.tolerance * left,
            trials,
            grad_s,
            trial_s: started.elapsed().as_secs_f64(),
        })
    }

    /// The flips that lower the merit: their number is doubled while it falls, else halved until it does; none when nothing
    /// lowers it. Where nothing may be restored any more and none of the first gives back, it is doubled first.
    fn search(
        &mut self,
        gradients: &HashMap<String, Vec<f32>>,
        report: &mut Report<'_>,
    ) -> Result<(Flips, Vec<Trial>)> {
        let (first, cap) = (self.weights(self.settings.rate), self.weights(self.allowed().cap));
        let mut trials = Vec::new();
        let (mut flips, mut k) = self.sides.best(gradients, first, cap);
        let mut asked = first;
        while count(&flips) == 0 && k == asked {
            asked *= 2;
            (flips, k) = self.sides.best(gradients, asked, cap);
        }
        loop {
            if count(&flips) == 0 {
                return Ok((flips, trials));
            }
            if self.improves(&flips, &mut trials, report)? {
                break;
            }
            let fewer = if k / 2 * FEWEST < first { 0 } else { k / 2 };
            (flips, k) = self.sides.best(gradients, fewer, cap);
        }
        while trials.len() < 2 || trials[0].k < count(&flips) {
            let (more, taken) = self.sides.best(gradients, 2 * k, cap);
            if count(&more) <= count(&flips) || !self.improves(&more, &mut trials, report)? {
                break;
            }
            (flips, k) = (more, taken);
        }
        Ok((flips, trials))
    }

    /// Whether the model with these flips has less merit than the best so far, and then is the best.
    fn improves(&mut self, flips: &Flips, trials: &mut Vec<Trial>, report: &mut Report<'_>) -> Result<bool> {
        self.tell(report, &format!(", trying {} flips", count(flips)))?;
        self.sides.flip(flips)?;
        let standing = self.merit.of(self.sides.region.decoder())?;
        let restored = self.sides.restored();
        self.sides.flip(flips)?;
        trials.push(Trial { k: count(flips), restored, standing });
        let improves = standing.merit < self.standing.merit;
        if improves {
            self.standing = standing;
        }
        Ok(improves)
    }

    /// The gradient at the weights as they are, on prompts of this round, over what a flip of each weight costs, and the
    /// earlier rounds' share.
    fn gradient(&mut self, round: usize) -> Result<HashMap<String, Vec<f32>>> {
        let momentum = self.settings.momentum as f32;
        let (mut gradients, _) = self.objective.gradient(self.sides.region.decoder().clone(), round)?;
        gradients.par_iter_mut().for_each(|(name, gradient)| {
            let costs = self.costs.get(name).into_iter().flatten();
            gradient.iter_mut().zip(costs).for_each(|(value, cost)| *value /= cost);
        });
        for (name, earlier) in std::mem::take(&mut self.gradients) {
            let of_round = gradients.get_mut(&name).into_iter().flatten();
            of_round.zip(earlier).for_each(|(value, earlier)| *value += momentum * (earlier - *value));
        }
        Ok(gradients)
    }

    fn finish(self, outcome: Outcome, start: Instant) -> Repaired {
        let trace = StrongTrace {
            params: self.fine_tuned.config().hidden_parameters(),
            base: self.merit.base,
            total_s: start.elapsed().as_secs_f64(),
            rounds: self.rounds,
        };
        Repaired {
            decoder: self.sides.region.decoder().clone(),
            restored: Some(self.sides.restored()),
            path: Some(self.path),
            outcome,
            trace: Some(Trace::Strong(trace)),
        }
    }
}

/// Hash of the two models' values and of the prompts.
fn fingerprint(sides: &Sides, evidence: &Evidence, seed: u64) -> String {
    let mut hash = files::Sha::default();
    hash.part(seed.to_le_bytes());
    sides.hash(&mut hash);
    for parts in [&evidence.harmful, &evidence.harmless, &evidence.task] {
        for row in parts.train.iter().chain(&parts.held_out) {
            hash.part((row.start as u64).to_le_bytes()).numbers(row.ids.iter().map(|id| id.to_le_bytes()));
        }
    }
    hash.part(format!("{:?} {:?}", evidence.reference, evidence.merit)).finish()
}
