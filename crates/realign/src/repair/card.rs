//! The model card that is written into the recovered model's directory.

use std::path::Path;

use serde_json::Value;

use super::report::Report;
use super::tables;
use super::text::{again, version};

/// `README.md` of the model.
pub(super) fn markdown(report: &Report) -> String {
    let models = &report.models;
    let mut bases = vec![&models.fine_tuned.name, &models.aligned.name];
    bases.dedup();
    let bases: String = bases.iter().map(|name| format!("- {}\n", Value::from(name.as_str()))).collect();
    let head =
        format!("---\nbase_model:\n{bases}library_name: transformers\ntags:\n- realign\n- safety-alignment\n---\n");
    let with_warnings: String = report.warnings.iter().map(|warning| format!("- Warning: {warning}.\n")).collect();
    format!(
        "{head}\n# {}\n\n`{}` with {} weights set back to those of the aligned model `{}`, by {} on {}.\n\n**{}**\n\n\
         {with_warnings}\nMeasured on prompts that neither the gradients nor the choice saw, in % with 95 % intervals:\n\n\
         {}\nHashes: aligned `{}`, fine-tuned `{}`.\n\n{}",
        models.recovered.name,
        models.fine_tuned.name,
        report.restored.weights,
        models.aligned.name,
        version(report),
        report.origin.date,
        report.verdict.text,
        tables::measured(report).markdown(),
        models.aligned.hash,
        models.fine_tuned.hash,
        again(report),
    )
}

/// A model's name: that of its configuration where it has one, else that on the hub or of its directory.
pub(super) fn model_name(dir: &Path) -> String {
    let key = |file: &str, key: &str| -> Option<String> {
        let json = files::read_json_inside(dir, file).ok()?;
        json[key].as_str().filter(|name| !name.is_empty() && !name.starts_with(['.', '/'])).map(str::to_owned)
    };
    let of_hub = || crate::hub::name_of(dir);
    key("config.json", "_name_or_path").or_else(of_hub).unwrap_or_else(|| directory_name(dir))
}

/// The name of a directory.
pub(super) fn directory_name(dir: &Path) -> String {
    let place = files::followed(dir);
    place.file_name().map_or_else(|| dir.display().to_string(), |name| name.to_string_lossy().into_owned())
}
