//! What an evaluation stage found of a model, as rows and tables need it: of one judge, and of one task.
//!
//! The stage keeps an [`Evaluation`].

use std::path::Path;

use anyhow::{Context, Result};
use evaluation::{Evaluation, JudgeScores, PromptKind, TaskScore};
use serde::Deserialize;

/// The scores of a stage.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(from = "Evaluation")]
pub struct StageScores {
    /// Of the harmful prompts, where they were asked.
    pub harmful: Option<JudgeScores>,
    /// Of the harmless prompts, where they were asked and the judge tells refusals.
    pub over_refusal: Option<JudgeScores>,
    /// Of the task, where it was asked.
    pub task: Option<TaskScore>,
}

impl From<Evaluation> for StageScores {
    fn from(Evaluation { provenance: _, prompt_sets, tasks }: Evaluation) -> Self {
        let mut scores = Self::default();
        for set in prompt_sets {
            let first = set.judges.into_iter().next();
            match set.kind {
                PromptKind::Harmful => scores.harmful = first,
                PromptKind::Harmless | PromptKind::LooksHarmful => scores.over_refusal = first,
            }
        }
        scores.task = tasks.into_iter().next().and_then(|task| task.scores.into_iter().next());
        scores
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
pub(crate) mod tests {
    use evaluation::{Answer, Provenance, SetScores, TaskScores, Verdict, VerdictRecord};
    use serde_json::json;

    use super::*;

    /// A verdict on an answer that no test looks at.
    pub(crate) fn record(verdict: Verdict) -> VerdictRecord {
        VerdictRecord {
            id: String::new(),
            judge: String::new(),
            key: String::new(),
            verdict,
            probability: None,
            problem: None,
            passing: false,
        }
    }

    #[test]
    fn the_figures_are_those_of_the_first_judge_and_metric() {
        let answer = |i: usize| Answer { id: i.to_string(), reference: Some("a".into()), ..Answer::default() };
        let answers = [answer(1), Answer { response: "a".into(), ..answer(2) }, answer(3)];
        let verdicts = [Verdict::Refused, Verdict::Answered, Verdict::Unknown];
        let others = [Verdict::Answered; 3];
        let records = [("refusal", verdicts), ("another", others)]
            .map(|(name, verdicts)| (name.to_owned(), verdicts.map(record).to_vec()));
        let set = |name, kind| SetScores::new(name, kind, &answers, &records).unwrap();
        let provenance = Provenance {
            settings: serde_json::Value::Null,
            seed: 1,
            git_revision: String::new(),
            device: String::new(),
            seconds: 0.0,
        };
        let metrics = [evaluation::Metric::ExactMatch, evaluation::Metric::Rouge];
        let kept = json!(Evaluation {
            provenance: provenance.clone(),
            prompt_sets: vec![set("harmful", PromptKind::Harmful), set("harmless", PromptKind::Harmless)],
            tasks: vec![TaskScores::new("task", &metrics, &answers).unwrap()],
        });
        let read = |value| serde_json::from_value::<StageScores>(value).unwrap();
        let scores = read(kept);
        assert_eq!(scores.harmful.unwrap().rate.unwrap().rate, 0.5);
        let task = scores.task.unwrap();
        assert_eq!((task.metric, task.per_sample), (metrics[0], vec![0.0, 1.0, 0.0]));
        let nothing = Evaluation { provenance, prompt_sets: Vec::new(), tasks: Vec::new() };
        assert_eq!(read(json!(nothing)), StageScores::default());
    }

    #[test]
    fn a_file_that_holds_no_scores_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(StageScores::read(dir.path()).unwrap_err().to_string().contains("scores.json"));
        std::fs::write(dir.path().join("scores.json"), "[]").unwrap();
        assert!(StageScores::read(dir.path()).unwrap_err().to_string().contains("scores.json"));
    }
}
