//! `realign patch`: recovery patches made, applied, taken back, checked and shown.

mod table;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use files::Hashes;
use model::{Decoder, Dtype};
use realign::stage::{ApplyPatch, PatchSummary};
use realign::{Artifact, Error, Job, Result, Source, Within as _};
use recovery::{Models, PatchFile};

use crate::kind::Kind;
use crate::output::{self, check_apart, check_base, check_writable, make as make_model, say, say_beside};

/// What is done with patches.
#[derive(Debug, Subcommand)]
pub enum PatchCommand {
    /// Make a patch of one step from three models.
    Make {
        /// Directory of the aligned model, or org/name[@revision] of the hub, as for all models here.
        #[arg(long)]
        aligned: PathBuf,
        /// Directory of the fine-tuned model, or of a peft adapter on the aligned one; the patch is bound to the merged
        /// model.
        #[arg(long)]
        finetuned: PathBuf,
        /// Directory of the recovered model, each weight of which is that of one of the two.
        #[arg(long)]
        recovered: PathBuf,
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Make the recovered model of the fine-tuned one.
    Apply(ApplyArgs),
    /// Make the fine-tuned model of the recovered one.
    Undo(ApplyArgs),
    /// Check a patch, and which model of it another one is; the exit code is not 0 where something does not fit.
    Verify {
        /// The patch.
        #[arg(long)]
        patch: PathBuf,
        /// Directory of a model, or of a peft adapter on --aligned: the fine-tuned one, or the one after a step.
        #[arg(long)]
        model: Option<PathBuf>,
        /// Directory of the aligned model.
        #[arg(long)]
        aligned: Option<PathBuf>,
    },
    /// Count what the answers of two patches have in common.
    Diff {
        /// A patch.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
    },
    /// Show what is in a patch.
    Show {
        /// The patch.
        patch: PathBuf,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

impl PatchCommand {
    /// The models that the command reads, which may be names of the hub.
    pub fn models(&mut self) -> Vec<&mut PathBuf> {
        match self {
            Self::Make { aligned, finetuned, recovered, .. } => vec![aligned, finetuned, recovered],
            Self::Apply(args) | Self::Undo(args) => [&mut args.model].into_iter().chain(&mut args.base).collect(),
            Self::Verify { model, aligned, .. } => model.iter_mut().chain(aligned).collect(),
            Self::Diff { .. } | Self::Show { .. } => Vec::new(),
        }
    }
}

/// What `apply` and `undo` take.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The patch.
    #[arg(long)]
    patch: PathBuf,
    /// Directory of the model that it is applied to or taken back from, or of a peft adapter on --base, or
    /// org/name[@revision] of the hub.
    #[arg(long)]
    model: PathBuf,
    /// The model that --model is a peft adapter on, if it is one: a directory, or org/name[@revision] of the hub.
    #[arg(long)]
    base: Option<PathBuf>,
    /// The directory to write, in the precision of the patch.
    #[arg(long)]
    out: PathBuf,
    /// The step whose model is made, or is taken back [default: the recovery's answer].
    #[arg(long)]
    step: Option<usize>,
}

/// Runs a command.
///
/// # Errors
/// When a patch or a model cannot be read, one does not fit the other, or an output cannot be written.
pub fn run(command: PatchCommand, dtype: Option<Dtype>, hashes: &Hashes, job: &mut Job<'_>) -> Result<()> {
    if dtype.is_some() && !matches!(command, PatchCommand::Make { .. }) {
        return Err(Error::Invalid("a patch has its own precision: leave --dtype out".to_owned()));
    }
    match command {
        PatchCommand::Make { aligned, finetuned, recovered, out } => {
            make(dtype, [&aligned, &finetuned, &recovered], &out, job)
        }
        PatchCommand::Apply(args) => apply(args, false, hashes, job),
        PatchCommand::Undo(args) => apply(args, true, hashes, job),
        PatchCommand::Verify { patch, model, aligned } => verify(&patch, model.as_deref(), aligned.as_deref(), job),
        PatchCommand::Diff { first, second } => {
            say(table::diff(&PatchFile::load(&first)?, &PatchFile::load(&second)?).trim_end());
            Ok(())
        }
        PatchCommand::Show { patch, json } => {
            let file = PatchFile::load(&patch)?;
            say(if json { serde_json::to_string_pretty(&table::json(&file))? } else { table::show(&file) }.trim_end());
            Ok(())
        }
    }
}

fn make(
    dtype: Option<Dtype>,
    [aligned, fine_tuned, recovered]: [&Path; 3],
    out: &Path,
    job: &mut Job<'_>,
) -> Result<()> {
    check_apart(out, &[aligned, fine_tuned, recovered])?;
    check_writable(out, Kind::Patch)?;
    // Its precision is that of the values to be made again.
    let repaired = Source::new(recovered, None)?;
    let dtype = repaired.dtype(dtype)?;
    let mut open = |source: Source<'_>| read(&source, dtype, job);
    let (repaired, fine_tuned_is) = (open(repaired)?, open(Source::new(fine_tuned, Some(aligned))?)?);
    let models = Models { aligned: &open(Source::new(aligned, None)?)?, fine_tuned: &fine_tuned_is, dtype };
    let file = PatchFile::between(models, &repaired).within(|| format!("a patch to {}", recovered.display()))?;
    let there = if out.is_file() { PatchFile::load(out).ok() } else { None };
    if let Some(there) = there.filter(|there| there.model_hashes() == file.model_hashes() && there.path.len() > 1) {
        let steps = there.path.len();
        let text = format!("{} is a patch of these models with {steps} steps, and this one has 1", out.display());
        return Err(Error::Invalid(format!("{text}: name another --out, or remove it first")));
    }
    output::write(out, &file.to_bytes()?)?;
    say_beside(out, format!("{} weights are the aligned model's; wrote {}", file.path.last().len(), out.display()));
    Ok(())
}

fn apply(args: ApplyArgs, undo: bool, hashes: &Hashes, job: &mut Job<'_>) -> Result<()> {
    let ApplyArgs { patch, model, base, out, step } = args;
    check_base(&[&model], base.as_deref())?;
    let base_is = base.as_deref().map(|base| Artifact::model(base, hashes)).transpose()?;
    let (patch_is, model_is) = (Artifact::file(&patch, hashes)?, Artifact::model(&model, hashes)?);
    let stage = ApplyPatch { patch: patch_is, model: model_is, base: base_is, step, undo };
    let inputs: Vec<&Path> = [&patch, &model].into_iter().chain(&base).map(|path| &**path).collect();
    let PatchSummary { step, restored, dtype } = make_model(&stage, &out, &inputs, &[], job)?;
    let name = match (step, dtype) {
        (0, Dtype::F32) => "the fine-tuned model".to_owned(),
        // The patch holds no other values, and does not say whether there were some.
        (0, dtype) => format!("the fine-tuned model in {0} (rounded to it, unless it was in {0})", dtype.name()),
        (step, _) => format!("the model after step {step}"),
    };
    say(format!("{name}, {restored} weights are the aligned model's; wrote {}", out.display()));
    Ok(())
}

fn verify(patch: &Path, model: Option<&Path>, aligned: Option<&Path>, job: &mut Job<'_>) -> Result<()> {
    let file = PatchFile::load(patch)?;
    let (steps, chosen) = (file.path.len(), file.path.chosen());
    say(format!("{}: whole; steps {steps}, the answer is step {chosen}", patch.display()));
    if let Some(aligned) = aligned {
        let decoder = read(&Source::new(aligned, None)?, file.dtype, job)?;
        file.check_aligned(&decoder).within(|| aligned.display().to_string())?;
        say(format!("{}: the aligned model", aligned.display()));
    }
    if let Some(model) = model {
        let decoder = read(&Source::new(model, aligned)?, file.dtype, job)?;
        let found = file.steps_of(&decoder).within(|| model.display().to_string())?;
        let name = |step: &usize| match *step {
            0 => "the fine-tuned model".to_owned(),
            step if step == chosen => format!("the model after step {step}, the answer"),
            step => format!("the model after step {step}"),
        };
        let names: Vec<String> = found.iter().map(name).collect();
        say(format!("{}: {}", model.display(), names.join(", and ")));
    }
    Ok(())
}

/// A model in the precision of a patch.
fn read(source: &Source<'_>, dtype: Dtype, job: &mut Job<'_>) -> Result<Decoder> {
    job.step(0, 1, "reading the models")?;
    source.decoder(Some(dtype), job.device)
}
