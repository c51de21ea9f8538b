//! The interval of a rate, and mean and spread over seeds. No resampling: that is in `bootstrap.rs`.

use serde::{Deserialize, Serialize};

/// The Wilson 95 % interval of a share; (0, 1) when nothing was counted.
///
/// # Mathematical Definition
///
/// With p = k / n and z = 1.96: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n).
///
/// # Panics
///
/// If there are more successes than trials.
pub fn wilson(successes: usize, n: usize) -> (f64, f64) {
    assert!(successes <= n, "{successes} successes in {n} trials: count successes among the trials");
    if n == 0 {
        return (0.0, 1.0);
    }
    const Z: f64 = 1.959_963_984_540_054; // the normal distribution's 97.5 % quantile
    let (p, n) = (successes as f64 / n as f64, n as f64);
    let centre = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    (((centre - half) / scale).max(0.0), ((centre + half) / scale).min(1.0))
}

/// Mean and spread of one cell's figure over its seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The sample standard deviation (divisor n - 1); none with one seed.
    pub sd: Option<f64>,
    /// Number of seeds.
    pub n: usize,
}

/// Mean and sample standard deviation over seeds; none without a value.
pub fn spread(values: &[f64]) -> Option<Spread> {
    let n = values.len();
    if n == 0 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
    Some(Spread { mean, sd, n })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: (f64, f64), low: f64, high: f64) -> bool {
        (got.0 - low).abs() < 5e-5 && (got.1 - high).abs() < 5e-5
    }

    #[test]
    fn wilson_agrees_with_published_values() {
        assert!(near(wilson(81, 263), 0.2553, 0.3662)); // Newcombe 1998, table I
        assert!(near(wilson(15, 148), 0.0624, 0.1605)); // Newcombe 1998, table I
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn one_seed_has_a_mean_and_no_spread() {
        assert_eq!(spread(&[0.5]), Some(Spread { mean: 0.5, sd: None, n: 1 }));
        assert_eq!(spread(&[]), None);
    }
}
