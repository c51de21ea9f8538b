//! Each control arm does what its name says, checked against the two models weight by weight.

use model::Decoder;
use recovery::{FullRevert, Inputs, Interpolation, LargestDifference, Random, Recover, Repair, is_in_region};

use crate::{Fixture, all, go_on};

/// Two of the four blocks.
const LAYER: usize = 2;

fn run(method: &dyn Repair, seed: u64) -> (Decoder, Option<usize>) {
    let fixture = Fixture::read();
    let repaired = method.apply(Inputs { seed, ..fixture.inputs(go_on()) }).unwrap();
    if let Some(patch) = repaired.patch() {
        assert_eq!(Some(patch.len()), repaired.restored);
    }
    (repaired.decoder, repaired.restored)
}

fn random(count: usize) -> Random {
    Random { count: Some(count), layer: LAYER.to_string().parse().unwrap(), ..Random::default() }
}

/// Region weights of the arm's model that differ from the fine-tuned one's, as absolute differences
/// of the two models, and the differences of those left alone. Nothing else may have changed.
fn changed_and_left(arm: &Decoder) -> (Vec<f32>, Vec<f32>) {
    let Fixture { aligned, tuned, .. } = Fixture::read();
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
    let (decoder, count) = run(&FullRevert { layer: LAYER.to_string().parse().unwrap() }, 0);
    let (changed, left) = changed_and_left(&decoder);
    assert!(left.is_empty());
    assert_eq!(count, Some(changed.len()));
}

#[test]
fn the_largest_differences_are_the_largest() {
    let method = LargestDifference { count: Some(500), layer: LAYER.to_string().parse().unwrap() };
    let (decoder, count) = run(&method, 0);
    assert_eq!(count, Some(500));
    let (changed, left) = changed_and_left(&decoder);
    assert_eq!(changed.len(), 500);
    let smallest_changed = changed.iter().copied().fold(f32::INFINITY, f32::min);
    let largest_left = left.iter().copied().fold(0.0, f32::max);
    assert!(smallest_changed >= largest_left, "{smallest_changed} was restored and {largest_left} was not");
}

#[test]
fn a_random_restoration_is_a_seeded_draw_that_size_does_not_decide() {
    let arm = |seed| run(&random(500), seed);
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
    let fixture = Fixture::read();
    let step = fixture.apply(&Recover {
        rate: 1.0,
        steps: 1,
        layer: LAYER.to_string().parse().unwrap(),
        ..Recover::default()
    });
    let all_of_them = step.restored.unwrap();
    let (whole, count) = run(&random(all_of_them), 1);
    assert_eq!(count, Some(all_of_them));
    assert_eq!(all(&whole), all(&step.decoder), "a draw of all candidates is the candidates");
    let (half, count) = run(&random(all_of_them / 2), 1);
    assert_eq!((count, changed_and_left(&half).0.len()), (Some(all_of_them / 2), all_of_them / 2));
    for (((_, found), (_, tuned)), (info, step)) in
        all(&half).into_iter().zip(all(&fixture.tuned)).zip(all(&step.decoder))
    {
        let drawn = found.iter().zip(&tuned).zip(&step).filter(|((found, tuned), _)| found != tuned);
        assert!(drawn.into_iter().all(|((found, _), step)| found == step), "{}", info.name);
    }
}

#[test]
fn an_interpolation_lies_between_the_models() {
    let Fixture { aligned, tuned, .. } = Fixture::read();
    let (halfway, count) = run(&Interpolation { lambda: 0.5 }, 0);
    assert_eq!(count, None);
    for (((info, found), (_, aligned)), (_, tuned)) in all(&halfway).into_iter().zip(all(&aligned)).zip(all(&tuned)) {
        for ((found, aligned), tuned) in found.into_iter().zip(aligned).zip(tuned) {
            assert!((found - (aligned + tuned) / 2.0).abs() <= 1e-6 * found.abs().max(1e-3), "{}", info.name);
        }
    }
    let end = |lambda| all(&run(&Interpolation { lambda }, 0).0);
    assert_eq!(end(0.0), all(&aligned));
    assert_eq!(end(1.0), all(&tuned));
}
