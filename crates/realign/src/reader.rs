//! Whether prompts and answers fit a model, known before anything is computed of them.

use std::path::Path;

use prompts::{Encoded, Sample, Tokenizer};

use crate::error::{Within as _, invalid};
use crate::{Error, Result};

/// What reads prompts: a tokenizer with the sizes of its model.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub tokenizer: &'a Tokenizer,
    /// Positions.
    pub limit: usize,
    /// Token ids.
    pub vocabulary: usize,
}

impl Reader<'_> {
    /// Checks prompts of which both models of a pair read what the fine-tuned model's tokenizer makes, as evidence is read:
    /// each answers them first.
    ///
    /// # Errors
    /// As [`check_prompts`](Self::check_prompts), and where the smaller of the two cannot read them.
    pub fn check_shared(aligned: Self, fine_tuned: Self, samples: &[Sample], new_tokens: usize) -> Result<()> {
        aligned.check_prompts(samples, new_tokens).within(|| "the aligned model".to_owned())?;
        fine_tuned.check_prompts(samples, new_tokens).within(|| "the fine-tuned model".to_owned())?;
        let (limit, vocabulary) = (aligned.limit.min(fine_tuned.limit), aligned.vocabulary.min(fine_tuned.vocabulary));
        let shared = Self { limit, vocabulary, ..fine_tuned };
        shared.check_prompts(samples, new_tokens).within(|| {
            "the aligned model is to read prompts as the fine-tuned one's tokenizer and template write them, and cannot; \
             `realign recover` without `--choose` has each model read its own"
                .to_owned()
        })
    }

    /// The ids of a prompt, ready for an answer of so many tokens.
    ///
    /// # Errors
    /// When the template fails, an id is not the model's, or prompt and answer are too long for it.
    pub fn prompt(&self, index: usize, sample: &Sample, new_tokens: usize) -> Result<Vec<u32>> {
        let ids = self.tokenizer.encode_prompt(&sample.prompt, sample.system.as_deref())?;
        self.check(index, sample, &ids, new_tokens)?;
        Ok(ids)
    }

    /// Checks prompts that are to be answered.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt), with the first such prompt.
    pub fn check_prompts(&self, samples: &[Sample], new_tokens: usize) -> Result<()> {
        samples.iter().enumerate().try_for_each(|(index, sample)| self.prompt(index, sample, new_tokens).map(drop))
    }

    /// Checks prompts with their answers; `source` is named where one is missing.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt), and when a sample has no response.
    pub fn check_samples(&self, samples: &[Sample], source: &Path) -> Result<()> {
        for (index, sample) in samples.iter().enumerate() {
            let encoded = encode_samples(self.tokenizer, std::slice::from_ref(sample), source)?;
            encoded.iter().try_for_each(|one| self.check(index, sample, &one.ids, 0))?;
        }
        Ok(())
    }

    /// Checks that all ids are the model's.
    ///
    /// # Errors
    /// Names the first that is not, and the tokenizer.
    pub fn check_ids(&self, ids: &[u32]) -> Result<()> {
        match ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            Some(id) => invalid(format!(
                "{} makes the token id {id}, which is not below the vocabulary size {} of the model that reads it: is the \
                 tokenizer the model's own?",
                self.tokenizer.path().display(),
                self.vocabulary
            )),
            None => Ok(()),
        }
    }

    fn check(&self, index: usize, sample: &Sample, ids: &[u32], new_tokens: usize) -> Result<()> {
        self.check_ids(ids)?;
        let (tokens, limit) = (ids.len(), self.limit);
        match tokens.saturating_add(new_tokens) > limit {
            true => Err(Error::too_long(sample, model::Error::TooLong { index, tokens, new_tokens, limit })),
            false => Ok(()),
        }
    }
}

/// The ids and loss mask of each sample; `source` is named where a response is missing.
///
/// # Errors
/// When a sample has no response, or the template fails.
pub fn encode_samples(tokenizer: &Tokenizer, samples: &[Sample], source: &Path) -> Result<Vec<Encoded>> {
    let encode = |sample: &Sample| -> Result<Encoded> {
        let response = sample.response_or_err(source)?;
        Ok(tokenizer.encode_sample(&sample.prompt, response, sample.system.as_deref())?)
    };
    samples.iter().map(encode).collect()
}

/// Takes the end-of-turn token off an answer that was cut at `limit` tokens: the model did not end it there and must not
/// learn to.
pub fn leave_open(answer: &mut Encoded, limit: usize) {
    let response = answer.loss_mask.iter().filter(|&&counts| counts).count();
    if response > limit {
        answer.ids.pop();
        answer.loss_mask.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_was_cut_does_not_teach_to_stop() {
        let answer = |tokens: usize| Encoded {
            ids: vec![7; 3 + tokens],
            loss_mask: [vec![false; 3], vec![true; tokens]].concat(),
        };
        // Four tokens of text and the end-of-turn token.
        let (mut cut, mut whole) = (answer(5), answer(5));
        leave_open(&mut cut, 4);
        leave_open(&mut whole, 5);
        assert_eq!((cut, whole), (answer(4), answer(5)));
    }
}
