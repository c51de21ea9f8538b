//! Bootstrap intervals of means and of paired differences. Samples are resampled, never seeds or categories.

use std::cell::RefCell;
use std::rc::Rc;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::check_paired;
use crate::{EvaluationError, Result};

/// How samples are resampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootstrapSettings {
    /// Number of resamples.
    pub resamples: usize,
    /// Share of the resamples' figures within the interval.
    pub level: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for BootstrapSettings {
    fn default() -> Self {
        Self { resamples: 10_000, level: 0.95, seed: 1 }
    }
}

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The figure of the samples as they are.
    pub value: f64,
    /// Lower and upper end.
    pub interval: (f64, f64),
}

/// The mean of per-sample scores with its bootstrap interval.
pub fn bootstrap_mean(per_sample: &[f64], settings: &BootstrapSettings) -> Result<Estimate> {
    bootstrap(per_sample.len(), settings, |drawn| weighted_sum(per_sample, drawn) / per_sample.len() as f64)
}

/// The mean of `left - right` with its bootstrap interval: two methods' scores of the same samples, in one order. Each
/// draw takes both scores of a sample. If the interval excludes 0, the methods differ.
pub fn paired_bootstrap(left: &[f64], right: &[f64], settings: &BootstrapSettings) -> Result<Estimate> {
    check_paired(left.len(), right.len())?;
    let differences: Vec<f64> = left.iter().zip(right).map(|(left, right)| left - right).collect();
    bootstrap_mean(&differences, settings)
}

/// How often each sample is drawn in one resample.
pub type Drawn = [u16];

/// Any figure of `n` samples with its percentile interval, such as F1, which is no mean of per-sample scores. `figure`
/// gets how often each sample is drawn.
///
/// # Mathematical Definition
///
/// With f_b the figure of n samples drawn with replacement: the quantiles (1 - level) / 2 and (1 + level) / 2 of all f_b,
/// interpolated linearly between the two nearest (numpy's `linear`).
///
/// # Panics
///
/// If there are no resamples or the level is not between 0 and 1.
pub fn bootstrap(n: usize, settings: &BootstrapSettings, mut figure: impl FnMut(&Drawn) -> f64) -> Result<Estimate> {
    let BootstrapSettings { resamples, level, seed } = *settings;
    assert!(resamples > 0, "a bootstrap interval needs resamples");
    assert!(0.0 < level && level < 1.0, "the level {level} is not between 0 and 1");
    if n == 0 {
        return Err(EvaluationError::NoAnswers);
    }
    let value = figure(&vec![1; n]);
    let mut figures: Vec<f64> = match resamples.checked_mul(n).filter(|counts| *counts <= KEPT_COUNTS) {
        Some(_) => {
            let drawn = KEPT.with_borrow_mut(|kept| kept.of(n, resamples, seed));
            drawn.chunks_exact(n).map(&mut figure).collect()
        }
        None => {
            let (mut rng, mut drawn) = (ChaCha8Rng::seed_from_u64(seed), vec![0; n]);
            let mut next = |_| {
                draw(&mut rng, &mut drawn);
                figure(&drawn)
            };
            (0..resamples).map(&mut next).collect()
        }
    };
    figures.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Ok(Estimate { value, interval: (quantile(&figures, tail), quantile(&figures, 1.0 - tail)) })
}

/// Draws as many samples as there are.
fn draw(rng: &mut ChaCha8Rng, drawn: &mut Drawn) {
    drawn.fill(0);
    for _ in 0..drawn.len() {
        let at = rng.random_range(0..drawn.len());
        drawn[at] += 1;
    }
}

/// Counts of one bootstrap that are kept: 8 MB, 400 samples at 10,000 resamples.
const KEPT_COUNTS: usize = 1 << 22;

thread_local! {
    static KEPT: RefCell<Resamples> = const { RefCell::new(Resamples(Vec::new())) };
}

/// The resamples of the last numbers of samples, since a sweep compares thousands of pairs of methods on as many samples each:
/// drawing takes longer than the sums. By number of samples, of resamples, and seed.
struct Resamples(Vec<(ResamplesKey, Rc<Drawn>)>);

type ResamplesKey = (usize, usize, u64);

impl Resamples {
    fn of(&mut self, n: usize, resamples: usize, seed: u64) -> Rc<Drawn> {
        let place = self.0.iter().position(|(of, _)| *of == (n, resamples, seed)).unwrap_or_else(|| {
            if self.0.len() == 4 {
                self.0.remove(0);
            }
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut counts = vec![0; n * resamples];
            counts.chunks_exact_mut(n).for_each(|drawn| draw(&mut rng, drawn));
            self.0.push(((n, resamples, seed), counts.into()));
            self.0.len() - 1
        });
        Rc::clone(&self.0[place].1)
    }
}

/// The mean of values that come in groups, such as the cells of each model, with its bootstrap interval: whole groups are
/// drawn. Values of a group depend on each other, so that drawing single values would give too narrow an interval.
///
/// # Errors
/// When there is no group, or one is empty.
pub fn bootstrap_groups(groups: &[Vec<f64>], settings: &BootstrapSettings) -> Result<Estimate> {
    if groups.iter().any(Vec::is_empty) {
        return Err(EvaluationError::NoAnswers);
    }
    let sums: Vec<(f64, usize)> = groups.iter().map(|group| (group.iter().sum(), group.len())).collect();
    bootstrap(groups.len(), settings, |drawn| {
        let weighted =
            sums.iter().zip(drawn).map(|(group, times)| (group.0 * f64::from(*times), group.1 * usize::from(*times)));
        let (sum, n) = weighted.fold((0.0, 0), |all, group| (all.0 + group.0, all.1 + group.1));
        sum / n as f64
    })
}

/// The sum of values, each as often as it is drawn. Several sums side by side, so that they are one vector instruction.
fn weighted_sum(values: &[f64], drawn: &Drawn) -> f64 {
    const SUMS: usize = 16;
    let (whole, whole_drawn) = (values.chunks_exact(SUMS), drawn.chunks_exact(SUMS));
    let rest = whole
        .remainder()
        .iter()
        .zip(whole_drawn.remainder())
        .map(|(value, times)| value * f64::from(*times))
        .sum::<f64>();
    let mut sums = [0.0; SUMS];
    for (values, drawn) in whole.zip(whole_drawn) {
        for i in 0..SUMS {
            sums[i] += values[i] * f64::from(drawn[i]);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// The quantile of sorted values, of which there is at least one.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_decides_the_draws() {
        let scores: Vec<f64> = (0..40).map(|i| f64::from(i * i % 17)).collect();
        let with = |seed| bootstrap_mean(&scores, &BootstrapSettings { seed, ..BootstrapSettings::default() }).unwrap();
        assert_eq!(with(3), with(3));
        assert_ne!(with(3).interval, with(4).interval);
    }

    #[test]
    fn draws_that_are_kept_are_those_of_a_first_time() {
        let settings = BootstrapSettings { resamples: 50, ..BootstrapSettings::default() };
        let of = |n: usize| {
            let mut drawn = Vec::new();
            bootstrap(n, &settings, |times| {
                drawn.push(times.to_vec());
                0.0
            })
            .unwrap();
            drawn
        };
        let first: Vec<_> = (1..=6).map(of).collect(); // more than are kept
        assert_eq!((1..=6).map(of).collect::<Vec<_>>(), first);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for times in &first[5][1..] {
            let drawn: Vec<usize> = (0..6).map(|_| rng.random_range(0..6)).collect();
            let count = |i: usize| drawn.iter().filter(|at| **at == i).count() as u16;
            assert_eq!(times[..], (0..6).map(count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_weighted_sum_takes_every_value() {
        let values: Vec<f64> = (0..37).map(|i| f64::from(1 << (i % 20))).collect();
        let drawn: Vec<u16> = (0..37).map(|i| i % 5).collect();
        let expected: f64 = values.iter().zip(&drawn).map(|(value, times)| value * f64::from(*times)).sum();
        assert_eq!(weighted_sum(&values, &drawn), expected);
    }

    #[test]
    fn scores_that_do_not_differ_have_an_interval_of_no_width() {
        let settings = BootstrapSettings::default();
        let half = bootstrap_mean(&[0.5; 9], &settings).unwrap();
        assert_eq!(half, Estimate { value: 0.5, interval: (0.5, 0.5) });
        // far apart from sample to sample, one apart from method to method: pairing takes the samples' spread away
        let (left, right) = ([1.0, 11.0, 101.0], [0.0, 10.0, 100.0]);
        let one = paired_bootstrap(&left, &right, &settings).unwrap();
        assert_eq!(one, Estimate { value: 1.0, interval: (1.0, 1.0) });
    }

    #[test]
    fn groups_are_drawn_whole() {
        let settings = BootstrapSettings::default();
        let groups = [vec![0.0; 20], vec![1.0; 20], vec![0.5; 10]];
        let grouped = bootstrap_groups(&groups, &settings).unwrap();
        let single = bootstrap_mean(&groups.concat(), &settings).unwrap();
        assert_eq!((grouped.value, single.value), (0.5, 0.5));
        assert_eq!(grouped.interval, (0.0, 1.0), "of three groups two are often the same");
        assert!(single.interval.0 > 0.35 && single.interval.1 < 0.65, "{single:?}");
        assert!(matches!(bootstrap_groups(&[vec![]], &settings), Err(EvaluationError::NoAnswers)));
    }

    #[test]
    fn quantiles_are_interpolated() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0);
    }

    #[test]
    fn what_cannot_be_paired_is_an_error_with_both_numbers() {
        let settings = BootstrapSettings::default();
        let error = paired_bootstrap(&[1.0], &[1.0, 0.0], &settings).unwrap_err();
        assert!(matches!(error, EvaluationError::Unpaired { left: 1, right: 2 }), "{error}");
        assert!(matches!(paired_bootstrap(&[], &[], &settings), Err(EvaluationError::NoAnswers)));
        assert!(matches!(bootstrap_mean(&[], &settings), Err(EvaluationError::NoAnswers)));
    }
}
