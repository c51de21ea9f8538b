//! Training of a small decoder from random weights, as the models of `data/lab` are made.

use std::path::Path;

use ::finetune::{Run, StepReport, TrainSettings};
use model::{DecoderConfig, checkpoint};
use prompts::Tokenizer;
use serde::{Serialize, Serializer};

use super::{MODEL, Stage, TrainSummary};
use crate::model::encode_samples;
use crate::{Artifact, Job, Result, Samples};

/// Trains a decoder from random weights, every one of them.
#[derive(Debug, Clone, Serialize)]
pub struct Pretrain {
    /// The decoder's configuration.
    #[serde(serialize_with = "as_json")]
    pub config: DecoderConfig,
    /// Directory with `tokenizer.json` and the chat template.
    pub tokenizer: Artifact,
    /// What it is trained on.
    pub corpus: Samples,
    /// Standard deviation of the random start (transformers' `initializer_range`).
    pub initializer_range: f32,
    /// How it is trained.
    pub settings: TrainSettings,
    /// Decides the start and the order of the samples.
    pub seed: u64,
}

/// All of it as `config.json` has it, what is left to the family's defaults too.
fn as_json<S: Serializer>(config: &DecoderConfig, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    config.to_json().serialize(serializer)
}

/// What the model takes over from the directory of its tokenizer.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];

impl Stage for Pretrain {
    type Summary = TrainSummary;

    fn kind(&self) -> &'static str {
        "pretrain"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<TrainSummary> {
        let tokenizer = Tokenizer::from_dir(&self.tokenizer.path)?;
        let examples = encode_samples(&tokenizer, &self.corpus.read()?, &self.corpus.file)?;
        let decoder = ::finetune::init_random(&self.config, self.initializer_range, self.seed, job.device);
        let checkpoint = out.join("train.checkpoint");
        let mut report = |step: &StepReport| job.report(step.step, step.steps, &format!("loss {:.3}", step.loss));
        let run = Run { seed: self.seed, checkpoint: Some(&checkpoint), report: &mut report };
        let trained = ::finetune::train(decoder, &examples, &self.settings, run)?;
        let model = out.join(MODEL);
        checkpoint::save(&trained.decoder, &model)?;
        for name in TOKENIZER_FILES {
            let (from, to) = (self.tokenizer.path.join(name), model.join(name));
            std::fs::copy(&from, &to).map_err(files::Error::io("copy", &from))?;
        }
        files::remove(&checkpoint)?;
        Ok(TrainSummary::new(examples.len(), trained))
    }
}
