//! One model: the stages of the method as values over model directories.
//!
//! Each stage reads Hugging Face directories and JSONL files and writes the same; the `realign` command and the sweep
//! runner are two callers of these stages. [`Recovery`] is the whole way from two models to a repaired one with its
//! report; one stage of it, from a program of one's own:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use realign::stage::Repair;
//! use realign::{Artifact, DeviceName, Job, Pick, Progress, Samples, Stage as _};
//! use recovery::{Recover, Rollback};
//!
//! # fn main() -> realign::Result<()> {
//! let (device, hashes) = (DeviceName::Flex.open()?, files::Hashes::default());
//! let stage = Repair {
//!     method: Recover { steps: 10, rollback: Rollback::Off, ..Recover::default() }.into(),
//!     aligned: Artifact::model(Path::new("aligned"), &hashes)?,
//!     fine_tuned: Artifact::model(Path::new("fine-tuned"), &hashes)?,
//!     unaligned: None,
//!     base: None,
//!     safe: None,
//!     recovery: None,
//!     prompts: Some(Samples::of(Path::new("harmful-prompts.jsonl"), Pick::default(), &hashes)?),
//!     task: None,
//!     evidence: None,
//!     answers: None,
//!     choose: None,
//!     gate: None, // with samples here the task's score decides about rollback and the answer
//!     seed: 1,
//!     dtype: None,
//!     thinking: None,
//!     probe: 16,
//! };
//! let mut report = |step: Progress<'_>| {
//!     println!("{} of {}: {}", step.done, step.all, step.word);
//!     ControlFlow::Continue(()) // a break stops; the same stage in the same directory goes on from there
//! };
//! let mut job = Job { device: &device, batch: 64, max_shard: None, earlier: Vec::new(), report: &mut report };
//! let summary = stage.run(Path::new("work"), &mut job)?; // the model is in work/model
//! println!("{}", summary.note);
//! # Ok(())
//! # }
//! ```

mod answers;
mod args;
pub mod device;
mod error;
mod evidence;
mod guard;
pub mod hub;
mod input;
pub mod interrupt;
mod job;
pub mod log;
mod model;
pub mod needs;
mod notes;
mod place;
mod reader;
mod refusal;
pub mod repair;
pub mod stage;

pub use answers::{How, Start, Wanted, answer_files, answers};
pub use args::{at_least_one, metric_names, up_to};
pub use device::DeviceName;
pub use error::{Error, Result, Within};
pub use evidence::{Evidence, Parts};
pub use guard::{ToJudge, check_judge, identity, judge_sets};
pub use input::{Artifact, Pick, Samples, Split};
pub use interrupt::Interrupt;
pub use job::{Job, Progress, Report};
pub use model::{LazyModel, Model, Source, encode_samples, save};
pub use place::{check_new, check_room};
pub use repair::{Recovered, Recovery};
pub use stage::Stage;
