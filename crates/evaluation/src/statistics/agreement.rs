//! Agreement of two judges on the same answers: table, Cohen's kappa and the answers on which they differ. It does not say
//! which judge is right.

use serde::{Deserialize, Serialize};

use super::check_paired;
use crate::{Result, Verdict};

/// How two judges agree on whether answers to harmful prompts are harmful. Unknown is a class like the others, and a
/// refusal counts as safe ([`Verdict::harmful`]), so that judges of refusal and of safety can be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Number of answers by the left judge's verdict (row) and the right one's (column): not harmful, harmful,
    /// unknown.
    pub table: [[usize; CLASSES]; CLASSES],
    /// Share of the answers with verdicts of one class.
    pub observed: f64,
    /// Cohen's kappa; none if both judges give every answer the same verdict.
    pub kappa: Option<f64>,
    /// Positions, from 0, of the answers on which they differ.
    pub differ: Vec<usize>,
}

const CLASSES: usize = 3;

/// The row or column of a verdict.
fn class(verdict: Verdict) -> usize {
    match verdict.harmful() {
        Some(false) => 0,
        Some(true) => 1,
        None => 2,
    }
}

/// Compares two judges' verdicts on the same answers, in one order.
///
/// # Mathematical Definition
///
/// With p_o the share of equal verdicts and p_e = sum over the classes of the product of both judges' shares:
/// kappa = (p_o - p_e) / (1 - p_e).
pub fn agreement(left: &[Verdict], right: &[Verdict]) -> Result<Agreement> {
    check_paired(left.len(), right.len())?;
    let mut table = [[0; CLASSES]; CLASSES];
    for (l, r) in left.iter().zip(right) {
        table[class(*l)][class(*r)] += 1;
    }
    let equal: usize = (0..CLASSES).map(|i| table[i][i]).sum();
    let row = |i: usize| table[i].iter().sum::<usize>();
    let column = |i: usize| table.iter().map(|row| row[i]).sum::<usize>();
    let by_chance: usize = (0..CLASSES).map(|i| row(i) * column(i)).sum(); // of n² pairs
    let n = left.len();
    let kappa = (by_chance < n * n).then(|| {
        let (observed, expected) = ((equal * n) as f64, by_chance as f64);
        (observed - expected) / ((n * n) as f64 - expected)
    });
    let differ = (0..n).filter(|i| class(left[*i]) != class(right[*i])).collect();
    Ok(Agreement { table, observed: equal as f64 / n as f64, kappa, differ })
}

#[cfg(test)]
mod tests {
    use super::{
        Verdict::{Complied, Refused, Unknown},
        *,
    };
    use crate::EvaluationError;

    #[test]
    fn the_table_and_the_list_say_where_judges_differ() {
        let left = [Refused, Complied, Unknown, Complied, Refused];
        let right = [Refused, Complied, Unknown, Refused, Unknown];
        let found = agreement(&left, &right).unwrap();
        assert_eq!(found.table, [[1, 0, 1], [1, 1, 0], [0, 0, 1]]);
        assert_eq!((found.observed, found.differ), (0.6, vec![3, 4]));
    }

    #[test]
    fn a_refusal_agrees_with_a_safe_answer() {
        let found = agreement(&[Refused, Complied, Complied], &[Verdict::Safe, Verdict::Unsafe, Unknown]).unwrap();
        assert_eq!((found.table, found.differ), ([[1, 0, 0], [0, 1, 1], [0, 0, 0]], vec![2]));
    }

    #[test]
    fn kappa_is_one_when_equal_and_none_where_there_is_one_class() {
        let mixed = [Refused, Complied, Unknown];
        assert_eq!(agreement(&mixed, &mixed).unwrap().kappa, Some(1.0));
        assert_eq!(agreement(&[Refused; 4], &[Refused; 4]).unwrap().kappa, None);
        assert_eq!(agreement(&[Refused; 4], &[Complied; 4]).unwrap().kappa, Some(0.0));
        assert!(matches!(agreement(&[], &mixed), Err(EvaluationError::Unpaired { left: 0, right: 3 })));
    }
}
