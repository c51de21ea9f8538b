//! One row of the results: what one model of one cell answered (section 4 of the method).
//!
//! Tables are made from rows in `tables/` and figures in `figures/`.

use evaluation::JudgedRate;
use evaluation::statistics::BootstrapSettings;

use crate::sweep::Method;

/// The evaluation of one model of one cell. Rates and scores are shares between 0 and 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRow {
    /// Name of the model.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Number of injected harmful samples.
    pub harmful_count: usize,
    /// Seed of the cell.
    pub seed: u64,
    /// Name of the recovery's variant; empty where the sweep has none or the method does not depend on it.
    pub variant: String,
    /// Which model of the cell was evaluated.
    pub method: Method,
    /// Share of harmful prompts that were answered rather than refused.
    pub harmful_rate: f64,
    /// Lower end of the Wilson 95 % interval of `harmful_rate`.
    pub harmful_low: f64,
    /// Upper end of the Wilson 95 % interval of `harmful_rate`.
    pub harmful_high: f64,
    /// Share of harmless prompts that were refused.
    pub over_refusal: f64,
    /// The task's score on the test split.
    pub task_score: f64,
    /// Lower end of the bootstrap 95 % interval of `task_score`.
    pub task_low: f64,
    /// Upper end of the bootstrap 95 % interval of `task_score`.
    pub task_high: f64,
    /// Number of weights that recovery set to the aligned value; none for the other methods.
    pub restored: Option<u64>,
    /// Seconds that it took to make this model.
    pub seconds: f64,
    /// Seconds that it took to evaluate it.
    pub evaluation_seconds: f64,
    /// Number of harmful prompts that were judged.
    pub n: usize,
    /// Key of the evaluation stage with the harmful prompts' verdicts.
    pub safety_stage: String,
    /// Key of the evaluation stage with the task's scores.
    pub task_stage: String,
    /// What a reader must know about this row, such as `not recovered`; often empty.
    pub note: String,
}

impl ResultRow {
    /// The cell that the row is about, its seed left out.
    #[must_use]
    pub fn cell(&self) -> (&str, &str, usize) {
        (&self.model, &self.task, self.harmful_count)
    }
}

/// How intervals of means and differences are drawn: 2,000 resamples for each of a sweep's thousand pairs.
pub const RESAMPLING: BootstrapSettings = BootstrapSettings { resamples: 2_000, level: 0.95, seed: 1 };

/// A row's note: what there is to say of its model, and how many answers the judge could not tell, which are in no rate.
#[must_use]
pub fn note(of_model: &str, harmful: &JudgedRate, refused: &JudgedRate) -> String {
    let unknown = |rate: &JudgedRate, prompts: &str| {
        (rate.unknown > 0).then(|| format!("{} of {} answers to {prompts} prompts not judged", rate.unknown, rate.n))
    };
    let of_model = Some(of_model.to_owned()).filter(|note| !note.is_empty());
    let notes = [of_model, unknown(harmful, "harmful"), unknown(refused, "harmless")];
    notes.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use evaluation::{Answer, Verdict};

    use super::*;

    #[test]
    fn answers_that_the_judge_could_not_tell_are_noted() {
        let answers = vec![Answer::default(); 3];
        let rate = |verdicts| JudgedRate::harmful(&answers, verdicts).unwrap();
        let all = rate(vec![Verdict::Answered, Verdict::Refused, Verdict::Refused]);
        let some = rate(vec![Verdict::Answered, Verdict::Unknown, Verdict::Refused]);
        assert_eq!(note("", &all, &all), "");
        assert_eq!(note("not recovered", &all, &all), "not recovered");
        let text = "not recovered; 1 of 3 answers to harmful prompts not judged; 1 of 3 answers to harmless prompts not judged";
        assert_eq!(note("not recovered", &some, &some), text);
    }

    /// A row with the figures that a test is about.
    pub(crate) fn row(model: &str, count: usize, method: Method, harmful: usize, score: f64) -> ResultRow {
        let (harmful_low, harmful_high) = evaluation::wilson(harmful, 100);
        ResultRow {
            model: model.to_owned(),
            task: "sql".to_owned(),
            harmful_count: count,
            seed: 1,
            variant: String::new(),
            method,
            harmful_rate: harmful as f64 / 100.0,
            harmful_low,
            harmful_high,
            over_refusal: 0.2,
            task_score: score,
            task_low: (score - 0.05).max(0.0),
            task_high: (score + 0.05).min(1.0),
            restored: None,
            seconds: 1.0,
            evaluation_seconds: 2.0,
            n: 100,
            safety_stage: String::new(),
            task_stage: String::new(),
            note: String::new(),
        }
    }
}
