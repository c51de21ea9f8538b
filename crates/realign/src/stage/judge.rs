//! Judging stored answers by one judge: a stage of its own, so that another judge generates nothing.

use std::path::Path;

use evaluation::Evaluation;
use serde::Serialize;

use super::evaluate::provenance;
use super::{AnswerFile, Measured, Stage, first_problem, measure};
use crate::error::{Within as _, invalid};
use crate::guard::identity;
use crate::{Artifact, Job, Result};

/// Judges the answers of an [`Evaluate`](super::Evaluate). A judge's name and place are not part of the value.
#[derive(Debug, Clone, Serialize)]
pub struct Judge {
    /// The directory of the answers.
    pub answers: Artifact,
    /// The prompt sets that are judged.
    pub asked: Vec<AnswerFile>,
    /// What decides the verdicts: [`identity`] of the judge.
    pub identity: String,
    /// The judge.
    #[serde(skip)]
    pub judge: evaluation::Judge,
}

impl Judge {
    /// The stage of a judge on the answers in a directory.
    ///
    /// # Errors
    /// When the files of a guard cannot be read.
    pub fn new(
        judge: &evaluation::Judge,
        answers: Artifact,
        asked: Vec<AnswerFile>,
        hashes: &files::Hashes,
    ) -> Result<Self> {
        let identity = identity(judge, hashes).within(|| format!("judge {}", judge.name()))?;
        Ok(Self { answers, asked, identity, judge: judge.clone() })
    }
}

impl Stage for Judge {
    type Summary = Evaluation;

    fn kind(&self) -> &'static str {
        "judge"
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<Evaluation> {
        let judges = std::slice::from_ref(&self.judge);
        let (answers, hashes) = (&self.answers.path, files::Hashes::default());
        let stored = Measured { answers, asked: &self.asked, judges, verdicts: out, hashes: &hashes };
        let evaluation = measure(stored, provenance(), job)?;
        let judge = self.judge.name();
        let first = self.asked.iter().find_map(|asked| first_problem(out, &asked.name, judge));
        check_complete(judge, &evaluation, first).within(|| format!("verdicts are kept in {}", out.display()))?;
        evaluation.write(out, &[])?;
        Ok(evaluation)
    }
}

/// That nothing is left to ask again. What a judge refuses for good, such as an answer too long for it, is unknown.
fn check_complete(judge: &str, evaluation: &Evaluation, first: Option<String>) -> Result<()> {
    let scores = evaluation.prompt_sets.iter().flat_map(|set| &set.judges);
    let (n, failed, transient) =
        scores.fold((0, 0, 0), |sum, one| (sum.0 + one.n, sum.1 + one.failed, sum.2 + one.transient));
    match (transient > 0, failed == n) {
        (true, _) => {
            invalid(format!("judge {judge} failed on {failed} of {n} answers; the same command asks about these again"))
        }
        (false, true) => invalid(format!(
            "judge {judge} failed on all {n} answers, which does not change by itself: correct the judge's settings or its \
             server{}",
            first.map_or(String::new(), |first| format!("; the first: {first}"))
        )),
        _ => Ok(()),
    }
}
