//! Each control arm does what its name says, checked against the two models weight by weight.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::weights::WeightInfo;
use model::{Decoder, checkpoint, weights};
use recovery::{Control, Inputs, RecoverySettings, Run, control, is_in_region, recover};

const LAYER: usize = 2;

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

fn models() -> (Decoder, Decoder) {
    let load = |name: &str| checkpoint::load(&path("model/tests/fixtures").join(name), &Device::flex()).unwrap();
    (load("tiny-llama"), load("tiny-llama-finetuned"))
}

fn rows() -> Vec<Vec<u32>> {
    let rows = std::fs::read(path("direction/tests/fixtures/rows.json")).unwrap();
    let rows: serde_json::Value = serde_json::from_slice(&rows).unwrap();
    serde_json::from_value(rows["recovery_rows"].clone()).unwrap()
}

fn run(arm: Control) -> (Decoder, Option<usize>) {
    let (aligned, tuned) = models();
    let settings = RecoverySettings { layer: Some(LAYER), ..RecoverySettings::default() };
    control(&aligned, &tuned, &rows(), &settings, arm).unwrap()
}

fn all(decoder: &Decoder) -> Vec<(WeightInfo, Vec<f32>)> {
    weights::read(decoder, |_| true).unwrap()
}

/// Region weights of the arm's model that differ from the fine-tuned one's, as absolute differences
/// of the two models, and the differences of those left alone. Nothing else may have changed.
fn changed_and_left(arm: &Decoder) -> (Vec<f32>, Vec<f32>) {
    let (aligned, tuned) = models();
    let (mut changed, mut left) = (Vec::new(), Vec::new());
    for (((info, found), (_, aligned)), (_, tuned)) in all(arm).into_iter().zip(all(&aligned)).zip(all(&tuned)) {
        for ((found, aligned), tuned) in found.into_iter().zip(aligned).zip(tuned) {
            if found == tuned {
                if is_in_region(&info, LAYER) && aligned != tuned {
                    left.push((aligned - tuned).abs());
                }
                continue;
            }
            assert!(is_in_region(&info, LAYER), "{} is not in the region", info.name);
            assert_eq!(found, aligned, "{}", info.name);
            changed.push((aligned - tuned).abs());
        }
    }
    (changed, left)
}

#[test]
fn a_full_revert_leaves_no_difference_in_the_region() {
    let (decoder, count) = run(Control::FullRevert);
    let (changed, left) = changed_and_left(&decoder);
    assert!(left.is_empty());
    assert_eq!(count, Some(changed.len()));
}

#[test]
fn the_largest_differences_are_the_largest() {
    let (decoder, count) = run(Control::LargestDifference { count: 500 });
    assert_eq!(count, Some(500));
    let (changed, left) = changed_and_left(&decoder);
    assert_eq!(changed.len(), 500);
    let smallest_changed = changed.iter().copied().fold(f32::INFINITY, f32::min);
    let largest_left = left.iter().copied().fold(0.0, f32::max);
    assert!(smallest_changed >= largest_left, "{smallest_changed} was restored and {largest_left} was not");
}

#[test]
fn a_random_restoration_is_a_seeded_draw_that_size_does_not_decide() {
    let arm = |seed| run(Control::Random { count: 500, seed });
    let (decoder, count) = arm(1);
    assert_eq!(count, Some(500));
    let (changed, left) = changed_and_left(&decoder);
    let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
    assert!((mean(&changed) / mean(&left) - 1.0).abs() < 0.2, "{} against {}", mean(&changed), mean(&left));
    let values = |decoder: &Decoder| all(decoder).into_iter().map(|(_, values)| values).collect::<Vec<_>>();
    assert_eq!(values(&arm(1).0), values(&decoder));
    assert_ne!(values(&arm(2).0), values(&decoder));
}

#[test]
fn a_random_restoration_draws_among_the_candidates_of_the_first_step() {
    let (aligned, tuned) = models();
    let settings = RecoverySettings { layer: Some(LAYER), rate: 1.0, steps: 1, ..RecoverySettings::default() };
    let inputs =
        Inputs { aligned: &aligned, fine_tuned: &tuned, prompts: rows(), task_prompts: None, checkpoint: None };
    let step = recover(inputs, &settings, Run::Fixed { rollback: false }, &mut |_| {}).unwrap();
    let all_of_them = step.patch.len();
    let (whole, count) = run(Control::Random { count: all_of_them, seed: 1 });
    assert_eq!(count, Some(all_of_them));
    assert_eq!(all(&whole), all(&step.decoder), "a draw of all candidates is the candidates");
    let (half, count) = run(Control::Random { count: all_of_them / 2, seed: 1 });
    assert_eq!((count, changed_and_left(&half).0.len()), (Some(all_of_them / 2), all_of_them / 2));
    for (((_, found), (_, tuned)), (info, step)) in all(&half).into_iter().zip(all(&tuned)).zip(all(&step.decoder)) {
        let drawn = found.iter().zip(&tuned).zip(&step).filter(|((found, tuned), _)| found != tuned);
        assert!(drawn.into_iter().all(|((found, _), step)| found == step), "{}", info.name);
    }
}

#[test]
fn an_interpolation_lies_between_the_models() {
    let (aligned, tuned) = models();
    let (halfway, count) = run(Control::Interpolation { lambda: 0.5 });
    assert_eq!(count, None);
    for (((info, found), (_, aligned)), (_, tuned)) in all(&halfway).into_iter().zip(all(&aligned)).zip(all(&tuned)) {
        for ((found, aligned), tuned) in found.into_iter().zip(aligned).zip(tuned) {
            assert!((found - (aligned + tuned) / 2.0).abs() <= 1e-6 * found.abs().max(1e-3), "{}", info.name);
        }
    }
    let end = |lambda| all(&run(Control::Interpolation { lambda }).0);
    assert_eq!(end(0.0), all(&aligned));
    assert_eq!(end(1.0), all(&tuned));
}
