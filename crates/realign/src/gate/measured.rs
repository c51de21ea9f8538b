//! The evaluations that bounds are checked on: named, or made of models now.

use std::path::{Path, PathBuf};

use evaluation::PromptKind;
use evaluation::gate::On;
use realign::stage::{Aim, check_judged};
use realign::{Error, Job, Result, Source, Within as _};

use super::{GateArgs, bounds};
use crate::evaluate::{self, Asked, Setting};

/// The directories of the evaluations within that of the command.
pub const DIRS: [&str; 3] = ["model", "before", "aligned"];

/// Directories of finished evaluations.
pub struct Dirs {
    /// Of the model that may be served.
    pub scores: PathBuf,
    /// Of the fine-tuned model.
    pub before: Option<PathBuf>,
    /// Of the aligned model.
    pub aligned: Option<PathBuf>,
}

/// Whether a question is about what a bound is on.
fn is_about(on: On, aim: &Aim) -> bool {
    match on {
        On::Harmful => matches!(aim, Aim::Prompts(PromptKind::Harmful)),
        On::TaskDrop => matches!(aim, Aim::Task(_)),
        On::OverRefusal | On::OverRefusalAboveAligned => {
            matches!(aim, Aim::Prompts(PromptKind::Harmless | PromptKind::LooksHarmful))
        }
    }
}

/// Where a model is, which may be an adapter on the base.
fn source<'a>(args: &'a GateArgs, model: &'a Path) -> Result<Source<'a>> {
    Source::with_base(model, args.base.as_deref())
}

/// The evaluations that are named, or those of the models, measured now as far as it was not done before.
///
/// # Errors
/// When a bound has no question, or a model cannot be measured.
pub fn measured(args: &GateArgs, setting: Setting, job: &mut Job<'_>) -> Result<Dirs> {
    let (Some(model), Some(out)) = (&args.model, &args.out) else {
        let (scores, before, aligned) = (args.scores.clone().unwrap_or_default(), &args.before, &args.aligned);
        return Ok(Dirs { scores, before: before.clone(), aligned: aligned.clone() });
    };
    let aims = evaluate::aims(&args.questions)?;
    for bound in bounds(args) {
        if !aims.iter().any(|aim| is_about(bound.on, aim)) {
            let name = match bound.on {
                On::Harmful => "--harmful",
                On::TaskDrop => "--task",
                On::OverRefusal | On::OverRefusalAboveAligned => "--harmless",
            };
            let text = format!("{bound} has nothing to be checked on: name {name}, or --prompt-sets or --tasks");
            return Err(Error::Invalid(text));
        }
    }
    // All of them before the first is measured, which takes long.
    for model in [Some(model), args.before.as_ref(), args.aligned.as_ref()].into_iter().flatten() {
        source(args, model)?.check().within(|| model.display().to_string())?;
    }
    let mut measure = |name: &str, model: &Path, about: &dyn Fn(&Aim) -> bool| -> Result<PathBuf> {
        let out = out.join(name);
        let is_adapter = source(args, model)?.is_adapter();
        let base = args.base.as_deref().filter(|_| is_adapter);
        let asked = Asked { model: Some((model, base)), questions: &args.questions, attacks: &[], files: &[], about };
        let evaluation =
            evaluate::evaluation(&asked, true, &out, setting, job).within(|| model.display().to_string())?;
        check_judged(&evaluation, &out)?;
        Ok(out)
    };
    let scores = measure("model", model, &|_| true)?;
    let of = |on: On| move |aim: &Aim| is_about(on, aim);
    let before = args.before.as_deref().map(|path| measure("before", path, &of(On::TaskDrop))).transpose()?;
    let aligned = args.aligned.as_deref().map(|path| measure("aligned", path, &of(On::OverRefusal))).transpose()?;
    Ok(Dirs { scores, before, aligned })
}
