//! Fine-tuning on a task with injected harmful samples (METHOD.md section 1), by the usual loss or by SoftSFT, and what
//! SoftSFT needs to know of the model that it starts from (section 5).

use std::path::{Path, PathBuf};

use ::finetune::{
    Evasion, ReferenceLogProbs, Run, SoftSft, SoftSftSettings, StepReport, TrainSettings, evade, inject, not_injected,
    soft_sft, train,
};
use direction::Layer;
use model::Dtype;
use model::checkpoint::peft;
use prompts::{Encoded, Sample, Tokenizer};
use serde::{Deserialize, Serialize};

use super::{MODEL, Stage};
use crate::model::{LazyModel, Source, encode_samples, save};
use crate::reader::leave_open;
use crate::{Artifact, Job, Result, Samples};

/// What is trained on: a task's samples and, behind them, harmful ones.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrainingSet {
    /// The task's samples.
    pub task: Option<Samples>,
    /// The harmful samples.
    pub inject: Option<Inject>,
    /// Samples that are to keep a model safe, with the aligned model's own answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub safe: Vec<OwnPairs>,
}

/// Prompts with a model's own answers.
#[derive(Debug, Clone, Serialize)]
pub struct OwnPairs {
    /// The prompts and answers.
    pub samples: Samples,
    /// Where the answers were cut: one as long as that does not teach to stop there.
    pub max_new_tokens: usize,
}

/// The harmful samples that are mixed in: the first ones of a seeded order, so that the sets of growing counts are nested.
#[derive(Debug, Clone, Serialize)]
pub struct Inject {
    /// Where they are drawn from.
    pub samples: Samples,
    /// How many.
    pub count: usize,
    /// How many of the order are left out first, so that they are not among those of a smaller count.
    pub pass_over: usize,
    /// Decides the order.
    pub seed: u64,
}

impl TrainingSet {
    /// The task's samples and the injected ones, each with the file that it comes from. `seed` decides the order of what is
    /// injected after the ones that are passed over.
    fn read(&self, seed: u64) -> Result<Vec<(Sample, PathBuf)>> {
        let from = |samples: Vec<Sample>, file: &Path| samples.into_iter().map(|one| (one, file.to_owned())).collect();
        let mut all: Vec<(Sample, PathBuf)> = match &self.task {
            Some(task) => from(task.read()?, &task.file),
            None => Vec::new(),
        };
        if let Some(Inject { samples, count, pass_over, seed: order }) = &self.inject {
            let mut harmful = samples.read()?;
            if *pass_over > 0 {
                harmful = not_injected(&harmful, *pass_over, *count, *order)?;
            }
            all.extend(from(inject(&[], &harmful, *count, seed)?, &samples.file) as Vec<_>);
        }
        Ok(all)
    }

    /// The samples' ids.
    ///
    /// # Errors
    /// When a file cannot be read, or a sample has no response.
    pub(crate) fn encode(&self, tokenizer: &Tokenizer, seed: u64) -> Result<Vec<Encoded>> {
        let encode = |(sample, file): (Sample, PathBuf)| Ok(encode_samples(tokenizer, &[sample], &file)?.remove(0));
        let mut encoded = self.read(seed)?.into_iter().map(encode).collect::<Result<Vec<_>>>()?;
        for OwnPairs { samples, max_new_tokens } in &self.safe {
            let mut own = encode_samples(tokenizer, &samples.read()?, &samples.file)?;
            own.iter_mut().for_each(|one| leave_open(one, *max_new_tokens));
            encoded.extend(own);
        }
        Ok(encoded)
    }
}

/// What a training came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSummary {
    /// Samples trained on.
    pub samples: usize,
    /// Samples left out because they were too long.
    pub dropped: usize,
    /// Mean loss of the last tenth of the steps.
    pub final_loss: f64,
    /// Loss of each step.
    pub losses: Vec<f64>,
}

impl TrainSummary {
    /// Sums up a training on so many examples.
    #[must_use]
    pub fn new(examples: usize, trained: ::finetune::Trained) -> Self {
        let ::finetune::Trained { dropped, losses, .. } = trained;
        let tail = &losses[losses.len() - losses.len().div_ceil(10)..];
        let final_loss = tail.iter().sum::<f64>() / tail.len().max(1) as f64;
        Self { samples: examples - dropped, dropped, final_loss, losses }
    }
}

/// What is minimised.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The negative log-likelihood of the response tokens.
    Sft,
    /// The same by an attacker who keeps the direction of the model that is fine-tuned on harmful prompts.
    Evading {
        /// The prompts.
        prompts: Box<Samples>,
        /// The block after which the direction is.
        layer: Layer,
        /// Weight of the cosine in the loss.
        weight: f64,
    },
    /// The same, held back near the model that is fine-tuned (the baseline SoftSFT).
    SoftSft {
        /// How strongly.
        settings: SoftSftSettings,
        /// [`Reference`]s of that model that hold all samples together.
        references: Vec<Artifact>,
    },
}

/// Fine-tunes a model; adapters are merged. Training is in f32, the result is rounded.
#[derive(Debug, Clone, Serialize)]
pub struct Finetune {
    /// The model that it starts from.
    pub model: Artifact,
    /// What is trained on.
    pub data: TrainingSet,
    /// What is minimised.
    pub objective: Objective,
    /// How it is trained.
    pub settings: TrainSettings,
    /// Decides the order of the samples, the adapters' start and the dropout.
    pub seed: u64,
    /// The precision of the result; that of the model where it is none.
    pub dtype: Option<Dtype>,
    /// Its name among the stages of a sweep.
    #[serde(skip)]
    pub kind: &'static str,
}

/// A fine-tuning that also keeps its adapters, as one of peft, beside the model that they are merged into.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct WithAdapter {
    /// The fine-tuning.
    pub finetune: Finetune,
    /// The name of the model that it starts from, as peft is told it.
    #[serde(skip)]
    pub base: String,
}

/// The directory of the adapter within the stage's own.
pub const ADAPTER: &str = "adapter";

impl Stage for WithAdapter {
    type Summary = TrainSummary;

    fn kind(&self) -> &'static str {
        self.finetune.kind()
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<TrainSummary> {
        self.finetune.make(out, Some(&self.base), job)
    }
}

impl Stage for Finetune {
    type Summary = TrainSummary;

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<TrainSummary> {
        self.make(out, None, job)
    }
}

impl Finetune {
    /// Trains; the adapters are kept where the name of the model is given that they are on.
    fn make(&self, out: &Path, adapter_on: Option<&str>, job: &mut Job<'_>) -> Result<TrainSummary> {
        let source = Source::new(&self.model.path, None)?;
        let dtype = source.dtype(self.dtype)?;
        let model = source.open(Some(dtype), job.device)?;
        let examples = self.data.encode(&model.tokenizer, self.seed)?;
        model.check_examples(&examples, self.settings.max_len)?;
        let layers = model.decoder.config().num_hidden_layers;
        let checkpoint = out.join("train.checkpoint");
        let mut report = |step: &StepReport| job.report(step.step, step.steps, &format!("loss {:.3}", step.loss));
        let run = Run { seed: self.seed, checkpoint: Some(&checkpoint), report: &mut report };
        let trained = match &self.objective {
            Objective::Sft => train(model.decoder, &examples, &self.settings, run)?,
            Objective::Evading { prompts, layer, weight } => {
                let rows = model.encode_prompts(&prompts.read()?)?;
                let layer = layer.of_blocks(model.decoder.config().num_hidden_layers);
                let evasion = Evasion::new(&model.decoder, rows, layer, *weight)?;
                evade(model.decoder, &examples, &self.settings, &evasion, run)?
            }
            Objective::SoftSft { settings, references } => {
                let files: Vec<PathBuf> = references.iter().map(|reference| reference.path.clone()).collect();
                let soft = SoftSft { settings, references: &ReferenceLogProbs::read(&files, &model.decoder)? };
                soft_sft(model.decoder, &examples, &self.settings, soft, run)?
            }
        };
        if let Some(base) = adapter_on {
            let dir = out.join(ADAPTER);
            peft::save_adapters(&trained.adapters, layers, &dir)?;
            let path = dir.join("adapter_config.json");
            let mut config = files::read_json_value(&path)?;
            config["base_model_name_or_path"] = base.into();
            files::write_json(&path, &config)?;
        }
        save(&trained.decoder, self.dtype, &source, job.max_shard, &out.join(MODEL))?;
        files::remove(&checkpoint)?;
        Ok(TrainSummary::new(examples.len(), trained))
    }
}

/// The file of a [`Reference`] in its directory.
pub const REFERENCE: &str = "reference.safetensors";

/// What a model gives to the responses of samples: computed once for all SoftSFT runs that start from it. The summary is
/// the number of distinct samples.
#[derive(Debug, Clone, Serialize)]
pub struct Reference {
    /// The model.
    pub model: Artifact,
    /// The samples.
    pub data: TrainingSet,
    /// Longer samples are left out.
    pub max_len: usize,
    /// As of the [`Finetune`] that it is for.
    pub seed: u64,
    /// The precision to which the weights are rounded; as they are where it is none.
    pub dtype: Option<Dtype>,
}

impl Stage for Reference {
    type Summary = usize;

    fn kind(&self) -> &'static str {
        "reference"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<usize> {
        let model = LazyModel::new(&self.model, self.dtype, job.device).into_model()?;
        let examples = self.data.encode(&model.tokenizer, self.seed)?;
        let mut report = |done, all| job.report(done, all, "samples");
        let values = ReferenceLogProbs::new(&model.decoder, &examples, self.max_len, &mut report)?;
        values.write(&out.join(REFERENCE))?;
        Ok(values.len())
    }
}

#[cfg(test)]
mod tests {
    use files::Hashes;

    use super::*;
    use crate::Pick;

    #[test]
    fn an_own_answer_that_was_cut_does_not_teach_to_stop_and_one_that_ended_does() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab/tokenizer");
        let tokenizer = Tokenizer::from_dir(&tokenizer).unwrap();
        let file = dir.path().join("own.jsonl");
        files::write_jsonl(&file, [serde_json::json!({"prompt": "say : the gate", "response": "the gate is"})])
            .unwrap();
        let samples = Samples::of(&file, Pick::answered(), &Hashes::default()).unwrap();
        let ends = |max_new_tokens: usize| {
            let safe = vec![OwnPairs { samples: samples.clone(), max_new_tokens }];
            let one = TrainingSet { safe, ..TrainingSet::default() }.encode(&tokenizer, 1).unwrap().remove(0);
            (tokenizer.eos_ids().contains(one.ids.last().unwrap()), one.loss_mask.iter().filter(|&&on| on).count())
        };
        assert_eq!((ends(3), ends(4)), ((false, 3), (true, 4)));
    }
}
