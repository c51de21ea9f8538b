//! How two models differ before a repair: their weights by block, and how they read text.

use std::collections::BTreeMap;

use model::Decoder;
use model::weights::{self, Weight};
use prompts::Sample;
use serde::{Deserialize, Serialize};

use crate::{Model, Result};

/// Two models that differ by a larger share of the aligned one's norm are hardly one before and after fine-tuning.
const UNRELATED: f64 = 0.7;

/// How the fine-tuned model differs from the aligned one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Whether both make the same tokens of the same text.
    pub tokenizers_equal: bool,
    /// Whether both put a prompt into the same frame.
    pub templates_equal: bool,
    /// Weights that both have.
    pub weights: usize,
    /// Those that differ.
    pub changed: usize,
    /// Those of them that recovery can change: weights of blocks but for norms.
    #[serde(default)]
    pub restorable: usize,
    /// Euclidean norm of the difference.
    pub norm: f64,
    /// What is outside the blocks first, then block by block.
    pub blocks: Vec<BlockDifference>,
}

/// The same of a block.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BlockDifference {
    /// The block, counted from 0; none for embedding, final norm and head.
    pub block: Option<usize>,
    /// Weights.
    pub weights: usize,
    /// Those that differ.
    pub changed: usize,
    /// Euclidean norm of the difference.
    pub norm: f64,
    /// Euclidean norm of the aligned model's weights.
    pub aligned_norm: f64,
}

impl Comparison {
    /// Compares two models of one shape; tensors that one of them has not are left out. `all_tensors`: recovery may change what
    /// is outside the blocks.
    ///
    /// # Errors
    /// When the device fails, or a template does.
    pub(super) fn new(aligned: &Model, fine_tuned: &Model, samples: &[Sample], all_tensors: bool) -> Result<Self> {
        let (blocks, restorable) = blocks(&aligned.decoder, &fine_tuned.decoder, all_tensors)?;
        let encode = |model: &Model| samples.iter().map(|one| model.tokenizer.encode(&one.prompt)).collect();
        let [ours, theirs]: [Result<Vec<_>, prompts::Error>; 2] = [encode(aligned), encode(fine_tuned)];
        let tokenizers_equal = ours? == theirs?;
        let frame = |model: &Model| model.encode_prompts(samples);
        Ok(Self {
            tokenizers_equal,
            templates_equal: frame(aligned)? == frame(fine_tuned)?,
            weights: blocks.iter().map(|block| block.weights).sum(),
            changed: blocks.iter().map(|block| block.changed).sum(),
            restorable,
            norm: blocks.iter().map(|block| block.norm.powi(2)).sum::<f64>().sqrt(),
            blocks,
        })
    }

    /// The norm of the difference as a share of that of the aligned model.
    pub(super) fn share(&self) -> f64 {
        let aligned = self.blocks.iter().map(|block| block.aligned_norm.powi(2)).sum::<f64>().sqrt();
        self.norm / aligned
    }

    /// A warning where the models are too far from each other for one to be made of the other: two that are unrelated differ by
    /// about √2 of the norm of one, and a fine-tuning by a few percent.
    pub(super) fn unrelated(&self) -> Option<String> {
        let share = self.share();
        (share > UNRELATED).then(|| {
            format!(
                "the norm of the difference is {:.0} % of that of the aligned model, which no fine-tuning reaches: was the \
                 fine-tuned model made of another one?",
                100.0 * share
            )
        })
    }

    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let share = |changed: usize, of: usize| 100.0 * changed as f64 / of.max(1) as f64;
        let mut text = format!(
            "the models differ in {:.1} % of {:.1} M weights, by a norm of {:.3}\n",
            share(self.changed, self.weights),
            self.weights as f64 / 1e6,
            self.norm
        );
        for block in &self.blocks {
            let name = block.block.map_or("outside blocks".to_owned(), |block| format!("block {block}"));
            text += &format!(
                "  {name:<15} norm {:>9.4} of {:>9.2}   changed {:>5.1} %\n",
                block.norm,
                block.aligned_norm,
                share(block.changed, block.weights)
            );
        }
        let word = |equal| if equal { "equal" } else { "DIFFERENT" };
        text += &format!("tokenizers {}, templates {}", word(self.tokenizers_equal), word(self.templates_equal));
        text
    }
}

/// The differences, and the number of weights that recovery can change.
fn blocks(aligned: &Decoder, fine_tuned: &Decoder, all_tensors: bool) -> Result<(Vec<BlockDifference>, usize)> {
    let mut tensors: BTreeMap<String, Weight> = BTreeMap::new();
    weights::visit(aligned, |weight| drop(tensors.insert(weight.info.name.clone(), weight)));
    let mut pairs = Vec::new();
    weights::visit(fine_tuned, |weight| {
        let other = tensors.remove(&weight.info.name).filter(|other| other.info.shape == weight.info.shape);
        pairs.extend(other.map(|other| (other, weight)));
    });
    let mut sums: BTreeMap<Option<usize>, BlockDifference> = BTreeMap::new();
    let mut restorable = 0;
    for (aligned, fine_tuned) in pairs {
        let block = aligned.info.layer;
        let can_restore = all_tensors || recovery::is_in_region(&aligned.info, usize::MAX);
        let sum = sums.entry(block).or_insert_with(|| BlockDifference { block, ..BlockDifference::default() });
        let (aligned, fine_tuned) = (aligned.values()?, fine_tuned.values()?);
        sum.weights += aligned.len();
        for (a, b) in aligned.iter().map(|&a| f64::from(a)).zip(fine_tuned.iter().map(|&b| f64::from(b))) {
            sum.changed += usize::from(a != b);
            restorable += usize::from(can_restore && a != b);
            sum.norm += (a - b).powi(2);
            sum.aligned_norm += a * a;
        }
    }
    let rooted = sums.into_values().map(|sum| BlockDifference {
        norm: sum.norm.sqrt(),
        aligned_norm: sum.aligned_norm.sqrt(),
        ..sum
    });
    Ok((rooted.collect(), restorable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_are_further_from_each_other_than_a_fine_tuning_goes_are_unrelated() {
        let of = |norms: [f64; 2]| {
            let block = |norm| BlockDifference { norm, aligned_norm: 10.0, ..BlockDifference::default() };
            Comparison {
                tokenizers_equal: true,
                templates_equal: true,
                weights: 2,
                changed: 2,
                restorable: 2,
                norm: norms[0].hypot(norms[1]),
                blocks: norms.map(block).to_vec(),
            }
        };
        assert!((of([3.0, 4.0]).share() - 5.0 / 200.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!(of([3.0, 4.0]).unrelated(), None);
        // As two random models of one size.
        let said = of([200.0_f64.sqrt(); 2]).unrelated().unwrap_or_default();
        assert!(said.contains("is 141 % of that of the aligned model"), "{said}");
    }
}
