//! The whole repair of one's own model: plan, comparison, measurement before and after, recovery, and a report.
//!
//! ```no_run
//! use realign::Recovery;
//!
//! # fn main() -> realign::Result<()> {
//! let recovered = Recovery::new("aligned", "fine-tuned")
//!     .harmful("harmful-prompts.jsonl") // without these two the packaged prompts are used
//!     .harmless("harmless-prompts.jsonl")
//!     .task("task.jsonl")
//!     .run()?;
//! println!("{}", recovered.report.verdict.text);
//! recovered.save("repaired".as_ref(), "repaired.report".as_ref())?;
//! # Ok(())
//! # }
//! ```

mod answered;
mod bounds;
mod card;
mod comparison;
mod gather;
mod measures;
mod opened;
mod packaged;
mod page;
mod pair;
mod parts;
mod plan;
mod report;
mod run;
mod settings;
mod tables;
mod text;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use files::Hashes;

pub use bounds::BoundCheck;
pub use comparison::{BlockDifference, Comparison};
pub use measures::{Figure, Measure};
pub use plan::{Kind, Plan};
pub use report::{
    Asked, Direction, ModelInfo, Models, Origin, Path as RepairPath, Point, Report as RepairReport, Restored, Text,
    Told, Verdict,
};
pub use settings::{Bounds, PartSizes, Settings, template};

use crate::{Artifact, DeviceName, Job, Progress, Result};
use opened::Opened;

/// A repair of a fine-tuned model, ready to run.
#[derive(Debug, Default)]
pub struct Recovery {
    settings: Settings,
    command: Vec<String>,
    hashes: Hashes,
}

/// A recovered model with its report, not yet at their places.
#[derive(Debug)]
pub struct Recovered {
    /// The report.
    pub report: RepairReport,
    /// The model's directory.
    pub model: PathBuf,
    /// The directory of `report.html`, `report.md`, `report.json` and the patch.
    pub files: PathBuf,
    /// Removed with this value.
    scratch: Option<tempfile::TempDir>,
}

/// The recovery patch in the directory of the report.
pub const PATCH_FILE: &str = crate::stage::PATCH;

impl Recovery {
    /// Of a fine-tuned model, or a peft adapter, and the aligned model that it comes from.
    #[must_use]
    pub fn new(aligned: impl Into<PathBuf>, fine_tuned: impl Into<PathBuf>) -> Self {
        let (aligned, finetuned) = (Some(aligned.into()), Some(fine_tuned.into()));
        Self::of(Settings { aligned, finetuned, ..Settings::default() })
    }

    /// Of settings that name both models.
    #[must_use]
    pub fn of(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// With harmful prompts of a JSONL file.
    #[must_use]
    pub fn harmful(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.harmful = Some(file.into());
        self
    }

    /// With harmless prompts of a JSONL file.
    #[must_use]
    pub fn harmless(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.harmless = Some(file.into());
        self
    }

    /// With the task's samples, `prompt` and `response`, of a JSONL file.
    #[must_use]
    pub fn task(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.task = Some(file.into());
        self
    }

    /// With judges of a YAML file.
    #[must_use]
    pub fn judges(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.judges = Some(file.into());
        self
    }

    /// With the command line that the report says.
    #[must_use]
    pub fn command(mut self, command: Vec<String>) -> Self {
        self.command = command;
        self
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// All other settings.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    /// What will be done and what it takes. Nothing is refused here; see [`Plan::check`].
    ///
    /// # Errors
    /// When an input is missing or damaged.
    pub fn plan(&self, device: &Device) -> Result<Plan> {
        let place = self.settings.out.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Opened::new(&self.settings, &self.hashes)?.plan(&self.settings, device, &place))
    }

    /// A hash of all that decides the result: work that was begun under one key goes on under the same alone.
    ///
    /// # Errors
    /// When an input cannot be read.
    pub fn key(&self) -> Result<String> {
        let (aligned, fine_tuned) = opened::models(&self.settings)?;
        let of = |path: &Path| Artifact::model(path, &self.hashes).map(|artifact| artifact.key);
        let file = |path: &Option<PathBuf>| path.as_deref().map(|path| self.hashes.of(path)).transpose();
        let Settings { harmful, harmless, task, judges, .. } = &self.settings;
        let files = [harmful, harmless, task, judges].map(file);
        let files = files.into_iter().collect::<Result<Vec<_>, _>>()?;
        // What changes the report alone does not make work useless.
        let settings =
            Settings { out: None, report: None, gate: Bounds::default(), show_answers: false, ..self.settings.clone() };
        Ok(files::hash_json(&("repair", of(aligned)?, of(fine_tuned)?, files, settings))?)
    }

    /// Runs on the processor, in a temporary directory.
    ///
    /// # Errors
    /// As [`run_in`](Self::run_in).
    pub fn run(&self) -> Result<Recovered> {
        let temp = std::env::temp_dir();
        let scratch = tempfile::tempdir().map_err(files::Error::io("create", &temp))?;
        let device = DeviceName::Flex.open()?;
        let mut report = |_: Progress<'_>| ControlFlow::Continue(());
        let mut job = Job {
            device: &device,
            batch: self.settings.batch,
            max_shard: None,
            earlier: Vec::new(),
            report: &mut report,
        };
        let recovered = self.run_in(scratch.path(), &mut job, &mut |_| ())?;
        Ok(Recovered { scratch: Some(scratch), ..recovered })
    }

    /// Runs in a directory, from which stopped work goes on. `say` gets lines for people as they are known.
    ///
    /// # Errors
    /// When an input is missing, damaged or does not fit the others, the machine is too small, or a stage fails;
    /// [`Error::Stopped`](crate::Error::Stopped).
    pub fn run_in(&self, work: &Path, job: &mut Job<'_>, say: &mut dyn FnMut(&str)) -> Result<Recovered> {
        run::run(self, work, job, say)
    }
}

impl Recovered {
    /// Whether all bounds hold.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.report.verdict.passed
    }

    /// Checks that [`save`](Self::save) can move model and report to two directories: before a run of hours, not after it.
    ///
    /// # Errors
    /// When one is there and not empty, lies in the other, or cannot be made.
    pub fn check_places(out: &Path, report: &Path) -> Result<()> {
        if files::overlap(out, report) {
            let (out, report) = (out.display(), report.display());
            return crate::error::invalid(format!("{out} and {report}: name two directories beside each other"));
        }
        crate::check_new("the model's directory", out)?;
        crate::check_new("the report's directory", report)
    }

    /// Moves model and report to two directories that are new or empty.
    ///
    /// # Errors
    /// As [`check_places`](Self::check_places), with nothing moved, and when they cannot be written.
    pub fn save(self, out: &Path, report: &Path) -> Result<RepairReport> {
        Self::check_places(out, report)?;
        files::move_dir(&self.model, out)?;
        files::move_dir(&self.files, report)?;
        drop(self.scratch);
        Ok(self.report)
    }
}
