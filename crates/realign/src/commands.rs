//! What each subcommand does: name what its stage reads, run it, say what came of it.

use std::collections::HashMap;
use std::path::Path;

use evaluation::TaskScore;
use files::Hashes;
use realign::stage::{
    ADAPTER, Align, Finetune, Gate, Import, Inject, Objective, PATCH, REFERENCE, Reference, Repair, TrainingSet,
    WithAdapter,
};
use realign::{
    Artifact, Error, Interrupt, Job, LazyModel, Pick, Result, Samples, Stage as _, Wanted, answer_files, hub,
};
use recovery::{Layer, Method, Recover, Rollback};

use crate::cli::{AlignArgs, Cli, Command, FinetuneArgs, ObjectiveName, RepairCommand};
use crate::evaluate::Setting;
use crate::evaluate_args::DEFAULT_BATCH;
use crate::kind::Kind;
use crate::output::{self, Also, Held, check_apart, check_base, check_writable, is_stream, make, say, say_beside};
use crate::progress::Shown;
use crate::repair_args::{RepairArgs, evidence, reads_evidence};
use crate::whole::{self, NOT_RECOVERED};

/// Task prompts that the task direction is the mean of (METHOD.md section 2).
const TASK_PROMPTS: usize = 256;

/// What all commands share.
struct Context {
    setting: Setting,
    /// The seed, where it was named.
    named_seed: Option<u64>,
    quiet: bool,
    hashes: Hashes,
}

/// Runs a subcommand; gives back the exit status.
///
/// # Errors
/// Those of its stage.
pub fn run(mut cli: Cli) -> Result<u8> {
    let device = cli.device.open()?;
    let context = Context {
        setting: Setting {
            device: cli.device,
            dtype: cli.dtype,
            thinking: cli.enable_thinking,
            seed: cli.seed.unwrap_or(1),
        },
        named_seed: cli.seed,
        quiet: cli.quiet,
        hashes: Hashes::default(),
    };
    let interrupt = Interrupt::listen().map_err(files::Error::io("listen to Ctrl-C in", Path::new("this process")))?;
    let mut shown = Shown::new(cli.quiet);
    let mut report = |progress: realign::Progress<'_>| {
        shown.show(progress);
        interrupt.flow()
    };
    let mut job = Job {
        device: &device,
        batch: DEFAULT_BATCH,
        max_shard: cli.max_shard_size,
        earlier: Vec::new(),
        report: &mut report,
    };
    if cli.enable_thinking.is_some() && !cli.command.reads_thinking() {
        return Err(Error::Invalid("this command does not read --enable-thinking; leave it out".to_owned()));
    }
    if let Command::Repair(RepairCommand { method, inputs }) = &mut cli.command {
        if let (Method::Recover(settings), None) = (&mut *method, &inputs.validation) {
            // Without a score nothing decides about rollback.
            settings.rollback = if settings.rollback == Rollback::On { Rollback::On } else { Rollback::Off };
        }
        check_inputs(method, inputs)?; // before a model is fetched
    }
    cli.command.models().into_iter().try_for_each(|model| hub::localize(model, &mut job))?;
    context.run(cli.command, &mut job)
}

/// A model and the prompts that it reads.
struct PromptInputs<'a> {
    model: &'a Path,
    base: Option<&'a Path>,
    prompts: &'a Path,
    pick: Pick,
    out: &'a Path,
}

impl PromptInputs<'_> {
    /// Checks base and output, which is a file of a kind, before anything is read.
    fn check(&self, kind: Kind) -> Result<()> {
        check_base(&[self.model], self.base)?;
        let inputs: Vec<&Path> = [self.model, self.prompts].into_iter().chain(self.base).collect();
        check_apart(self.out, &inputs)?;
        check_writable(self.out, kind)
    }
}

impl Context {
    /// Runs a subcommand; gives back the exit status.
    fn run(&self, command: Command, job: &mut Job<'_>) -> Result<u8> {
        match command {
            Command::Import { from, base, out } => self.import(&from, base.as_deref(), &out, job)?,
            Command::Generate { model, base, prompts, prompt_key, limit, max_new_tokens, batch, out } => {
                job.batch = batch;
                let pick = Pick::by(&prompt_key, limit, false);
                let asked = PromptInputs { model: &model, base: base.as_deref(), prompts: &prompts, pick, out: &out };
                self.generate(asked, max_new_tokens, job).map_err(|error| error.located(&[&prompts]))?;
            }
            Command::Align(args) => self.align(args, job)?,
            Command::Finetune(args) => self.finetune(args, job)?,
            Command::Direction { model, base, prompts, prompt_key, limit, layer, out } => {
                let pick = Pick::by(&prompt_key, limit, false);
                let asked = PromptInputs { model: &model, base: base.as_deref(), prompts: &prompts, pick, out: &out };
                self.direction(asked, layer, job).map_err(|error| error.located(&[&prompts]))?;
            }
            Command::Whole(args) => {
                let Setting { dtype, thinking, .. } = self.setting;
                let global = whole::Global { seed: self.named_seed, dtype, thinking };
                return whole::run(&args, &global, self.quiet, job);
            }
            Command::Init { file } => crate::shell::init(&file)?,
            Command::Completions { shell } => crate::shell::completions(shell)?,
            Command::Man => crate::shell::man()?,
            Command::Repair(command) => return self.repair(command.method, command.inputs, job),
            Command::Patch(command) => crate::patch::run(command, self.setting.dtype, &self.hashes, job)?,
            Command::Evaluate(args) => {
                let files: Vec<&Path> = args.questions.files().collect();
                crate::evaluate::run(&args, self.setting, job).map_err(|error| error.located(&files))?;
            }
            Command::Gate(args) => {
                let files: Vec<&Path> = args.questions.files().collect();
                return crate::gate::run(&args, self.setting, job).map_err(|error| error.located(&files));
            }
            Command::Score { answers, metric, out } => {
                check_apart(&out, &[&answers])?;
                check_writable(&out, Kind::Score)?;
                let scored = TaskScore::new(metric, evaluation::answers(&answers)?)?;
                output::write(&out, &[serde_json::to_vec_pretty(&scored)?, b"\n".to_vec()].concat())?;
                say_beside(
                    &out,
                    format!("score: {:.1} %, n {}; wrote {}", 100.0 * scored.value, scored.n, out.display()),
                );
            }
        }
        Ok(0)
    }

    fn model(&self, path: &Path) -> Result<Artifact> {
        Artifact::model(path, &self.hashes)
    }

    fn samples(&self, file: &Path, pick: Pick) -> Result<Samples> {
        Samples::of(file, pick, &self.hashes)
    }

    fn lazy<'d>(&self, asked: &PromptInputs<'_>, job: &Job<'d>) -> Result<LazyModel<'d>> {
        let base = asked.base.map(|base| self.model(base)).transpose()?;
        let model = LazyModel::new(&self.model(asked.model)?, self.setting.dtype, job.device);
        Ok(model.on(base.as_ref()).thinking(self.setting.thinking))
    }

    fn import(&self, from: &Path, base: Option<&Path>, out: &Path, job: &mut Job<'_>) -> Result<()> {
        let inputs: Vec<&Path> = [from].into_iter().chain(base).collect();
        check_apart(out, &inputs)?;
        check_base(&[from], base)?;
        let base = base.map(|base| self.model(base)).transpose()?;
        let stage = Import { source: self.model(from)?, base, dtype: self.setting.dtype };
        make(&stage, out, &inputs, &[], job)?;
        say(format!("wrote {}", out.display()));
        Ok(())
    }

    fn generate(&self, asked: PromptInputs<'_>, max_new_tokens: usize, job: &mut Job<'_>) -> Result<()> {
        asked.check(Kind::Answers)?;
        let samples = asked.pick.read(asked.prompts)?;
        let mut model = self.lazy(&asked, job)?;
        // A stream gets all answers at the end; until then they are elsewhere.
        let scratch = tempfile::tempdir().map_err(files::Error::io("create", &std::env::temp_dir()))?;
        let stream = is_stream(asked.out);
        let path = if stream { scratch.path().join("answers.jsonl") } else { files::followed(asked.out) };
        let _held = if stream { None } else { Some(Held::file(&path)?) };
        let wanted = Wanted { samples: &samples, max_new_tokens, how: Vec::new(), path: path.clone() };
        let found = answer_files(&mut model, &[wanted], job)?.remove(0);
        if stream {
            output::write(asked.out, &std::fs::read(&path).map_err(files::Error::io("read", &path))?)?;
        }
        say_beside(asked.out, format!("wrote {} answers to {}", found.len(), asked.out.display()));
        Ok(())
    }

    fn align(&self, args: AlignArgs, job: &mut Job<'_>) -> Result<()> {
        let stage = Align {
            model: self.model(&args.model)?,
            refusals: self.samples(&args.refusals, Pick::default())?,
            refusal_texts: vec![args.refusal_text],
            helpful: vec![self.samples(&args.helpful, Pick::default())?],
            helpful_max_new_tokens: args.max_new_tokens,
            settings: args.settings,
            seed: self.setting.seed,
            dtype: self.setting.dtype,
        };
        let summary = make(&stage, &args.out, &[&args.model, &args.refusals, &args.helpful], &[], job)?;
        let (samples, loss) = (summary.samples, summary.final_loss);
        say(format!("aligned on {samples} samples, loss {loss:.3}; wrote {}", args.out.display()));
        Ok(())
    }

    fn finetune(&self, args: FinetuneArgs, job: &mut Job<'_>) -> Result<()> {
        if args.adapter.is_some() && args.train.lora.rank == 0 {
            return Err(Error::Invalid(
                "--rank 0 trains every weight, and --adapter has none to write; leave it out".into(),
            ));
        }
        let task = self.samples(&args.task, Pick::by(&args.prompt_key, args.limit, true))?;
        let inject = match &args.inject {
            Some(file) => {
                let samples = self.samples(file, Pick::answered())?;
                Some(Inject { samples, count: args.count, pass_over: 0, seed: self.setting.seed })
            }
            None => None,
        };
        let model = self.model(&args.model)?;
        let data = TrainingSet { task: Some(task), inject, safe: Vec::new() };
        let mut references = Vec::new();
        let scratch = tempfile::tempdir().map_err(files::Error::io("create", &std::env::temp_dir()))?;
        if args.objective == ObjectiveName::SoftSft {
            let (model, data, max_len) = (model.clone(), data.clone(), args.train.max_len);
            let stage = Reference { model, data, max_len, seed: self.setting.seed, dtype: self.setting.dtype };
            stage.run(scratch.path(), job)?;
            references.push(Artifact { key: stage.key()?, path: scratch.path().join(REFERENCE) });
        }
        let objective = match args.objective {
            ObjectiveName::Sft => Objective::Sft,
            ObjectiveName::SoftSft => Objective::SoftSft { settings: args.soft_sft, references },
        };
        let (settings, seed, dtype) = (args.train, self.setting.seed, self.setting.dtype);
        let finetune = Finetune { model, data, objective, settings, seed, dtype, kind: "finetune" };
        let inputs: Vec<&Path> =
            [&args.model, &args.task].into_iter().chain(&args.inject).map(|path| &**path).collect();
        let summary = match &args.adapter {
            Some(place) => {
                let base = hub::name_of(&args.model).unwrap_or_else(|| args.model.display().to_string());
                let also = Also { name: ADAPTER, kind: None, flag: "--adapter", place };
                make(&WithAdapter { finetune, base }, &args.out, &inputs, &[also], job)?
            }
            None => make(&finetune, &args.out, &inputs, &[], job)?,
        };
        let (samples, dropped, loss) = (summary.samples, summary.dropped, summary.final_loss);
        say(format!("trained on {samples} samples ({dropped} too long), loss {loss:.3}; wrote {}", args.out.display()));
        Ok(())
    }

    fn repair(&self, method: Method, args: RepairArgs, job: &mut Job<'_>) -> Result<u8> {
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
        let evidence = evidence(&method, &args, self.setting.seed, &self.hashes)?;
        let choose = method.repair().knob().filter(|_| args.evidence.choose);
        let of_rollback = args.task.clone().filter(|_| !reads_evidence(&method, &args));
        let stage = Repair {
            method,
            aligned: self.model(&args.aligned)?,
            fine_tuned: self.model(&args.finetuned)?,
            unaligned: model(&args.unaligned)?,
            base: model(&args.before_alignment)?,
            safe: model(&args.safe)?,
            recovery: None,
            prompts: samples(&args.prompts, Pick::by(&args.prompt_key, args.limit, false))?,
            task: samples(&of_rollback, Pick { at_most: Some(TASK_PROMPTS), ..Pick::default() })?,
            evidence,
            answers: None,
            choose,
            gate,
            seed: self.setting.seed,
            dtype: self.setting.dtype,
            thinking: self.setting.thinking,
            probe: args.probe,
        };
        let others = args
            .unaligned
            .iter()
            .chain(&args.before_alignment)
            .chain(&args.safe)
            .chain(&args.prompts)
            .chain(&args.evidence.harmless)
            .chain(&args.task)
            .chain(&args.validation);
        let inputs: Vec<&Path> =
            [&args.aligned, &args.finetuned].into_iter().chain(others).map(|path| &**path).collect();
        let also = [("trace.json", Kind::Trace, "--trace", &args.trace), (PATCH, Kind::Patch, "--patch", &args.patch)];
        let also: Vec<Also<'_>> = also
            .into_iter()
            .filter_map(|(name, kind, flag, place)| {
                Some(Also { name, kind: Some(kind), flag, place: place.as_deref()? })
            })
            .collect();
        let summary = make(&stage, &args.out, &inputs, &also, job)?;
        let restored =
            summary.restored.map_or(String::new(), |restored| format!("; {restored} weights are the aligned model's"));
        let streams = [&args.trace, &args.patch].into_iter().flatten().find(|place| is_stream(place));
        let beside = streams.map_or(&*args.out, |place| place);
        say_beside(beside, format!("{}{restored}; wrote {}", summary.note, args.out.display()));
        Ok(if summary.recovered { 0 } else { NOT_RECOVERED })
    }

    fn direction(&self, asked: PromptInputs<'_>, layer: Layer, job: &mut Job<'_>) -> Result<()> {
        asked.check(Kind::Direction)?;
        let samples = asked.pick.read(asked.prompts)?;
        let (out, model) = (asked.out, self.lazy(&asked, job)?.into_model()?);
        let layer = layer.of_blocks(model.decoder.config().num_hidden_layers);
        let rows = model.encode_prompts(&samples)?;
        let mean = direction::mean_direction(&model.decoder, &rows, layer)?;
        let bytes: Vec<u8> = mean.iter().flat_map(|value| value.to_le_bytes()).collect();
        let text = |error: safetensors::SafeTensorError| Error::Invalid(format!("{}: {error}", out.display()));
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![mean.len()], &bytes).map_err(text)?;
        // One key: several are written in an order that changes.
        let notes = serde_json::json!({"layer": layer, "prompts": rows.len()}).to_string();
        let metadata = HashMap::from([("realign".to_owned(), notes)]);
        let file = safetensors::serialize([("direction", view)], Some(metadata)).map_err(text)?;
        output::write(out, &file)?;
        say_beside(out, format!("layer {layer}, {} prompts; wrote {}", rows.len(), out.display()));
        Ok(())
    }
}

/// Checks that a method gets what it needs, and nothing that it does not read.
fn check_inputs(method: &Method, args: &RepairArgs) -> Result<()> {
    let (needs, word) = (method.repair().needs(), method.word());
    let reads_evidence = reads_evidence(method, args);
    if args.evidence.choose && method.repair().knob().is_none() {
        return Err(Error::Invalid(format!(
            "{word} has no knob to --choose; it decides itself, or there is nothing to decide"
        )));
    }
    let given = [
        ("--unaligned", needs.unaligned, args.unaligned.is_some()),
        ("--before-alignment", needs.base, args.before_alignment.is_some()),
        ("--safe", needs.safe, args.safe.is_some()),
        ("--prompts", needs.prompts || reads_evidence, args.prompts.is_some()),
        ("--harmless", reads_evidence, args.evidence.harmless.is_some()),
    ];
    for (flag, needed, given) in given {
        match (needed, given) {
            (true, false) => return Err(Error::Invalid(format!("{word} needs {flag}"))),
            (false, true) => return Err(Error::Invalid(format!("{word} does not read {flag}; leave it out"))),
            _ => {}
        }
    }
    let invalid = |text: String| Err(Error::Invalid(text));
    if args.patch.is_some() && !method.repair().has_patch() {
        return invalid(format!("{word} restores no single weights and has no patch; leave --patch out"));
    }
    if reads_evidence {
        return match (args.validation.is_some(), args.limit.is_some()) {
            (true, _) => invalid(format!("{word} decides by held-out prompts here; leave --validation out")),
            (_, true) => invalid(format!("{word} divides all --prompts here; leave --limit out")),
            _ => Ok(()),
        };
    }
    let always = matches!(method, Method::Recover(Recover { rollback: Rollback::On, .. }));
    if always && args.validation.is_some() {
        return invalid("--rollback on lets no score decide: leave --validation out, or --rollback on".to_owned());
    }
    match (needs.task_prompts, args.task.is_some(), args.validation.is_some()) {
        (false, true, false) if matches!(method, Method::Recover(_)) => invalid(format!(
            "{word} reads --task for rollback alone: give --validation, whose score decides it, or --rollback on"
        )),
        (false, true, _) => invalid(format!("{word} reads no --task and no --validation here; leave them out")),
        (true, false, _) => invalid(format!("{word} needs --task for rollback")),
        _ => Ok(()),
    }
}
