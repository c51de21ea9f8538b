//! What each subcommand does: read its files, call the stage, say what came of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use evaluation::{ScoreReport, read_answers};
use finetune::{AlignSettings, LoraSettings, Method, SoftSftSettings, TrainSettings, inject};
use indicatif::{ProgressBar, ProgressStyle};
use prompts::sample::{read_jsonl, read_jsonl_first, read_training_jsonl, write_whole};
use realign::Compute;
use realign::loaded::{ModelSource, encode_prompts};
use realign::stage::align::{AlignInputs, align_model};
use realign::stage::finetune::{FinetuneData, TuneObjective};
use realign::stage::generate::{DEFAULT_BATCH, GenerateSettings, answer_file};
use realign::stage::import::import;
use realign::stage::recover::{Gate, RecoverInputs, recover_model};
use realign::stage::reference::reference_in;
use realign::stage::resta::{RestaModels, resta_model};
use recovery::{Profile, RecoverySettings, RestaSettings};

use crate::cli::{Cli, Command, FinetuneArgs, ObjectiveName, ProfileName, RecoverArgs, RestaArgs, TrainArgs};

/// Task prompts that the task direction is the mean of (METHOD.md section 2).
const TASK_PROMPTS: usize = 256;

/// Runs a subcommand.
pub fn run(cli: Cli) -> Result<()> {
    let device = cli.device.open()?;
    let compute = Compute { device: &device, dtype: cli.dtype.map(Into::into) };
    let bar = progress_bar();
    let mut report = |done: usize, all: usize, word: &str| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(word.to_owned());
    };
    let report: &mut dyn FnMut(usize, usize, &str) = &mut report;
    match cli.command {
        Command::Import { from, out } => {
            import(&from, &out, compute)?;
            println!("wrote {}", out.display());
        }
        Command::Generate { model, prompts, max_new_tokens, batch, out } => {
            let samples = read_jsonl(&prompts)?;
            let mut model = ModelSource::new(&model, compute);
            let settings = GenerateSettings { max_new_tokens, batch };
            let found = answer_file(&mut model, &samples, settings, &out, report)?;
            println!("wrote {} answers to {}", found.len(), out.display());
        }
        Command::Align { model, refusals, refusal_text, helpful, max_new_tokens, kl, train, out } => {
            let (harmful, harmless) = (read_jsonl(&refusals)?, read_jsonl(&helpful)?);
            let inputs = AlignInputs {
                refusals: (&harmful, &refusals),
                refusal_texts: &[refusal_text],
                helpful: (&harmless, &helpful),
                own_answers: GenerateSettings { max_new_tokens, batch: DEFAULT_BATCH },
            };
            let settings = AlignSettings { train: train_settings(&train, cli.seed), kl };
            let work = work_dir(&out)?;
            let summary = align_model(&model, inputs, &settings, (&out, &work), compute, report)?;
            std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
            println!("aligned on {} samples, loss {:.3}; wrote {}", summary.samples, summary.final_loss, out.display());
        }
        Command::Finetune(args) => run_finetune(&args, cli.seed, compute, report)?,
        Command::Direction { model, prompts, layer, out } => direction(&model, &prompts, layer, &out, compute)?,
        Command::Recover(args) => run_recover(&args, compute, report)?,
        Command::Resta(args) => run_resta(&args, cli.seed, compute)?,
        Command::Evaluate(args) => crate::evaluate::run(&args, (cli.device, compute), cli.seed, report)?,
        Command::Score { answers, metric, out } => {
            let scored = ScoreReport::new(metric, &read_answers(&answers)?)?;
            scored.write(&out)?;
            println!("score: {:.1} %, n {}; wrote {}", 100.0 * scored.score, scored.n, out.display());
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn run_finetune(
    args: &FinetuneArgs,
    seed: u64,
    compute: Compute<'_>,
    report: &mut dyn FnMut(usize, usize, &str),
) -> Result<()> {
    let task = read_jsonl(&args.task)?;
    let harmful = args.inject.as_deref().map(read_jsonl).transpose()?.unwrap_or_default();
    let source = args.inject.as_deref().unwrap_or(Path::new("--inject"));
    let settings = train_settings(&args.train, seed);
    let work = work_dir(&args.out)?;
    let references = match args.objective {
        ObjectiveName::Sft => Vec::new(),
        ObjectiveName::SoftSft => {
            let injected = inject(&[], &harmful, args.count, seed)?;
            let mut references = Vec::new();
            for samples in [(&*task, &*args.task), (&*injected, source)] {
                references.push(reference_in(&work, &args.model, samples, settings.max_len, compute, report)?);
            }
            references
        }
    };
    let objective = match args.objective {
        ObjectiveName::Sft => TuneObjective::Sft,
        ObjectiveName::SoftSft => {
            TuneObjective::SoftSft { settings: SoftSftSettings::default(), references: &references }
        }
    };
    let data = FinetuneData { task: (&task, &args.task), harmful: (&harmful, source), count: args.count, objective };
    let checkpoint = work.join("train.checkpoint");
    let summary =
        realign::stage::finetune::finetune(&args.model, data, &settings, (&args.out, &checkpoint), compute, report)?;
    std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    println!(
        "trained on {} samples ({} too long), loss {:.3}; wrote {}",
        summary.samples,
        summary.dropped,
        summary.final_loss,
        args.out.display()
    );
    Ok(())
}

fn run_resta(args: &RestaArgs, seed: u64, compute: Compute<'_>) -> Result<()> {
    let models = RestaModels { fine_tuned: &args.finetuned, aligned: &args.aligned, unaligned: &args.unaligned };
    let settings = RestaSettings { gamma: args.gamma, dare: args.dare };
    resta_model(models, &settings, seed, &args.out, compute)?;
    println!("added {} of the safety vector; wrote {}", args.gamma, args.out.display());
    Ok(())
}

fn run_recover(args: &RecoverArgs, compute: Compute<'_>, report: &mut dyn FnMut(usize, usize, &str)) -> Result<()> {
    let prompts = match args.count {
        Some(count) => read_jsonl_first(&args.prompts, count)?,
        None => read_jsonl(&args.prompts)?,
    };
    let task = args.task.as_deref().map(read_jsonl).transpose()?;
    let task = task.map(|mut samples| {
        samples.truncate(TASK_PROMPTS);
        samples
    });
    let validation = args.validation.as_deref().map(read_training_jsonl).transpose()?;
    let profile = match args.profile {
        ProfileName::Sound => Profile::Sound,
        ProfileName::Released => Profile::Released,
    };
    let defaults = RecoverySettings::default();
    let settings = RecoverySettings {
        rate: args.rate,
        steps: args.steps,
        batch: args.batch,
        layer: args.layer,
        metric_drop: args.metric_drop,
        rollback_rate: args.rollback.unwrap_or(defaults.rollback_rate),
        ties: profile.ties(),
        ..defaults
    };
    let generate = GenerateSettings { max_new_tokens: args.max_new_tokens, batch: DEFAULT_BATCH };
    let gate = match &validation {
        Some(samples) => Gate::Validation { samples, metric: args.metric, generate },
        None => Gate::Fixed { rollback: args.rollback.is_some() },
    };
    let work = work_dir(&args.out)?;
    let inputs = RecoverInputs {
        aligned: &args.aligned,
        fine_tuned: &args.finetuned,
        prompts: &prompts,
        task: task.as_deref(),
        gate,
        checkpoint: Some(work.join("recovery.checkpoint")),
    };
    let summary = recover_model(inputs, &settings, (&args.out, args.trace.as_deref()), compute, report)?;
    std::fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    println!("{}; {} weights are the aligned model's; wrote {}", summary.note, summary.restored, args.out.display());
    Ok(())
}

fn direction(model: &Path, prompts: &Path, layer: Option<usize>, out: &Path, compute: Compute<'_>) -> Result<()> {
    let samples = read_jsonl(prompts)?;
    let model = ModelSource::new(model, compute).into_loaded()?;
    let layer = layer.unwrap_or_else(|| direction::default_layer(model.decoder.config().num_hidden_layers));
    let rows = encode_prompts(&model.tokenizer, &samples)?;
    let mean = direction::mean_direction(&model.decoder, &rows, layer)?;
    let bytes: Vec<u8> = mean.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![mean.len()], &bytes)?;
    let metadata =
        HashMap::from([("layer".to_owned(), layer.to_string()), ("prompts".to_owned(), rows.len().to_string())]);
    let file = safetensors::serialize([("direction", view)], Some(metadata))?;
    write_whole(out, &file)?;
    println!("layer {layer}, {} prompts; wrote {}", rows.len(), out.display());
    Ok(())
}

fn train_settings(args: &TrainArgs, seed: u64) -> TrainSettings {
    let lora = LoraSettings { rank: args.rank, alpha: args.alpha, dropout: args.dropout, ..LoraSettings::default() };
    TrainSettings {
        epochs: args.epochs,
        batch: args.train_batch,
        learning_rate: args.learning_rate,
        max_len: args.max_len,
        seed,
        method: if args.rank == 0 { Method::Full } else { Method::Lora(lora) },
        ..TrainSettings::default()
    }
}

/// The directory beside `out` in which a stopped training is gone on with; `out/` and `out` are one.
fn work_dir(out: &Path) -> Result<PathBuf> {
    let mut name =
        out.file_name().with_context(|| format!("--out {}: name a new directory", out.display()))?.to_owned();
    name.push(".partial");
    let work = out.with_file_name(name);
    std::fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    Ok(work)
}

/// A bar that is drawn on a terminal alone.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style)
}
