//! The choice by held-out merit, the same for every method: each value of the method's knob, or each step of its path, is
//! tried, and the best admissible one is the answer; without one, the best there is, with the bounds that it breaks.

use model::Decoder;
use serde::{Deserialize, Serialize};

use crate::merit::{Merit, Standing};
use crate::{Error, Evidence, Inputs, Knob, Method, Outcome, Recover, Region, Repaired, Report, Result, Rollback};

/// One point that a method could stop at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The knob's value, or the step.
    pub at: f64,
    /// The model there, on the held-out prompts.
    pub standing: Standing,
    /// The bounds that it breaks, each with how much it is exceeded, as a share of it.
    pub broken: Vec<(String, f64)>,
}

/// Points as they are tried, and which is the best so far.
#[derive(Debug)]
pub struct Choice {
    merit: Merit,
    /// In the order that they were tried in.
    pub points: Vec<Point>,
    best: usize,
}

impl Choice {
    /// Reads what decides about the points of a method.
    ///
    /// # Errors
    /// When the evidence holds nothing out, or the device fails.
    pub fn new(method: &'static str, evidence: &Evidence, aligned: &Decoder, fine_tuned: &Decoder) -> Result<Self> {
        Ok(Self { merit: Merit::new(method, evidence, aligned, fine_tuned)?, points: Vec::new(), best: 0 })
    }

    /// Tries the model of a knob's value, or of a step; whether it is the best so far.
    ///
    /// # Errors
    /// When the device fails.
    pub fn tries(&mut self, at: f64, decoder: &Decoder) -> Result<bool> {
        let standing = self.merit.of(decoder)?;
        self.points.push(Point { at, standing, broken: self.merit.broken(&standing) });
        let last = self.points.len() - 1;
        let is_best = last == 0 || is_better(&self.points[last], &self.points[self.best]);
        if is_best {
            self.best = last;
        }
        Ok(is_best)
    }

    /// The last point, for people.
    #[must_use]
    pub fn word(&self, key: &str) -> String {
        self.points.last().map_or(String::new(), |Point { at, standing, .. }| {
            format!("{key} {at}, held-out merit {:.3}", standing.merit)
        })
    }

    /// What was decided; nothing where nothing was tried.
    #[must_use]
    pub fn outcome(&self, key: &str) -> Option<Outcome> {
        let Point { at, standing, broken } = self.points.get(self.best)?.clone();
        Some(Outcome::Decided { at: format!("{key} {at}"), standing, broken })
    }
}

/// Repairs the fine-tuned model with a method at the point of the best held-out merit.
///
/// # Errors
/// As [`Repair::apply`](crate::Repair::apply), and when the method has no knob, or there is no evidence to decide by.
pub fn choose(method: &Method, inputs: Inputs<'_>) -> Result<(Repaired, Vec<Point>)> {
    let choice = Choice::new(method.word(), inputs.evidence(method.word())?, inputs.aligned, inputs.fine_tuned)?;
    match (method, method.repair().knob()) {
        (Method::Recover(settings), _) => steps(settings, inputs, choice),
        (_, Some(knob)) => values(method, knob, inputs, choice),
        (_, None) => Err(Error::NoKnob { method: method.word() }),
    }
}

/// Each value of a knob.
fn values(method: &Method, knob: Knob, mut inputs: Inputs<'_>, mut choice: Choice) -> Result<(Repaired, Vec<Point>)> {
    let mut best: Option<Repaired> = None;
    let mut visit = |repaired: Repaired, report: &mut Report<'_>| {
        let done = choice.points.len() + 1;
        if choice.tries(knob.values[done - 1], &repaired.decoder)? {
            best = Some(repaired);
        }
        if report(done, knob.values.len(), &choice.word(knob.key)).is_break() { Err(Error::Stopped) } else { Ok(()) }
    };
    if !method.repair().sweep(&mut inputs, &mut visit)? {
        for &value in knob.values {
            visit(method.with(knob.key, value)?.repair().apply(inputs.again())?, inputs.report)?;
        }
    }
    let nothing = || Error::NoKnob { method: method.word() };
    let outcome = choice.outcome(knob.key).ok_or_else(nothing)?;
    Ok((Repaired { outcome, ..best.ok_or_else(nothing)? }, choice.points))
}

/// Each step of a recovery without rollback.
fn steps(settings: &Recover, mut inputs: Inputs<'_>, mut choice: Choice) -> Result<(Repaired, Vec<Point>)> {
    let (aligned, fine_tuned) = (inputs.aligned, inputs.fine_tuned);
    let settings = Recover { rollback: Rollback::Off, ..settings.clone() };
    let checkpoint = inputs.checkpoint.take();
    let again = Inputs { checkpoint, ..inputs.again() };
    let mut repaired = Method::from(settings.clone()).repair().apply(again)?;
    let Some(mut path) = repaired.path.take().filter(|_| repaired.outcome != Outcome::Nothing) else {
        return Ok((repaired, Vec::new()));
    };
    let mut region = Region::new(aligned, fine_tuned, settings.layer)?;
    for step in 1..=path.len() {
        region.apply(&path.at(step))?;
        choice.tries(step as f64, region.decoder())?;
        if (inputs.report)(step, path.len(), &choice.word("step")).is_break() {
            return Err(Error::Stopped);
        }
    }
    path.choose(choice.best + 1);
    let patch = path.answer();
    region.apply(&patch)?;
    repaired.decoder = region.decoder().clone();
    repaired.restored = Some(patch.len());
    repaired.path = Some(path);
    repaired.outcome = choice.outcome("step").unwrap_or(repaired.outcome);
    Ok((repaired, choice.points))
}

/// Whether a point is to be taken before another: an admissible one first, then by merit.
fn is_better(one: &Point, other: &Point) -> bool {
    let rank = |point: &Point| (!point.broken.is_empty(), point.standing.merit);
    rank(one) < rank(other)
}
