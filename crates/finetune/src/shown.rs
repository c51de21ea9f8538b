//! A training that is looked at on its way, as a curve over its steps needs.

use model::Decoder;
use prompts::tokenizer::Encoded;

use crate::trainer::{Trainer, Training, attached};
use crate::{Error, Objective, TrainBatch, TrainSettings};

/// Whether a training can be looked at after these steps: they rise from at least 1, and there is one.
#[must_use]
pub fn are_rising(steps: &[usize]) -> bool {
    steps.first().is_some_and(|first| *first > 0) && steps.is_sorted_by(|a, b| a < b)
}

/// Fine-tunes `decoder` on the response tokens of `examples` for as many updates as the last of the rising `steps` says,
/// passing over the samples as often as that takes; `settings.epochs` is not read. `shown` is handed the model after each
/// of the steps, adapters merged.
///
/// # Errors
/// As [`Training::run`], and those of `shown`, which end the training.
pub fn train_shown<E: From<Error>>(
    decoder: Decoder,
    examples: &[Encoded],
    (settings, seed): (&TrainSettings, u64),
    steps: &[usize],
    shown: &mut dyn FnMut(usize, &Decoder) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let training = Training { examples, settings, objective: Objective::Sft, seed, checkpoint: None };
    settings.check()?;
    let kept = training.kept()?;
    let mut trainer = Trainer::new(attached(decoder, settings, seed), settings, seed)?;
    let (mut done, last) = (0, steps.last().copied().unwrap_or(0));
    for epoch in 0.. {
        let order = training.order(&kept, epoch);
        for batch in order.chunks(settings.batch) {
            if done == last {
                return Ok(());
            }
            trainer.step(&TrainBatch::new(examples, batch)?, &training.objective)?;
            done += 1;
            if steps.contains(&done) {
                shown(done, &crate::lora::merge(trainer.decoder().clone()))?;
            }
        }
    }
    Ok(())
}
