//! Methods that repair the alignment of a fine-tuned model after training: gradient-guided recovery
//! (paper section IV, Algorithm 1; METHOD.md section 3), RESTA, and control arms.
//!
//! A method is one file: a settings struct that implements [`Repair`] and is listed in [`Method`] (`methods.rs`).
//! This crate takes token ids and decoders and knows nothing of text or tasks: a task's score
//! reaches it as a closure.

mod checkpoint;
mod choice;
mod compensation;
mod damage;
mod drift;
mod eigen;
mod error;
mod evidence;
#[cfg(any(test, feature = "fuzz"))]
pub mod hostile;
mod lesson;
mod matrix;
mod merit;
mod methods;
mod objective;
mod patch;
mod patch_file;
mod path;
mod projections;
mod region;
mod repair;
mod selection;
mod tensors;
mod trace;

pub use choice::{Choice, Point, choose};
pub use damage::{Damage, damage};
pub use direction::Layer;
pub use drift::Projector;
pub use error::{Error, Result};
pub use evidence::{Answered, Evidence, MeritSettings, Parts, Reference};
pub use merit::Standing;
pub use methods::*;
pub use patch::Patch;
pub use patch_file::{BoundTensor, Models, PatchFile};
pub use path::Path;
pub use region::{Region, is_in_region};
pub use repair::{Gate, Inputs, Knob, Measure, Needs, Outcome, Repair, Repaired, Report, Visit};
pub use selection::{Candidates, Selected, Ties, select};
pub use trace::{
    DistillTrace, Losses, ModuleTrace, ModulesTrace, Round, StepsTrace, StrongTrace, Trace, TraceGate, TraceStep, Trial,
};
