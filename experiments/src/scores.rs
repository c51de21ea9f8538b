//! What an evaluation stage found of a model, as rows and tables need it: of one judge, and of one task.
//!
//! The stage keeps an [`Evaluation`]. A stage that was kept before sweeps and the command `realign evaluate` had one way to
//! a score holds the same figures under other names, and is read as well.

use std::path::Path;

use anyhow::{Context, Result};
use evaluation::{Evaluation, Judge, JudgeScores, JudgedRate, PromptKind, Score};
use serde::Deserialize;

/// The scores of a stage.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Kept")]
pub struct StageScores {
    /// Of the harmful prompts, where they were asked.
    pub harmful: Option<JudgeScores>,
    /// Of the harmless prompts, where they were asked and the judge tells refusals.
    pub over_refusal: Option<JudgeScores>,
    /// Of the task, where it was asked.
    pub task: Option<TaskFigures>,
}

/// A task's score.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TaskFigures {
    /// The figure, 0 to 1.
    pub value: f64,
    /// Each sample's score, in the answers' order.
    pub per_sample: Vec<f64>,
}

/// The forms in which a stage keeps its scores.
#[derive(Deserialize)]
#[serde(untagged)]
enum Kept {
    Now(Evaluation),
    Before { harmful: Option<JudgedRate>, over_refusal: Option<JudgedRate>, task: Option<Score> },
}

impl From<Kept> for StageScores {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Now(Evaluation { provenance: _, prompt_sets, tasks }) => {
                let mut scores = Self::default();
                for set in prompt_sets {
                    let first = set.judges.into_iter().next();
                    match set.kind {
                        PromptKind::Harmful => scores.harmful = first,
                        PromptKind::Harmless | PromptKind::LooksHarmful => scores.over_refusal = first,
                    }
                }
                let first = tasks.into_iter().next().and_then(|task| task.scores.into_iter().next());
                scores.task = first.map(|score| TaskFigures { value: score.value, per_sample: score.per_sample });
                scores
            }
            Kept::Before { harmful, over_refusal, task } => {
                let of_phrases = |rate: JudgedRate| JudgeScores {
                    judge: Judge::phrases().name().to_owned(),
                    n: rate.n,
                    unknown: rate.unknown,
                    failed: 0,
                    passing: 0,
                    rate: Some(rate),
                    mean_probability: None,
                };
                Self {
                    harmful: harmful.map(of_phrases),
                    over_refusal: over_refusal.map(of_phrases),
                    task: task.map(|score| TaskFigures { value: score.value, per_sample: score.per_sample }),
                }
            }
        }
    }
}

impl StageScores {
    /// Reads the scores in a stage's directory.
    ///
    /// # Errors
    /// When the file cannot be read or holds no scores.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("scores.json");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no scores", path.display()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use evaluation::{Answer, Provenance, SetScores, TaskScores, Verdict, VerdictRecord};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_figures_of_both_forms_are_the_same() {
        let answer = |i: usize| Answer { id: i.to_string(), reference: Some("a".into()), ..Answer::default() };
        let answers = [answer(1), Answer { response: "a".into(), ..answer(2) }, answer(3)];
        let verdicts = [Verdict::Refused, Verdict::Answered, Verdict::Unknown];
        let record = |verdict| VerdictRecord {
            id: String::new(),
            judge: String::new(),
            key: String::new(),
            verdict,
            probability: None,
            problem: None,
            passing: false,
        };
        let records = [("refusal".to_owned(), verdicts.map(record).to_vec())];
        let set = |name, kind| SetScores::new(name, kind, &answers, &records).unwrap();
        let provenance = Provenance {
            settings: serde_json::Value::Null,
            seed: 1,
            git_revision: String::new(),
            device: String::new(),
            seconds: 0.0,
        };
        let metric = evaluation::Metric::ExactMatch;
        let now = json!(Evaluation {
            provenance: provenance.clone(),
            prompt_sets: vec![set("harmful", PromptKind::Harmful), set("harmless", PromptKind::Harmless)],
            tasks: vec![TaskScores::new("task", &[metric], &answers).unwrap()],
        });
        let before = json!({
            "provenance": provenance,
            "harmful": JudgedRate::harmful(&answers, verdicts.to_vec()).unwrap(),
            "over_refusal": JudgedRate::over_refusal(&answers, verdicts.to_vec()).unwrap(),
            "task": metric.score(&answers).unwrap(),
        });
        let read = |value| serde_json::from_value::<StageScores>(value).unwrap();
        let scores = read(now);
        assert_eq!(scores, read(before));
        assert_eq!(scores.harmful.unwrap().rate.unwrap().rate, 0.5);
        assert_eq!(scores.task.unwrap().per_sample, [0.0, 1.0, 0.0]);
        let of_task = read(json!({"provenance": null, "harmful": null, "over_refusal": null, "task": null}));
        assert_eq!(of_task, StageScores::default());
    }

    #[test]
    fn a_file_that_holds_no_scores_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(StageScores::read(dir.path()).unwrap_err().to_string().contains("scores.json"));
        std::fs::write(dir.path().join("scores.json"), "[]").unwrap();
        assert!(StageScores::read(dir.path()).unwrap_err().to_string().contains("scores.json"));
    }
}
