//! McNemar's test: do two methods differ on the same samples? The exact one; there is no chi-square approximation.

use serde::{Deserialize, Serialize};

use super::check_paired;
use crate::Result;

/// Two methods' paired outcomes, and their probability if neither method is better.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct McNemar {
    /// Samples on which both are true.
    pub both: usize,
    /// Samples on which only the left one is.
    pub left_only: usize,
    /// Samples on which only the right one is.
    pub right_only: usize,
    /// Samples on which neither is.
    pub neither: usize,
    /// Two-sided p-value; 1 where the methods never differ.
    pub p_value: f64,
}

/// McNemar's exact test on two methods' outcomes of the same samples, in one order.
///
/// # Mathematical Definition
///
/// With b and c the samples on which only one is true, and m = min(b, c): p = min(1, 2 P(X <= m)), X ~ Binomial(b + c, 1/2).
pub fn mcnemar(left: &[bool], right: &[bool]) -> Result<McNemar> {
    check_paired(left.len(), right.len())?;
    let count = |pair: (bool, bool)| left.iter().zip(right).filter(|(l, r)| (**l, **r) == pair).count();
    let (left_only, right_only) = (count((true, false)), count((false, true)));
    Ok(McNemar {
        both: count((true, true)),
        left_only,
        right_only,
        neither: count((false, false)),
        p_value: exact_p(left_only, right_only),
    })
}

/// Holm's correction of p-values for their number, in their order: at a corrected p below alpha all true hypotheses
/// together are rejected with a probability of at most alpha.
///
/// # Mathematical Definition
///
/// With p_(1) <= ... <= p_(m): corrected p_(i) = max over j <= i of min(1, (m - j + 1) p_(j)) (Holm 1979).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, index) in order.into_iter().enumerate() {
        largest = largest.max((p_values.len() - rank) as f64 * p_values[index]).min(1.0);
        corrected[index] = largest;
    }
    corrected
}

/// The two-sided p-value, from the largest term of the tail downwards, which starts from its logarithm so that 2^-n does not underflow.
fn exact_p(b: usize, c: usize) -> f64 {
    let (n, m) = (b + c, b.min(c));
    let log_choose: f64 = (1..=m).map(|i| ((n - m + i) as f64 / i as f64).ln()).sum();
    let mut term = (log_choose - n as f64 * std::f64::consts::LN_2).exp();
    let mut tail = term;
    for i in (1..=m).rev() {
        term *= i as f64 / (n - i + 1) as f64;
        tail += term;
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EvaluationError;

    #[test]
    fn samples_are_counted_by_pair_of_outcomes() {
        let left = [true, true, true, false, false, false, true];
        let right = [true, false, false, true, false, false, false];
        let test = mcnemar(&left, &right).unwrap();
        assert_eq!((test.both, test.left_only, test.right_only, test.neither), (1, 3, 1, 2));
        assert!((test.p_value - 0.625).abs() < 1e-12); // 2 (1 + 4) / 16
    }

    #[test]
    fn methods_that_never_differ_have_a_p_of_one() {
        assert_eq!(mcnemar(&[true, false], &[true, false]).unwrap().p_value, 1.0);
        assert!(matches!(mcnemar(&[true], &[]), Err(EvaluationError::Unpaired { left: 1, right: 0 })));
    }

    #[test]
    fn holms_correction_keeps_the_order_of_the_p_values() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005, 0.9), "holm")
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005, 0.9]);
        for (got, expected) in corrected.iter().zip([0.04, 0.09, 0.09, 0.025, 0.9]) {
            assert!((got - expected).abs() < 1e-12, "{corrected:?}");
        }
        assert!(holm(&[]).is_empty());
        assert_eq!(holm(&[0.6, 0.7]), [1.0, 1.0]);
    }

    #[test]
    fn thousands_of_differences_do_not_underflow() {
        let p = exact_p(2_000, 2_100);
        assert!(0.11 < p && p < 0.13, "{p}"); // the normal distribution says 0.1219
        assert_eq!(exact_p(0, 5_000), 0.0);
    }
}
