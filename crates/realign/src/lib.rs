//! One model: the stages of the method as values over model directories.
//!
//! Each stage reads Hugging Face directories and JSONL files and writes the same; the `realign` command and the sweep
//! runner are two callers of these stages.

mod answers;
pub mod device;
mod error;
mod guard;
mod input;
pub mod interrupt;
mod job;
pub mod log;
mod model;
pub mod stage;

pub use answers::{Wanted, answer_files, answers};
pub use device::DeviceName;
pub use error::{Error, Result, Within};
pub use guard::{ToJudge, identity, judge_sets};
pub use input::{Artifact, Pick, Samples, Split};
pub use interrupt::Interrupt;
pub use job::{Job, Progress, Report};
pub use model::{LazyModel, Model, Source, encode_samples, save};
pub use stage::Stage;
