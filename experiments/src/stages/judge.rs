//! Judging a model's stored answers by one judge of the sweep: a stage of its own, so that another judge generates
//! nothing. Its key is that of the answers and what decides the judge's verdicts; a judge's name and place are no part of it.

use std::path::PathBuf;
use std::slice;

use anyhow::{Context as _, Result, anyhow, bail};
use evaluation::{Evaluation, HttpJudge, Judge};
use realign::stage::judge::identity;
use realign::stage::measure::{Stored, measure};

use super::evaluate::prompt_sets;
use super::{Context, begin_with, provenance, report};
use crate::scores::StageScores;
use crate::store::{Output, Roots, Stage, StageKey};
use crate::sweep::Sweep;

/// A judge of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct SweepJudge {
    judge: Judge,
    /// What decides its verdicts, or why that cannot be told: a guard's directory is not there.
    identity: Result<String, String>,
}

impl SweepJudge {
    /// The judges that a sweep names, in order; none where it names none.
    #[must_use]
    pub fn all(sweep: &Sweep) -> Vec<Self> {
        let with = |judge: &Judge| {
            let identity = identity(judge).map_err(|error| format!("judge {}: {error:#}", judge.name()));
            Self { judge: judge.clone(), identity }
        };
        sweep.judged_by.iter().map(with).collect()
    }

    /// Name in tables.
    #[must_use]
    pub fn name(&self) -> &str {
        self.judge.name()
    }

    /// The key of its verdicts on the answers of a stage.
    ///
    /// # Errors
    /// When a guard's directory is not there.
    pub fn key(&self, answers: &str) -> Result<StageKey> {
        let identity = self.identity.as_ref().map_err(|error| anyhow!("{error}"))?;
        // A judge draws nothing, so that all seeds share the verdicts on the same answers.
        Ok(StageKey::new("judge", 1, 0, identity)?.parent_key("answers", answers))
    }

    /// What it says of the answers of a stage, from its own stage; none where that is not there.
    ///
    /// # Errors
    /// When a guard's directory is not there, or the scores are damaged.
    pub fn scores(&self, answers: &str, stages: &Roots) -> Result<Option<StageScores>> {
        let key = self.key(answers)?.digest()?;
        stages.places("judge", &key).find(|dir| dir.exists()).map(|dir| StageScores::read(&dir)).transpose()
    }

    /// Checks that it can be asked: an endpoint's key is in the environment.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self) -> Result<()> {
        match &self.judge {
            Judge::Http(settings, format) => Ok(HttpJudge::new(settings, format).map(drop)?),
            Judge::Refusal(_) | Judge::Guard(..) => Ok(()),
        }
    }
}

/// The verdicts of a judge on the answers of a model that the stage `answers` keeps; `name` stands on the bar. Verdicts on
/// answers that another evaluation of the model keeps are not asked for again.
///
/// # Errors
/// When the judge cannot run, or failed on answers in a way that may pass; what it has judged is kept, and the next run
/// asks about the rest.
pub fn judge(
    context: Context<'_>,
    name: &str,
    judge: &SweepJudge,
    (model, answers): (&Stage, &Stage),
) -> Result<Stage> {
    let key = judge.key(&answers.key)?;
    context.store.run(&key, |dir| {
        let bar = context.progress.bar("judge", &format!("{name} {}", judge.name()));
        let asked = prompt_sets();
        let judges = slice::from_ref(&judge.judge);
        let keys = context.store.readers("evaluate", &model.key).into_iter();
        let keys = keys.filter_map(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
        let others: Vec<PathBuf> = keys.flat_map(|key| context.store.readers("judge", &key)).collect();
        for asked in &asked {
            begin_with(&others, &asked.verdicts_name(&judge.judge), dir)?;
        }
        let stored = Stored { answers: &answers.dir, asked: &asked, judges, verdicts: dir };
        let evaluation = measure(stored, provenance(context.sweep.seed), context.device, &mut report(&bar))?;
        bar.finish_and_clear();
        check_complete(judge.name(), &evaluation).with_context(|| format!("verdicts are kept in {}", dir.display()))?;
        evaluation.write(dir, &[])?;
        let judged = evaluation.prompt_sets.iter().flat_map(|set| &set.judges).map(|scores| scores.n).sum();
        Output::new(&evaluation, judged)
    })
}

/// That nothing is left to ask again. What a judge refuses for good, such as an answer too long for it, is unknown.
fn check_complete(judge: &str, evaluation: &Evaluation) -> Result<()> {
    let scores = evaluation.prompt_sets.iter().flat_map(|set| &set.judges);
    let (n, failed, passing) =
        scores.fold((0, 0, 0), |sum, one| (sum.0 + one.n, sum.1 + one.failed, sum.2 + one.passing));
    if passing > 0 || failed == n {
        bail!("judge {judge} failed on {failed} of {n} answers; the same command asks about these again");
    }
    Ok(())
}
