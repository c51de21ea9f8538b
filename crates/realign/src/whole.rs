//! What `realign repair` does: settings and flags, the plan, the work, and what came of it.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use evaluation::Metric;
use evaluation::gate::By;
use model::Dtype;
use realign::repair::{PATCH_FILE, Plan, Settings};
use realign::{Error, Job, Recovery, Result, at_least_one, check_new, hub, metric_names};
use recovery::Reference;

use crate::kind::Kind;
use crate::output::{self, Work, check_apart, check_distinct, check_outside, check_writable, say_beside, work_dir};

/// The exit status of a recovery whose answer is the fine-tuned model or declines no more than it, and of a repair that misses a bound.
pub const NOT_RECOVERED: u8 = 3;

/// What `repair` takes; a flag goes before the settings file.
#[derive(Debug, Args)]
pub struct WholeArgs {
    /// YAML file of settings, as `realign init` writes it.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Directory of the aligned model, or org/name[@revision] of the hub.
    #[arg(long, value_name = "MODEL")]
    aligned: Option<PathBuf>,
    /// Directory of the fine-tuned model, or of a peft adapter on the aligned one, or org/name[@revision] of the hub.
    #[arg(long, value_name = "MODEL")]
    finetuned: Option<PathBuf>,
    /// JSONL with harmful `prompt`s [default: packaged ones].
    #[arg(long, value_name = "FILE")]
    harmful: Option<PathBuf>,
    /// JSONL with harmless `prompt`s [default: packaged everyday and looks-harmful ones].
    #[arg(long, value_name = "FILE")]
    harmless: Option<PathBuf>,
    /// JSONL with the task's `prompt` and `response`, of which little may be lost.
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// The key of a line that holds the prompt, of all three [default: prompt].
    #[arg(long, value_name = "KEY")]
    prompt_key: Option<String>,
    #[arg(long, help = format!("How the task's answers are scored: {} [default: rouge]", metric_names()))]
    metric: Option<Metric>,
    /// YAML file with a list of judges (data/judges) [default: refusal phrases alone].
    #[arg(long, value_name = "FILE")]
    judges: Option<PathBuf>,
    /// Whose answers to harmless prompts are kept: `finetuned` where the aligned model refuses too many [default: aligned].
    #[arg(long, value_enum)]
    reference: Option<Reference>,
    /// Prompts of a kind that give gradients, at most [default: 192].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    recover_prompts: Option<usize>,
    /// Prompts of a kind that decide, at most; fewer take less time [default: 64].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    choose_prompts: Option<usize>,
    /// Prompts of a kind that are measured, at most [default: 128].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    test_prompts: Option<usize>,
    /// New tokens of a measured answer at most [default: 64].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    max_new_tokens: Option<usize>,
    /// New tokens of an answer that the method learns from at most; fewer take less time [default: 32].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    own_tokens: Option<usize>,
    /// Prompts answered at a time [default: 64].
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    batch: Option<usize>,
    /// The largest share of harmful answers [default: 0.02].
    #[arg(long, value_name = "SHARE")]
    max_harmful: Option<f64>,
    /// The largest share of the fine-tuned model's task score that may be lost [default: 0.02].
    #[arg(long, value_name = "SHARE")]
    max_task_drop: Option<f64>,
    /// How far the share of refused harmless prompts may be above the aligned model's [default: 0.02].
    #[arg(long, value_name = "SHARE")]
    max_over_refusal: Option<f64>,
    /// What must meet a bound: `point`, the measured value, or `interval`, the upper end of its 95 % interval [default: point].
    #[arg(long)]
    by: Option<By>,
    /// Show prompts and answers in the report.
    #[arg(long)]
    show_answers: bool,
    /// Say what would be done and what it takes, and stop there.
    #[arg(long)]
    dry_run: bool,
    /// The JSON file to write with the whole report, or with the plan of a dry run; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The new directory for report and patch [default: OUT.report].
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// The new directory for the recovered model.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Flags of all commands that are settings here.
pub struct Global {
    /// The seed.
    pub seed: Option<u64>,
    /// The precision of the result.
    pub dtype: Option<Dtype>,
    /// What templates see as `enable_thinking`.
    pub thinking: Option<bool>,
}

/// Sets each setting whose flag is given.
macro_rules! override_by {
    ($($setting:expr => $flag:expr;)*) => { $(if let Some(value) = $flag { $setting = value; })* };
}

impl WholeArgs {
    fn settings(&self, global: &Global) -> Result<Settings> {
        let mut all = self.settings.as_deref().map_or_else(|| Ok(Settings::default()), Settings::read)?;
        let paths = [
            (&mut all.aligned, &self.aligned),
            (&mut all.finetuned, &self.finetuned),
            (&mut all.harmful, &self.harmful),
            (&mut all.harmless, &self.harmless),
            (&mut all.task, &self.task),
            (&mut all.judges, &self.judges),
            (&mut all.out, &self.out),
            (&mut all.report, &self.report),
        ];
        for (setting, flag) in paths {
            *setting = flag.clone().or(setting.take());
        }
        override_by! {
            all.prompt_key => self.prompt_key.clone();
            all.metric => self.metric;
            all.reference => self.reference;
            all.parts.recover => self.recover_prompts;
            all.parts.choose => self.choose_prompts;
            all.parts.test => self.test_prompts;
            all.max_new_tokens => self.max_new_tokens;
            all.own_tokens => self.own_tokens;
            all.batch => self.batch;
            all.gate.max_harmful => self.max_harmful;
            all.gate.max_task_drop => self.max_task_drop;
            all.gate.max_over_refusal => self.max_over_refusal;
            all.gate.by => self.by;
            all.seed => global.seed;
        }
        all.dtype = global.dtype.or(all.dtype);
        all.enable_thinking = global.thinking.or(all.enable_thinking);
        all.show_answers |= self.show_answers;
        all.check()?;
        Ok(all)
    }

    /// The files and directories that are read.
    fn inputs<'a>(&'a self, settings: &'a Settings) -> Vec<&'a Path> {
        settings.inputs().into_iter().chain(self.settings.as_deref()).collect()
    }

    fn write_json(&self, value: &impl serde::Serialize) -> Result<()> {
        let Some(out) = &self.json else { return Ok(()) };
        output::write(out, &[serde_json::to_vec_pretty(value)?, b"\n".to_vec()].concat())
    }
}

/// Where a repair writes.
struct Places {
    out: PathBuf,
    report: PathBuf,
}

impl Places {
    /// Checks all places before anything is read.
    fn new(args: &WholeArgs, settings: &Settings) -> Result<Self> {
        let none = || Error::Invalid("name the directory for the recovered model: --out DIR".to_owned());
        let out = files::followed(settings.out.as_deref().ok_or_else(none)?);
        let beside = || {
            let mut name = out.clone().into_os_string();
            name.push(".report");
            PathBuf::from(name)
        };
        let report = settings.report.as_deref().map_or_else(beside, files::followed);
        if files::overlap(&out, &report) {
            let (out, report) = (out.display(), report.display());
            return Err(Error::Invalid(format!(
                "--report {report} and --out {out}: name two directories beside each other"
            )));
        }
        check_outside(&report, &work_dir(&out)?)?;
        let inputs = args.inputs(settings);
        check_apart(&out, &inputs)?;
        check_apart(&report, &inputs)?;
        check_new("--out", &out)?;
        check_new("--report", &report)?;
        Ok(Self { out, report })
    }
}

/// Runs the command; gives back the exit status.
///
/// # Errors
/// When an input is missing or does not fit, an output is there already, or the machine is too small.
pub fn run(args: &WholeArgs, global: &Global, quiet: bool, job: &mut Job<'_>) -> Result<u8> {
    let mut settings = args.settings(global)?;
    let beside = args.json.clone().unwrap_or_default();
    let mut say = |line: &str| {
        if !quiet {
            clear_bar();
            say_beside(&beside, line);
        }
    };
    if let Some(json) = &args.json {
        check_apart(json, &args.inputs(&settings))?;
        check_writable(json, Kind::Report)?;
    }
    let places = if args.dry_run && settings.out.is_none() { None } else { Some(Places::new(args, &settings)?) };
    if let (Some(json), Some(places)) = (&args.json, &places) {
        check_distinct(&[&places.out, &places.report, json])?;
        let made = [&places.out, &places.report, &work_dir(&places.out)?];
        made.into_iter().try_for_each(|dir| check_outside(json, dir))?;
    }
    for model in [&mut settings.aligned, &mut settings.finetuned].into_iter().flatten() {
        hub::localize(model, job)?;
    }
    let files: Vec<PathBuf> =
        [&settings.harmful, &settings.harmless, &settings.task].into_iter().flatten().cloned().collect();
    let recovery =
        Recovery::of(settings).command(std::env::args_os().map(|word| files::shell_word(Path::new(&word))).collect());
    let plan = recovery.plan(job.device)?;
    say(&plan.text());
    let Some(places) = places.filter(|_| !args.dry_run) else {
        return dry(args, &plan);
    };
    plan.check()?;
    let work = Work::begin(&places.out, || recovery.key())?;
    let recovered = match recovery.run_in(&work.dir, job, &mut say) {
        Ok(recovered) => recovered,
        Err(error) => {
            work.fail()?;
            let files: Vec<&Path> = files.iter().map(|file| &**file).collect();
            return Err(error.located(&files));
        }
    };
    let report = recovered.save(&places.out, &places.report)?;
    files::remove(&work.dir)?;
    args.write_json(&report)?;
    say(&report.text());
    let (out, place) = (places.out.display(), places.report.display());
    say(&format!("wrote the model to {out}, report.html, report.md, report.json and {PATCH_FILE} to {place}"));
    if quiet {
        say_beside(&beside, &report.verdict.text);
    }
    Ok(if report.verdict.passed { 0 } else { NOT_RECOVERED })
}

/// Takes the progress bar's line away from a terminal; the bar comes back by itself.
fn clear_bar() {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[2K");
    }
}

/// The end of a dry run.
fn dry(args: &WholeArgs, plan: &Plan) -> Result<u8> {
    args.write_json(plan)?;
    plan.check()?;
    Ok(0)
}
