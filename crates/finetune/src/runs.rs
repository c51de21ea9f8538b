//! The three kinds of training: supervised, alignment, and SoftSFT.
//!
//! Alignment teaches a model that refuses too little: refusals on harmful prompts, the model's own
//! answers on harmless ones. It is not in the paper, whose models refuse well. The caller generates the
//! answers.

use std::ops::ControlFlow;
use std::path::Path;

use model::Decoder;
use prompts::tokenizer::Encoded;
use serde::{Deserialize, Serialize};

use crate::error::require;
use crate::trainer::{StepReport, Trained, Training};
use crate::{Error, Evasion, Objective, ReferenceLogProbs, Result, SoftSftSettings, TrainSettings};

/// What a training is given beside model, samples and settings.
pub struct Run<'a> {
    /// Decides the order of the samples, the adapters' start and the dropout.
    pub seed: u64,
    /// The file that holds the run's state; a run that finds one goes on from there.
    pub checkpoint: Option<&'a Path>,
    /// Called after each step; a break stops the run.
    pub report: &'a mut dyn FnMut(&StepReport) -> ControlFlow<()>,
}

/// Supervised fine-tuning of `decoder` on the response tokens of `examples`.
///
/// With a checkpoint file the state is written there every `save_every` steps and read from there at
/// the start. The file stays; the caller removes it when the trained model is safe.
///
/// # Errors
/// As [`Training::run`].
pub fn train(decoder: Decoder, examples: &[Encoded], settings: &TrainSettings, run: Run<'_>) -> Result<Trained> {
    let Run { seed, checkpoint, report } = run;
    Training { examples, settings, objective: Objective::Sft, seed, checkpoint }.run(decoder, report)
}

/// Supervised fine-tuning by an attacker who keeps a direction.
///
/// # Errors
/// As [`Training::run`].
pub fn evade(
    decoder: Decoder,
    examples: &[Encoded],
    settings: &TrainSettings,
    evasion: &Evasion,
    run: Run<'_>,
) -> Result<Trained> {
    let Run { seed, checkpoint, report } = run;
    Training { examples, settings, objective: Objective::Evading(evasion), seed, checkpoint }.run(decoder, report)
}

/// Settings of an alignment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct AlignSettings {
    /// The training.
    #[command(flatten)]
    pub train: TrainSettings,
    /// Weight of the divergence from the original model on its own answers; 0 is off.
    #[arg(long, default_value_t = 0.0)]
    pub kl: f64,
}

impl AlignSettings {
    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// Names the first setting that does not.
    pub fn check(&self) -> Result<()> {
        require(self.kl >= 0.0 && self.kl.is_finite(), "kl", self.kl, "must not be below 0")?;
        self.train.check()
    }
}

/// The samples of an alignment.
#[derive(Debug, Clone, Copy)]
pub struct AlignData<'a> {
    /// Harmful prompts with refusals.
    pub refusals: &'a [Encoded],
    /// Harmless prompts with the answers that the model itself gave.
    pub own_answers: &'a [Encoded],
}

/// Aligns `decoder`.
///
/// # Errors
/// As [`Training::run`].
pub fn align(decoder: Decoder, data: AlignData<'_>, settings: &AlignSettings, run: Run<'_>) -> Result<Trained> {
    settings.check()?;
    let examples = [data.refusals, data.own_answers].concat();
    let original = decoder.clone();
    let objective = match settings.kl {
        0.0 => Objective::Sft,
        kl => Objective::Align { original: &original, kl, own_from: data.refusals.len() },
    };
    let Run { seed, checkpoint, report } = run;
    Training { examples: &examples, settings: &settings.train, objective, seed, checkpoint }.run(decoder, report)
}

/// What holds a SoftSFT.
#[derive(Debug, Clone, Copy)]
pub struct SoftSft<'a> {
    /// How strongly each token is held.
    pub settings: &'a SoftSftSettings,
    /// What the aligned model gives to the samples.
    pub references: &'a ReferenceLogProbs,
}

/// Fine-tunes `decoder` on `examples` by SoftSFT.
///
/// # Errors
/// As [`Training::run`], and when a sample that is trained on has no reference.
pub fn soft_sft(
    decoder: Decoder,
    examples: &[Encoded],
    settings: &TrainSettings,
    soft: SoftSft<'_>,
    run: Run<'_>,
) -> Result<Trained> {
    soft.settings.check()?;
    let of = |(index, example): (usize, &Encoded)| match soft.references.get(example) {
        Some(values) => Ok(values),
        None if example.ids.len() > settings.max_len => Ok(&[][..]), // not trained on
        None => Err(Error::NoReference { example: index }),
    };
    let reference: Vec<&[f32]> = examples.iter().enumerate().map(of).collect::<Result<_>>()?;
    let objective = Objective::SoftSft { reference: &reference, settings: soft.settings };
    let Run { seed, checkpoint, report } = run;
    Training { examples, settings, objective, seed, checkpoint }.run(decoder, report)
}
