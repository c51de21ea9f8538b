//! The stages of a sweep: settings and inputs make a key, and `realign` does the work.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use burn::tensor::Device;
use evaluation::{Provenance, ScoreFile};
use finetune::{AlignSettings, LoraSettings, Method, TrainSettings};
use indicatif::ProgressBar;
use model::{DecoderConfig, checkpoint};
use prompts::{Sample, Tokenizer};
use realign::loaded::encode_samples;
use realign::stage::align::{AlignInputs, align_model};
use realign::stage::control::control_model;
use realign::stage::finetune::{FinetuneData, TrainSummary};
use realign::stage::generate::GenerateSettings;
use realign::stage::import::import;
use realign::stage::recover::{Gate, RecoverInputs, recover_model};
use recovery::{Control, RecoverySettings};

use crate::inputs::{self, Split};
use crate::interrupt;
use crate::progress::Progress;
use crate::store::{Output, Stage, StageKey, Store};
use crate::sweep::{self, Align, Cell, Lora, ModelSpec, Pretrain, Profile, PromptSet, Rollback, Source, Sweep};

/// What every stage needs.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The sweep.
    pub sweep: &'a Sweep,
    /// Where results are kept.
    pub store: &'a Store,
    /// Where tensors are computed.
    pub device: &'a Device,
    /// For bars.
    pub progress: &'a Progress,
}

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
            let file = sweep.root_file(&gguf.file);
            if let Some(script) = gguf.fetch.as_ref().filter(|_| context.store.works()) {
                inputs::fetch(sweep, script, &file)?;
            }
            let key = StageKey::new("import", 1, 0, &"gguf")?.input("gguf", &file)?;
            context.store.run(&key, |out| {
                import(&file, &out.join("model"), context.device)?;
                Output::new(&(), 0)
            })
        }
    }
}

fn import_dir(context: Context<'_>, dir: &Path) -> Result<Stage> {
    let key = StageKey::new("import", 1, 0, &dir)?.input("config", &dir.join("config.json"))?;
    context.store.run(&key, |out| {
        import(dir, &out.join("model"), context.device)?;
        Output::new(&(), 0)
    })
}

fn train_from_nothing(context: Context<'_>, spec: &ModelSpec, pretrain: &Pretrain) -> Result<Stage> {
    let sweep = context.sweep;
    let corpus = sweep.data_file(&pretrain.corpus);
    let tokenizer_dir = sweep.data_file(&pretrain.tokenizer);
    let key = StageKey::new("import", 1, sweep.seed, pretrain)?
        .input("corpus", &corpus)?
        .input("tokenizer", &tokenizer_dir.join("tokenizer.json"))?;
    let bar = context.progress.bar("import", &spec.name);
    context.store.run(&key, |out| {
        let tokenizer = Tokenizer::from_dir(&tokenizer_dir)?;
        let samples = prompts::sample::read_training_jsonl(&corpus)?;
        let examples = encode_samples(&tokenizer, &samples, &corpus)?;
        let mut json = serde_json::to_value(&pretrain.config)?;
        json["model_type"] = "llama".into();
        json["vocab_size"] = tokenizer.vocab_size().into();
        let config = DecoderConfig::from_json(&json, Path::new("the sweep's `config`"))?;
        let decoder = finetune::init_random(&config, pretrain.initializer_range, sweep.seed, context.device);
        let settings = TrainSettings {
            epochs: pretrain.epochs,
            batch: pretrain.batch,
            learning_rate: pretrain.learning_rate,
            warmup_steps: pretrain.warmup_steps,
            betas: pretrain.betas,
            max_len: pretrain.max_len,
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
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let (from, to) = (tokenizer_dir.join(name), model.join(name));
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        remove(&checkpoint)?;
        Output::new(
            &TrainSummary {
                samples: examples.len(),
                dropped: trained.dropped,
                final_loss: *trained.losses.last().unwrap_or(&f64::NAN),
                losses: trained.losses,
            },
            examples.len(),
        )
    })
}

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
        let file = sweep.data_file(&set.file);
        if let Some(script) = set.fetch.as_ref().filter(|_| context.store.works()) {
            inputs::fetch(sweep, script, &file)?;
        }
        key = key.input(&format!("helpful {index}"), &file)?;
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
            context.device,
            &mut report(&bar),
        )?;
        remove(&out.join("align.checkpoint"))?;
        Output::new(&summary, summary.samples)
    })
}

/// Fine-tuning of a cell.
///
/// # Errors
/// When samples are missing or training fails.
pub fn finetune(context: Context<'_>, cell: Cell<'_>, aligned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let settings = &sweep.finetune;
    let (task_file, harmful_file) = (sweep.data_file(&cell.task.train), sweep.data_file(&sweep.inject));
    let key = StageKey::new("finetune", 1, sweep.seed, &(settings, cell.task.validation, cell.harmful_count))?
        .parent("aligned", aligned)
        .input("task", &task_file)?
        .input("inject", &harmful_file)?;
    let bar = context.progress.bar("finetune", &cell.to_string());
    context.store.run(&key, |out| {
        let task = inputs::task(sweep, cell.task, Split::Train)?;
        let harmful = prompts::sample::read_training_jsonl(&harmful_file)?;
        let train = TrainSettings {
            epochs: settings.epochs,
            batch: settings.batch,
            learning_rate: settings.learning_rate,
            max_len: settings.max_len,
            seed: sweep.seed,
            method: method(settings.lora.as_ref()),
            ..TrainSettings::default()
        };
        let data =
            FinetuneData { task: (&task, &task_file), harmful: (&harmful, &harmful_file), count: cell.harmful_count };
        let (model, checkpoint) = (out.join("model"), out.join("train.checkpoint"));
        let summary = realign::stage::finetune::finetune(
            &aligned.dir.join("model"),
            data,
            &train,
            (&model, &checkpoint),
            context.device,
            &mut report(&bar),
        )?;
        remove(&checkpoint)?;
        Output::new(&summary, summary.samples)
    })
}

/// Recovery of a cell.
///
/// # Errors
/// When prompts are missing or recovery fails.
pub fn recover(context: Context<'_>, cell: Cell<'_>, aligned: &Stage, tuned: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let prompts_file = sweep.data_file(&sweep.recovery.prompts);
    let answers = (cell.task.metric, cell.task.max_new_tokens, cell.task.validation);
    let key = StageKey::new("recover", 1, sweep.seed, &(&sweep.recovery, sweep.profile, answers))?
        .parent("aligned", aligned)
        .parent("fine_tuned", tuned)
        .input("prompts", &prompts_file)?
        .input("task", &sweep.data_file(&cell.task.train))?
        .input("test", &sweep.data_file(&cell.task.test))?;
    let bar = context.progress.bar("recover", &cell.to_string());
    context.store.run(&key, |out| {
        let prompts = prompts::sample::read_jsonl_first(&prompts_file, sweep.recovery.count)?;
        let mut task: Vec<Sample> = inputs::task(sweep, cell.task, Split::Train)?;
        task.truncate(sweep.recovery.task_prompts);
        // The released code decides on the split that it reports.
        let gate_split = match sweep.profile {
            Profile::Sound => Split::Validation,
            Profile::Released => Split::Test,
        };
        let samples = inputs::task(sweep, cell.task, gate_split)?;
        let generate = GenerateSettings { max_new_tokens: cell.task.max_new_tokens, batch: sweep.evaluation.batch };
        let checkpoint = out.join("recovery.checkpoint");
        let (aligned, tuned) = (aligned.dir.join("model"), tuned.dir.join("model"));
        let settings = recovery_settings(&sweep.recovery, sweep.profile, &tuned)?;
        let inputs = RecoverInputs {
            aligned: &aligned,
            fine_tuned: &tuned,
            prompts: &prompts,
            task: Some(&task),
            gate: match sweep.recovery.rollback {
                Rollback::Auto => Gate::Validation { samples: &samples, metric: cell.task.metric, generate },
                Rollback::On => Gate::Fixed { rollback: true },
                Rollback::Off => Gate::Fixed { rollback: false },
            },
            checkpoint: Some(checkpoint.clone()),
        };
        let outputs = (&*out.join("model"), Some(&*out.join("trace.json")));
        let summary = recover_model(inputs, &settings, outputs, context.device, &mut report(&bar))?;
        remove(&checkpoint)?;
        Output::new(&summary, prompts.len())
    })
}

/// A control arm of a cell; `restored` is the number of weights that recovery restored. The summary is
/// the number that the arm set to the aligned value, none where it moved all weights.
///
/// # Errors
/// When prompts are missing or the models do not fit each other.
pub fn control(
    context: Context<'_>,
    cell: Cell<'_>,
    method: sweep::Method,
    (aligned, tuned): (&Stage, &Stage),
    restored: usize,
) -> Result<Stage> {
    let sweep = context.sweep;
    let arm = match method {
        sweep::Method::Random => Control::Random { count: restored, seed: sweep.seed },
        sweep::Method::LargestDifference => Control::LargestDifference { count: restored },
        sweep::Method::FullRevert => Control::FullRevert,
        sweep::Method::Interpolation(percent) => Control::Interpolation { lambda: f64::from(percent) / 100.0 },
        method => bail!("{method} is not a control arm"),
    };
    let prompts_file = sweep.data_file(&sweep.recovery.prompts);
    let settings = (method, restored, sweep.recovery.count, sweep.recovery.batch);
    // Keys of sweeps without a layer are those from before there were layers.
    let key = match sweep.recovery.layer {
        None => StageKey::new("control", 1, sweep.seed, &settings)?,
        Some(layer) => StageKey::new("control", 1, sweep.seed, &(settings, layer))?,
    };
    let key = key.parent("aligned", aligned).parent("fine_tuned", tuned).input("prompts", &prompts_file)?;
    let bar = context.progress.bar("control", &format!("{cell} {method}"));
    let stage = context.store.run(&key, |out| {
        let prompts = prompts::sample::read_jsonl_first(&prompts_file, sweep.recovery.count)?;
        let models = (&*aligned.dir.join("model"), &*tuned.dir.join("model"));
        let settings = recovery_settings(&sweep.recovery, sweep.profile, models.1)?;
        let restored = control_model(models, &prompts, &settings, arm, &out.join("model"), context.device)?;
        Output::new(&restored, prompts.len())
    })?;
    bar.finish_and_clear();
    Ok(stage)
}

/// Settings for the model in the directory `tuned`.
fn recovery_settings(settings: &sweep::Recovery, profile: Profile, tuned: &Path) -> Result<RecoverySettings> {
    let layer = match settings.layer {
        Some(layer) => Some(layer.of_blocks(DecoderConfig::from_dir(tuned)?.num_hidden_layers)),
        None => None,
    };
    let profile = match profile {
        Profile::Sound => recovery::Profile::Sound,
        Profile::Released => recovery::Profile::Released,
    };
    Ok(RecoverySettings {
        rate: settings.rate,
        steps: settings.steps,
        warmup: settings.warmup,
        save_every: settings.save_every,
        metric_drop: settings.metric_drop,
        rollback_rate: settings.rollback_rate,
        batch: settings.batch,
        ties: profile.ties(),
        layer,
        ..RecoverySettings::default()
    })
}

fn method(lora: Option<&Lora>) -> Method {
    match lora {
        None => Method::Full,
        Some(lora) => Method::Lora(LoraSettings {
            rank: lora.rank,
            alpha: lora.alpha,
            dropout: lora.dropout,
            ..LoraSettings::default()
        }),
    }
}

/// What there is to say of a training.
#[must_use]
pub fn training_figure(stage: &Stage) -> String {
    match stage.summary::<TrainSummary>() {
        Ok(summary) => format!("loss {:.3} on {} samples", summary.final_loss, summary.samples),
        Err(_) => String::new(),
    }
}

/// What there is to say of scores.
#[must_use]
pub fn score_figure(scores: &ScoreFile) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let harmful = scores.harmful.as_ref().map(|rate| format!("harmful {}", percent(rate.rate)));
    let refused = scores.over_refusal.as_ref().map(|rate| format!("over-refusal {}", percent(rate.rate)));
    let task = scores.task.as_ref().map(|score| format!("task {}", percent(score.value)));
    [harmful, refused, task].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Shows a stage's progress on its bar; the stage is left from here when the user asked for it.
pub fn report(bar: &ProgressBar) -> impl FnMut(usize, usize, &str) + '_ {
    |done, all, word| {
        interrupt::leave_after_checkpoint();
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(word.to_owned());
    }
}

/// The provenance of scores; settings, revision and device stand in the stage's manifest.
#[must_use]
pub fn provenance(seed: u64) -> Provenance {
    let unknown = || "see stage.json".to_owned();
    Provenance { settings: serde_json::Value::Null, seed, git_revision: unknown(), device: unknown(), seconds: 0.0 }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}
