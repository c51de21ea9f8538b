//! The choice by held-out merit, the same for every method: each value of the method's knob, or each step of its path, is
//! tried, and the best admissible one is the answer; without one, the best there is, with the bounds that it breaks.

use model::Decoder;
use serde::{Deserialize, Serialize};

use crate::merit::{Merit, Standing};
use crate::{Error, Inputs, Knob, Method, Outcome, Recover, Region, Repaired, Report, Result, Rollback};

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

/// Repairs the fine-tuned model with a method at the point of the best held-out merit.
///
/// # Errors
/// As [`Repair::apply`](crate::Repair::apply), and when the method has no knob, or there is no evidence to decide by.
pub fn choose(method: &Method, inputs: Inputs<'_>) -> Result<(Repaired, Vec<Point>)> {
    let merit = Merit::new(method.word(), inputs.evidence(method.word())?, inputs.aligned, inputs.fine_tuned)?;
    match (method, method.repair().knob()) {
        (Method::Recover(settings), _) => steps(settings, inputs, &merit),
        (_, Some(knob)) => values(method, knob, inputs, &merit),
        (_, None) => Err(Error::NoKnob { method: method.word() }),
    }
}

/// Each value of a knob.
fn values(method: &Method, knob: Knob, mut inputs: Inputs<'_>, merit: &Merit) -> Result<(Repaired, Vec<Point>)> {
    let (mut points, mut best): (Vec<Point>, Option<(usize, Repaired)>) = (Vec::new(), None);
    let mut visit = |repaired: Repaired, report: &mut Report<'_>| {
        let (done, value) = (points.len(), knob.values[points.len()]);
        points.push(point(value, merit, &repaired.decoder)?);
        if best.as_ref().is_none_or(|&(at, _)| is_better(&points[done], &points[at])) {
            best = Some((done, repaired));
        }
        let word = format!("{} {value}, held-out merit {:.3}", knob.key, points[done].standing.merit);
        if report(done + 1, knob.values.len(), &word).is_break() { Err(Error::Stopped) } else { Ok(()) }
    };
    if !method.repair().sweep(&mut inputs, &mut visit)? {
        for &value in knob.values {
            visit(method.with(knob.key, value)?.repair().apply(inputs.again())?, inputs.report)?;
        }
    }
    let (at, mut repaired) = best.ok_or(Error::NoKnob { method: method.word() })?;
    repaired.outcome = decided(&format!("{} {}", knob.key, points[at].at), &points[at]);
    Ok((repaired, points))
}

/// Each step of a recovery without rollback.
fn steps(settings: &Recover, mut inputs: Inputs<'_>, merit: &Merit) -> Result<(Repaired, Vec<Point>)> {
    let (aligned, fine_tuned) = (inputs.aligned, inputs.fine_tuned);
    let settings = Recover { rollback: Rollback::Off, ..settings.clone() };
    let checkpoint = inputs.checkpoint.take();
    let again = Inputs { checkpoint, ..inputs.again() };
    let mut repaired = Method::from(settings.clone()).repair().apply(again)?;
    let Some(mut path) = repaired.path.take().filter(|_| repaired.outcome != Outcome::Nothing) else {
        return Ok((repaired, Vec::new()));
    };
    let mut region = Region::new(aligned, fine_tuned, settings.layer)?;
    let mut points = Vec::new();
    for step in 1..=path.len() {
        region.apply(&path.at(step))?;
        points.push(point(step as f64, merit, region.decoder())?);
        let word = format!("step {step}, held-out merit {:.3}", points[step - 1].standing.merit);
        if (inputs.report)(step, path.len(), &word).is_break() {
            return Err(Error::Stopped);
        }
    }
    let best = (1..points.len()).fold(0, |best, at| if is_better(&points[at], &points[best]) { at } else { best });
    path.choose(best + 1);
    let patch = path.answer();
    region.apply(&patch)?;
    repaired.decoder = region.decoder().clone();
    repaired.restored = Some(patch.len());
    repaired.path = Some(path);
    repaired.outcome = decided(&format!("step {}", best + 1), &points[best]);
    Ok((repaired, points))
}

fn point(at: f64, merit: &Merit, decoder: &Decoder) -> Result<Point> {
    let standing = merit.of(decoder)?;
    Ok(Point { at, standing, broken: merit.broken(&standing) })
}

/// Whether a point is to be taken before another: an admissible one first, then by merit.
fn is_better(one: &Point, other: &Point) -> bool {
    let rank = |point: &Point| (!point.broken.is_empty(), point.standing.merit);
    rank(one) < rank(other)
}

fn decided(at: &str, point: &Point) -> Outcome {
    Outcome::Decided { at: at.to_owned(), standing: point.standing, broken: point.broken.clone() }
}
