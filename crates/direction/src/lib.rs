//! Hidden state at the direction layer, mean direction, cosine loss and its gradient
//! (paper section IV-A and IV-B; METHOD.md section 2).
//!
//! This crate takes token ids and knows nothing of text, tasks or which weights are restored.

mod error;
mod gradient;
mod layer;
mod mean;

pub use error::{Error, Result};
pub use gradient::{Objective, accumulate};
pub use layer::Layer;
pub use mean::{check_layer, cosine, hidden_states, mean_direction, refusal_direction};

/// Splits consecutive groups of rows into runs of at most `most` ids, at least one group each.
pub(crate) fn runs<'a>(groups: &[&'a [Vec<u32>]], most: usize) -> Vec<Vec<&'a [Vec<u32>]>> {
    let mut runs: Vec<Vec<&[Vec<u32>]>> = Vec::new();
    let mut held = 0;
    for &group in groups {
        let ids: usize = group.iter().map(Vec::len).sum();
        match runs.last_mut() {
            Some(run) if held + ids <= most => run.push(group),
            _ => {
                runs.push(vec![group]);
                held = 0;
            }
        }
        held += ids;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_keep_groups_whole_and_in_order() {
        let group = |len: usize| vec![vec![0u32; len]; 2];
        let (a, b, c) = (group(1000), group(500), group(4000));
        let runs = runs(&[&a, &b, &c], 3072);
        assert_eq!(runs.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }
}
