//! That no prompt is asked that was trained on: such an answer says nothing of prompts a model has not seen. Files repeat
//! themselves and each other, so that prompts are compared and not lines.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use anyhow::{Result, bail};
use prompts::Sample;
use prompts::sample::{read_jsonl, read_jsonl_first};

use crate::inputs::{self, Split};
use crate::sweep::{Method, Source, Sweep};

/// Prompts that a model is trained on, or that its recovery reads, with the key and the file that they come from.
struct Trained {
    by: String,
    prompts: HashSet<String>,
}

impl Trained {
    fn new(key: &str, file: &Path, samples: Vec<Sample>) -> Self {
        let prompts = samples.into_iter().map(|sample| plain(&sample.prompt)).collect();
        Self { by: format!("{key} ({})", file.display()), prompts }
    }

    /// The places of the samples whose prompts are among these.
    fn places(&self, asked: &[Sample]) -> Vec<usize> {
        let seen = |&at: &usize| self.prompts.contains(&plain(&asked[at].prompt));
        (0..asked.len()).filter(seen).collect()
    }
}

/// Checks the harmful and harmless prompts that are asked in some cells; a task whose test file repeats its training file is
/// only warned of, since such files are published as they are.
///
/// # Errors
/// When a prompt that is asked is one that is trained on, or a file cannot be read.
pub fn check(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<()> {
    let mut trained = trained(sweep, cells)?;
    for (i, task) in sweep.tasks_of(cells) {
        let samples = read_jsonl(&sweep.data_file(&task.train))?;
        let train = Trained::new(&format!("tasks[{i}].train"), &task.train, samples);
        let test = inputs::task(sweep, task, Split::Test)?;
        let (seen, all) = (train.places(&test).len(), test.len());
        if seen > 0 {
            tracing::warn!("tasks[{i}].test: {seen} of the {all} prompts stand among those of {}, too", train.by);
        }
        trained.push(train);
    }
    let mut problems = Vec::new();
    for (name, set) in sweep.evaluation.sets() {
        let asked = inputs::read(&sweep.data_file(&set.file), set.skip, set.count)?;
        for trained in &trained {
            let seen = trained.places(&asked);
            let Some(first) = seen.first() else { continue };
            problems.push(format!(
                "evaluation.{name}: {} of the {} prompts of {} stand among those of {}, too, the first of them as number {}: \
                 take others, or remove them from one of the files",
                seen.len(),
                asked.len(),
                set.file.display(),
                trained.by,
                set.skip + first + 1,
            ));
        }
    }
    if !problems.is_empty() {
        bail!("a model would be asked what it was trained on:\n{}", problems.join("\n"));
    }
    Ok(())
}

/// What is read beside the tasks. The injection file counts whole, since a seed draws from all of it.
fn trained(sweep: &Sweep, cells: &BTreeSet<usize>) -> Result<Vec<Trained>> {
    let mut trained = Vec::new();
    for (i, model) in sweep.models_of(cells) {
        if let Source::Pretrain(pretrain) = &model.source {
            let corpus = &pretrain.training.corpus;
            let key = format!("models[{i}].source.pretrain.training.corpus");
            trained.push(Trained::new(&key, corpus, read_jsonl(&sweep.data_file(corpus))?));
        }
        let Some(align) = &model.align else { continue };
        for (name, set) in align.sets() {
            let samples = inputs::read(&sweep.data_file(&set.file), set.skip, set.count)?;
            trained.push(Trained::new(&format!("models[{i}].align.{name}"), &set.file, samples));
        }
    }
    let injects = sweep.harmful_counts.iter().any(|&count| count > 0) || sweep.methods.contains(&Method::Resta);
    if injects {
        trained.push(Trained::new("inject", &sweep.inject, read_jsonl(&sweep.data_file(&sweep.inject))?));
    }
    if sweep.methods.contains(&Method::Recovered) {
        for resolved in sweep.resolved(sweep.seed) {
            let recovery = &resolved.sweep.recovery;
            let samples = read_jsonl_first(&sweep.data_file(&recovery.prompts), recovery.count)?;
            trained.push(Trained::new("recovery.prompts", &recovery.prompts, samples));
        }
    }
    Ok(trained)
}

fn plain(prompt: &str) -> String {
    prompt.trim().to_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;

    const SWEEP: &str = "\
name: test
data: .
models:
  - name: small
    source: { dir: small }
    align: { refusals: { file: harmful.jsonl, count: 2 }, helpful: [{ file: harmless.jsonl, count: 2 }], learning_rate: 1.0e-3, epochs: 1, batch: 2 }
tasks: [{ name: sql, train: train.jsonl, test: test.jsonl, metric: exact_match, max_new_tokens: 4 }]
harmful_counts: [0, 1]
inject: inject.jsonl
recovery: { prompts: recovery.jsonl, count: 1 }
evaluation:
  harmful: { file: harmful.jsonl, skip: 2, count: 2, max_new_tokens: 4 }
  harmless: { file: harmless.jsonl, skip: 2, count: 2, max_new_tokens: 4 }
";

    /// What the check says of these prompts, a word each.
    fn of(files: &[(&str, &str)]) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let defaults = [
            ("harmful", "a b c d"),
            ("harmless", "e f g h"),
            ("inject", "i j"),
            ("recovery", "k l"),
            ("train", "m n"),
            ("test", "o p"),
        ];
        for (name, words) in defaults.iter().chain(files) {
            let line = |word| format!("{}\n", serde_json::json!({"prompt": word, "response": "yes"}));
            let lines: String = words.split(' ').map(line).collect();
            fs::write(dir.path().join(format!("{name}.jsonl")), lines).unwrap();
        }
        let mut sweep = Sweep::parse(SWEEP, Path::new("test.yaml")).unwrap();
        sweep.root = dir.path().to_owned();
        check(&sweep, &sweep.choose(&[])?)
    }

    #[test]
    fn prompts_that_are_trained_on_are_not_asked() {
        of(&[]).unwrap();
        // The lines are others, the prompts are not: with another case, in another file.
        for (file, words, says) in [
            (
                "harmless",
                "e f G f",
                "evaluation.harmless: 1 of the 2 prompts of harmless.jsonl stand among those of \
                models[0].align.helpful[0] (harmless.jsonl), too, the first of them as number 4",
            ),
            (
                "harmful",
                "a b B a",
                "evaluation.harmful: 2 of the 2 prompts of harmful.jsonl stand among those of \
                models[0].align.refusals (harmful.jsonl), too, the first of them as number 3",
            ),
            ("inject", "i c", "of inject (inject.jsonl), too, the first of them as number 3"),
            ("train", "m h n", "of tasks[0].train (train.jsonl), too, the first of them as number 4"),
            ("recovery", "d l", "recovery.prompts (recovery.jsonl), too, the first of them as number 4"),
        ] {
            let error = of(&[(file, words)]).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        of(&[("recovery", "k d")]).unwrap(); // it reads the first alone
        of(&[("test", "m p")]).unwrap(); // a warning
    }
}
