//! A recovery that is stopped goes on from its checkpoint as if it had not been, and refuses one that is not its own.

use model::Decoder;
use recovery::{Error, GradientMode, Inputs, Outcome, Path, Recover, Repair as _, Repaired, Result, Rollback};
use std::ops::ControlFlow;

use crate::{Fixture, all, gate, go_on};

fn settings() -> Recover {
    Recover { steps: 6, warmup: 2, save_every: 2, batch: 4, layer: "2/4".parse().unwrap(), ..Recover::default() }
}

/// Runs until this many steps are done in this run, with or without scores.
fn run(
    fixture: &Fixture,
    (settings, file): (&Recover, Option<&std::path::Path>),
    scores: Option<&mut dyn Iterator<Item = f64>>,
    steps: usize,
) -> Result<Repaired> {
    let mut done = 0;
    let mut report = |_: usize, in_all: usize, _: &str| {
        assert_eq!(in_all, settings.steps);
        done += 1;
        if done < steps { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let inputs = Inputs { checkpoint: file.map(std::path::Path::to_owned), ..fixture.inputs(&mut report) };
    match scores {
        None => settings.apply(inputs),
        Some(scores) => {
            let mut measure = |_: &Decoder| scores.next().ok_or_else(|| "measured too often".into());
            settings.apply(Inputs { gate: gate(&mut measure), ..inputs })
        }
    }
}

/// Of each step: its number, the bits of its loss, its score, and the weights that equal the aligned model's.
type Steps = Vec<(usize, u64, Option<f64>, usize)>;

/// Everything of an answer but seconds.
fn answer(repaired: Repaired) -> (Outcome, Steps, Vec<Vec<f32>>, Path) {
    let trace = repaired.trace.clone();
    let Some(recovery::Trace::Steps(trace)) = trace else { panic!("no trace of steps") };
    let steps = trace.steps.iter().map(|row| (row.step, row.loss.to_bits(), row.score, row.equal)).collect();
    let values = all(&repaired.decoder).into_iter().map(|(_, values)| values).collect();
    (repaired.outcome, steps, values, repaired.path.unwrap())
}

#[test]
fn a_recovery_that_is_stopped_between_any_two_steps_ends_with_the_same_weights() {
    let fixture = Fixture::read();
    // Without a score; the warm-up keeps the task; it does not, and rollback loses it at last; it is lost at once.
    let flows: [&[f64]; 4] = [&[], &[1.0, 1.0, 0.99, 0.98], &[1.0, 0.5, 0.97, 0.96, 0.5], &[1.0, 0.5, 0.5]];
    for rollback in [Rollback::Auto, Rollback::On, Rollback::Off] {
        for gradient in [GradientMode::Cumulative, GradientMode::PerStep] {
            let settings = Recover { rollback, gradient, ..settings() };
            for flow in flows.iter().take(if rollback == Rollback::Auto { 4 } else { 1 }) {
                let mut scores = flow.iter().copied();
                let whole = run(&fixture, (&settings, None), gated(flow).then_some(&mut scores), usize::MAX).unwrap();
                let whole = answer(whole);
                for every in [1, 3] {
                    let dir = tempfile::tempdir().unwrap();
                    let file = dir.path().join("checkpoint");
                    let mut scores = flow.iter().copied();
                    let mut stops = 0;
                    let resumed = loop {
                        let scores = gated(flow).then_some(&mut scores as &mut dyn Iterator<Item = f64>);
                        match run(&fixture, (&settings, Some(&file)), scores, every) {
                            Err(Error::Stopped) => stops += 1,
                            other => break other.unwrap(),
                        }
                    };
                    assert!(stops >= 1);
                    assert_eq!(answer(resumed), whole, "{rollback:?}, {gradient:?}, {flow:?}, every {every}");
                }
            }
        }
    }
}

fn gated(flow: &[f64]) -> bool {
    !flow.is_empty()
}

#[test]
fn a_failed_score_loses_no_step_and_another_origin_is_refused() {
    let fixture = Fixture::read();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoint");
    let whole = answer(run(&fixture, (&settings(), None), Some(&mut [1.0; 4].into_iter()), usize::MAX).unwrap());
    let inputs = |report| Inputs { checkpoint: Some(file.clone()), ..fixture.inputs(report) };
    // The third measurement, after four steps, fails.
    let mut scores = 0;
    let mut failing = |_: &Decoder| {
        scores += 1;
        if scores > 2 { Err(Error::Stopped.into()) } else { Ok(1.0) }
    };
    let error = settings().apply(Inputs { gate: gate(&mut failing), ..inputs(go_on()) }).unwrap_err();
    assert!(matches!(error, Error::Stopped), "a measure may stop the work: {error}");
    // Another score has another floor, and without a score nothing is kept.
    let by = recovery::Gate { measure: &mut |_| Ok(1.0), by: "ROUGE".into() };
    let others = [
        (settings().apply(Inputs { gate: Some(by), ..inputs(go_on()) }), "by ROUGE"),
        (settings().apply(inputs(go_on())), "nothing, without rollback"),
        (Recover { rate: 0.1, ..settings() }.apply(inputs(go_on())), "of other settings"),
    ];
    for (other, reason) in others {
        let error = other.unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("delete the file"), "{error}");
    }
    let mut one = |_: &Decoder| Ok(1.0);
    let other = Inputs { prompts: fixture.rows("task_rows"), gate: gate(&mut one), ..inputs(go_on()) };
    assert!(settings().apply(other).unwrap_err().to_string().contains("of other models or prompts"));
    let mut steps = Vec::new();
    let mut report = |done: usize, _: usize, _: &str| {
        steps.push(done);
        ControlFlow::Continue(())
    };
    let resumed = settings().apply(Inputs { gate: gate(&mut |_| Ok(1.0)), ..inputs(&mut report) }).unwrap();
    assert_eq!(answer(resumed), whole);
    assert_eq!(steps, [5, 6], "the first four steps are not done again");
}

#[test]
fn after_a_damaged_checkpoint_it_starts_from_the_beginning() {
    let fixture = Fixture::read();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("checkpoint");
    let settings = settings();
    let stopped = run(&fixture, (&settings, Some(&file)), None, 3);
    assert!(matches!(stopped, Err(Error::Stopped)));
    let whole = std::fs::read(&file).unwrap();
    for number in 0..40 {
        let mut bytes = whole.clone();
        // The header, where most of the structure is, and places all over the file.
        let at = if number < 20 { number * 100 } else { number * 7_919_111 % whole.len() };
        bytes[at] ^= 1 << (number % 8);
        std::fs::write(&file, &bytes).unwrap();
        let error = run(&fixture, (&settings, Some(&file)), None, 1).unwrap_err();
        assert!(matches!(error, Error::Stopped), "byte {at}: {error}");
    }
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(run(&fixture, (&settings, Some(&file)), None, 1), Err(Error::Stopped)));
}
