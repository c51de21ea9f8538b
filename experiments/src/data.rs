//! The sample files of a sweep: which of their lines each stage reads, and that no model is asked what it was trained on.
//!
//! Files repeat themselves and each other, so the contamination check compares prompts and not lines.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use evaluation::{Fields, TaskSpec};
use prompts::Sample;
use prompts::sample::read_training_jsonl;
use realign::{Pick, Split};

use crate::config::{Align, AnswerSet, DecideOn, Gguf, ModelSpec, PromptSet, Source, Sweep};

impl Sweep {
    /// The task's samples for training.
    #[must_use]
    pub fn train_samples(&self, task: &TaskSpec) -> (PathBuf, Pick) {
        self.part_of(task, false)
    }

    /// The task's samples whose score decides a recovery.
    #[must_use]
    pub fn deciding_samples(&self, task: &TaskSpec) -> (PathBuf, Pick) {
        match self.recovery.decide_on {
            DecideOn::Validation => self.part_of(task, true),
            DecideOn::Test => self.test_samples(task),
        }
    }

    /// The task's samples that are reported.
    #[must_use]
    pub fn test_samples(&self, task: &TaskSpec) -> (PathBuf, Pick) {
        (self.data_file(&task.test), Pick { fields: own_fields(task), ..Pick::answered() })
    }

    /// The task's training prompts that a repair reads.
    #[must_use]
    pub fn task_prompts(&self, task: &TaskSpec) -> (PathBuf, Pick) {
        let (file, pick) = self.train_samples(task);
        (file, Pick { at_most: Some(self.recovery.task_prompts), ..pick })
    }

    /// The prompts that a repair reads.
    #[must_use]
    pub fn recovery_prompts(&self) -> (PathBuf, Pick) {
        (self.data_file(&self.recovery.prompts), Pick::lines(0, self.recovery.count))
    }

    /// The prompts of an alignment's set.
    #[must_use]
    pub fn prompts_of(&self, set: &PromptSet) -> (PathBuf, Pick) {
        (self.data_file(&set.file), Pick::lines(set.skip, set.count))
    }

    /// The prompts of a set that is asked.
    #[must_use]
    pub fn asked(&self, set: &AnswerSet) -> (PathBuf, Pick) {
        (self.data_file(&set.file), Pick::lines(set.skip, set.count))
    }

    fn part_of(&self, task: &TaskSpec, held_out: bool) -> (PathBuf, Pick) {
        let split = Some(Split { held_out, share: task.validation, seed: self.seed });
        (self.data_file(&task.train), Pick { fields: own_fields(task), split, ..Pick::answered() })
    }

    /// How many harmful samples the unaligned model leaves out at the start of the injection's order: those that a cell may
    /// inject. In a short file they are fewer; [`check_harmful`] tells whether the cells of a run inject none of the others.
    ///
    /// # Errors
    /// When the injection file cannot be read.
    pub fn passed_over(&self) -> Result<usize> {
        let largest = self.harmful_counts.iter().copied().max().unwrap_or(0);
        let found = read_training_jsonl(&self.data_file(&self.inject))?.len();
        Ok(largest.min(found.saturating_sub(self.unaligned.samples)))
    }

    fn needs_unaligned(&self) -> bool {
        self.methods.iter().any(|one| one.what.needs().is_some_and(|needs| needs.unaligned))
    }
}

fn own_fields(task: &TaskSpec) -> Option<Fields> {
    let usual = Fields { response: Some("response".into()), ..Fields::default() };
    (task.fields != usual).then(|| task.fields.clone())
}

/// What a run needs before its first stage: the files that scripts make, as many harmful samples as are injected, and
/// prompts that no model was trained on.
///
/// # Errors
/// As [`fetch`], [`check_harmful`] and [`check_contamination`]. A model that cannot be fetched is not an error: its cells
/// say why they cannot run.
pub fn prepare(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<()> {
    fetch_prompts(sweep, cells)?;
    check_contamination(sweep, cells)?;
    check_harmful(sweep, cells)?;
    for (_, model) in sweep.models_of(cells) {
        if let Err(error) = fetch_model(sweep, model) {
            tracing::debug!("{}: {error:#}", model.name);
        }
    }
    Ok(())
}

/// Runs `script`, which makes `file`, unless the file is there.
///
/// # Errors
/// When the script cannot be run, fails, or makes no such file.
pub fn fetch(sweep: &Sweep, script: &Path, file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let script = sweep.root_file(script);
    let dir = file.parent().with_context(|| format!("{} has no directory", file.display()))?;
    let data = sweep.root.join(&sweep.data);
    let status = Command::new("bash").arg(&script).arg(dir).arg(data).status();
    let status = status.with_context(|| format!("cannot run {}", script.display()))?;
    ensure!(status.success() && file.exists(), "{} did not make {}", script.display(), file.display());
    Ok(())
}

/// Makes the prompt files of some cells that have a script and are not there.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_prompts(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<()> {
    let models = sweep.models_of(cells);
    let aligns = models.iter().filter_map(|(_, model)| model.align.as_ref());
    let trained = aligns.flat_map(Align::sets).map(|(_, set)| (&set.fetch, &set.file));
    let asked = sweep.evaluation.sets().map(|(_, set)| (&set.fetch, &set.file));
    for (script, file) in trained.chain(asked) {
        if let Some(script) = script {
            fetch(sweep, script, &sweep.data_file(file))?;
        }
    }
    Ok(())
}

/// Fetches the GGUF file of a model that has a script for it and is not there.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_model(sweep: &Sweep, model: &ModelSpec) -> Result<()> {
    match &model.source {
        Source::Gguf(Gguf { fetch: Some(script), file }) => fetch(sweep, script, &sweep.root_file(file)),
        _ => Ok(()),
    }
}

/// Checks that there are as many harmful samples as some cells inject and, beside them, an unaligned model needs.
///
/// # Errors
/// When there are fewer, or the file cannot be read.
pub fn check_harmful(sweep: &Sweep, chosen: &BTreeSet<usize>) -> Result<()> {
    let file = sweep.data_file(&sweep.inject);
    let cells = sweep.cells();
    let largest = chosen.iter().map(|&cell| cells[cell].harmful_count).max().unwrap_or(0);
    let found = read_training_jsonl(&file)?.len();
    let place = file.display();
    ensure!(largest <= found, "harmful_counts: {largest} samples are to be injected, and {place} has {found}");
    let samples = sweep.unaligned.samples;
    let enough = largest.checked_add(samples).is_some_and(|sum| sum <= found);
    ensure!(
        enough || !sweep.needs_unaligned(),
        "unaligned.samples: beside the {largest} samples that are injected the unaligned model needs {samples} others, and \
         {place} has {found} in all: set fewer, or take a larger file"
    );
    Ok(())
}

/// Prompts that a model is trained on, or that its repair reads, with the key and the file that they come from.
struct Trained {
    by: String,
    prompts: HashSet<String>,
}

impl Trained {
    fn new(key: &str, file: &Path, samples: &[Sample]) -> Self {
        let prompts = samples.iter().map(|sample| plain(&sample.prompt)).collect();
        Self { by: format!("{key} ({})", file.display()), prompts }
    }

    /// The places of the samples whose prompts are among these.
    fn places(&self, asked: &[Sample]) -> Vec<usize> {
        (0..asked.len()).filter(|&at| self.prompts.contains(&plain(&asked[at].prompt))).collect()
    }
}

fn plain(prompt: &str) -> String {
    prompt.trim().to_lowercase()
}

/// Checks that no harmful or harmless prompt that is asked in some cells is one that is trained on: its answer would say
/// nothing of prompts a model has not seen. A task whose test file repeats its training file is only warned of, since such
/// files are published as they are.
///
/// # Errors
/// When a prompt is in both, or a file cannot be read.
pub fn check_contamination(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<()> {
    let mut trained = trained(sweep, cells)?;
    for (i, task) in sweep.tasks_of(cells) {
        let pick = Pick { fields: own_fields(task), ..Pick::answered() };
        let samples = pick.read(&sweep.data_file(&task.train))?;
        let train = Trained::new(&format!("tasks[{i}].train"), &task.train, &samples);
        let test = pick.read(&sweep.data_file(&task.test))?;
        let (seen, all) = (train.places(&test).len(), test.len());
        if seen > 0 {
            tracing::warn!("tasks[{i}].test: {seen} of the {all} prompts are also in {}", train.by);
        }
        trained.push(train);
    }
    let mut problems = Vec::new();
    for (name, set) in sweep.evaluation.sets() {
        let (file, pick) = sweep.asked(set);
        let asked = pick.read(&file)?;
        for trained in &trained {
            let seen = trained.places(&asked);
            let Some(first) = seen.first() else { continue };
            problems.push(format!(
                "evaluation.{name}: {} of the {} prompts of {} are also in {}, the first of them as number {}: take others, \
                 or remove them from one of the files",
                seen.len(),
                asked.len(),
                set.file.display(),
                trained.by,
                set.skip.saturating_add(first + 1),
            ));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("a model would be asked what it was trained on:\n{}", problems.join("\n"));
}

/// What is read beside the tasks. The injection file counts whole, since a seed draws from all of it.
fn trained(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<Vec<Trained>> {
    let mut trained = Vec::new();
    let mut add = |key: String, file: &Path, pick: Pick| -> Result<()> {
        trained.push(Trained::new(&key, file, &pick.read(&sweep.data_file(file))?));
        Ok(())
    };
    for (i, model) in sweep.models_of(cells) {
        if let Source::Pretrain(pretrain) = &model.source {
            let key = format!("models[{i}].source.pretrain.training.corpus");
            add(key, &pretrain.training.corpus, Pick::default())?;
        }
        for (name, set) in model.align.iter().flat_map(Align::sets) {
            add(format!("models[{i}].align.{name}"), &set.file, Pick::lines(set.skip, set.count))?;
        }
    }
    if sweep.harmful_counts.iter().any(|&count| count > 0) || sweep.needs_unaligned() {
        add("inject".into(), &sweep.inject, Pick::default())?;
    }
    for resolved in sweep.resolved(sweep.seed) {
        let Sweep { methods, recovery, .. } = &resolved.sweep;
        if methods.iter().any(|one| one.what.needs().is_some_and(|needs| needs.prompts)) {
            add("recovery.prompts".into(), &recovery.prompts, Pick::lines(0, recovery.count))?;
        }
    }
    Ok(trained)
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
