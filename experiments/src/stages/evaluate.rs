//! Evaluation of a model: its answers to the harmful and harmless prompts and to the task's test split, with the scores
//! that refusal phrases and the task's metric give them. Answers that another evaluation of the same model keeps are
//! taken from there, so that a changed set or length costs what it changed.

use std::path::Path;

use anyhow::Result;
use evaluation::{Judge, Metric, PromptKind};
use realign::stage::ask::{Aim, Asked, Question, ask};
use realign::stage::measure::{Stored, measure};

use super::{Context, begin_with, provenance, report};
use crate::inputs::{self, Split};
use crate::store::{Output, Stage, StageKey};
use crate::sweep::{AnswerSet, Sweep, TaskSpec};

/// The prompt sets of a sweep, by the names that stand in files.
pub fn prompt_sets() -> [Asked; 2] {
    [("harmful", PromptKind::Harmful), ("harmless", PromptKind::Harmless)]
        .map(|(name, kind)| Asked { name: name.to_owned(), aim: Aim::Prompts(kind) })
}

/// A task's questions, by the name that stands in files.
pub fn task_questions(metric: Metric) -> Asked {
    Asked { name: "task".to_owned(), aim: Aim::Task(vec![metric]) }
}

/// A model's answers to the harmful and harmless prompts; `name` stands on the bar.
///
/// # Errors
/// When a file is missing or holds too few prompts, or the answers cannot be made.
pub fn safety(context: Context<'_>, name: &str, model: &Stage) -> Result<Stage> {
    let sweep = context.sweep;
    let (harmful, harmless) = (&sweep.evaluation.harmful, &sweep.evaluation.harmless);
    // Changed phrases make other verdicts; the answers are taken over.
    let key = StageKey::new("evaluate", 2, sweep.seed, &(harmful, harmless, Judge::phrases().identity()))?
        .parent("model", model)
        .input("harmful", &sweep.data_file(&harmful.file))?
        .input("harmless", &sweep.data_file(&harmless.file))?;
    context.store.run(&key, |dir| {
        let question = |(set, asked): (&AnswerSet, Asked)| -> Result<Question> {
            let samples = inputs::read(&sweep.data_file(&set.file), set.skip, set.count)?;
            Ok(Question { asked, samples, max_new_tokens: set.max_new_tokens })
        };
        let questions: Vec<Question> =
            [harmful, harmless].into_iter().zip(prompt_sets()).map(question).collect::<Result<_>>()?;
        evaluate(context, name, model, &questions, dir)
    })
}

/// A model's answers to a task's test split; `name` stands on the bar.
///
/// # Errors
/// When the file is missing, or the answers cannot be made or scored.
pub fn task(context: Context<'_>, name: &str, task: &TaskSpec, model: &Stage) -> Result<Stage> {
    let sweep: &Sweep = context.sweep;
    let key = StageKey::new("evaluate", 2, sweep.seed, &(task.metric, task.max_new_tokens))?
        .parent("model", model)
        .input("test", &sweep.data_file(&task.test))?;
    context.store.run(&key, |dir| {
        let (asked, samples) = (task_questions(task.metric), inputs::task(sweep, task, Split::Test)?);
        let question = Question { asked, samples, max_new_tokens: task.max_new_tokens };
        evaluate(context, name, model, &[question], dir)
    })
}

/// Answers, and scores them.
fn evaluate(context: Context<'_>, name: &str, model: &Stage, questions: &[Question], dir: &Path) -> Result<Output> {
    let Context { sweep, device, .. } = context;
    let bar = context.progress.bar("evaluate", name);
    let others = context.store.readers("evaluate", &model.key);
    for question in questions {
        begin_with(&others, &question.asked.answers_name(), dir)?;
    }
    ask(&model.dir.join("model"), questions, sweep.evaluation.batch, dir, context.compute(), &mut report(&bar))?;
    let asked: Vec<Asked> = questions.iter().map(|question| question.asked.clone()).collect();
    let stored = Stored { answers: dir, asked: &asked, judges: &[Judge::phrases()], verdicts: dir };
    let evaluation = measure(stored, provenance(sweep.seed), device, &mut report(&bar))?;
    bar.finish_and_clear();
    evaluation.write(dir, &[])?;
    Output::new(&evaluation, questions.iter().map(|question| question.samples.len()).sum())
}
