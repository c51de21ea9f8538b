//! The interval of the difference of two shares of the same samples. It holds for few samples, too, where a bootstrap says that
//! nothing can differ which does not differ among them.

use super::{Estimate, check_paired, wilson};
use crate::Result;

/// The share of samples on which the left outcome is true, less that of the right one, with Newcombe's 95 % interval: two
/// methods' outcomes of the same samples, in one order.
///
/// # Mathematical Definition
///
/// Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
/// Statistics in Medicine 17, 2635-2650, method 10. With a, b, c, d the samples on which both, the left, the right, and neither are
/// true, p1 = (a + b) / n and p2 = (a + c) / n with their Wilson intervals (l1, u1) and (l2, u2), and D = p1 - p2:
///
/// D - √((p1 - l1)² - 2 φ (p1 - l1)(u2 - p2) + (u2 - p2)²) to D + √((u1 - p1)² - 2 φ (u1 - p1)(p2 - l2) + (p2 - l2)²),
///
/// φ = C / √((a + b)(c + d)(a + c)(b + d)), 0 where that divides by 0, with C = ad - bc where it is below 0, ad - bc - n / 2 where
/// this is above 0, and 0 between them.
///
/// # Errors
/// When there are no samples, or not as many of one as of the other.
pub fn newcombe(left: &[bool], right: &[bool]) -> Result<Estimate> {
    check_paired(left.len(), right.len())?;
    let count = |pair: (bool, bool)| left.iter().zip(right).filter(|(l, r)| (**l, **r) == pair).count();
    let [both, left_only, right_only, neither] =
        [(true, true), (true, false), (false, true), (false, false)].map(count);
    let n = left.len();
    let share = |count: usize| count as f64 / n as f64;
    let (p1, p2) = (share(both + left_only), share(both + right_only));
    let ((l1, u1), (l2, u2)) = (wilson(both + left_only, n), wilson(both + right_only, n));
    let [a, b, c, d] = [both, left_only, right_only, neither].map(|count| count as f64);
    let product = (a + b) * (c + d) * (a + c) * (b + d);
    let excess = a * d - b * c;
    let corrected = if excess < 0.0 { excess } else { (excess - n as f64 / 2.0).max(0.0) };
    let phi = if product > 0.0 { corrected / product.sqrt() } else { 0.0 };
    // Rounding may make the sum of squares fall below 0 where they cancel.
    let side = |own: f64, other: f64| (own * own - 2.0 * phi * own * other + other * other).max(0.0).sqrt();
    let value = p1 - p2;
    Ok(Estimate { value, interval: (value - side(p1 - l1, u2 - p2), value + side(u1 - p1, p2 - l2)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EvaluationError;

    /// Of samples on which both, the left, the right, and neither are true.
    fn of(counts: [usize; 4]) -> Estimate {
        let pairs = [(true, true), (true, false), (false, true), (false, false)];
        let (left, right): (Vec<bool>, Vec<bool>) =
            pairs.iter().zip(counts).flat_map(|(&pair, count)| vec![pair; count]).unzip();
        newcombe(&left, &right).unwrap()
    }

    fn near(found: Estimate, value: f64, low: f64, high: f64) {
        let of = [(found.value, value), (found.interval.0, low), (found.interval.1, high)];
        assert!(of.iter().all(|(got, expected)| (got - expected).abs() < 5e-4), "{found:?}");
    }

    #[test]
    fn it_agrees_with_published_values() {
        // Fagerland, Lydersen and Laake 2014, airway hyper-responsiveness of 21 children
        near(of([1, 1, 7, 12]), -0.286, -0.507, -0.026);
    }

    #[test]
    fn one_sample_shows_next_to_nothing_and_many_that_agree_show_more() {
        let wilson_of_none = |n: usize| wilson(0, n).1;
        for counts in [[1, 0, 0, 0], [0, 0, 0, 1]] {
            near(of(counts), 0.0, -wilson_of_none(1), wilson_of_none(1)); // 79.3 points
        }
        near(of([0, 0, 0, 100]), 0.0, -wilson_of_none(100), wilson_of_none(100));
        // By hand: Wilson of 25 in 100 is 0.1755 to 0.3430, φ = (1875 - 50) / 1875.
        near(of([25, 0, 0, 75]), 0.0, -0.0267, 0.0267);
        // By hand: Wilson of 49 and of 50 in 100, φ = (2450 - 50) / √(50 · 50 · 49 · 51).
        near(of([49, 1, 0, 50]), 0.01, -0.0172, 0.0371);
        near(of([0, 30, 0, 0]), 1.0, 0.8395, 1.0);
    }

    #[test]
    fn left_and_right_are_mirrored() {
        let (one, other) = (of([3, 5, 2, 7]), of([3, 2, 5, 7]));
        near(one, -other.value, -other.interval.1, -other.interval.0);
        assert!(matches!(newcombe(&[], &[]), Err(EvaluationError::NoAnswers)));
        assert!(matches!(newcombe(&[true], &[]), Err(EvaluationError::Unpaired { left: 1, right: 0 })));
    }
}
