//! The choice among models that were trained with several values of a knob.

use std::path::Path;

use model::Dtype;
use recovery::{Choice, Knob, Repaired};
use serde::Serialize;

use super::repair::summary;
use super::{MODEL, RepairSummary, Stage};
use crate::error::invalid;
use crate::evidence::Pair;
use crate::model::{LazyModel, Source, save};
use crate::{Artifact, Evidence, Job, Result};

/// Takes, of models that a method trained with each value of its knob, the one of the best held-out merit, as
/// [`Repair`](super::Repair) does for methods that do not train.
#[derive(Debug, Clone, Serialize)]
pub struct Choose {
    /// The method.
    pub method: &'static str,
    /// Its knob.
    pub knob: Knob,
    /// The models, in the order of the knob's values.
    pub models: Vec<Artifact>,
    /// The aligned model.
    pub aligned: Artifact,
    /// The model that was fine-tuned without the method.
    pub fine_tuned: Artifact,
    /// Answered prompts.
    pub evidence: Evidence,
    /// The directory of [`OwnAnswers`](super::OwnAnswers) that may hold answers of the aligned model.
    #[serde(skip)]
    pub answers: Option<Artifact>,
    /// The precision of the result; that of the models where it is none.
    pub dtype: Option<Dtype>,
}

impl Choose {
    /// Its kind in tables and directories.
    pub const KIND: &'static str = "choose";
}

impl Stage for Choose {
    type Summary = RepairSummary;

    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<RepairSummary> {
        job.step(0, self.models.len(), "reading the models")?;
        let open = |artifact: &Artifact| LazyModel::new(artifact, self.dtype, job.device).into_model();
        let (aligned, fine_tuned) = (open(&self.aligned)?, open(&self.fine_tuned)?);
        let earlier = self.answers.iter().map(|artifact| artifact.path.clone()).collect();
        let (evidence, declined) = {
            let models = Pair { aligned: (&aligned, &self.aligned), fine_tuned: (&fine_tuned, &self.fine_tuned) };
            let (device, batch, max_shard) = (job.device, job.batch, job.max_shard);
            self.evidence.read(
                &models,
                out,
                &mut Job { device, batch, max_shard, earlier, report: &mut *job.report },
            )?
        };
        let mut choice = Choice::new(self.method, &evidence, &aligned.decoder, &fine_tuned.decoder)?;
        let mut best = None;
        for (value, model) in self.knob.values.iter().zip(&self.models) {
            let source = Source::new(&model.path, None)?;
            let decoder = source.decoder(self.dtype, job.device)?;
            if choice.tries(*value, &decoder)? {
                best = Some((decoder, source));
            }
            job.step(choice.points.len(), self.models.len(), &choice.word(self.knob.key))?;
        }
        let (Some((decoder, source)), Some(outcome)) = (best, choice.outcome(self.knob.key)) else {
            return invalid(format!("{}: there is no model to choose", self.method));
        };
        save(&decoder, self.dtype, &source, job.max_shard, &out.join(MODEL))?;
        files::write_json(&out.join("points.json"), &choice.points)?;
        let damage = recovery::damage(&fine_tuned.decoder, &decoder, &[])?;
        let repaired = Repaired { decoder, outcome, restored: None, path: None, trace: None };
        Ok(summary(&repaired, &choice.points, "held-out merit", damage, declined))
    }
}
