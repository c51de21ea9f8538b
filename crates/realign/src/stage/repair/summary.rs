//! What came of a method, in numbers and in one sentence.

use recovery::{Damage, Outcome, Point, Repaired, Standing, Trace};
use serde::{Deserialize, Serialize};

/// What came of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairSummary {
    /// Weights set to the aligned value; none if all weights are moved.
    pub restored: Option<usize>,
    /// Whether the result is what the method is to make; else it is the fine-tuned model.
    pub recovered: bool,
    /// One sentence for people.
    pub note: String,
    /// What it changed of the fine-tuned model; how far answers move is measured by [`Divergence`](crate::stage::Divergence).
    pub damage: Damage,
    /// The model on held-out prompts at each value of the knob or step that was tried, or, of strong recovery, after each round by
    /// its number of restored weights; none of other methods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curve: Vec<(f64, Standing)>,
    /// Samples of the task that were not read, since the aligned model declines them.
    #[serde(default, skip_serializing_if = "is_none")]
    pub declined: usize,
}

fn is_none(count: &usize) -> bool {
    *count == 0
}

impl RepairSummary {
    /// The file of a summary in a stage's directory, for a stage that reads the number of restored weights.
    pub const FILE: &str = "repair.json";
    /// How the note begins where the fine-tuned model was given back.
    pub const NOT_RECOVERED: &str = "not recovered";
}

/// The summary of a repaired model.
pub(in crate::stage) fn summary(
    repaired: &Repaired,
    points: &[Point],
    by: &str,
    damage: Damage,
    declined: usize,
) -> RepairSummary {
    let restored = repaired.restored;
    let count = match (restored, &repaired.trace) {
        (Some(count), _) => format!("{count} weights restored"),
        (None, Some(Trace::Modules(trace))) => {
            let changed = trace.modules.iter().filter(|module| module.changed).count();
            format!("{changed} of {} weight matrices changed", trace.modules.len())
        }
        (None, _) => "all weights moved".to_owned(),
    };
    let (recovered, note) = match repaired.outcome {
        Outcome::Changed => (true, count),
        Outcome::Nothing => {
            (true, "nothing to recover: the two models do not differ in the blocks that recovery changes".to_owned())
        }
        Outcome::Recovered { steps, rollback } => {
            (true, format!("recovered after {steps} steps, rollback {}", if rollback { "on" } else { "off" }))
        }
        Outcome::Decided { ref at, ref broken, .. } => {
            let bounds: Vec<String> =
                broken.iter().map(|(name, share)| format!("{name} by {:.0} %", 100.0 * share)).collect();
            let kept = match bounds.is_empty() {
                true => "all bounds kept".to_owned(),
                false => format!("no point keeps all bounds on held-out prompts; exceeded: {}", bounds.join(", ")),
            };
            (broken.is_empty(), format!("{at}, {kept}; {count}"))
        }
        Outcome::NotRecovered { base, score, floor } => {
            let begin = RepairSummary::NOT_RECOVERED;
            (false, format!("{begin}: {by} fell from {base:.3} to {score:.3}, and {floor:.3} is allowed"))
        }
        Outcome::CannotGate => {
            let why = "no loss of the task can be seen; take another metric, other samples or no gate";
            (false, format!("{}: the fine-tuned model scores 0 by {by}, and {why}", RepairSummary::NOT_RECOVERED))
        }
    };
    let note = match declined {
        0 => note,
        count => format!("{note}; {count} samples of the task not kept, since the aligned model declines them"),
    };
    let curve = match &repaired.trace {
        Some(Trace::Strong(trace)) => {
            let rounds = trace.rounds.iter().map(|round| (round.restored as f64, round.standing));
            std::iter::once((0.0, trace.base)).chain(rounds).collect()
        }
        _ => points.iter().map(|point| (point.at, point.standing)).collect(),
    };
    RepairSummary { restored, recovered, note, damage, curve, declined }
}
