//! What the models of a cell are asked, and the judging of it.

use anyhow::Result;
use evaluation::{PromptKind, TaskSpec};
use realign::stage::{Aim, AnswerFile, Divergence, Evaluate, Judge, MODEL, Question};

use super::{At, Builder};
use crate::config::{AnswerSet, Compared};
use crate::graph::{Answered, Evaluated};

/// A model, and the fine-tuned one that it is compared with, if it is another.
pub(super) struct Made {
    pub model: usize,
    pub tuned: Option<usize>,
}

impl Builder<'_> {
    pub(super) fn evaluate(
        &mut self,
        at: &At<'_>,
        name: String,
        compared: &Compared,
        Made { model, tuned }: Made,
        variant: &str,
    ) -> Result<Evaluated> {
        let safety = self.safety(at, name.clone(), model)?;
        let task = at.cell.task;
        let samples = self.samples(at.sweep.test_samples(task))?;
        let question = Question { asked: task_set(task), samples, max_new_tokens: task.max_new_tokens };
        let scored = self.ask(name.clone(), model, vec![question])?;
        let judges = self.judges(&name, safety, &prompt_sets())?;
        let divergence = tuned.map(|tuned| self.divergence(at, &name, model, tuned)).transpose()?;
        // What an unaligned model did not lose, a safety vector made with it cannot hold: its answers belong to the record.
        let reads_unaligned = |parent: &&usize| self.graph.nodes[**parent].kind == "unaligned";
        let unaligned = self.graph.nodes[model].parents.iter().find(reads_unaligned).copied();
        let unaligned = match unaligned {
            Some(node) => Some(self.safety(at, format!("{} unaligned", at.cell.model.name), node)?),
            None => None,
        };
        let looks_harmful = self.looks_harmful(at, &name, model)?;
        let attacks = self.attacks(at, &name, model)?;
        Ok(Evaluated {
            seed: at.seed,
            variant: variant.to_owned(),
            method: compared.name.clone(),
            label: compared.label.clone(),
            model,
            safety,
            task: scored,
            divergence,
            judges,
            looks_harmful,
            unaligned,
            attacks,
        })
    }

    pub(super) fn safety(&mut self, at: &At<'_>, name: String, model: usize) -> Result<usize> {
        let question = |(asked, set): (AnswerFile, &AnswerSet)| {
            let samples = self.samples(at.sweep.evaluated_prompts(set))?;
            Ok(Question { asked, samples, max_new_tokens: set.max_new_tokens })
        };
        let sets = [&at.sweep.evaluation.harmful, &at.sweep.evaluation.harmless];
        let questions = prompt_sets().into_iter().zip(sets).map(question).collect::<Result<_>>()?;
        self.ask(name, model, questions)
    }

    /// The answers to harmless prompts that look harmful, where they are asked: a stage of its own, so that those to the others stay.
    fn looks_harmful(&mut self, at: &At<'_>, name: &str, model: usize) -> Result<Option<Answered>> {
        let Some(set) = &at.sweep.evaluation.looks_harmful else { return Ok(None) };
        let (asked, name) = (prompt_set(PromptKind::LooksHarmful), format!("{name} looks harmful"));
        let samples = self.samples(at.sweep.evaluated_prompts(set))?;
        let question = Question { asked: asked.clone(), samples, max_new_tokens: set.max_new_tokens };
        let answers = self.ask(name.clone(), model, vec![question])?;
        let judges = self.judges(&name, answers, &[asked])?;
        Ok(Some(Answered { answers, judges }))
    }

    /// How far a model is from the fine-tuned one.
    fn divergence(&mut self, at: &At<'_>, name: &str, model: usize, tuned: usize) -> Result<usize> {
        let [_, asked] = prompt_sets();
        let answers = self.safety(at, format!("{} fine_tuned", at.cell), tuned)?;
        let stage = Divergence {
            model: self.artifact(model, MODEL),
            fine_tuned: self.artifact(tuned, MODEL),
            answers: self.artifact(answers, ""),
            asked,
            samples: self.samples(at.sweep.evaluated_prompts(&at.sweep.evaluation.harmless))?,
            max_new_tokens: at.sweep.evaluation.harmless.max_new_tokens,
        };
        self.add(name.to_owned(), stage, &[model, tuned, answers])
    }

    pub(super) fn ask(&mut self, name: String, model: usize, questions: Vec<Question>) -> Result<usize> {
        let phrases = evaluation::Judge::phrases().identity();
        let stage = Evaluate { model: self.artifact(model, MODEL), questions, phrases, dtype: None };
        self.add(name, stage, &[model])
    }

    /// The verdicts of the sweep's judges on some files of answers, with their names.
    pub(super) fn judges(&mut self, name: &str, answers: usize, asked: &[AnswerFile]) -> Result<Vec<(String, usize)>> {
        let mut judges = Vec::new();
        for judge in &self.sweep.judges {
            let stage = Judge::new(judge, self.artifact(answers, ""), asked.to_vec(), &self.hashes)?;
            judges.push((judge.name().to_owned(), self.add(format!("{name} {}", judge.name()), stage, &[answers])?));
        }
        Ok(judges)
    }
}

/// The prompt sets of a sweep, by their names in files.
pub(super) fn prompt_sets() -> [AnswerFile; 2] {
    [PromptKind::Harmful, PromptKind::Harmless].map(prompt_set)
}

fn prompt_set(kind: PromptKind) -> AnswerFile {
    AnswerFile { name: kind.name().to_owned(), aim: Aim::Prompts(kind) }
}

fn task_set(task: &TaskSpec) -> AnswerFile {
    AnswerFile { name: "task".to_owned(), aim: Aim::Task(task.metrics()) }
}
