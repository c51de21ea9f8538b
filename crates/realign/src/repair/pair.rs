//! What is known of the two models before a weight of them is read: whether they make a pair, and whether all prompts fit.

use std::path::Path;

use model::DecoderConfig;
use prompts::Tokenizer;

use super::parts::Divided;
use super::settings::Settings;
use crate::error::Within as _;
use crate::model::Source;
use crate::reader::Reader;
use crate::stage::compare;
use crate::{Result, notes};

/// A model without its weights.
struct Side {
    name: &'static str,
    tokenizer: Tokenizer,
    config: DecoderConfig,
}

/// The aligned and the fine-tuned model.
pub(super) struct Pair {
    aligned: Side,
    fine_tuned: Side,
    /// What looks wrong in them.
    pub warnings: Vec<String>,
}

impl Side {
    fn open(name: &'static str, source: &Source<'_>, thinking: Option<bool>) -> Result<(Self, Vec<String>)> {
        let (tokenizer, config) = source.without_weights()?;
        let tokenizer = tokenizer.with_thinking(thinking)?;
        let notes = notes::on_model(&source.dirs, &tokenizer)?;
        Ok((Self { name, tokenizer, config }, notes))
    }

    fn reader(&self) -> Reader<'_> {
        let (limit, vocabulary) = (self.config.max_position_embeddings, self.config.vocab_size);
        Reader { tokenizer: &self.tokenizer, limit, vocabulary }
    }
}

impl Pair {
    /// Reads the files of both but for the weights.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the two cannot be one before and after fine-tuning.
    pub fn open(aligned: &Source<'_>, fine_tuned: &Source<'_>, thinking: Option<bool>) -> Result<Self> {
        let (aligned, mut warnings) = Side::open("aligned", aligned, thinking)?;
        let (fine_tuned, others) = Side::open("fine-tuned", fine_tuned, thinking)?;
        let differing = compare(&aligned.config, &fine_tuned.config)?;
        warnings.extend(others);
        warnings.extend(differing);
        warnings.dedup();
        Ok(Self { aligned, fine_tuned, warnings })
    }

    /// The shape of the decoder that is repaired.
    pub fn config(&self) -> &DecoderConfig {
        &self.fine_tuned.config
    }

    /// Checks that prompts of a kind fit both models in each part, with their answers.
    ///
    /// # Errors
    /// Names the model, the file with the line, and what does not fit.
    pub fn check_prompts(&self, source: &str, parts: &Divided, settings: &Settings) -> Result<()> {
        let located = |fits: Result<()>| fits.map_err(|error| error.located(&[Path::new(source)]));
        let [aligned, fine_tuned] = self.sides().map(Side::reader);
        for samples in [&parts.recover, &parts.choose] {
            located(Reader::check_shared(aligned, fine_tuned, samples, settings.own_tokens))?;
        }
        self.check_test(source, parts, settings)
    }

    /// The same of a task, which the fine-tuned model reads with its right answers.
    ///
    /// # Errors
    /// As [`check_prompts`](Self::check_prompts).
    pub fn check_task(&self, source: &str, parts: &Divided, settings: &Settings) -> Result<()> {
        let file = Path::new(source);
        self.check_test(source, parts, settings)?;
        for samples in [&parts.recover, &parts.choose] {
            let fits = self.fine_tuned.reader().check_samples(samples, file);
            fits.map_err(|error| error.located(&[file])).within(|| "the fine-tuned model".to_owned())?;
        }
        Ok(())
    }

    fn sides(&self) -> [&Side; 2] {
        [&self.aligned, &self.fine_tuned]
    }

    /// Checks that the prompts that both models are measured on fit each.
    fn check_test(&self, source: &str, parts: &Divided, settings: &Settings) -> Result<()> {
        self.sides().into_iter().try_for_each(|side| {
            let fits = side.reader().check_prompts(&parts.test, settings.max_new_tokens);
            fits.map_err(|error| error.located(&[Path::new(source)])).within(|| format!("the {} model", side.name))
        })
    }
}
