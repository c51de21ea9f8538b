//! The least that a stage must do, in operations and in bytes.

use std::path::Path;

use anyhow::Result;
use model::{DecoderConfig, Packed};

use crate::plan::Plan;
use crate::stage::Stage;

/// Work that no implementation with arithmetic in f32 can leave out.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// Multiplications and additions.
    pub operations: f64,
    /// Bytes read and written, activations left out.
    pub bytes: f64,
}

/// Weights of a model, by what reads them.
struct Weights {
    blocks: f64,
    /// Of one block.
    block: f64,
    /// Of one block, for keys and values.
    key_value: f64,
    head: f64,
}

/// The floor of a stage.
pub fn of(stage: Stage, plan: &Plan) -> Result<Floor> {
    let weights = Weights::of(&plan.aligned)?;
    let rows = plan.rows.len() as f64;
    let positions = |rows: &[Vec<u32>]| -> Result<f64> { Ok(Packed::new(rows)?.ids.len() as f64) };
    // Of the last block, all positions need keys and values alone.
    let upto = |blocks: f64, weights: &Weights, positions: f64, used: f64| {
        (blocks - 1.0) * weights.block * positions
            + weights.key_value * positions
            + (weights.block - weights.key_value) * used
    };
    let layers = plan.layer as f64;
    let region = layers * weights.block;
    let of_weight = plan.weight_bytes as f64;
    Ok(match stage {
        Stage::Recovery => Floor {
            // Forward, and in the backward by input and by weight.
            operations: 6.0 * upto(layers, &weights, positions(&plan.rows)?, rows),
            // Weights twice, sums read and written, and the selection's three arrays, two of weights.
            bytes: region * (4.0 * of_weight + 4.0 * 3.0),
        },
        Stage::Selection => {
            Floor { operations: 0.0, bytes: (2.0 * of_weight + 4.0) * plan.sizes.iter().sum::<usize>() as f64 }
        }
        Stage::Direction => {
            Floor { operations: 2.0 * upto(layers, &weights, positions(&plan.rows)?, rows), bytes: of_weight * region }
        }
        Stage::Answer1 | Stage::Answer64 => {
            let batch = if stage == Stage::Answer1 { 1 } else { plan.rows.len() };
            let asked = &plan.rows[..if stage == Stage::Answer1 { ONE_BY_ONE } else { batch }];
            let prefill = asked.chunks(batch).map(positions).sum::<Result<f64>>()?;
            let new = (asked.len() * (plan.new_tokens - 1)) as f64;
            let passes = (asked.len().div_ceil(batch) * plan.new_tokens) as f64;
            Floor {
                operations: 2.0
                    * (upto(weights.blocks, &weights, prefill, asked.len() as f64)
                        + weights.blocks * weights.block * new
                        + weights.head * (new + asked.len() as f64)),
                bytes: of_weight * passes * (weights.blocks * weights.block + weights.head),
            }
        }
        Stage::Lora => {
            let all = plan.samples.iter().map(Vec::len).sum::<usize>() as f64;
            let answers = all - plan.starts.iter().sum::<usize>() as f64;
            Floor {
                // Forward and by input; the adapters are small.
                operations: 4.0 * (upto(weights.blocks, &weights, all, answers) + weights.head * answers),
                bytes: 2.0 * of_weight * (weights.blocks * weights.block + weights.head),
            }
        }
    })
}

/// Prompts that are answered one by one.
pub const ONE_BY_ONE: usize = 8;

impl Weights {
    fn of(dir: &Path) -> Result<Self> {
        let config = DecoderConfig::from_dir(dir)?;
        let (d, f) = (config.hidden_size as f64, config.intermediate_size as f64);
        let heads = |count: usize| (count * config.head_dim) as f64;
        let key_value = 2.0 * d * heads(config.num_key_value_heads);
        Ok(Self {
            blocks: config.num_hidden_layers as f64,
            block: 2.0 * d * heads(config.num_attention_heads) + key_value + 3.0 * d * f,
            key_value,
            head: d * config.vocab_size as f64,
        })
    }
}
