//! Methods that repair the alignment of a fine-tuned model after training: gradient-guided recovery
//! (paper section IV, Algorithm 1; METHOD.md section 3), RESTA, and control arms.
//!
//! A method is one file: a settings struct that implements [`Repair`] and is listed in [`Method`].
//! This crate takes token ids and decoders and knows nothing of text or tasks: a task's score
//! reaches it as a closure.

mod antidote;
mod checkpoint;
mod choice;
mod compensation;
mod damage;
mod distill;
mod drift;
mod eigen;
mod error;
mod evidence;
mod full_revert;
#[cfg(any(test, feature = "fuzz"))]
pub mod hostile;
mod interpolation;
mod irr;
mod largest_difference;
mod lesson;
mod matrix;
mod merit;
mod method;
mod objective;
mod patch;
mod patch_file;
mod path;
mod projections;
mod random;
mod recover;
mod region;
mod repair;
mod resta;
mod safe_delta;
mod safe_lora;
mod safe_merge;
mod selection;
mod strong;
mod tensors;
mod trace;

pub use antidote::Antidote;
pub use choice::{Point, choose};
pub use damage::{Damage, damage};
pub use direction::Layer;
pub use distill::Distill;
pub use drift::Projector;
pub use error::{Error, Result};
pub use evidence::{Answered, Evidence, MeritSettings, Parts, Reference};
pub use full_revert::FullRevert;
pub use interpolation::Interpolation;
pub use irr::Irr;
pub use largest_difference::LargestDifference;
pub use merit::Standing;
pub use method::Method;
pub use patch::Patch;
pub use patch_file::{BoundTensor, Models, PatchFile};
pub use path::Path;
pub use random::Random;
pub use recover::{GradientMode, Recover, Rollback};
pub use region::{Region, is_in_region};
pub use repair::{Gate, Inputs, Knob, Measure, Needs, Outcome, Repair, Repaired, Report, Visit};
pub use resta::Resta;
pub use safe_delta::SafeDelta;
pub use safe_lora::SafeLora;
pub use safe_merge::SafeMerge;
pub use selection::{Candidates, Selected, Ties, select};
pub use strong::Strong;
pub use trace::{
    DistillTrace, Losses, ModuleTrace, ModulesTrace, Round, StepsTrace, StrongTrace, Trace, TraceGate, TraceStep, Trial,
};
