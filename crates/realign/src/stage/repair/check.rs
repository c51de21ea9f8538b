//! Whether two models are those before and after fine-tuning, and whether recovery is in place.

use std::path::PathBuf;

use model::DecoderConfig;
use prompts::Sample;
use recovery::Outcome;
use serde_json::{Value, json};

use super::summary::RepairSummary;
use crate::answers::answers;
use crate::error::invalid;
use crate::model::Model;
use crate::refusal::Refusals;
use crate::{Job, Result, Samples};

/// How many of some recovery prompts the aligned and the fine-tuned model decline.
pub(super) struct Probe {
    asked: Vec<Sample>,
    file: PathBuf,
    aligned: usize,
    fine_tuned: usize,
}

impl Probe {
    /// Asks both models.
    pub fn of([aligned, fine_tuned]: [&Model; 2], samples: &Samples, count: usize, job: &mut Job<'_>) -> Result<Self> {
        let mut asked = samples.read()?;
        asked.truncate(count);
        job.step(0, 1, "asking both models")?;
        let (aligned, fine_tuned) = (declined(aligned, &asked, job)?, declined(fine_tuned, &asked, job)?);
        Ok(Self { asked, file: samples.file.clone(), aligned, fine_tuned })
    }

    /// What looks wrong: the aligned model does not decline, or the fine-tuned one does.
    pub fn warning(&self) -> Option<String> {
        let (all, file) = (self.asked.len(), self.file.display());
        let Self { aligned, fine_tuned, .. } = self;
        Some(if fine_tuned > aligned {
            format!(
                "the fine-tuned model refuses {fine_tuned} of {all} prompts of {file} and the aligned one {aligned}: are \
                 the two models swapped?"
            )
        } else if 2 * aligned < all {
            format!(
                "the aligned model refuses {aligned} of {all} prompts of {file}: recovery needs prompts that it refuses"
            )
        } else if fine_tuned == aligned {
            format!("the fine-tuned model refuses {fine_tuned} of {all} prompts of {file}, as the aligned one does")
        } else {
            return None;
        })
    }

    /// How many of them the changed model declines.
    pub fn again(&self, changed: &Model, job: &mut Job<'_>) -> Result<usize> {
        job.step(0, 1, "asking the changed model")?;
        declined(changed, &self.asked, job)
    }

    /// What came of a method where the changed model declines so many: what was decided by nothing else is no recovery where it
    /// declines no more than before. Where the aligned and the fine-tuned model decline equally many the prompts do not tell.
    pub fn told(&self, changed: usize, outcome: &Outcome, summary: RepairSummary) -> RepairSummary {
        let (all, before, file) = (self.asked.len(), self.fine_tuned, self.file.display());
        let counts = format!("{changed} of {all} prompts of {file}, and {before} before");
        let is_undecided = matches!(outcome, Outcome::Changed | Outcome::Recovered { .. });
        if !is_undecided || changed > before {
            let note = format!("{}; the model declines {counts}", summary.note);
            return RepairSummary { note, ..summary };
        }
        let done = summary.restored.map_or(summary.note, |count| format!("restored {count} weights"));
        if self.aligned == before {
            let note =
                format!("{done}; the model declines {counts}, as many as the aligned one: they do not show a recovery");
            return RepairSummary { note, ..summary };
        }
        let note = format!("{done}; the model declines no more of the prompts than before: {counts}");
        RepairSummary { recovered: false, note, ..summary }
    }

    /// The counts, for the file beside the model.
    pub fn json(&self, changed: usize) -> Value {
        let Self { asked, aligned, fine_tuned, .. } = self;
        json!({"prompts": asked.len(), "aligned": aligned, "fine_tuned": fine_tuned, "result": changed})
    }
}

/// How many prompts a model declines.
fn declined(model: &Model, asked: &[Sample], job: &mut Job<'_>) -> Result<usize> {
    let refusals = Refusals::new();
    let tokens = Refusals::tokens(model, asked, model.decoder.config().max_position_embeddings)?;
    Ok(answers(model, asked, tokens, job)?.iter().filter(|answer| refusals.has(answer)).count())
}

/// An error where two models cannot be one before and after fine-tuning, and a warning where they may not be. Their
/// vocabularies may differ, which recovery does not touch.
pub(crate) fn compare(aligned: &DecoderConfig, fine_tuned: &DecoderConfig) -> Result<Option<String>> {
    if aligned.model_type != fine_tuned.model_type {
        let [aligned, tuned] = [aligned, fine_tuned].map(|config| config.model_type.name());
        return invalid(format!(
            "the aligned model is of type {aligned} and the fine-tuned one of type {tuned}; name the model that was \
             fine-tuned as --aligned"
        ));
    }
    let sizes = |config: &DecoderConfig| {
        [
            ("num_hidden_layers", config.num_hidden_layers),
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim),
            ("attention_bias", usize::from(config.qkv_bias) + usize::from(config.o_bias)),
        ]
    };
    let differing = sizes(aligned).into_iter().zip(sizes(fine_tuned)).find(|(one, other)| one != other);
    if let Some(((key, one), (_, other))) = differing {
        return invalid(format!(
            "the aligned and the fine-tuned model differ: {key} is {one} and {other}; both must be of one shape: name the model \
             that was fine-tuned as --aligned"
        ));
    }
    let same = DecoderConfig {
        vocab_size: fine_tuned.vocab_size,
        max_position_embeddings: fine_tuned.max_position_embeddings,
        tie_word_embeddings: fine_tuned.tie_word_embeddings,
        ..aligned.clone()
    };
    let text = "config.json of the two models asks for different arithmetic (rotary base, norms or attention)";
    Ok((same != *fine_tuned).then(|| text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_declines_no_more_than_before_is_no_recovery_unless_something_else_decided() {
        let probe = Probe { asked: vec![Sample::default(); 16], file: "p".into(), aligned: 16, fine_tuned: 3 };
        let told = |changed, outcome: &Outcome, recovered, restored| {
            let (note, damage) = ("as before".to_owned(), recovery::Damage { changed: 0.0, divergence: None });
            let summary = RepairSummary { restored, recovered, note, damage, curve: Vec::new(), declined: 0 };
            let told = probe.told(changed, outcome, summary);
            (told.recovered, told.note)
        };
        let steps = &Outcome::Recovered { steps: 20, rollback: false };
        let (yes, said) = told(4, steps, true, Some(9));
        assert!(yes && said == "as before; the model declines 4 of 16 prompts of p, and 3 before", "{said}");
        let (no, said) = told(3, steps, true, Some(9));
        let whole = "restored 9 weights; the model declines no more of the prompts than before: 3 of 16 prompts of p, and 3 before";
        assert!(!no && said == whole, "{said}");
        assert!(told(2, &Outcome::Changed, true, None).1.starts_with("as before; the model declines no more"));
        assert!(told(3, &Outcome::Nothing, true, Some(0)).0, "nothing was to be recovered");
        let failed = Outcome::NotRecovered { base: 1.0, score: 0.0, floor: 0.9 };
        assert!(!told(16, &failed, false, Some(0)).0);
    }
}
