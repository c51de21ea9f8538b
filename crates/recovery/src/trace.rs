//! What a recovery did, step by step; the keys are those of the reference (`recover.py`), and those of the gate.

use serde::{Deserialize, Serialize};

use crate::Standing;

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// The step, from 0.
    pub step: usize,
    /// Mean loss of a batch before the step.
    pub loss: f64,
    /// The k-th largest absolute gradient among the candidates; none without a candidate.
    pub threshold: Option<f64>,
    /// Number of weights restored.
    pub restored: usize,
    /// Seconds for the gradient.
    pub grad_s: f64,
    /// Seconds for selection and restoration.
    pub select_s: f64,
    /// Number of weights rolled back, when rollback is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back: Option<usize>,
    /// The rollback's threshold, when rollback is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollback_threshold: Option<f64>,
    /// Weights of the region that equal the aligned model's after the step.
    pub equal: usize,
    /// The task's score after the step, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
}

/// What the gate compared the steps' scores with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceGate {
    /// The fine-tuned model's score.
    pub base_score: f64,
    /// The lowest score allowed.
    pub floor: f64,
}

/// What a method did on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Trace {
    /// The paper's method.
    Steps(StepsTrace),
    /// Strong recovery.
    Strong(StrongTrace),
    /// Distillation.
    Distill(DistillTrace),
    /// Safe LoRA and SafeMERGE.
    Modules(ModulesTrace),
}

/// The steps of a distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistillTrace {
    /// Weights that are trained.
    pub trained: usize,
    /// Seconds for everything.
    pub total_s: f64,
    /// The losses before each update, on the prompts of its step.
    pub losses: Vec<Losses>,
}

/// Mean divergences per answer token on training prompts, and their weighted sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// `harmful + mu harmless + lambda task`.
    pub loss: f64,
    /// KL(aligned || model) on harmful prompts.
    pub harmful: f64,
    /// KL(reference || model) on harmless prompts.
    pub harmless: f64,
    /// KL(fine-tuned || model) on the task's samples.
    pub task: f64,
}

/// The weight matrices of a method that decides about each as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModulesTrace {
    /// The cosine that decided; none if no matrix was to be changed.
    pub threshold: Option<f64>,
    /// The matrices, in the model's order.
    pub modules: Vec<ModuleTrace>,
}

/// One weight matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleTrace {
    /// Its name.
    pub name: String,
    /// The cosine of what fine-tuning changed and of that projected.
    pub cosine: f64,
    /// Whether it was changed.
    pub changed: bool,
}

/// The rounds of a strong recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StrongTrace {
    /// Parameters of all hidden layers: the base of rate and cap.
    pub params: usize,
    /// The fine-tuned model on the held-out prompts.
    pub base: Standing,
    /// Seconds for everything.
    pub total_s: f64,
    /// The rounds.
    pub rounds: Vec<Round>,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Number of weights that changed sides.
    pub flipped: usize,
    /// Weights that are restored after it.
    pub restored: usize,
    /// The model after it, on the held-out prompts.
    pub standing: Standing,
    /// Whether it gained so little that it counts towards the end.
    pub is_little: bool,
    /// What was tried.
    pub trials: Vec<Trial>,
    /// Seconds for the gradient.
    pub grad_s: f64,
    /// Seconds for the trials.
    pub trial_s: f64,
}

/// One trial of a round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Number of flips.
    pub k: usize,
    /// Weights that would be restored.
    pub restored: usize,
    /// The model with them.
    pub standing: Standing,
}

/// The steps of a recovery by the paper's method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepsTrace {
    /// Parameters of all hidden layers: the base of the recovery rate.
    pub params: usize,
    /// Parameters of the region.
    pub region: usize,
    /// The direction layer.
    pub layer: usize,
    /// Seconds for the direction.
    pub direction_s: f64,
    /// Euclidean norm of the harmful direction.
    pub direction_norm: f64,
    /// Seconds for everything.
    pub total_s: f64,
    /// The gate, where the task's score decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<TraceGate>,
    /// All steps in the order in which they were done: where the gate began again with rollback, those before that, too.
    pub steps: Vec<TraceStep>,
}
