//! What a method is: settings that say what they need and make a repaired model of it.

use std::ops::ControlFlow;
use std::path::PathBuf;

use model::Decoder;
use serde::{Deserialize, Serialize};

use crate::{Error, Evidence, Patch, Path, Result, Standing, Trace};

/// A method's settings, which can be applied to a fine-tuned model.
pub trait Repair {
    /// What [`apply`](Self::apply) reads of its inputs besides the aligned and the fine-tuned model.
    fn needs(&self) -> Needs;

    /// Checks all ranges.
    ///
    /// # Errors
    /// Names the first setting that is out of its range.
    fn check(&self) -> Result<()>;

    /// The setting that decides how much is done, if there is one, with its values from little to much; it has no values if every
    /// step of a path is a point.
    fn knob(&self) -> Option<Knob> {
        None
    }

    /// Whether the answer says which weights were restored, so that a patch file can hold them.
    fn has_patch(&self) -> bool {
        false
    }

    /// Raised when the code makes something else of the same settings and inputs.
    fn version(&self) -> u32 {
        0
    }

    /// Repairs the fine-tuned model.
    ///
    /// # Errors
    /// When a setting is out of its range, an input is missing, the models differ in shape, a loss is not
    /// finite, the task cannot be scored, the checkpoint cannot be used, or the report stops the work
    /// ([`Error::Stopped`]).
    fn apply(&self, inputs: Inputs<'_>) -> Result<Repaired>;

    /// Repairs with each value of the knob and hands the results to `visit`, in order, where they have work in common. False,
    /// with nothing done, where each is a run of its own.
    ///
    /// # Errors
    /// As [`apply`](Self::apply), and what `visit` returns.
    fn sweep(&self, _inputs: &mut Inputs<'_>, _visit: &mut Visit<'_>) -> Result<bool> {
        Ok(false)
    }
}

/// Gets the result of each value of a knob, and where to report.
pub type Visit<'a> = dyn FnMut(Repaired, &mut Report<'_>) -> Result<()> + 'a;

/// A setting that decides how much a method does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Knob {
    /// The setting.
    pub key: &'static str,
    /// The values that are tried.
    pub values: &'static [f64],
}

/// What a method reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// The recovery prompts.
    pub prompts: bool,
    /// The task's training prompts.
    pub task_prompts: bool,
    /// The unaligned model.
    pub unaligned: bool,
    /// The model before alignment.
    pub base: bool,
    /// The safe model.
    pub safe: bool,
    /// The number of weights that a recovery restored.
    pub recovery: bool,
    /// Answered harmful, harmless and task prompts.
    pub evidence: bool,
}

/// The task's score of a decoder, 0 or more and higher is better, on a split that is not reported. It may stop the work
/// with [`Error::Stopped`].
pub type Measure<'a> = dyn FnMut(&Decoder) -> std::result::Result<f64, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// Called after each step with the number of steps done, of all, and a word on it; on a break the checkpoint is written and
/// the work stops.
pub type Report<'a> = dyn FnMut(usize, usize, &str) -> ControlFlow<()> + 'a;

/// What a method works on. A method reads what it [needs](Needs) and leaves the rest.
pub struct Inputs<'a> {
    /// The aligned model.
    pub aligned: &'a Decoder,
    /// The fine-tuned model.
    pub fine_tuned: &'a Decoder,
    /// The aligned model after fine-tuning on harmful samples alone.
    pub unaligned: Option<&'a Decoder>,
    /// The model that the aligned one was made from.
    pub base: Option<&'a Decoder>,
    /// The aligned model after fine-tuning on refusals of harmful prompts and answers to harmless ones.
    pub safe: Option<&'a Decoder>,
    /// Token ids of the recovery prompts.
    pub prompts: Vec<Vec<u32>>,
    /// The same as the aligned model reads them, where that is not `prompts`; empty otherwise.
    pub aligned_prompts: Vec<Vec<u32>>,
    /// Token ids of the task's training prompts; empty when there are none.
    pub task_prompts: Vec<Vec<u32>>,
    /// The number of weights that a recovery of this model restored.
    pub recovered: Option<usize>,
    /// Answered prompts, of the three kinds.
    pub evidence: Option<&'a Evidence>,
    /// Decides what is drawn at random.
    pub seed: u64,
    /// The task's score, which decides rollback and the answer of a recovery.
    pub gate: Option<Gate<'a>>,
    /// Where a checkpoint is kept and looked for.
    pub checkpoint: Option<PathBuf>,
    /// Called after each step.
    pub report: &'a mut Report<'a>,
}

/// The score that decides.
pub struct Gate<'a> {
    /// The score.
    pub measure: &'a mut Measure<'a>,
    /// What it is of, for people, and different for different scores: a recovery goes on from a checkpoint of the same
    /// alone.
    pub by: String,
}

impl<'a> Inputs<'a> {
    /// Two models and a report, and nothing else.
    pub fn new(aligned: &'a Decoder, fine_tuned: &'a Decoder, report: &'a mut Report<'a>) -> Self {
        Self {
            aligned,
            fine_tuned,
            unaligned: None,
            base: None,
            safe: None,
            prompts: Vec::new(),
            aligned_prompts: Vec::new(),
            task_prompts: Vec::new(),
            recovered: None,
            evidence: None,
            seed: 0,
            gate: None,
            checkpoint: None,
            report,
        }
    }

    /// The recovery prompts as the aligned model reads them.
    pub(crate) fn of_aligned(&self) -> &[Vec<u32>] {
        if self.aligned_prompts.is_empty() { &self.prompts } else { &self.aligned_prompts }
    }

    /// An error unless there are the prompts that a method needs.
    pub(crate) fn check_prompts(&self, method: &'static str, needs: Needs) -> Result<()> {
        let missing = |what| Err(Error::Missing { method, what });
        if needs.prompts && self.prompts.is_empty() {
            return missing("recovery prompts");
        }
        if needs.task_prompts && self.task_prompts.is_empty() {
            return missing("the task's training prompts, because rollback can be on");
        }
        Ok(())
    }

    /// The answered prompts, for a method that needs them.
    pub(crate) fn evidence(&self, method: &'static str) -> Result<&'a Evidence> {
        self.evidence.ok_or(Error::Missing { method, what: "harmful, harmless and task prompts with answers" })
    }

    /// The same for another try, without gate and checkpoint.
    pub(crate) fn again(&mut self) -> Inputs<'_> {
        Inputs {
            aligned: self.aligned,
            fine_tuned: self.fine_tuned,
            unaligned: self.unaligned,
            base: self.base,
            safe: self.safe,
            prompts: self.prompts.clone(),
            aligned_prompts: self.aligned_prompts.clone(),
            task_prompts: self.task_prompts.clone(),
            recovered: self.recovered,
            evidence: self.evidence,
            seed: self.seed,
            gate: None,
            checkpoint: None,
            report: &mut *self.report,
        }
    }

    /// The unaligned model, for a method that needs it.
    pub(crate) fn unaligned(&self, method: &'static str) -> Result<&'a Decoder> {
        self.unaligned.ok_or(Error::Missing { method, what: "an unaligned model" })
    }

    /// The model before alignment, for a method that needs it.
    pub(crate) fn base(&self, method: &'static str) -> Result<&'a Decoder> {
        self.base.ok_or(Error::Missing { method, what: "the model before alignment" })
    }

    /// The safe model, for a method that needs it.
    pub(crate) fn safe(&self, method: &'static str) -> Result<&'a Decoder> {
        self.safe.ok_or(Error::Missing { method, what: "a safe model" })
    }

    /// How many weights to restore: as many as set, or as a recovery restored.
    pub(crate) fn count(&self, method: &'static str, set: Option<usize>) -> Result<usize> {
        let what = "a number of weights: set `count`, or give the number that a recovery restored";
        set.or(self.recovered).ok_or(Error::Missing { method, what })
    }
}

/// A method's answer.
#[derive(Debug)]
pub struct Repaired {
    /// The repaired model.
    pub decoder: Decoder,
    /// The restored weights by step, of a method that sets some weights to the aligned value and leaves the others.
    pub path: Option<Path>,
    /// Number of restored weights.
    pub restored: Option<usize>,
    /// What came of it.
    pub outcome: Outcome,
    /// What each step did, of a recovery.
    pub trace: Option<Trace>,
}

impl Repaired {
    /// The restored weights, where the method says which.
    #[must_use]
    pub fn patch(&self) -> Option<Patch> {
        self.path.as_ref().map(Path::answer)
    }
}

/// What came of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The model was changed; there was nothing to decide.
    Changed,
    /// The two models do not differ in the region; the answer is the fine-tuned model.
    Nothing,
    /// The answer was taken after this many steps.
    Recovered {
        /// Number of steps.
        steps: usize,
        /// Whether rollback was on.
        rollback: bool,
    },
    /// Decided on held-out prompts.
    Decided {
        /// What was decided, such as `gamma 0.5`.
        at: String,
        /// The model on the held-out prompts.
        standing: Standing,
        /// The bounds that it breaks, since no point kept all; each with how much it is exceeded, as a share of it.
        broken: Vec<(String, f64)>,
    },
    /// The first checkpoint lost more of the task than allowed, with rollback, too; the answer is
    /// the fine-tuned model.
    NotRecovered {
        /// The fine-tuned model's score.
        base: f64,
        /// The score of the first checkpoint with rollback.
        score: f64,
        /// The lowest score allowed.
        floor: f64,
    },
    /// The fine-tuned model scores 0, so no loss of the task can be seen and the gate cannot decide; the answer is the
    /// fine-tuned model.
    CannotGate,
}
