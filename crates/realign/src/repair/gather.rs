//! What the steps of a repair found, as a report.

use std::path::Path;
use std::time::SystemTime;

use evaluation::gate::{By, Stored};
use evaluation::report::percent;
use recovery::{PatchFile, StrongTrace};

use super::bounds::{self, BoundCheck};
use super::comparison::Comparison;
use super::plan::Plan;
use super::report::{self, Direction, ModelInfo, Models, Origin, Report, Restored, Verdict};
use super::{Recovery, answered, card, measures, text};
use crate::stage::{PATCH, RepairSummary};
use crate::{Artifact, Job, Result};

/// What a model answered, and its mean hidden state on the harmful prompts.
pub(super) struct Asking {
    pub stored: Stored,
    /// With its layer.
    pub direction: (usize, Vec<f32>),
}

/// What the steps worked on and found.
pub(super) struct Found<'a> {
    pub recovery: &'a Recovery,
    /// The directory of the repair's stage.
    pub dir: &'a Path,
    pub aligned: &'a Artifact,
    pub fine_tuned: &'a Artifact,
    pub recovered: &'a Artifact,
    pub plan: Plan,
    pub comparison: Comparison,
    pub summary: RepairSummary,
    /// Of the aligned, the fine-tuned and the recovered model.
    pub asked: [&'a Asking; 3],
    pub seconds: Vec<(String, f64)>,
    pub warnings: Vec<String>,
}

impl Found<'_> {
    /// The report.
    ///
    /// # Errors
    /// When a file of the recovery cannot be read.
    pub fn report(self, job: &Job<'_>) -> Result<Report> {
        let Found { recovery, dir, recovered, asked: models, summary, .. } = self;
        let settings = recovery.settings().clone();
        let stored = models.map(|one| &one.stored);
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
            aligned: info(self.aligned, &self.aligned.path),
            fine_tuned: info(self.fine_tuned, &self.fine_tuned.path),
            recovered: ModelInfo { name: card::directory_name(out), ..info(recovered, out) },
        };
        let verdict = verdict(bounds::checks(&settings.gate, stored), settings.gate.by, &summary);
        let rounds = settings.strong.rounds;
        let is_left = verdict.checks.iter().any(|check| check.bound.contains("max-harmful") && !check.holds);
        let mut warnings = self.warnings;
        let before = warnings.len();
        warnings.extend(wide(&verdict.checks));
        if is_left && trace.rounds.len() >= rounds {
            warnings.push(format!(
                "{} rounds were done and harm is left: more of them (strong.rounds in a settings file of `realign init`, now \
                 {rounds}) may take back more",
                trace.rounds.len()
            ));
        }
        warnings[before..].iter().for_each(|warning| tracing::warn!("{warning}"));
        Ok(Report {
            format: 2,
            verdict,
            models,
            comparison: self.comparison,
            measures: measures::table(stored),
            path: report::Path::new(trace, patch.path.chosen(), settings.merit),
            restored: Restored::new(&patch),
            direction,
            warnings,
            plan: self.plan,
            seconds: self.seconds,
            peak_memory: crate::needs::peak_memory(),
            asked: answered::all(stored, settings.show_answers),
            settings,
            origin: Origin {
                command: recovery.command.clone(),
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

/// A warning where bounds hold, and the measured prompts are too few to show it.
fn wide(checks: &[BoundCheck]) -> Option<String> {
    let end = |check: &BoundCheck| {
        let (_, (_, high)) = check.value.filter(|(_, (_, high))| check.holds && *high > check.limit)?;
        Some(format!("{}, {}: up to {} %", check.bound, check.of, percent(high)))
    };
    let ends: Vec<String> = checks.iter().filter_map(end).collect();
    (!ends.is_empty()).then(|| {
        format!(
            "the measured values keep these bounds, and the upper ends of their 95 % intervals do not: {}; measure on more \
             prompts (--test-prompts)",
            ends.join("; ")
        )
    })
}

fn verdict(checks: Vec<BoundCheck>, by: By, summary: &RepairSummary) -> Verdict {
    let failed: Vec<String> = checks.iter().filter(|check| !check.holds).map(text::failed).collect();
    let all = checks.len();
    let by = match by {
        By::Point => "by the measured values",
        By::Interval => "by the upper ends of the 95 % intervals",
    };
    let text = match failed.is_empty() {
        true => format!("passed: all {all} bounds hold on prompts that neither the gradients nor the choice saw, {by}"),
        false => format!("failed: {} of {all} bounds: {}; decided {by}", failed.len(), failed.join("; ")),
    };
    Verdict { passed: failed.is_empty(), text, method: summary.note.clone(), checks }
}
