//! What each subcommand does: name what its stage reads, run it, say what came of it.

use std::collections::HashMap;
use std::path::Path;

use evaluation::{TaskScore, read_answers};
use files::Hashes;
use finetune::AlignSettings;
use indicatif::{ProgressBar, ProgressStyle};
use model::Dtype;
use prompts::sample::read_jsonl;
use realign::stage::{Align, Finetune, Gate, Import, Inject, Objective, REFERENCE, Reference, Repair, TrainingSet};
use realign::{
    Artifact, Error, Interrupt, Job, LazyModel, Pick, Progress, Result, Samples, Stage as _, Wanted, answer_files,
};
use recovery::{Layer, Method, Rollback};

use crate::cli::{AlignArgs, Cli, Command, DEFAULT_BATCH, FinetuneArgs, ObjectiveName, RepairArgs};
use crate::output::{check_apart, check_writable, make, say};

/// Task prompts that the task direction is the mean of (METHOD.md section 2).
const TASK_PROMPTS: usize = 256;

/// What all commands share.
struct Context {
    dtype: Option<Dtype>,
    seed: u64,
    hashes: Hashes,
}

/// Runs a subcommand.
///
/// # Errors
/// Those of its stage.
pub fn run(cli: Cli) -> Result<()> {
    let device = cli.device.open()?;
    let context = Context { dtype: cli.dtype.map(Into::into), seed: cli.seed, hashes: Hashes::default() };
    let interrupt = Interrupt::listen().map_err(files::Error::io("listen to Ctrl-C in", Path::new("this process")))?;
    let bar = progress_bar();
    let mut report = |Progress { done, all, word }: Progress<'_>| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        bar.set_message(word.to_owned());
        interrupt.flow()
    };
    let mut job = Job { device: &device, batch: DEFAULT_BATCH, earlier: Vec::new(), report: &mut report };
    let outcome = match cli.command {
        Command::Import { from, out } => context.import(&from, &out, &mut job),
        Command::Generate { model, prompts, max_new_tokens, batch, out } => {
            job.batch = batch;
            context.generate(&model, &prompts, max_new_tokens, &out, &mut job)
        }
        Command::Align(args) => context.align(args, &mut job),
        Command::Finetune(args) => context.finetune(args, &mut job),
        Command::Direction { model, prompts, layer, out } => context.direction(&model, &prompts, layer, &out, &mut job),
        Command::Repair(command) => context.repair(command.method, command.inputs, &mut job),
        Command::Evaluate(args) => {
            job.batch = args.batch;
            crate::evaluate::run(&args, (cli.device, context.dtype, context.seed), &mut job)
        }
        Command::Score { answers, metric, out } => {
            check_apart(&out, &[&answers])?;
            let scored = TaskScore::new(metric, &read_answers(&answers)?)?;
            files::write_json(&out, &scored)?;
            say(format!("score: {:.1} %, n {}; wrote {}", 100.0 * scored.value, scored.n, out.display()));
            Ok(())
        }
    };
    bar.finish_and_clear();
    outcome
}

impl Context {
    fn model(&self, path: &Path) -> Result<Artifact> {
        Artifact::model(path, &self.hashes)
    }

    fn samples(&self, file: &Path, pick: Pick) -> Result<Samples> {
        Samples::of(file, pick, &self.hashes)
    }

    fn import(&self, from: &Path, out: &Path, job: &mut Job<'_>) -> Result<()> {
        let stage = Import { source: self.model(from)?, dtype: self.dtype };
        make(&stage, out, &[from], &[], job)?;
        say(format!("wrote {}", out.display()));
        Ok(())
    }

    fn generate(
        &self,
        model: &Path,
        prompts: &Path,
        max_new_tokens: usize,
        out: &Path,
        job: &mut Job<'_>,
    ) -> Result<()> {
        check_apart(out, &[model, prompts])?;
        let samples = read_jsonl(prompts)?;
        let mut model = LazyModel::new(&self.model(model)?, self.dtype, job.device);
        let wanted = Wanted { samples: &samples, max_new_tokens, path: out.to_path_buf() };
        let found = answer_files(&mut model, &[wanted], job)?.remove(0);
        say(format!("wrote {} answers to {}", found.len(), out.display()));
        Ok(())
    }

    fn align(&self, args: AlignArgs, job: &mut Job<'_>) -> Result<()> {
        let stage = Align {
            model: self.model(&args.model)?,
            refusals: self.samples(&args.refusals, Pick::default())?,
            refusal_texts: vec![args.refusal_text],
            helpful: vec![self.samples(&args.helpful, Pick::default())?],
            helpful_max_new_tokens: args.max_new_tokens,
            settings: AlignSettings { train: args.train, kl: args.kl },
            seed: self.seed,
            dtype: self.dtype,
        };
        let summary = make(&stage, &args.out, &[&args.model, &args.refusals, &args.helpful], &[], job)?;
        let (samples, loss) = (summary.samples, summary.final_loss);
        say(format!("aligned on {samples} samples, loss {loss:.3}; wrote {}", args.out.display()));
        Ok(())
    }

    fn finetune(&self, args: FinetuneArgs, job: &mut Job<'_>) -> Result<()> {
        let task = self.samples(&args.task, Pick::answered())?;
        let inject = match &args.inject {
            Some(file) => {
                let samples = self.samples(file, Pick::answered())?;
                Some(Inject { samples, count: args.count, pass_over: 0, seed: self.seed })
            }
            None => None,
        };
        let model = self.model(&args.model)?;
        let data = TrainingSet { task: Some(task), inject };
        let mut references = Vec::new();
        let scratch = tempfile::tempdir().map_err(files::Error::io("create", &std::env::temp_dir()))?;
        if args.objective == ObjectiveName::SoftSft {
            let (model, data, max_len) = (model.clone(), data.clone(), args.train.max_len);
            let stage = Reference { model, data, max_len, seed: self.seed, dtype: self.dtype };
            stage.run(scratch.path(), job)?;
            references.push(Artifact { key: stage.key()?, path: scratch.path().join(REFERENCE) });
        }
        let objective = match args.objective {
            ObjectiveName::Sft => Objective::Sft,
            ObjectiveName::SoftSft => Objective::SoftSft { settings: args.soft_sft, references },
        };
        let (settings, seed, dtype) = (args.train, self.seed, self.dtype);
        let stage = Finetune { model, data, objective, settings, seed, dtype, kind: "finetune" };
        let inputs: Vec<&Path> =
            [&args.model, &args.task].into_iter().chain(&args.inject).map(|path| &**path).collect();
        let summary = make(&stage, &args.out, &inputs, &[], job)?;
        let (samples, dropped, loss) = (summary.samples, summary.dropped, summary.final_loss);
        say(format!("trained on {samples} samples ({dropped} too long), loss {loss:.3}; wrote {}", args.out.display()));
        Ok(())
    }

    fn repair(&self, mut method: Method, args: RepairArgs, job: &mut Job<'_>) -> Result<()> {
        if let (Method::Recover(settings), None) = (&mut method, &args.validation) {
            // Without a score nothing decides about rollback.
            settings.rollback = if settings.rollback == Rollback::On { Rollback::On } else { Rollback::Off };
        }
        check_inputs(&method, &args)?;
        let model = |path: &Option<std::path::PathBuf>| path.as_deref().map(|path| self.model(path)).transpose();
        let samples = |file: &Option<std::path::PathBuf>, pick: Pick| match file {
            Some(file) => self.samples(file, pick).map(Some),
            None => Ok(None),
        };
        let gate = samples(&args.validation, Pick::answered())?.map(|samples| Gate {
            samples,
            metric: args.metric,
            max_new_tokens: args.max_new_tokens,
        });
        let stage = Repair {
            method,
            aligned: self.model(&args.aligned)?,
            fine_tuned: self.model(&args.finetuned)?,
            unaligned: model(&args.unaligned)?,
            recovery: None,
            prompts: samples(&args.prompts, Pick { count: args.limit, ..Pick::default() })?,
            task: samples(&args.task, Pick { at_most: Some(TASK_PROMPTS), ..Pick::default() })?,
            gate,
            seed: self.seed,
            dtype: self.dtype,
        };
        let others = args.unaligned.iter().chain(&args.prompts).chain(&args.task).chain(&args.validation);
        let inputs: Vec<&Path> =
            [&args.aligned, &args.finetuned].into_iter().chain(others).map(|path| &**path).collect();
        let also: Vec<(&str, &Path)> = args.trace.iter().map(|trace| ("trace.json", &**trace)).collect();
        let summary = make(&stage, &args.out, &inputs, &also, job)?;
        let restored =
            summary.restored.map_or(String::new(), |restored| format!("; {restored} weights are the aligned model's"));
        say(format!("{}{restored}; wrote {}", summary.note, args.out.display()));
        Ok(())
    }

    fn direction(&self, model: &Path, prompts: &Path, layer: Layer, out: &Path, job: &mut Job<'_>) -> Result<()> {
        check_apart(out, &[model, prompts])?;
        check_writable(out)?;
        let samples = read_jsonl(prompts)?;
        let model = LazyModel::new(&self.model(model)?, self.dtype, job.device).into_model()?;
        let layer = layer.of_blocks(model.decoder.config().num_hidden_layers);
        let rows = model.encode_prompts(&samples)?;
        let mean = direction::mean_direction(&model.decoder, &rows, layer)?;
        let bytes: Vec<u8> = mean.iter().flat_map(|value| value.to_le_bytes()).collect();
        let text = |error: safetensors::SafeTensorError| Error::Invalid(format!("{}: {error}", out.display()));
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![mean.len()], &bytes).map_err(text)?;
        let metadata =
            HashMap::from([("layer".to_owned(), layer.to_string()), ("prompts".to_owned(), rows.len().to_string())]);
        let file = safetensors::serialize([("direction", view)], Some(metadata)).map_err(text)?;
        files::write_whole(out, &file)?;
        say(format!("layer {layer}, {} prompts; wrote {}", rows.len(), out.display()));
        Ok(())
    }
}

/// Checks that a method gets what it needs, and nothing that it does not read.
fn check_inputs(method: &Method, args: &RepairArgs) -> Result<()> {
    let (needs, word) = (method.repair().needs(), method.word());
    let given = [
        ("--unaligned", needs.unaligned, args.unaligned.is_some()),
        ("--prompts", needs.prompts, args.prompts.is_some()),
    ];
    for (flag, needed, given) in given {
        match (needed, given) {
            (true, false) => return Err(Error::Invalid(format!("{word} needs {flag}"))),
            (false, true) => return Err(Error::Invalid(format!("{word} does not read {flag}; leave it out"))),
            _ => {}
        }
    }
    match (needs.task_prompts, args.task.is_some()) {
        (false, true) => Err(Error::Invalid(format!(
            "{word} reads --task for rollback alone: give --validation, whose score decides it, or --rollback on"
        ))),
        (true, false) => Err(Error::Invalid(format!("{word} needs --task for rollback"))),
        _ => Ok(()),
    }
}

/// A bar that is drawn on a terminal alone.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style)
}
