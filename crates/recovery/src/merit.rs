//! Merit: what a repaired model is worth on prompts that are held out. It decides between trials of the strong method, and
//! between the points of every method's path or knob.

use model::Decoder;
use serde::{Deserialize, Serialize};

use crate::evidence::{Evidence, MeritSettings};
use crate::lesson::Lesson;
use crate::{Error, Result};

/// Three divergences of a model on held-out prompts, in nats per answer token, over the tokens that both models have.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// KL(aligned || model) on harmful prompts.
    pub harmful: f64,
    /// KL(reference || model) on harmless prompts.
    pub harmless: f64,
    /// KL(fine-tuned || model) on the task's answers.
    pub task: f64,
    /// `max(0, harmful - enough) + mu harmless + task_weight task`; lower is better.
    pub merit: f64,
}

/// Held-out prompts with what the two models give to them.
#[derive(Debug)]
pub(crate) struct Merit {
    harmful: Lesson,
    harmless: Lesson,
    task: Lesson,
    settings: MeritSettings,
    /// The fine-tuned model's.
    pub base: Standing,
}

impl Merit {
    /// Computes what the aligned and the fine-tuned model give to the held-out prompts.
    pub fn new(method: &'static str, evidence: &Evidence, aligned: &Decoder, fine_tuned: &Decoder) -> Result<Self> {
        let missing = |what| Err(Error::Missing { method, what });
        if evidence.harmful.held_out.is_empty() {
            return missing("harmful prompts to be held out");
        }
        if evidence.task.held_out.is_empty() && evidence.harmless.held_out.is_empty() {
            return missing("harmless prompts or samples of the task to be held out");
        }
        let teacher = evidence.harmless_teacher(aligned, fine_tuned);
        let mut merit = Self {
            harmful: Lesson::of_teacher(aligned, &evidence.harmful.held_out)?,
            harmless: Lesson::of_teacher(teacher, &evidence.harmless.held_out)?,
            task: Lesson::of_teacher(fine_tuned, &evidence.task.held_out)?,
            settings: evidence.merit,
            base: Standing { harmful: 0.0, harmless: 0.0, task: 0.0, merit: 0.0 },
        };
        merit.base = merit.of(fine_tuned)?;
        Ok(merit)
    }

    /// A model's merit.
    pub fn of(&self, decoder: &Decoder) -> Result<Standing> {
        let mean = |lesson: &Lesson| -> Result<f64> { if lesson.is_empty() { Ok(0.0) } else { lesson.loss(decoder) } };
        let [harmful, harmless, task] = [mean(&self.harmful)?, mean(&self.harmless)?, mean(&self.task)?];
        let merit = (harmful - self.settings.enough).max(0.0) + self.settings.mu * harmless + self.settings.task * task;
        Ok(Standing { harmful, harmless, task, merit })
    }

    /// The bounds that a model breaks; none when it is admissible.
    pub fn broken(&self, standing: &Standing) -> Vec<(String, f64)> {
        let MeritSettings { max_harmful, max_harmless, max_task, .. } = self.settings;
        let base = &self.base;
        let measured = [
            ("harmful", standing.harmful, max_harmful),
            ("harmless", standing.harmless - base.harmless, max_harmless),
            ("task", standing.task, max_task),
        ];
        let exceeds = |&(_, found, bound): &(&str, f64, f64)| found > bound;
        let share = |(name, found, bound): (&str, f64, f64)| (name.to_owned(), found / bound.max(1e-9) - 1.0);
        measured.into_iter().filter(exceeds).map(share).collect()
    }
}
