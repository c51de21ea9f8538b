//! The training loop: batches in a seeded order, AdamW, checkpoints.
//!
//! What is minimised is [`Objective`]'s business. The dropout of a step is seeded by its number, so
//! that a resumed run repeats an uninterrupted one.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use burn::module::Module as _;
use burn::tensor::TensorData;
use files::derived_seed;
use model::checkpoint::peft;
use model::weights::{self, WeightInfo};
use model::{Decoder, Lora};
use prompts::tokenizer::Encoded;

use crate::batch::first_target;
use crate::error::require;
use crate::optimizer::{self, AdamW, Slot};
use crate::{Error, Objective, Result, TrainBatch, TrainSettings, checkpoint, lora};

/// Added to the gradient's norm before dividing by it, as `torch.nn.utils.clip_grad_norm_` does.
const CLIP_EPSILON: f64 = 1e-6;

/// What a run tells its caller after each step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Steps done.
    pub step: usize,
    /// Steps of the whole run.
    pub steps: usize,
    /// The loss before this step's update.
    pub loss: f64,
    /// Tokens of the step's samples.
    pub tokens: usize,
    /// Seconds that the step took.
    pub seconds: f64,
}

/// What a run gives back.
#[derive(Debug, Clone)]
pub struct Trained {
    /// The trained decoder: dense weights, gradients off.
    pub decoder: Decoder,
    /// The adapters that are merged into it, by the paths of their projections; none at rank 0.
    pub adapters: Vec<(String, Lora)>,
    /// The loss of each step, those before a resume included.
    pub losses: Vec<f64>,
    /// Samples that were longer than `max_len`.
    pub dropped: usize,
}

/// A training run.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    /// The samples.
    pub examples: &'a [Encoded],
    /// The settings.
    pub settings: &'a TrainSettings,
    /// What is minimised.
    pub objective: Objective<'a>,
    /// Decides the order of the samples, the adapters' start and the dropout.
    pub seed: u64,
    /// The file that holds the run's state; a run that finds one goes on from there.
    pub checkpoint: Option<&'a Path>,
}

impl Training<'_> {
    /// Trains `decoder`; `report` is called after each step.
    ///
    /// # Errors
    /// When a setting makes no sense, a sample is unusable, the loss or the gradient is not finite, the
    /// checkpoint cannot be written, is damaged, or belongs to another run, or `report` breaks; the state is in
    /// the checkpoint file then, where there is one.
    pub fn run(&self, decoder: Decoder, report: &mut dyn FnMut(&StepReport) -> ControlFlow<()>) -> Result<Trained> {
        let settings = self.settings;
        settings.check()?;
        let kept = self.kept()?;
        let dropped = self.examples.len() - kept.len();
        let per_epoch = kept.len().div_ceil(settings.batch);
        let steps = settings.epochs.saturating_mul(per_epoch);
        let fingerprint = match self.checkpoint {
            Some(_) => checkpoint::fingerprint(settings, self.seed, &self.objective.key(), self.examples, &decoder)?,
            None => String::new(),
        };
        let mut trainer = Trainer::new(attached(decoder, settings, self.seed), settings, self.seed)?;
        let mut losses = match self.checkpoint {
            Some(path) => trainer.resume(path, &fingerprint)?,
            None => Vec::new(),
        };
        if dropped > 0 {
            tracing::info!(dropped, max_len = settings.max_len, "samples were too long");
        }
        let resumed = losses.len();
        for epoch in resumed / per_epoch..settings.epochs {
            let order = self.order(&kept, epoch);
            for (batch, step) in
                order.chunks(settings.batch).zip(epoch * per_epoch..).skip_while(|(_, step)| *step < resumed)
            {
                let started = Instant::now();
                let batch = TrainBatch::new(self.examples, batch)?;
                let loss = trainer.step(&batch, &self.objective)?;
                losses.push(loss);
                let done = step + 1;
                let seconds = started.elapsed().as_secs_f64();
                let stop = report(&StepReport { step: done, steps, loss, tokens: batch.tokens, seconds });
                let save = stop.is_break() || done % settings.save_every == 0;
                if let Some(path) = self.checkpoint.filter(|_| save) {
                    checkpoint::save(path, &fingerprint, &trainer.optimizer, &losses)?;
                }
                if stop.is_break() {
                    return Err(Error::Stopped);
                }
            }
        }
        let adapters = peft::adapters(trainer.decoder());
        let adapters = adapters.into_iter().map(|(path, adapter)| (path, adapter.valid())).collect();
        Ok(Trained { decoder: trainer.finish(), adapters, losses, dropped })
    }

    /// The order of an epoch.
    pub(crate) fn order(&self, kept: &[usize], epoch: usize) -> Vec<usize> {
        let order = prompts::shuffled_order(kept.len(), derived_seed(self.seed, epoch as u64));
        order.into_iter().map(|at| kept[at]).collect()
    }

    /// The samples that are short enough, each checked.
    pub(crate) fn kept(&self) -> Result<Vec<usize>> {
        let max_len = self.settings.max_len;
        let kept: Vec<usize> = (0..self.examples.len()).filter(|&at| self.examples[at].ids.len() <= max_len).collect();
        if kept.is_empty() {
            let given = self.examples.len();
            return Err(Error::NoExample { given, dropped: given, max_len });
        }
        for &at in &kept {
            first_target(at, &self.examples[at])?;
        }
        Ok(kept)
    }
}

/// A decoder with the adapters that a training begins with.
pub(crate) fn attached(decoder: Decoder, settings: &TrainSettings, seed: u64) -> Decoder {
    // Epochs take the first derived seeds; the last is never reached.
    lora::attach(decoder, &settings.lora, derived_seed(seed, u64::MAX - 1))
}

/// A decoder in training; [`Training::run`] is this in a loop.
#[derive(Debug)]
pub struct Trainer<'a> {
    decoder: Decoder,
    optimizer: AdamW,
    settings: &'a TrainSettings,
    seed: u64,
}

impl<'a> Trainer<'a> {
    /// Takes a decoder to training: its adapters, which are attached already, or at rank 0 all its
    /// weights, or of these the ones that `settings.only` names. Nothing else is tracked.
    ///
    /// # Errors
    /// When `only` fits no weight, or the device fails.
    pub fn new(decoder: Decoder, settings: &'a TrainSettings, seed: u64) -> Result<Self> {
        let named = |name: &str| settings.only.is_empty() || settings.only.iter().any(|text| name.contains(text));
        let trained =
            |info: &WeightInfo| (settings.lora.rank == 0 || info.name.contains(".lora.")) && named(&info.name);
        let slots: BTreeMap<String, Slot> = weights::read(&decoder, trained)?
            .into_iter()
            .map(|(info, value)| (info.name, Slot::new(info.shape, value)))
            .collect();
        require(!slots.is_empty(), "only", format!("{:?}", settings.only), "fits no weight that is trained")?;
        let decoder = weights::track(decoder, trained);
        let mut trainer = Self { decoder, optimizer: AdamW { slots, updates: 0 }, settings, seed };
        trainer.put_back(); // in f32, as they are trained
        Ok(trainer)
    }

    /// The decoder as it is now, adapters attached.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// One update; returns the loss before it.
    ///
    /// # Errors
    /// When the loss or the gradient is not finite, or an id or a position is out of range.
    pub fn step(&mut self, batch: &TrainBatch, objective: &Objective<'_>) -> Result<f64> {
        let step = self.optimizer.updates;
        let finite = |what, value: f64| match value.is_finite() {
            true => Ok(value),
            false => Err(Error::NotFinite { what, value, step: step + 1 }),
        };
        let step_seed = derived_seed(!self.seed, step as u64);
        for (number, (_, linear)) in self.decoder.linears_mut().enumerate() {
            if let Some(lora) = &mut linear.lora {
                lora.seed = derived_seed(step_seed, number as u64);
            }
        }
        let loss = objective.loss(&self.decoder, batch)?;
        let value: f32 = loss.clone().try_into_scalar().map_err(|error| model::Error::Device(error.to_string()))?;
        let value = finite("the loss", f64::from(value))?;
        let gradients = weights::gradients(&self.decoder, loss.backward())?;
        let norm = finite("the gradient's norm", optimizer::norm(&gradients))?;
        let factor = self.settings.max_grad_norm.map_or(1.0, |limit| (limit / (norm + CLIP_EPSILON)).min(1.0));
        self.optimizer.update(self.settings, &gradients, factor);
        self.put_back();
        Ok(value)
    }

    /// The trained decoder: adapters merged, gradients off.
    pub fn finish(self) -> Decoder {
        lora::merge(self.decoder)
    }

    fn resume(&mut self, path: &Path, fingerprint: &str) -> Result<Vec<f64>> {
        let losses = checkpoint::load(path, fingerprint, &mut self.optimizer)?;
        if !losses.is_empty() {
            tracing::info!(step = losses.len(), path = %path.display(), "going on from a checkpoint");
            self.put_back();
        }
        Ok(losses)
    }

    /// Hands the optimiser's values to the decoder. Tensors are shared, so the clone copies none.
    fn put_back(&mut self) {
        let slots = &self.optimizer.slots;
        self.decoder = weights::replace(self.decoder.clone(), |info| {
            slots.get(&info.name).map(|slot| TensorData::new(slot.value.clone(), slot.shape.clone()))
        });
    }
}

#[cfg(test)]
pub(crate) mod tests;
