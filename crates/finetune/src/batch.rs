//! Samples to one pack for the decoder, with the positions whose logits the loss needs.
//!
//! Nothing is padded, and logits are computed for no other position (paper section IV-A: the loss
//! is on the response tokens only).

use model::Packed;
use prompts::tokenizer::Encoded;

use crate::{Error, Result};

/// The samples of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainBatch {
    /// The ids, a shared prefix stored once.
    pub packed: Packed,
    /// Pack positions from which the response tokens are predicted, ascending.
    pub positions: Vec<usize>,
    /// The response token that follows each of them.
    pub targets: Vec<u32>,
    /// The sample each target belongs to.
    pub sample_of: Vec<usize>,
    /// Which of its sample's response tokens each target is, from 1.
    pub token_of: Vec<usize>,
    /// Tokens of all samples, a shared prefix counted for each.
    pub tokens: usize,
}

impl TrainBatch {
    /// Packs the samples at `indices` of `examples`.
    ///
    /// # Errors
    /// When there is none, or one of them has no response token.
    ///
    /// # Panics
    /// When an index is not below the number of examples.
    pub fn new(examples: &[Encoded], indices: &[usize]) -> Result<Self> {
        let rows: Vec<&[u32]> = indices.iter().map(|&index| examples[index].ids.as_slice()).collect();
        let mut limit = usize::MAX;
        for &index in indices {
            let first = first_target(index, &examples[index])?;
            limit = limit.min(first - 1); // the position before the first target is the row's own
        }
        let packed = Packed::with_prefix_limit(&rows, limit)?;
        let mut batch = Self {
            packed,
            positions: vec![],
            targets: vec![],
            sample_of: vec![],
            token_of: vec![],
            tokens: rows.iter().map(|row| row.len()).sum(),
        };
        for (row, &index) in indices.iter().enumerate() {
            let Encoded { ids, loss_mask, .. } = &examples[index];
            for (token, at) in (1..ids.len()).filter(|&at| loss_mask[at]).enumerate() {
                batch.positions.push(batch.packed.index(row, at - 1));
                batch.targets.push(ids[at]);
                batch.sample_of.push(index);
                batch.token_of.push(token + 1);
            }
        }
        Ok(batch)
    }
}

/// The first position whose token counts in the loss and is predicted from another.
pub(crate) fn first_target(index: usize, example: &Encoded) -> Result<usize> {
    let (ids, mask) = (example.ids.len(), example.loss_mask.len());
    if ids != mask {
        return Err(Error::MaskLength { example: index, ids, mask });
    }
    (1..ids).find(|&at| example.loss_mask[at]).ok_or(Error::NoResponse { example: index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trainer::tests::sample;

    #[test]
    fn each_response_token_is_predicted_from_the_token_before_it() {
        let examples = [sample(&[1, 2, 3, 4, 5], 3), sample(&[9, 9], 1), sample(&[1, 2, 3, 7], 3)];
        let batch = TrainBatch::new(&examples, &[0, 2]).unwrap();
        // The prefix would be 1 2 3, but 3 predicts the first response tokens.
        assert_eq!(batch.packed.ids, [1, 2, 3, 4, 5, 3, 7]);
        assert_eq!(batch.positions, [2, 3, 5]);
        assert_eq!(batch.targets, [4, 5, 7]);
        assert_eq!(batch.sample_of, [0, 0, 2]);
        assert_eq!(batch.token_of, [1, 2, 1]);
        assert_eq!(batch.tokens, 9);
    }

    #[test]
    fn a_sample_without_response_is_named() {
        let examples = [sample(&[1, 2], 1), sample(&[1, 2], 2)];
        let error = TrainBatch::new(&examples, &[0, 1]).unwrap_err().to_string();
        assert!(error.contains("sample 1 "), "{error}");
        let mut torn = sample(&[1, 2, 3], 1);
        torn.loss_mask.pop();
        assert!(TrainBatch::new(&[torn], &[0]).unwrap_err().to_string().contains("3 ids but a loss mask of 2"));
    }
}
