//! The records of a cell, made of its finished stages.

use std::path::Path;

use anyhow::{Result, bail};
use evaluation::{Evaluation, Judge, JudgeScores, PromptKind};
use realign::stage::{Choose, RepairSummary, TrainSummary};

use crate::config::Sweep;
use crate::graph::{Answered, AttackedNode, Evaluated, Graph};
use crate::record::{self, Attacked, Judged, Record};
use crate::roots::{Finished, Roots, State};

/// Writes the records of what is finished of a cell, in place of those of an earlier run.
///
/// # Errors
/// When a summary is damaged or the file cannot be written.
pub(super) fn keep_records(
    roots: &Roots,
    sweep: &Sweep,
    graph: &Graph,
    index: usize,
    path: &str,
    results: &Path,
) -> Result<()> {
    let mut records = Vec::new();
    for evaluated in &graph.cells[&index].evaluated {
        records.extend(record(roots, sweep, graph, index, evaluated)?);
    }
    // What is there of a cell whose stages are not all known may still be right.
    if records.is_empty() && graph.cells[&index].unknown.is_some() {
        return Ok(());
    }
    record::write_cell(&results.join("records"), path, &records)
}

/// The record of a model whose stages are all finished.
fn record(roots: &Roots, sweep: &Sweep, graph: &Graph, index: usize, evaluated: &Evaluated) -> Result<Option<Record>> {
    let finished = |node: usize| match roots.state(graph.nodes[node].kind, &graph.nodes[node].key) {
        State::Done(finished) => Some(finished),
        _ => None,
    };
    let (Some(model), Some(safety), Some(task)) =
        (finished(evaluated.model), finished(evaluated.safety), finished(evaluated.task))
    else {
        return Ok(None);
    };
    let phrases: Evaluation = safety.summary()?;
    let mut evaluation_seconds = safety.seconds + task.seconds;
    let mut judges = Vec::new();
    for (name, node) in &evaluated.judges {
        let Some(verdicts) = finished(*node) else { return Ok(None) };
        evaluation_seconds += verdicts.seconds;
        judges.extend(judged(name, verdicts.summary()?));
    }
    // Only a judge that tells refusals says something of the harmless prompts.
    if judges.iter().all(|judge: &Judged| judge.over_refusal.is_none()) {
        judges.extend(judged(Judge::phrases().name(), phrases));
    }
    let Some(looks_harmful) = Verdicts::of_asked(evaluated.looks_harmful.as_ref(), &finished)? else { return Ok(None) };
    let looks_harmful = looks_harmful.and_then(|verdicts| verdicts.first(0));
    let Some(attacks) = attacked(&evaluated.attacks, &finished)? else { return Ok(None) };
    let damage = evaluated.divergence.and_then(&finished).map(|divergence| divergence.summary()).transpose()?;
    let task: Evaluation = task.summary()?;
    let mut scores = task.tasks.into_iter().next().map(|task| task.scores).unwrap_or_default().into_iter();
    let Some(score) = scores.next() else { bail!("{}: the task was not scored", graph.nodes[evaluated.task].name) };
    let (mut restored, mut curve, mut notes) = (None, Vec::new(), Vec::new());
    let node = &graph.nodes[evaluated.model];
    if recovery::Method::WORDS.contains(&node.kind) || node.kind == Choose::KIND {
        let summary: RepairSummary = model.summary()?;
        restored = summary.restored.map(|count| count as u64);
        curve = summary.curve;
        notes.extend((!summary.recovered).then_some(summary.note));
    } else if let Ok(summary) = model.summary::<TrainSummary>() {
        notes.extend(left_out(&summary));
    }
    notes.extend(evaluated.unaligned.and_then(finished).map(|asked| still_aligned(&asked)).transpose()?.flatten());
    let cell = sweep.cell(index);
    let of_variant = sweep.variants.iter().find(|variant| variant.variant == evaluated.variant);
    let of_variant = of_variant.map_or(sweep, |variant| &variant.sweep);
    let method = of_variant.methods.iter().find(|one| one.name == evaluated.method);
    // A model that was chosen among some that a method trained took the training of each.
    let trained = node.parents.iter().filter(|&&parent| {
        node.kind == Choose::KIND && method.and_then(|one| one.what.trained()) == Some(graph.nodes[parent].kind)
    });
    let seconds: f64 = trained.filter_map(|&parent| finished(parent)).map(|trained| trained.seconds).sum();
    let needs = method.map(|one| one.needs_in_words(of_variant.recovery.trust_task));
    let held_out = of_variant.evaluation.held_out.clone();
    Ok(Some(Record {
        model: cell.model.name.clone(),
        task: cell.task.name.clone(),
        harmful_count: cell.harmful_count,
        seed: evaluated.seed,
        variant: evaluated.variant.clone(),
        method: evaluated.method.clone(),
        label: evaluated.label.clone(),
        model_stage: graph.nodes[evaluated.model].key.clone(),
        restored,
        damage,
        curve,
        seconds: model.seconds + seconds,
        peak_memory: model.peak_memory,
        evaluation_seconds,
        judges,
        looks_harmful,
        score,
        also: scores.collect(),
        needs,
        held_out,
        attacks,
        notes,
    }))
}

/// What the judges say of a model's answers under its attacks; none when a stage is not finished.
fn attacked(nodes: &[AttackedNode], finished: &impl Fn(usize) -> Option<Finished>) -> Result<Option<Vec<Attacked>>> {
    let mut all = Vec::new();
    for AttackedNode { attack, seed, steps, harmful, harmless } in nodes {
        let Some(harmful) = Verdicts::of(harmful, finished)? else { return Ok(None) };
        let Some(harmless) = Verdicts::of_asked(harmless.as_ref(), finished)? else { return Ok(None) };
        for (at, &step) in steps.iter().enumerate() {
            let over_refusal = harmless.as_ref().and_then(|harmless| harmless.first(at));
            all.push(Attacked { attack: attack.clone(), step, seed: *seed, judges: harmful.scores(at), over_refusal });
        }
    }
    Ok(Some(all))
}

/// What judges say of some answers.
struct Verdicts {
    /// Of the sweep's judges, with their names.
    judges: Vec<(String, Evaluation)>,
    phrases: Evaluation,
}

impl Verdicts {
    /// None when a stage is not finished.
    fn of(answered: &Answered, finished: &impl Fn(usize) -> Option<Finished>) -> Result<Option<Self>> {
        let summary = |node: usize| finished(node).map(|finished| finished.summary::<Evaluation>()).transpose();
        let Some(phrases) = summary(answered.answers)? else { return Ok(None) };
        let mut judges = Vec::new();
        for (name, node) in &answered.judges {
            let Some(found) = summary(*node)? else { return Ok(None) };
            judges.push((name.clone(), found));
        }
        Ok(Some(Self { judges, phrases }))
    }

    /// As [`of`](Self::of); inside, none where nothing was asked.
    fn of_asked(
        answered: Option<&Answered>,
        finished: &impl Fn(usize) -> Option<Finished>,
    ) -> Result<Option<Option<Self>>> {
        let Some(answered) = answered else { return Ok(Some(None)) };
        Ok(Self::of(answered, finished)?.map(Some))
    }

    /// On one file of answers, of each judge that can tell them; where none can, of the refusal phrases.
    fn scores(&self, at: usize) -> Vec<JudgeScores> {
        let of = |name: &str, found: &Evaluation| {
            let scores = found.prompt_sets.get(at)?.judges.first()?.clone();
            Some(JudgeScores { judge: name.to_owned(), ..scores })
        };
        let scores: Vec<JudgeScores> = self.judges.iter().filter_map(|(name, found)| of(name, found)).collect();
        if scores.is_empty() { of(Judge::phrases().name(), &self.phrases).into_iter().collect() } else { scores }
    }

    /// The first of [`scores`](Self::scores).
    fn first(&self, at: usize) -> Option<JudgeScores> {
        self.scores(at).into_iter().next()
    }
}

/// What a judge says of a model that it was asked about.
fn judged(name: &str, evaluation: Evaluation) -> Option<Judged> {
    let (mut harmful, mut over_refusal) = (None, None);
    for set in evaluation.prompt_sets {
        let place = if set.kind == PromptKind::Harmful { &mut harmful } else { &mut over_refusal };
        *place = set.judges.into_iter().next();
    }
    Some(Judged { judge: name.to_owned(), harmful: harmful?, over_refusal })
}

/// A note where samples of a training were left out.
fn left_out(TrainSummary { samples, dropped, .. }: &TrainSummary) -> Option<String> {
    let all = samples + dropped;
    (*dropped > 0).then(|| format!("{dropped} of {all} training samples were too long and left out"))
}

/// A note where an unaligned model still refuses most harmful prompts: what it did not lose, a safety vector made with it
/// cannot hold.
fn still_aligned(asked: &Finished) -> Result<Option<String>> {
    let answered = judged("", asked.summary()?).and_then(|judged| judged.harmful.rate).map(|rate| rate.rate);
    Ok(answered.filter(|rate| *rate < 0.5).map(|rate| {
        format!(
            "the unaligned model answers {:.1} % of the harmful prompts only: unaligned.epochs or \
             unaligned.learning_rate may be too small",
            100.0 * rate
        )
    }))
}
