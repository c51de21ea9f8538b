//! What is measured.

use model::Dtype;

/// A stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// A step of the paper's recovery: 64 prompts, 20 of 30 blocks, gradient, selection, restoration and counting.
    Recovery,
    /// Selection, restoration and counting by given gradients, all blocks.
    Selection,
    /// The harmful direction of 64 prompts.
    Direction,
    /// Greedy answers of 32 tokens, 8 prompts one by one.
    Answer1,
    /// Greedy answers of 32 tokens to 64 prompts at once.
    Answer64,
    /// A LoRA step on 8 samples, all seven projections.
    Lora,
}

impl Stage {
    /// The word on the command line, and the name of the peer's script.
    pub fn word(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Selection => "selection",
            Self::Direction => "direction",
            Self::Answer1 => "answer1",
            Self::Answer64 => "answer64",
            Self::Lora => "lora",
        }
    }

    /// The precisions of weights, in which the peer computes, too; the faster one of either side counts.
    pub fn dtypes(self) -> &'static [Dtype] {
        match self {
            Self::Answer1 | Self::Answer64 => &[Dtype::F32, Dtype::Bf16],
            _ => &[Dtype::F32],
        }
    }
}
