//! The choice by held-out merit tries every value of a knob and answers with the best.

use std::ops::ControlFlow;

use recovery::{Error, Inputs, MeritSettings, Method, Outcome, Point, Repaired, choose};
use serde_json::{Value, json};

use crate::resta::models;
use crate::strong::Golden;
use crate::{all, go_on};

/// The choice among a method's points with bounds that none can break, stopped after so many reports.
fn run(word: &str, reports: usize) -> recovery::Result<(Repaired, Vec<Point>)> {
    let mut evidence = Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}));
    evidence.merit = MeritSettings { max_harmful: 1e9, max_harmless: 1e9, max_task: 1e9, ..evidence.merit };
    let ([tuned, aligned, unaligned], mut left) = (models(), reports);
    let mut report = |_: usize, _: usize, _: &str| {
        left -= 1;
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let inputs =
        Inputs { evidence: Some(&evidence), unaligned: Some(&unaligned), ..Inputs::new(&aligned, &tuned, &mut report) };
    choose(&Method::from_settings(word, Value::Null).unwrap(), inputs)
}

#[test]
fn the_answer_is_the_model_of_the_least_merit() {
    for word in ["interpolation", "antidote", "safe_delta", "irr"] {
        let (repaired, points) = run(word, usize::MAX).unwrap();
        let method = Method::from_settings(word, Value::Null).unwrap();
        let knob = method.repair().knob().unwrap();
        assert_eq!(points.iter().map(|point| point.at).collect::<Vec<_>>(), knob.values, "{word}");
        let best = points.iter().min_by(|a, b| a.standing.merit.total_cmp(&b.standing.merit)).unwrap();
        let Outcome::Decided { at, standing, broken } = &repaired.outcome else { panic!("{word}: nothing decided") };
        assert_eq!((at, standing), (&format!("{} {}", knob.key, best.at), &best.standing), "{word}");
        assert!(broken.is_empty(), "{word}");
        // The model is the one of that value.
        let [tuned, aligned, unaligned] = models();
        let evidence = Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}));
        let alone = method.with(knob.key, best.at).unwrap();
        let inputs =
            Inputs { evidence: Some(&evidence), unaligned: Some(&unaligned), ..Inputs::new(&aligned, &tuned, go_on()) };
        assert_eq!(all(&alone.repair().apply(inputs).unwrap().decoder), all(&repaired.decoder), "{word}");
    }
}

#[test]
fn a_report_stops_it() {
    for reports in [1, 3, 6] {
        assert!(matches!(run("safe_delta", reports), Err(Error::Stopped)), "after {reports} reports");
    }
}
