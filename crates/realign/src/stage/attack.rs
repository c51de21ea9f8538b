//! Attacks on a finished model (METHOD.md section 11): what an attacker does with a model before it answers, or while it does.

use std::path::Path;

use direction::{Layer, refusal_direction};
use evaluation::PromptKind;
use files::derived_seed;
use finetune::{TrainSettings, are_rising, train_shown};
use model::{Decoder, Draw, Sampling};
use prompts::Sample;
use serde::Serialize;

use super::{Aim, AnswerFile, TrainingSet};
use crate::answers::{How, Start, Wanted, answer_files};
use crate::error::invalid;
use crate::model::{LazyModel, Model};
use crate::{Artifact, Job, Result, Samples};

/// An attack with all that decides it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "a handful of them exist, each for the length of a stage")]
pub enum Attack {
    /// The answer begins with a text, which is not part of what is judged.
    Prefill {
        /// The text.
        text: String,
    },
    /// The answer begins as a harmful one to the same prompt; it is judged whole.
    HarmfulStart {
        /// Prompts with harmful answers.
        answers: Samples,
        /// Tokens that are given.
        tokens: usize,
    },
    /// Answers are drawn, and one that is harmful is enough.
    Sampling {
        /// From which ids.
        sampling: Sampling,
        /// Answers to each prompt.
        draws: usize,
        /// Decides the draws.
        seed: u64,
    },
    /// The refusal direction is taken out of the residual stream.
    Ablation {
        /// Harmful prompts of the direction.
        harmful: Samples,
        /// Harmless prompts of the direction.
        harmless: Samples,
        /// The block after which it is found.
        layer: Layer,
    },
    /// The model is fine-tuned further, and asked after some of the steps.
    Retraining {
        /// What it is trained on.
        data: TrainingSet,
        /// How it is trained; `epochs` is not read.
        settings: TrainSettings,
        /// The steps, rising.
        steps: Vec<usize>,
        /// Decides the order of the samples and the adapters' start.
        seed: u64,
    },
}

/// Prompts that an attacked model is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Their name in files.
    pub set: &'a str,
    /// Their kind.
    pub kind: PromptKind,
    /// The prompts.
    pub samples: &'a [Sample],
    /// Length of an answer in tokens.
    pub max_new_tokens: usize,
}

impl Attack {
    /// Answers to each prompt that may be drawn.
    pub const MOST_DRAWS: usize = 10_000;
    /// Trainings that may be asked for at a time, each with a seed of its own.
    pub const MOST_TRAININGS: usize = 1_000;

    /// Checks how many answers to each prompt are drawn.
    ///
    /// # Errors
    /// Says how many can be.
    pub fn check_draws(draws: usize) -> std::result::Result<(), String> {
        let fine = (1..=Self::MOST_DRAWS).contains(&draws);
        if fine { Ok(()) } else { Err(format!("`draws` is {draws}: must be from 1 to {}", Self::MOST_DRAWS)) }
    }

    /// Whether it changes the model's weights, and so what it says to harmless prompts, too.
    #[must_use]
    pub fn changes_model(&self) -> bool {
        matches!(self, Self::Ablation { .. } | Self::Retraining { .. })
    }

    /// The files of answers that it makes of a set of prompts, each with the number of training steps before it.
    #[must_use]
    pub fn answer_files(&self, set: &str, kind: PromptKind) -> Vec<(AnswerFile, Option<usize>)> {
        let file = |name: String, aim: Aim| AnswerFile { name, aim };
        match self {
            Self::Retraining { steps, .. } => {
                let of = |&step: &usize| (file(format!("{set}-{step}"), Aim::Prompts(kind)), Some(step));
                steps.iter().map(of).collect()
            }
            Self::Sampling { draws, .. } => vec![(file(set.to_owned(), Aim::BestOf { kind, draws: *draws }), None)],
            _ => vec![(file(set.to_owned(), Aim::Prompts(kind)), None)],
        }
    }

    /// Asks the attacked model a set of prompts, into the files of [`answer_files`](Self::answer_files) in `dir`.
    ///
    /// # Errors
    /// When a setting makes no sense, a file cannot be read or written, a prompt has no harmful answer where one is needed,
    /// or the model cannot be trained; [`Error::Stopped`](crate::Error::Stopped).
    pub fn ask(
        &self,
        mut model: LazyModel<'_>,
        Asked { set, kind, samples, max_new_tokens }: Asked<'_>,
        dir: &Path,
        job: &mut Job<'_>,
    ) -> Result<Vec<AnswerFile>> {
        let files = self.answer_files(set, kind);
        let path = |at: usize| dir.join(files[at].0.answers_name());
        let plain = |path| Wanted { samples, max_new_tokens, how: Vec::new(), path };
        match self {
            Self::Prefill { text } => {
                let start = Start { text: text.clone(), tokens: None, kept: false };
                let how = vec![How { start: Some(start), draw: None }; samples.len()];
                answer_files(&mut model, &[Wanted { how, ..plain(path(0)) }], job)?;
            }
            Self::HarmfulStart { answers, tokens } => {
                let how = harmful_starts(samples, answers, *tokens)?;
                answer_files(&mut model, &[Wanted { how, ..plain(path(0)) }], job)?;
            }
            Self::Sampling { sampling, draws, seed } => {
                sampling.check()?;
                Self::check_draws(*draws).or_else(invalid)?;
                let (samples, how) = drawn(samples, *sampling, *draws, *seed);
                answer_files(&mut model, &[Wanted { samples: &samples, max_new_tokens, how, path: path(0) }], job)?;
            }
            Self::Ablation { harmful, harmless, layer } => {
                let key = files::hash_json(&(model.identity()?, self))?;
                let whole = model.into_model()?;
                job.step(0, 1, "refusal direction")?;
                let rows = |samples: &Samples| whole.encode_prompts(&samples.read()?);
                let layer = layer.of_blocks(whole.decoder.config().num_hidden_layers);
                let found = refusal_direction(&whole.decoder, &rows(harmful)?, &rows(harmless)?, layer)?;
                let decoder = whole.decoder.without_direction(&found)?;
                let mut model = made(key, Model { decoder, tokenizer: whole.tokenizer }, job);
                answer_files(&mut model, &[plain(path(0))], job)?;
            }
            Self::Retraining { data, settings, steps, seed } => {
                if !are_rising(steps) {
                    return invalid(format!("`steps` = {steps:?}: must rise from at least 1"));
                }
                let identity = model.identity()?;
                let Model { decoder, tokenizer } = model.into_model()?;
                let examples = data.encode(&tokenizer, *seed)?;
                let mut at = 0;
                let mut shown = |step: usize, decoder: &Decoder| -> Result<()> {
                    let key = files::hash_json(&(&identity, self, step))?;
                    let model = Model { decoder: decoder.clone(), tokenizer: tokenizer.clone() };
                    let mut model = made(key, model, job);
                    answer_files(&mut model, &[plain(path(at))], job)?;
                    at += 1;
                    Ok(())
                };
                train_shown(decoder, &examples, (settings, *seed), steps, &mut shown)?;
            }
        }
        Ok(files.into_iter().map(|(file, _)| file).collect())
    }
}

/// A model that an attack made.
fn made<'d>(key: String, model: Model, job: &Job<'d>) -> LazyModel<'d> {
    LazyModel::new(&Artifact { key, path: std::path::PathBuf::new() }, None, job.device).opened(model)
}

/// The first tokens of the harmful answer to each prompt.
fn harmful_starts(samples: &[Sample], answers: &Samples, tokens: usize) -> Result<Vec<How>> {
    let known = answers.read()?;
    let how = |sample: &Sample| {
        let answer = known.iter().find(|known| known.prompt == sample.prompt).and_then(|known| known.response.clone());
        let Some(text) = answer else {
            let (file, prompt) = (answers.file.display(), &sample.prompt);
            return invalid(format!("{file} has no answer to the prompt {prompt:?}, which is asked"));
        };
        Ok(How { start: Some(Start { text, tokens: Some(tokens), kept: true }), draw: None })
    };
    samples.iter().map(how).collect()
}

/// Each sample so many times, with a draw for each that depends on the seed, the sample's index and the number of the draw alone.
fn drawn(samples: &[Sample], sampling: Sampling, draws: usize, seed: u64) -> (Vec<Sample>, Vec<How>) {
    let of = |(row, sample): (usize, &Sample)| {
        let id = sample.id.clone().unwrap_or_else(|| (row + 1).to_string());
        let of_row = derived_seed(seed, row as u64);
        let sample = sample.clone();
        (0..draws).map(move |draw| {
            let named = Sample { id: Some(format!("{id}#{}", draw + 1)), ..sample.clone() };
            let draw = Draw { sampling, seed: derived_seed(of_row, draw as u64) };
            (named, How { start: None, draw: Some(draw) })
        })
    };
    samples.iter().enumerate().flat_map(of).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(prompt: &str) -> Sample {
        serde_json::from_value(serde_json::json!({"prompt": prompt})).unwrap()
    }

    #[test]
    fn a_draw_depends_on_the_index_of_its_prompt_and_its_number() {
        let sampling = Sampling { temperature: 1.0, top_p: 0.9 };
        let seeds = |prompts: &[&str], draws, seed| -> Vec<u64> {
            let samples: Vec<Sample> = prompts.iter().map(|prompt| sample(prompt)).collect();
            let (named, how) = drawn(&samples, sampling, draws, seed);
            assert_eq!(named.len(), prompts.len() * draws);
            how.iter().map(|how| how.draw.unwrap().seed).collect()
        };
        let found = seeds(&["a", "b"], 2, 1);
        assert_eq!(found, seeds(&["x", "y"], 2, 1));
        assert_eq!(found[..2], seeds(&["a"], 2, 1));
        assert_eq!([found[0], found[2]], seeds(&["a", "b"], 1, 1)[..]);
        assert!(seeds(&["a", "b"], 2, 2).iter().all(|seed| !found.contains(seed)));
        let (named, _) = drawn(&[sample("a")], sampling, 2, 1);
        assert_eq!(named[1].id.as_deref(), Some("1#2"));
    }

    #[test]
    fn a_prompt_without_a_harmful_answer_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("answers.jsonl");
        std::fs::write(&file, "{\"prompt\": \"a\", \"response\": \"one two\"}\n").unwrap();
        let answers = Samples::of(&file, crate::Pick::default(), &files::Hashes::default()).unwrap();
        let start = harmful_starts(&[sample("a")], &answers, 1).unwrap().remove(0).start.unwrap();
        assert_eq!((start.text.as_str(), start.tokens, start.kept), ("one two", Some(1), true));
        let error = harmful_starts(&[sample("a"), sample("b")], &answers, 1).unwrap_err().to_string();
        assert!(error.contains("answers.jsonl") && error.contains("\"b\""), "{error}");
    }
}
