//! Fine-tuning: LoRA or all weights, injected harmful samples, alignment of a model that refuses
//! too little (paper section IV-A and METHOD.md section 1), and the baseline SoftSFT (section 5).
//!
//! Token ids and loss masks come in, a decoder with dense weights goes out. Knows nothing of text,
//! templates or files of prompts.

pub mod align;
pub mod batch;
mod checkpoint;
pub mod error;
pub mod inject;
pub mod lora;
pub mod objective;
mod optimizer;
pub mod pretrain;
pub mod reference;
pub mod settings;
pub mod soft_sft;
pub mod trainer;

pub use align::{AlignSettings, align};
pub use batch::TrainBatch;
pub use error::{Error, Result};
pub use inject::{inject, not_injected};
pub use lora::{LoraSettings, Target};
pub use objective::Objective;
pub use pretrain::init_random;
pub use reference::ReferenceLogProbs;
pub use settings::{Method, TrainSettings};
pub use soft_sft::{SoftSftSettings, soft_sft};
pub use trainer::{StepReport, Trained, Trainer, Training, train};

/// A seed for the `number`-th use of `seed`: the finaliser of SplitMix64, the same everywhere.
pub(crate) fn derived_seed(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
