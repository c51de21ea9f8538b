//! The utility-and-flag score of the NLC2CMD competition (paper, NL2Bash task). Arguments do not count, and nothing is
//! run. Utilities and flags are read by `nl2bash_parse`; the released code reads them with a grammar of its own.

use super::{
    Answers, Score, each,
    nl2bash_parse::{Utility, utilities},
};
use crate::Result;

/// The mean of [`nl2bash_pair`] over the answers.
pub(super) fn score(answers: Answers<'_>) -> Result<Score> {
    Ok(Score::mean_of(each(answers, nl2bash_pair)?))
}

/// The score of a command against the true one, 0 to 1; 0 when neither holds a utility. A text of more than 8 KB, or that the
/// grammar cannot read, holds none.
///
/// # Mathematical Definition
///
/// Utilities are paired in order of appearance, the shorter list padded with nothing. U = 1 when both have the same
/// name, else 0; G and P are their sets of flags; F = (2 |G and P| - |G or P|) / max(|G|, |P|), 1 when both are empty.
/// The score is max(0, mean over the pairs of U (1 + F) / 2 - (1 - U)).
pub fn nl2bash_pair(reference: &str, response: &str) -> f64 {
    let (truth, predicted) = (utilities(reference), utilities(response));
    let pairs = truth.len().max(predicted.len());
    if pairs == 0 {
        return 0.0;
    }
    let matched: f64 = truth.iter().zip(&predicted).map(|(left, right)| pair(left, right)).sum();
    let alone = truth.len().abs_diff(predicted.len()) as f64;
    ((matched - alone) / pairs as f64).max(0.0)
}

fn pair(truth: &Utility, predicted: &Utility) -> f64 {
    if truth.name != predicted.name {
        return -1.0;
    }
    let most = truth.flags.len().max(predicted.flags.len());
    if most == 0 {
        return 1.0;
    }
    let both = truth.flags.intersection(&predicted.flags).count() as f64;
    let either = truth.flags.union(&predicted.flags).count() as f64;
    let flags = (2.0 * both - either) / most as f64;
    (1.0 + flags) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_and_order_of_flags_do_not_count() {
        assert_eq!(nl2bash_pair("ls -la a", "LS -a -l b c"), 1.0);
    }

    #[test]
    fn flags_cost_up_to_a_pair_and_utilities_more() {
        assert_eq!(nl2bash_pair("ls -l", "ls"), 0.0); // F = -1
        assert_eq!(nl2bash_pair("ls -l | wc -l", "ls -l | wc -l -c"), 0.75); // F = 0 in the second pair
        assert_eq!(nl2bash_pair("ls | wc | cat", "ls | wc"), 1.0 / 3.0);
        assert_eq!(nl2bash_pair("ls", "pwd"), 0.0); // -1, clipped
        assert_eq!(nl2bash_pair("", ""), 0.0);
    }
}
