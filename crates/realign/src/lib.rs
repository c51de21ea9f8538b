//! One model: the stages of the method as functions over model directories.
//!
//! Each stage reads Hugging Face directories and JSONL files and writes the same; the `realign`
//! command and the sweep runner are two callers of these functions.

pub mod device;
pub mod loaded;
pub mod log;
pub mod stage;

pub use device::{Compute, DeviceName};
pub use loaded::Loaded;
