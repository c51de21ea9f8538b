//! Supervised alignment of a model that refuses too little.

use ::finetune::{AlignSettings, TrainSettings};
use anyhow::Result;
use realign::stage::align::{AlignInputs, align_model};
use realign::stage::generate::GenerateSettings;

use super::{Context, method, remove, report};
use crate::inputs;
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{Align, ModelSpec, PromptSet};

/// Supervised alignment.
///
/// # Errors
/// When samples are missing or training fails.
pub fn align(context: Context<'_>, spec: &ModelSpec, align: &Align, parent: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let refusals_file = sweep.data_file(&align.refusals.file);
    let mut key =
        StageKey::new("align", 2, sweep.seed, align)?.parent("model", parent).input("refusals", &refusals_file)?;
    for (index, set) in align.helpful.iter().enumerate() {
        key = key.input(&format!("helpful {index}"), &sweep.data_file(&set.file))?;
    }
    let bar = context.progress.bar("align", &spec.name);
    context.store.run(&key, |out| {
        let read = |set: &PromptSet| inputs::read(&sweep.data_file(&set.file), set.skip, set.count);
        let harmful = read(&align.refusals)?;
        let harmless = align.helpful.iter().map(read).collect::<Result<Vec<_>>>()?.concat();
        let inputs = AlignInputs {
            refusals: (&harmful, &refusals_file),
            refusal_texts: &align.refusal_texts,
            helpful: (&harmless, &sweep.data),
            own_answers: GenerateSettings {
                max_new_tokens: align.helpful_max_new_tokens,
                batch: sweep.evaluation.batch,
            },
        };
        let train = TrainSettings {
            epochs: align.epochs,
            batch: align.batch,
            learning_rate: align.learning_rate,
            max_len: align.max_len,
            seed: sweep.seed,
            method: method(align.lora.as_ref()),
            ..TrainSettings::default()
        };
        let settings = AlignSettings { train, kl: align.kl };
        let model = out.join("model");
        let summary = align_model(
            &parent.dir.join("model"),
            inputs,
            &settings,
            (&model, out),
            context.compute(),
            &mut report(&bar),
        )?;
        remove(&out.join("align.checkpoint"))?;
        Output::new(&summary, summary.samples)
    })
}
