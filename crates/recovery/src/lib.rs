//! Gradient-guided recovery of alignment (paper section IV, Algorithm 1; METHOD.md section 3).
//!
//! Weights of the fine-tuned model whose descent step would move them towards the aligned model
//! are restored to it, the largest gradients first. This crate takes token ids and decoders and
//! knows nothing of text or tasks: a task's score reaches [`recover`] as a closure.

mod control;
mod error;
mod patch;
mod region;
mod resta;
mod restore;
mod rollback;
mod selection;
mod settings;
mod state;
mod trace;

pub use control::{Control, control};
pub use error::{Error, Result};
pub use patch::Patch;
pub use region::{Region, is_in_region};
pub use resta::{RestaSettings, resta};
pub use restore::{Inputs, Measure, Outcome, Recovered, Run, recover};
pub use selection::{Selected, select};
pub use settings::{GradientMode, Profile, RecoverySettings, Ties};
pub use trace::{Trace, TraceGate, TraceStep};
