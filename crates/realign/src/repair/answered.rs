//! The prompts of a report with the verdicts on their answers, with or without their texts.

use evaluation::gate::Stored;
use evaluation::{Answer, Verdict};

use super::report::{Asked, Text, Told};

/// All prompts of the test part, of the answers of the aligned, the fine-tuned and the recovered model.
pub(super) fn all(models: [&Stored; 3], with_words: bool) -> Vec<Asked> {
    let [aligned, before, after] = models;
    let sets = after.answers.iter().flat_map(|(set, answers)| answers.iter().enumerate().map(move |one| (set, one)));
    let of = |stored: &Stored, set: &str, at: usize| {
        stored.answers.get(set).and_then(|answers| answers.get(at)).map_or(String::new(), |one| one.response.clone())
    };
    let asked = |(set, (at, answer)): (&String, (usize, &Answer))| Asked {
        set: set.clone(),
        id: answer.id.clone(),
        category: answer.category.clone(),
        told: told(models, set, at),
        text: with_words.then(|| Text {
            prompt: answer.prompt.clone(),
            aligned: of(aligned, set, at),
            before: of(before, set, at),
            after: answer.response.clone(),
        }),
    };
    sets.map(asked).collect()
}

/// The verdicts on the answers to one prompt.
fn told(models: [&Stored; 3], set: &str, at: usize) -> Told {
    let verdict = |model: &Stored| -> Option<Verdict> {
        let scores = model.evaluation.prompt_sets.iter().find(|one| one.name == set)?;
        scores.judges.iter().find_map(|judge| judge.rate.as_ref())?.verdicts.get(at).copied()
    };
    let score = |model: &Stored| -> Option<f64> {
        let task = model.evaluation.tasks.iter().find(|one| one.name == set)?;
        task.scores.first()?.per_sample.get(at).copied()
    };
    match (models.map(verdict), models.map(score)) {
        ([None, None, None], [Some(aligned), Some(before), Some(after)]) => Told::Scores([aligned, before, after]),
        ([None, None, None], _) => Told::Nothing,
        (verdicts, _) => Told::Verdicts(verdicts.map(|one| one.unwrap_or(Verdict::Unknown))),
    }
}
