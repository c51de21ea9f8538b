//! The model as it comes: a directory, also of a model of the hub, a GGUF file, or a training from nothing.

use std::fs;
use std::path::Path;

use ::finetune::{Method, TrainSettings};
use anyhow::{Context as _, Result};
use model::checkpoint;
use prompts::Tokenizer;
use realign::loaded::encode_samples;
use realign::stage::finetune::TrainSummary;
use realign::stage::import::import;

use super::{Context, remove, report};
use crate::inputs;
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{ModelSpec, Pretrain, Source};

/// The model as it comes: imported, or trained from nothing. Its directory is `model`.
///
/// # Errors
/// When the source cannot be fetched or read, or training fails.
pub fn source(context: Context<'_>, spec: &ModelSpec) -> Result<Stage> {
    let sweep = context.sweep;
    match &spec.source {
        Source::Pretrain(pretrain) => train_from_nothing(context, spec, pretrain),
        Source::Dir(dir) => import_dir(context, &sweep.root_file(dir)),
        Source::Hub(hub) => import_dir(context, &sweep.root_file(&hub.dir))
            .with_context(|| format!("the weights of {} must be there; get them with {}", hub.id, hub.how_to_get())),
        Source::Gguf(gguf) => {
            if context.store.works() {
                inputs::fetch_model(sweep, spec)?;
            }
            let file = sweep.root_file(&gguf.file);
            let key = StageKey::new("import", 1, 0, &"gguf")?.input("gguf", &file)?;
            context.store.run(&key, |out| {
                import(&file, &out.join("model"), context.compute())?;
                Output::new(&(), 0)
            })
        }
    }
}

fn import_dir(context: Context<'_>, dir: &Path) -> Result<Stage> {
    // All that an import may read; a download leaves notes of its own in the directory, too.
    let mut key = StageKey::new("import", 2, 0, &"dir")?.input("config.json", &dir.join("config.json"))?;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        let read = ["json", "jinja", "model", "safetensors"];
        if path.extension().is_some_and(|kind| read.iter().any(|name| kind == *name)) && path.is_file() {
            key = key.input(&path.file_name().unwrap_or_default().to_string_lossy(), &path)?;
        }
    }
    context.store.run(&key, |out| {
        import(dir, &out.join("model"), context.compute())?;
        Output::new(&(), 0)
    })
}

/// What a model trained from nothing takes over from the directory of its tokenizer.
const TOKENIZER_FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "generation_config.json"];

fn train_from_nothing(context: Context<'_>, spec: &ModelSpec, pretrain: &Pretrain) -> Result<Stage> {
    let sweep = context.sweep;
    let corpus = sweep.data_file(&pretrain.training.corpus);
    let tokenizer_dir = sweep.data_file(&pretrain.training.tokenizer);
    let mut key = StageKey::new("import", 1, sweep.seed, pretrain)?.input("corpus", &corpus)?;
    for name in TOKENIZER_FILES {
        key = key.input(name, &tokenizer_dir.join(name))?;
    }
    let bar = context.progress.bar("import", &spec.name);
    context.store.run(&key, |out| {
        let tokenizer = Tokenizer::from_dir(&tokenizer_dir)?;
        let samples = prompts::sample::read_training_jsonl(&corpus)?;
        let examples = encode_samples(&tokenizer, &samples, &corpus)?;
        let config = pretrain.config.decoder(tokenizer.vocab_size())?;
        let decoder = finetune::init_random(&config, pretrain.training.initializer_range, sweep.seed, context.device);
        let settings = TrainSettings {
            epochs: pretrain.training.epochs,
            batch: pretrain.training.batch,
            learning_rate: pretrain.training.learning_rate,
            warmup_steps: pretrain.training.warmup_steps,
            betas: pretrain.training.betas,
            max_len: pretrain.training.max_len,
            seed: sweep.seed,
            method: Method::Full,
            ..TrainSettings::default()
        };
        let checkpoint = out.join("train.checkpoint");
        let mut report = report(&bar);
        let trained = finetune::train(decoder, &examples, &settings, Some(&checkpoint), &mut |step| {
            report(step.step, step.steps, &format!("loss {:.3}", step.loss));
        })?;
        let model = out.join("model");
        checkpoint::save(&trained.decoder, &model)?;
        for name in TOKENIZER_FILES {
            let (from, to) = (tokenizer_dir.join(name), model.join(name));
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        remove(&checkpoint)?;
        let samples = examples.len() - trained.dropped;
        Output::new(&TrainSummary::new(samples, trained.dropped, trained.losses), samples)
    })
}
