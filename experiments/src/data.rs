//! The sample files of a sweep: which of their lines each stage reads, and that no model is asked what it was trained on.
//!
//! Files repeat themselves and each other, so the contamination check compares prompts and not lines.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use evaluation::{Fields, Judge, TaskSpec};
use prompts::Sample;
use prompts::sample::read_training_jsonl;
use realign::{Pick, Split};
use recovery::Needs;

use crate::config::{
    Align, AnswerSet, AttackSpec, Compared, DecideOn, Evaluation, EvidenceSpec, PromptSet, Source, Sweep,
};
use crate::error::with_causes;

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
        let fields = self.recovery.fields.clone();
        (self.data_file(&self.recovery.prompts), Pick { fields, ..Pick::lines(0, self.recovery.count) })
    }

    /// Harmful prompts of the evidence: those that give gradients, or those that decide.
    #[must_use]
    pub fn harmful_evidence(&self, evidence: &EvidenceSpec, held_out: bool) -> (PathBuf, Pick) {
        let pick = Pick { fields: self.recovery.fields.clone(), ..self.evidence_part(evidence, held_out) };
        (self.data_file(&self.recovery.prompts), pick)
    }

    /// The harmless ones, likewise.
    #[must_use]
    pub fn harmless_evidence(&self, evidence: &EvidenceSpec, held_out: bool) -> (PathBuf, Pick) {
        (self.data_file(&evidence.harmless), self.evidence_part(evidence, held_out))
    }

    fn evidence_part(&self, evidence: &EvidenceSpec, held_out: bool) -> Pick {
        let split = Some(Split { held_out, share: evidence.held_out, seed: self.seed });
        Pick { split, at_most: Some(evidence.part(held_out)), ..Pick::default() }
    }

    /// Samples of the task in the evidence: those that give gradients, which are trained on, or those that decide.
    #[must_use]
    pub fn evidence_samples(&self, evidence: &EvidenceSpec, task: &TaskSpec, held_out: bool) -> (PathBuf, Pick) {
        let (file, pick) = if held_out { self.deciding_samples(task) } else { self.train_samples(task) };
        (file, Pick { at_most: Some(evidence.task_part(held_out)), ..pick })
    }

    /// The prompts of an alignment's set.
    #[must_use]
    pub fn prompts_of(&self, set: &PromptSet) -> (PathBuf, Pick) {
        (self.data_file(&set.file), Pick::lines(set.skip, set.count))
    }

    /// The prompts of a set that is asked.
    #[must_use]
    pub fn evaluated_prompts(&self, set: &AnswerSet) -> (PathBuf, Pick) {
        (self.data_file(&set.file), Pick::lines(set.skip, set.count))
    }

    fn part_of(&self, task: &TaskSpec, held_out: bool) -> (PathBuf, Pick) {
        let split = Some(Split { held_out, share: task.validation, seed: self.seed });
        (self.data_file(&task.train), Pick { fields: own_fields(task), split, ..Pick::answered() })
    }

    /// The largest number of harmful samples that a cell may inject from a file with so many: in a short one they are fewer.
    #[must_use]
    pub fn largest_count(&self, found: usize) -> usize {
        self.harmful_counts.iter().copied().max().unwrap_or(0).min(found)
    }

    /// How many harmful samples the unaligned model leaves out at the start of the injection's order, in a file with so
    /// many: those that a cell may inject. In a short file they are fewer; [`check_harmful`] tells whether the cells of a
    /// run inject none of the others.
    #[must_use]
    pub fn passed_over(&self, found: usize) -> usize {
        self.largest_count(found.saturating_sub(self.unaligned.samples))
    }

    /// Whether a method needs something.
    fn needs(&self, what: impl Fn(Needs) -> bool) -> bool {
        self.methods.iter().filter_map(|one| one.what.needs()).any(what)
    }
}

fn own_fields(task: &TaskSpec) -> Option<Fields> {
    let usual = Fields { response: Some("response".into()), ..Fields::default() };
    (task.fields != usual).then(|| task.fields.clone())
}

/// A file that some cells read.
#[derive(Debug, PartialEq)]
struct Input {
    /// The key that names it.
    key: String,
    file: PathBuf,
    /// The script that makes it.
    fetch: Option<PathBuf>,
    /// The samples that are trained on, or otherwise seen before the evaluation.
    seen: Option<Pick>,
    /// How the user gets it.
    how: Option<String>,
}

impl Input {
    fn new(key: impl Into<String>, file: PathBuf) -> Self {
        Self { key: key.into(), file, fetch: None, seen: None, how: None }
    }

    fn made_by(self, script: Option<&PathBuf>) -> Self {
        Self { fetch: script.cloned(), ..self }
    }

    fn seen(self, pick: Pick) -> Self {
        Self { seen: Some(pick), ..self }
    }
}

/// Every file that some cells read in any variant. What a variant changes is named by the variant's key.
fn inputs(sweep: &Sweep, chosen: &BTreeSet<usize>) -> Vec<Input> {
    if sweep.variants.is_empty() {
        return inputs_of(sweep, chosen);
    }
    let (own, mut all) = (inputs_of(sweep, chosen), Vec::new());
    for (i, variant) in sweep.resolved(sweep.seed).iter().enumerate() {
        for input in inputs_of(&variant.sweep, chosen) {
            let is_own = own.contains(&input);
            let key = if is_own { input.key } else { format!("variants[{i}].{}", input.key) };
            let input = Input { key, ..input };
            if !all.contains(&input) {
                all.push(input);
            }
        }
    }
    all
}

/// Every file that some cells read, by the keys of one variant alone. The injection file is seen whole, since a seed draws
/// from all of it.
fn inputs_of(sweep: &Sweep, chosen: &BTreeSet<usize>) -> Vec<Input> {
    let retrained = sweep.evaluation.attacks.iter().filter_map(AttackSpec::injected).any(|count| count > 0);
    let injected = sweep.harmful_counts.iter().any(|&count| count > 0) || sweep.needs(|needs| needs.unaligned);
    let inject = Input::new("inject", sweep.data_file(&sweep.inject)).made_by(sweep.inject_fetch.as_ref());
    let mut inputs = vec![if injected || retrained { inject.seen(Pick::default()) } else { inject }];
    let (file, pick) = sweep.recovery_prompts();
    let prompts = Input::new("recovery.prompts", file);
    inputs.push(if sweep.needs(|needs| needs.prompts) { prompts.seen(pick) } else { prompts });
    let evidence = sweep.recovery.evidence.as_ref();
    if let Some(evidence) = evidence.filter(|_| sweep.methods.iter().any(Compared::reads_evidence)) {
        for held_out in [false, true] {
            let (harmful, harmless) =
                (sweep.harmful_evidence(evidence, held_out), sweep.harmless_evidence(evidence, held_out));
            inputs.push(Input::new("recovery.prompts", harmful.0).seen(harmful.1));
            inputs.push(Input::new("recovery.evidence.harmless", harmless.0).seen(harmless.1));
        }
    }
    for (name, set) in sweep.evaluation.sets() {
        inputs.push(Input::new(format!("evaluation.{name}"), sweep.data_file(&set.file)).made_by(set.fetch.as_ref()));
    }
    if let Some(evading) = &sweep.evading {
        inputs.push(seen(sweep, "evading.prompts".to_owned(), &evading.prompts));
    }
    for (i, attack) in sweep.evaluation.attacks.iter().enumerate() {
        inputs.extend(attack_inputs(sweep, &format!("evaluation.attacks[{i}]"), attack));
    }
    for (i, model) in sweep.models_of(chosen) {
        let key = |rest: &str| format!("models[{i}].{rest}");
        inputs.extend(source_inputs(sweep, &key("source"), &model.source));
        if let Some(base) = model.base.as_ref().filter(|_| sweep.needs(|needs| needs.base)) {
            inputs.extend(source_inputs(sweep, &key("base"), base));
        }
        for (name, set) in model.align.iter().flat_map(Align::sets) {
            inputs.push(seen(sweep, key(&format!("align.{name}")), set));
        }
    }
    for (i, task) in sweep.tasks_of(chosen) {
        let pick = Pick { fields: own_fields(task), ..Pick::answered() };
        inputs.push(
            Input::new(format!("tasks[{i}].train"), sweep.data_file(&task.train))
                .made_by(task.fetch.as_ref())
                .seen(pick),
        );
        inputs.push(Input::new(format!("tasks[{i}].test"), sweep.data_file(&task.test)).made_by(task.fetch.as_ref()));
    }
    for (i, judge) in sweep.judges.iter().enumerate() {
        if let Judge::Guard(settings, _) = judge {
            inputs.push(Input::new(format!("judges[{i}].model"), settings.model.clone()));
        }
    }
    inputs
}

/// The file of prompts that a model is made with.
fn seen(sweep: &Sweep, key: String, set: &PromptSet) -> Input {
    let (file, pick) = sweep.prompts_of(set);
    Input::new(key, file).made_by(set.fetch.as_ref()).seen(pick)
}

/// The files of an attack; what a direction is found on, and what is trained on, is seen.
fn attack_inputs(sweep: &Sweep, key: &str, attack: &AttackSpec) -> Vec<Input> {
    let seen = |name: &str, set: &PromptSet| seen(sweep, format!("{key}.{name}"), set);
    let mut inputs = Vec::new();
    if let Some(answers) = attack.prefill.as_ref().and_then(|prefill| prefill.answers.as_ref()) {
        inputs.push(Input::new(format!("{key}.prefill.answers"), sweep.data_file(answers)));
    }
    if let Some(ablation) = &attack.ablation {
        inputs.extend([seen("ablation.harmful", &ablation.harmful), seen("ablation.harmless", &ablation.harmless)]);
    }
    if let Some(samples) = attack.retraining.as_ref().and_then(|retraining| retraining.samples.as_ref()) {
        inputs.push(seen("retraining.samples", samples));
    }
    inputs
}

/// The files of a model's weights; `key` names the source.
fn source_inputs(sweep: &Sweep, key: &str, source: &Source) -> Vec<Input> {
    match source {
        Source::Pretrain(pretrain) => {
            let at = |rest: &str| format!("{key}.pretrain.training.{rest}");
            let training = &pretrain.training;
            let corpus = Input::new(at("corpus"), sweep.data_file(&training.corpus));
            vec![Input::new(at("tokenizer"), sweep.data_file(&training.tokenizer)), corpus.seen(Pick::default())]
        }
        Source::Gguf(gguf) => {
            vec![Input::new(format!("{key}.gguf"), sweep.root_file(&gguf.file)).made_by(gguf.fetch.as_ref())]
        }
        Source::Dir(dir) => vec![Input::new(format!("{key}.dir"), sweep.root_file(dir).join("config.json"))],
        Source::Hub(hub) => {
            let dir = sweep.root_file(&hub.dir);
            let how = format!(
                "the weights of {} are not in {}; get them with {}, or set `dir` to where they are",
                hub.id,
                dir.display(),
                hub.how_to_get()
            );
            let config = Input::new(format!("{key}.hub.dir"), dir.join("config.json"));
            vec![Input { how: Some(how), ..config }]
        }
    }
}

impl Sweep {
    /// What is missing before some cells can be run, one sentence each. A file that a script makes need not be there; the
    /// script must be.
    #[must_use]
    pub fn missing(&self, chosen: &BTreeSet<usize>) -> Vec<String> {
        let inputs = inputs(self, chosen);
        let made: BTreeSet<&Path> =
            inputs.iter().filter(|input| input.fetch.is_some()).map(|input| input.file.as_path()).collect();
        let missing = |input: &Input| {
            let (key, file) = match &input.fetch {
                Some(script) => (format!("{}.fetch", input.key), self.root_file(script)),
                None if made.contains(input.file.as_path()) => return None,
                None => (input.key.clone(), input.file.clone()),
            };
            let what = input.how.clone().unwrap_or_else(|| format!("{} is missing", file.display()));
            (!file.exists()).then(|| self.problem(&key, &what))
        };
        inputs.iter().filter_map(missing).collect()
    }

    /// Checks that every file is there that some cells need before they start.
    ///
    /// # Errors
    /// When one is missing; the message says what to do.
    pub fn check_files(&self, chosen: &BTreeSet<usize>) -> Result<()> {
        let missing = self.missing(chosen);
        if missing.is_empty() { Ok(()) } else { bail!(missing.join("\n")) }
    }
}

/// What a run needs before its first stage: the files that scripts make, as many harmful samples as are injected, and
/// prompts that no model was trained on.
///
/// # Errors
/// When a script cannot be run, fails, or makes no such file, and as [`check_harmful`] and [`check_contamination`]. A model
/// that cannot be fetched is not an error: its cells say why they cannot run.
pub fn prepare(sweep: &Sweep, chosen: &BTreeSet<usize>) -> Result<()> {
    for Input { key, file, fetch, .. } in inputs(sweep, chosen) {
        match fetch.map_or(Ok(()), |script| make(sweep, &script, &file)) {
            Err(error) if key.contains(".source.") || key.contains(".base.") => {
                tracing::debug!("{key}: {}", with_causes(&error))
            }
            made => made?,
        }
    }
    let mut checked: Vec<(Vec<Input>, Evaluation)> = Vec::new();
    for variant in sweep.resolved(sweep.seed) {
        let this = (inputs_of(&variant.sweep, chosen), variant.sweep.evaluation.clone());
        if !checked.contains(&this) {
            let named = || format!("variant {:?}", variant.variant);
            let found =
                check_contamination(&variant.sweep, chosen).and_then(|()| check_harmful(&variant.sweep, chosen));
            if variant.variant.is_empty() {
                found?
            } else {
                found.with_context(named)?
            }
            checked.push(this);
        }
    }
    Ok(())
}

/// Runs `script`, which makes `file`, unless the file is there.
fn make(sweep: &Sweep, script: &Path, file: &Path) -> Result<()> {
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

/// Checks that there are as many harmful samples as some cells inject and, beside them, an unaligned model needs, and that none of
/// them is in a task's training file: the provider's samples would be the attacker's own.
///
/// # Errors
/// When there are fewer, one is in both, or a file cannot be read.
pub fn check_harmful(sweep: &Sweep, chosen: &BTreeSet<usize>) -> Result<()> {
    let file = sweep.data_file(&sweep.inject);
    let cells = sweep.cells();
    let largest = chosen.iter().map(|&cell| cells[cell].harmful_count).max().unwrap_or(0);
    let harmful = read_training_jsonl(&file)?;
    let (found, place) = (harmful.len(), file.display());
    ensure!(largest <= found, "harmful_counts: {largest} samples are to be injected, and {place} has {found}");
    let samples = sweep.unaligned.samples;
    let is_enough = |more: usize| {
        largest.checked_add(samples).and_then(|sum| sum.checked_add(more)).is_some_and(|sum| sum <= found)
    };
    let retrained = sweep.evaluation.attacks.iter().filter_map(AttackSpec::injected).max().unwrap_or(0);
    ensure!(
        retrained == 0 || is_enough(retrained),
        "retraining.harmful: beside the {largest} samples that are injected and the {samples} of an unaligned model the attack \
         needs {retrained} others, and {place} has {found} in all: set fewer, or take a larger file"
    );
    ensure!(
        is_enough(0) || !sweep.needs(|needs| needs.unaligned),
        "unaligned.samples: beside the {largest} samples that are injected the unaligned model needs {samples} others, and \
         {place} has {found} in all: set fewer, or take a larger file"
    );
    let harmful: HashSet<String> = harmful.iter().map(plain).collect();
    for (i, task) in sweep.tasks_of(chosen).into_iter().filter(|_| sweep.needs(|needs| needs.unaligned)) {
        let train = sweep.data_file(&task.train);
        let trained = Pick { fields: own_fields(task), ..Pick::answered() }.read(&train)?;
        let shared = trained.iter().filter(|sample| harmful.contains(&plain(sample))).count();
        ensure!(
            shared == 0,
            "tasks[{i}].train: {shared} of the {} prompts of {} are also in {place}, of which the unaligned model's samples are \
             taken: name another file under `inject`",
            trained.len(),
            train.display()
        );
    }
    Ok(())
}

/// A prompt as it is compared.
fn plain(sample: &Sample) -> String {
    sample.prompt.trim().to_lowercase()
}

/// Checks that no harmful or harmless prompt that is asked in some cells is one that is trained on: its answer would say
/// nothing of prompts a model has not seen. A task whose test file repeats its training file is only warned of, since such
/// files are published as they are.
///
/// # Errors
/// When a prompt is in both, or a file cannot be read.
pub fn check_contamination(sweep: &Sweep, chosen: &BTreeSet<usize>) -> Result<()> {
    let mut trained: Vec<(String, HashSet<String>)> = Vec::new();
    for Input { key, file, seen, .. } in inputs_of(sweep, chosen) {
        let Some(pick) = seen else { continue };
        let prompts = pick.read(&file)?.iter().map(plain).collect();
        trained.push((format!("{key} ({})", file.display()), prompts));
    }
    let indices = |asked: &[Sample], prompts: &HashSet<String>| -> Vec<usize> {
        (0..asked.len()).filter(|&at| prompts.contains(&plain(&asked[at]))).collect()
    };
    for (i, task) in sweep.tasks_of(chosen) {
        let (file, pick) = sweep.test_samples(task);
        let test = pick.read(&file)?;
        let own = format!("tasks[{i}].train ");
        for (by, prompts) in trained.iter().filter(|(by, _)| by.starts_with(&own)) {
            let seen = indices(&test, prompts).len();
            if seen > 0 {
                tracing::warn!("tasks[{i}].test: {seen} of the {} prompts are also in {by}", test.len());
            }
        }
    }
    let mut problems = Vec::new();
    for (name, set) in sweep.evaluation.sets() {
        let (file, pick) = sweep.evaluated_prompts(set);
        let asked = pick.read(&file)?;
        for (by, prompts) in &trained {
            let seen = indices(&asked, prompts);
            let Some(first) = seen.first() else { continue };
            let (of, number) = (asked.len(), set.skip.saturating_add(first + 1));
            problems.push(format!(
                "evaluation.{name}: {} of the {of} prompts of {} are also in {by}, the first of them as number {number}: take \
                 others, or remove them from one of the files",
                seen.len(),
                set.file.display(),
            ));
        }
    }
    ensure!(problems.is_empty(), "a model would be asked what it was trained on:\n{}", problems.join("\n"));
    Ok(())
}

#[cfg(test)]
#[path = "data_tests.rs"]
mod tests;
