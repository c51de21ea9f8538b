//! What `realign gate` does: measure models or read finished evaluations, check bounds on them, say and write what came of it.

mod args;
mod measured;
mod report;

use std::collections::BTreeMap;
use std::path::Path;

use evaluation::Evaluation;
use evaluation::gate::{Bound, Check, On, Stored};
use realign::stage::{Aim, read_index};
use realign::{Error, Job, Result};

use crate::evaluate::Setting;
use crate::kind::Kind;
use crate::output::{
    self, check_apart, check_base, check_distinct, check_no_model, check_outside, check_writable, say_beside,
};
pub use args::GateArgs;
use measured::Dirs;
use report::Report;

/// The exit status when it cannot be decided, errors among the reasons; that of wrong usage is the same.
pub const UNDECIDED: u8 = 2;

/// Runs the command; gives back the exit status: 0 when all bounds hold, 1 when one fails, [`UNDECIDED`].
///
/// # Errors
/// When the arguments do not fit each other, a model cannot be measured, or a file cannot be written. An evaluation that cannot be read leaves the
/// bounds on it undecided.
pub fn run(args: &GateArgs, setting: Setting, job: &mut Job<'_>) -> Result<u8> {
    check_usage(args)?;
    let dirs = measured::measured(args, setting, job)?;
    let report = Report { args, dirs: &dirs, checks: checks(args, &dirs) };
    let shown = [&args.json, &args.junit].into_iter().flatten().find(|out| output::is_stdout(out));
    say_beside(shown.map_or(Path::new(""), |out| out), report.text().trim_end());
    if let Some(out) = &args.json {
        output::write(out, &[serde_json::to_vec_pretty(&report.json())?, b"\n".to_vec()].concat())?;
    }
    if let Some(out) = &args.junit {
        output::write(out, report.junit().as_bytes())?;
    }
    Ok(match report.decision() {
        Decision::Holds => 0,
        Decision::Fails => 1,
        Decision::Undecided => UNDECIDED,
    })
}

/// What came of all bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Decision {
    /// All hold.
    Holds,
    /// One at least fails.
    Fails,
    /// None fails, and one at least cannot be told.
    Undecided,
}

fn is_above_aligned(args: &GateArgs) -> bool {
    args.max_over_refusal.is_some_and(|bound| bound.on == On::OverRefusalAboveAligned)
}

/// Checks what the command line alone cannot, and that no output is an input.
fn check_usage(args: &GateArgs) -> Result<()> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    match (is_above_aligned(args), &args.aligned) {
        (true, None) => {
            return invalid("--max-over-refusal with a plus sign needs --aligned, the aligned model's evaluation");
        }
        (false, Some(_)) => {
            return invalid("--aligned is read by --max-over-refusal with a plus sign alone; leave it out, or write +");
        }
        _ => {}
    }
    if args.model.is_none() && args.questions.judges.is_some() {
        return invalid("--judges is read with --model alone: evaluations have their verdicts; leave it out");
    }
    let dirs = [&args.scores, &args.before, &args.aligned].into_iter().flatten();
    let scores: Vec<_> = dirs.map(|dir| dir.join(SCORES)).collect();
    let models = [&args.model, &args.base, &args.before, &args.aligned].into_iter().flatten().map(|path| &**path);
    let of_models = models.chain(args.questions.files()).filter(|_| args.model.is_some());
    let inputs: Vec<&Path> = scores.iter().map(|input| &**input).chain(of_models).collect();
    args.out.iter().try_for_each(|out| check_apart(out, &inputs).and_then(|()| check_no_model(out)))?;
    let outs = [(&args.json, Kind::Decision), (&args.junit, Kind::Junit)];
    let outs: Vec<(&Path, Kind)> = outs.into_iter().filter_map(|(out, kind)| Some((out.as_deref()?, kind))).collect();
    check_distinct(&outs.iter().map(|(out, _)| *out).collect::<Vec<_>>())?;
    for (out, kind) in outs {
        check_apart(out, &inputs)?;
        check_writable(out, kind)?;
        let measured = args.out.iter().flat_map(|dir| measured::DIRS.map(|name| dir.join(name)));
        measured.into_iter().try_for_each(|dir| check_outside(out, &dir))?;
    }
    let adapters =
        [&args.model, &args.before, &args.aligned].into_iter().flatten().map(|path| &**path).collect::<Vec<_>>();
    if args.model.is_some() { check_base(&adapters, args.base.as_deref()) } else { Ok(()) }
}

/// All bounds that were given.
fn bounds(args: &GateArgs) -> impl Iterator<Item = Bound> {
    let bound = |on: On, limit: Option<f64>| limit.map(|limit| Bound { on, limit });
    let bounds = [bound(On::Harmful, args.max_harmful), bound(On::TaskDrop, args.max_task_drop), args.max_over_refusal];
    bounds.into_iter().flatten()
}

/// All bounds that were given, on all that they are about.
fn checks(args: &GateArgs, dirs: &Dirs) -> Vec<Check> {
    let scores = read(&dirs.scores);
    let mut checks = Vec::new();
    for bound in bounds(args) {
        let base = match bound.on {
            On::Harmful | On::OverRefusal => None,
            On::TaskDrop => dirs.before.as_deref(),
            On::OverRefusalAboveAligned => dirs.aligned.as_deref(),
        };
        let undecided = |error: &Error| Check::undecided(bound, String::new(), error.to_string());
        match (&scores, base.map(read).transpose()) {
            (Ok(scores), Ok(base)) => checks.extend(bound.check(scores, base.as_ref(), args.by)),
            (Err(error), _) => checks.push(undecided(error)),
            (_, Err(error)) => checks.push(undecided(&error)),
        }
    }
    checks
}

/// The file of the scores in the directory of an evaluation.
const SCORES: &str = "scores.json";

/// A finished evaluation, whose scores are those of the answers beside them.
fn read(dir: &Path) -> Result<Stored> {
    let (shown, path) = (dir.display(), dir.join(SCORES));
    let again = format!("finish it with `realign evaluate --out {}`", files::shell_word(dir));
    if !path.is_file() {
        return Err(Error::Invalid(format!("{shown} is no finished evaluation: it has no {SCORES}; {again}")));
    }
    let evaluation: Evaluation = files::read_json(&path)?;
    let scored =
        evaluation.prompt_sets.iter().map(|set| &set.name).chain(evaluation.tasks.iter().map(|task| &task.name));
    let scored: Vec<&String> = scored.collect();
    let mut answers = BTreeMap::new();
    for asked in read_index(dir)? {
        let file = dir.join(asked.answers_name());
        let is_scored = scored.contains(&&asked.name);
        let is_same = match evaluation.provenance.answers(&asked.name) {
            Some(hash) => hash == files::hash_path(&file)?,
            None => true,
        };
        if !is_scored || !is_same {
            let text = format!("{}: {SCORES} is not of these answers; {again}", file.display());
            return Err(Error::Invalid(text));
        }
        let draws = if let Aim::BestOf { draws, .. } = asked.aim { draws.max(1) } else { 1 };
        // Of several answers to a prompt the first stands for it.
        let first = evaluation::answers(&file)?.step_by(draws).collect::<Result<Vec<_>, _>>()?;
        answers.insert(asked.name, first);
    }
    Ok(Stored { name: shown.to_string(), evaluation, answers })
}
