//! What the steps of a repair found, as a report.

use std::path::Path;
use std::time::SystemTime;

use recovery::{PatchFile, StrongTrace};

use super::bounds::{self, BoundCheck};
use super::comparison::Comparison;
use super::plan::Plan;
use super::report::{self, Direction, ModelInfo, Models, Origin, Report, Restored, Verdict};
use super::run::{Asking, Run};
use super::{asked, card, measures, text};
use crate::stage::{PATCH, RepairSummary};
use crate::{Artifact, Job, Result};

/// What the steps found.
pub(super) struct Found<'a> {
    pub plan: Plan,
    pub comparison: Comparison,
    pub summary: RepairSummary,
    pub recovered: Artifact,
    /// Of the aligned, the fine-tuned and the recovered model.
    pub asked: [&'a Asking; 3],
}

impl Run<'_> {
    /// The report.
    ///
    /// # Errors
    /// When a file of the recovery cannot be read.
    pub fn report(&self, found: Found<'_>, job: &Job<'_>) -> Result<Report> {
        let Found { plan, comparison, summary, recovered, asked: models } = found;
        let settings = self.recovery.settings().clone();
        let stored = models.map(|one| &one.stored);
        let dir = self.work.join("repair");
        let trace: StrongTrace = files::read_json(&dir.join("trace.json"))?;
        let patch = PatchFile::load(&dir.join(PATCH))?;
        let [aligned, before, after] = models.map(|one| &one.direction);
        let direction = Direction {
            layer: aligned.0,
            before: direction::cosine(&aligned.1, &before.1),
            after: direction::cosine(&aligned.1, &after.1),
        };
        let out = settings.out.as_deref().unwrap_or(&recovered.path);
        let info = |artifact: &Artifact, path: &Path| ModelInfo {
            path: path.display().to_string(),
            name: card::model_name(path),
            hash: artifact.key.clone(),
        };
        let models = Models {
            aligned: info(&self.aligned, &self.aligned.path),
            fine_tuned: info(&self.fine_tuned, &self.fine_tuned.path),
            recovered: ModelInfo { name: card::directory_name(out), ..info(&recovered, out) },
        };
        Ok(Report {
            format: 2,
            verdict: verdict(bounds::checks(&settings.gate, stored), &summary),
            models,
            comparison,
            measures: measures::table(stored),
            path: report::Path::new(trace, patch.path.chosen(), settings.merit),
            restored: Restored::new(&patch),
            direction,
            warnings: self.warnings.clone(),
            plan,
            seconds: self.seconds.clone(),
            peak_memory: crate::needs::peak_memory(),
            asked: asked::all(stored, settings.show_answers),
            settings,
            origin: Origin {
                command: self.recovery.command.clone(),
                date: httpdate::fmt_http_date(SystemTime::now()),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                git_revision: option_env!("GIT_REVISION").map(str::to_owned),
                platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
                device: format!("{:?}", job.device),
                patch_hash: files::hash_path(&dir.join(PATCH))?,
            },
        })
    }
}

fn verdict(checks: Vec<BoundCheck>, summary: &RepairSummary) -> Verdict {
    let failed: Vec<String> = checks.iter().filter(|check| !check.holds).map(text::failed).collect();
    let all = checks.len();
    let text = match failed.is_empty() {
        true => format!("passed: all {all} bounds hold on prompts that neither the gradients nor the choice saw"),
        false => format!("failed: {} of {all} bounds: {}", failed.len(), failed.join("; ")),
    };
    Verdict { passed: failed.is_empty(), text, method: summary.note.clone(), checks }
}
