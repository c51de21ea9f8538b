//! Model loading and the one decoder that all families share.
//!
//! Token ids go in, hidden states, logits or token ids come out; this crate never sees text.
//! Rows of a batch are packed one behind the other without padding ([`Packed`]), a prefix that all
//! rows share is computed once, and only the positions whose output is used go through the last
//! block and the head.

mod ablation;
pub mod attention;
pub mod block;
pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod dtype;
pub mod error;
pub mod generate;
mod lanes;
pub mod linear;
pub mod mlp;
pub mod norm;
pub mod ops;
pub mod packed;
pub mod rope;
pub mod sampling;
pub mod walk;
pub mod weights;

pub use block::Input;
pub use config::DecoderConfig;
pub use decoder::Decoder;
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use lanes::in_lanes;
pub use linear::{Linear, Lora};
pub use packed::{Packed, Segments};
pub use sampling::{Draw, Sampling};
pub use walk::Walk;
