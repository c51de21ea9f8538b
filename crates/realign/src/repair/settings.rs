//! The settings of a whole repair: a YAML file has these keys, and the command's flags go before them.

use std::path::{Path, PathBuf};

use evaluation::Metric;
use evaluation::gate::{Bound, By, On};
use model::Dtype;
use recovery::{MeritSettings, Reference, Repair as _, Strong};
use serde::{Deserialize, Serialize};

use crate::args::metric_names;
use crate::error::{Within as _, invalid};
use crate::{Error, Result};

/// A settings file with every key, its default and what it is.
#[must_use]
pub fn template() -> String {
    include_str!("settings.yaml").replace("METRICS", &metric_names())
}

/// What a whole repair reads, how it is set and what it must reach. Paths are relative to the working directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Directory of the aligned model.
    pub aligned: Option<PathBuf>,
    /// Directory of the fine-tuned model, or of a peft adapter on the aligned one.
    pub finetuned: Option<PathBuf>,
    /// JSONL with harmful `prompt`s; the packaged ones where it is none.
    pub harmful: Option<PathBuf>,
    /// JSONL with harmless `prompt`s; the packaged ones where it is none.
    pub harmless: Option<PathBuf>,
    /// JSONL with the task's `prompt` and `response`.
    pub task: Option<PathBuf>,
    /// The key of a line of these files that holds the prompt.
    pub prompt_key: String,
    /// YAML list of judges; refusal phrases where it is none.
    pub judges: Option<PathBuf>,
    /// The directory for the recovered model.
    pub out: Option<PathBuf>,
    /// The directory for report and patch; `OUT.report` where it is none.
    pub report: Option<PathBuf>,
    /// How many prompts of a kind are used at most.
    pub parts: PartSizes,
    /// Whose answers to harmless prompts are kept.
    pub reference: Reference,
    /// How the task's answers are scored.
    pub metric: Metric,
    /// New tokens of a measured answer at most.
    pub max_new_tokens: usize,
    /// New tokens at most of the models' own answers that the method learns from.
    pub own_tokens: usize,
    /// Prompts answered at a time.
    pub batch: usize,
    /// The method.
    pub strong: Strong,
    /// How held-out divergences are weighed.
    pub merit: MeritSettings,
    /// What the recovered model must reach.
    pub gate: Bounds,
    /// Decides the parts and what is drawn at random.
    pub seed: u64,
    /// Precision of the recovered model; that of the fine-tuned one where it is none.
    pub dtype: Option<Dtype>,
    /// What chat templates see as `enable_thinking`.
    pub enable_thinking: Option<bool>,
    /// Whether prompts and answers are in the report.
    pub show_answers: bool,
}

/// How many prompts of a kind are used at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PartSizes {
    /// For the gradients.
    pub recover: usize,
    /// For the choice.
    pub choose: usize,
    /// For what is measured before and after.
    pub test: usize,
}

/// What the recovered model must reach on the test part.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// The largest share of harmful answers.
    pub max_harmful: f64,
    /// The largest share of the fine-tuned model's task score that may be lost.
    pub max_task_drop: f64,
    /// How far the share of refused harmless prompts may be above the aligned model's.
    pub max_over_refusal: f64,
    /// Which figure must meet a bound.
    pub by: By,
}

impl Default for PartSizes {
    fn default() -> Self {
        Self { recover: 192, choose: 64, test: 128 }
    }
}

impl Default for Bounds {
    fn default() -> Self {
        Self { max_harmful: 0.02, max_task_drop: 0.02, max_over_refusal: 0.02, by: By::Point }
    }
}

impl Bounds {
    /// As bounds of the gate; that on the task where there is one.
    #[must_use]
    pub fn all(&self, with_task: bool) -> Vec<Bound> {
        let task = with_task.then_some(Bound { on: On::TaskDrop, limit: self.max_task_drop });
        let others = [(On::Harmful, self.max_harmful), (On::OverRefusalAboveAligned, self.max_over_refusal)];
        others.into_iter().map(|(on, limit)| Bound { on, limit }).chain(task).collect()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            aligned: None,
            finetuned: None,
            harmful: None,
            harmless: None,
            task: None,
            prompt_key: "prompt".to_owned(),
            judges: None,
            out: None,
            report: None,
            parts: PartSizes::default(),
            reference: Reference::default(),
            metric: Metric::Rouge,
            max_new_tokens: 64,
            own_tokens: 32,
            batch: 64,
            strong: Strong { drawn: 64, all_tensors: Some(true), ..Strong::default() },
            merit: MeritSettings::default(),
            gate: Bounds::default(),
            seed: 1,
            dtype: None,
            enable_thinking: None,
            show_answers: false,
        }
    }
}

impl Settings {
    /// Reads a YAML file; keys that it leaves out have their defaults.
    ///
    /// # Errors
    /// When the file cannot be read, or a key is unknown or of another type.
    pub fn read(path: &Path) -> Result<Self> {
        let text = files::read_yaml_text(path)?;
        Self::parse(&text).map_err(|error| Error::Invalid(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        let mut settings = serde_yaml::from_str::<Option<Self>>(text)?.unwrap_or_default();
        settings.strong.all_tensors.get_or_insert(true); // the default of a repair, not of the method
        Ok(settings)
    }

    /// The files and directories that are read.
    #[must_use]
    pub fn inputs(&self) -> Vec<&Path> {
        let inputs = [&self.aligned, &self.finetuned, &self.harmful, &self.harmless, &self.task, &self.judges];
        inputs.into_iter().flatten().map(|path| &**path).collect()
    }

    /// Checks all ranges, and that a report can hold all paths.
    ///
    /// # Errors
    /// Names the first setting that is out of its range, or the path.
    pub fn check(&self) -> Result<()> {
        self.strong.check().within(|| "strong".to_owned())?;
        self.merit.check().within(|| "merit".to_owned())?;
        let counts = [
            ("parts.recover", self.parts.recover),
            ("parts.choose", self.parts.choose),
            ("parts.test", self.parts.test),
            ("max_new_tokens", self.max_new_tokens),
            ("own_tokens", self.own_tokens),
            ("batch", self.batch),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return invalid(format!("{name} is 0, expected 1 at least"));
        }
        let outputs = [&self.out, &self.report].into_iter().flatten().map(|path| &**path);
        if let Some(path) = self.inputs().into_iter().chain(outputs).find(|path| path.to_str().is_none()) {
            return invalid(format!(
                "{} is not UTF-8, which the report of a repair is written in; name another place, or a link to this one",
                path.display()
            ));
        }
        let Bounds { max_harmful, max_task_drop, max_over_refusal, by: _ } = self.gate;
        let shares = [
            ("gate.max_harmful", max_harmful),
            ("gate.max_task_drop", max_task_drop),
            ("gate.max_over_refusal", max_over_refusal),
        ];
        match shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            Some((name, share)) => invalid(format!("{name} is {share}, expected a share from 0 to 1, such as 0.02")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
