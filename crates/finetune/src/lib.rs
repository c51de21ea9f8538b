//! Fine-tuning: LoRA or all weights, injected harmful samples, alignment of a model that refuses
//! too little (paper section IV-A and METHOD.md section 1), and the baseline SoftSFT (section 5).
//!
//! Token ids and loss masks come in, a decoder with dense weights goes out. Knows nothing of text,
//! templates or files of prompts.

pub mod batch;
mod checkpoint;
pub mod error;
pub mod evasion;
#[cfg(any(test, feature = "fuzz"))]
pub mod hostile;
pub mod inject;
pub mod lora;
pub mod objective;
mod optimizer;
pub mod pretrain;
pub mod reference;
pub mod runs;
pub mod settings;
pub mod shown;
pub mod soft_sft;
pub mod trainer;

pub use batch::TrainBatch;
pub use error::{Error, Result};
pub use evasion::Evasion;
pub use inject::{inject, not_injected};
pub use lora::{LoraSettings, Target};
pub use objective::Objective;
pub use pretrain::init_random;
pub use reference::ReferenceLogProbs;
pub use runs::{AlignData, AlignSettings, Run, SoftSft, align, evade, soft_sft, train};
pub use settings::TrainSettings;
pub use shown::{are_rising, train_shown};
pub use soft_sft::SoftSftSettings;
pub use trainer::{StepReport, Trained, Trainer, Training};
