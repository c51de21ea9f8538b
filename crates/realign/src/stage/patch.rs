//! The recovery patch on model directories: any step of a repair from the fine-tuned model and one file, and back.

use std::path::Path;

use model::Dtype;
use recovery::{Method, Models, PatchFile, Repaired};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{MODEL, Stage};
use crate::error::Within as _;
use crate::model::{Source, save};
use crate::{Artifact, Job, Result};

/// The file of a repair's patch in its stage's directory. It does not lie in the model's own, where some servers read
/// every safetensors file as weights.
pub const PATCH: &str = "recovery.patch.safetensors";

/// Makes of the fine-tuned model what the repair had after a step, or takes that back. The model is read and written in
/// the precision of the patch, and must be the one that the patch is bound to, value by value.
#[derive(Debug, Clone, Serialize)]
pub struct ApplyPatch {
    /// The patch.
    pub patch: Artifact,
    /// The fine-tuned model, or where the patch is taken back the repaired one.
    pub model: Artifact,
    /// The model that it is a peft adapter on, if it is one: the patch is bound to the merged model.
    pub base: Option<Artifact>,
    /// The step; the patch's answer where it is none.
    pub step: Option<usize>,
    /// Whether the patch is taken back.
    pub undo: bool,
}

/// Which model was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatchSummary {
    /// The step that it is after; 0 is the fine-tuned model.
    pub step: usize,
    /// The weights that are the aligned model's.
    pub restored: usize,
    /// The precision of the patch, which is that of the model, too.
    pub dtype: Dtype,
}

impl Stage for ApplyPatch {
    type Summary = PatchSummary;

    fn kind(&self) -> &'static str {
        if self.undo { "patch_undo" } else { "patch_apply" }
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<PatchSummary> {
        let file = PatchFile::load(&self.patch.path)?;
        let step = self.step.unwrap_or(file.path.chosen());
        let (from, to) = if self.undo { (step, 0) } else { (0, step) };
        job.step(0, 1, "reading the model")?;
        let source = Source::with_base(&self.model.path, self.base.as_ref().map(|base| base.path.as_path()))?;
        let decoder = source.decoder(Some(file.dtype), job.device)?;
        job.step(0, 1, "comparing it with the patch")?;
        let on = || format!("{} on {}", self.patch.path.display(), self.model.path.display());
        let decoder = file.rewrite(decoder, from, to).within(on)?;
        let model = out.join(MODEL);
        let asked = (source.dtype(None)? != file.dtype).then_some(file.dtype);
        save(&decoder, asked, &source, job.max_shard, &model)?;
        let summary = PatchSummary { step: to, restored: file.path.at(to).len(), dtype: file.dtype };
        // In place of that of the model that it was made of.
        let made = serde_json::json!({"summary": &summary, "stage": self.kind(), "value": self});
        files::write_json(&model.join(super::OUTCOME), &made)?;
        Ok(summary)
    }
}

/// Writes the patch of a repair, if its method has one.
pub(super) fn write(place: &Path, repaired: &Repaired, models: Models<'_>, method: &Method) -> Result<()> {
    let Some(path) = &repaired.path else { return Ok(()) };
    let notes = repaired.trace.as_ref().map(serde_json::to_value).transpose()?;
    let file = PatchFile::new(
        path.clone(),
        models,
        serde_json::to_value(method)?,
        notes.map_or(Value::Null, without_seconds),
    )?;
    Ok(files::write_whole(place, &file.to_bytes()?)?)
}

/// JSON without what differs when the same is done again: the keys of durations.
fn without_seconds(json: Value) -> Value {
    match json {
        Value::Object(map) => map
            .into_iter()
            .filter(|(key, _)| !key.ends_with("_s"))
            .map(|(key, value)| (key, without_seconds(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_seconds).collect(),
        other => other,
    }
}
