//! How far a model is from the fine-tuned one, on answers that no method reads.

use std::path::Path;

use evaluation::read_answers;
use recovery::Damage;
use serde::Serialize;

use super::{AnswerFile, Stage};
use crate::error::invalid;
use crate::evidence::own_row;
use crate::model::{LazyModel, Source};
use crate::{Artifact, Job, Result, Samples};

/// Compares a model with the fine-tuned one: the share of weights that differ, and the KL divergence of the next token over the
/// fine-tuned model's own answers to harmless prompts.
#[derive(Debug, Clone, Serialize)]
pub struct Divergence {
    /// The model.
    pub model: Artifact,
    /// The fine-tuned model.
    pub fine_tuned: Artifact,
    /// The directory of the fine-tuned model's [`Evaluate`](super::Evaluate).
    pub answers: Artifact,
    /// The harmless prompts of it.
    pub asked: AnswerFile,
    /// The prompts themselves, which are in the key of the answers.
    #[serde(skip)]
    pub samples: Samples,
    /// Tokens after which the answers were cut.
    pub max_new_tokens: usize,
}

impl Stage for Divergence {
    type Summary = Damage;

    fn kind(&self) -> &'static str {
        "divergence"
    }

    fn run(&self, _: &Path, job: &mut Job<'_>) -> Result<Damage> {
        let file = self.answers.path.join(self.asked.answers_name());
        let (mut samples, answers) = (self.samples.read()?, read_answers(&file)?);
        if samples.iter().map(|sample| &sample.prompt).ne(answers.iter().map(|answer| &answer.prompt)) {
            return invalid(format!(
                "{}: these are not the answers to {}",
                file.display(),
                self.samples.file.display()
            ));
        }
        for (sample, answer) in samples.iter_mut().zip(answers) {
            sample.response = Some(answer.response);
        }
        job.step(0, 1, "reading the models")?;
        let fine_tuned = LazyModel::new(&self.fine_tuned, None, job.device).into_model()?;
        let model = Source::new(&self.model.path, None)?.decoder(None, job.device)?; // it reads no text
        let encoded = fine_tuned.encode_samples(&samples, &file)?;
        let rows: Vec<_> = encoded.iter().filter_map(|row| own_row(row, self.max_new_tokens)).collect();
        Ok(recovery::damage(&fine_tuned.decoder, &model, &rows)?)
    }
}
