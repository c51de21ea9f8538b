//! What looks wrong in a model's files and is read all the same: in words for people, in a log or a report.

use std::path::Path;

use model::{DecoderConfig, checkpoint};
use prompts::Tokenizer;
use serde_json::Value;

use crate::Result;
use crate::error::Within as _;

/// All that looks wrong in the files of a model, or of an adapter before its base, without reading most of the weights.
///
/// # Errors
/// When a file of the model is missing or damaged.
pub(crate) fn on_model(dirs: &[&Path], tokenizer: &Tokenizer) -> Result<Vec<String>> {
    let home = dirs.last().copied().unwrap_or(Path::new("."));
    let mut notes = checkpoint::notes(home).within(|| format!("weights of {}", home.display()))?;
    notes.extend(on_adapter(dirs));
    notes.extend(on_text(dirs, tokenizer));
    Ok(notes)
}

/// Of an adapter: that a whole model lies beside it, and that it is of another base.
pub(crate) fn on_adapter(dirs: &[&Path]) -> Vec<String> {
    let [adapter, home] = *dirs else { return Vec::new() };
    let mut notes = Vec::new();
    let shown = adapter.display();
    if checkpoint::contents(adapter) == checkpoint::Contents::Both {
        notes.push(format!(
            "{shown} holds an adapter beside a whole model; as by transformers with peft, the adapter is read, on {}; remove its \
             adapter_config.json to read the whole model",
            home.display()
        ));
    }
    if let Some(name) = base_name(adapter).filter(|name| !is_base(name, home)) {
        notes.push(format!(
            "the adapter {shown} was trained on `{name}` and is put on {}: check that it is the same model",
            home.display()
        ));
    }
    notes
}

/// Of how a model reads and writes text: a template without the head of an answer, settings of generation that are not
/// applied, and ends of an answer that the model cannot write.
pub(crate) fn on_text(dirs: &[&Path], tokenizer: &Tokenizer) -> Vec<String> {
    let (Some(dir), Some(home)) = (dirs.first(), dirs.last()) else { return Vec::new() };
    let mut notes = Vec::new();
    if !tokenizer.heads_answers().unwrap_or(true) {
        notes.push(format!(
            "the chat template of {} writes no head of the answer with add_generation_prompt: the model goes on with nobody's \
             turn",
            dir.display()
        ));
    }
    notes.extend(on_generation(dirs));
    let vocabulary = DecoderConfig::from_dir(home).map_or(usize::MAX, |config| config.vocab_size);
    let unknown: Vec<String> =
        tokenizer.eos_ids().iter().filter(|&&id| id as usize >= vocabulary).map(u32::to_string).collect();
    if !unknown.is_empty() {
        notes.push(format!(
            "eos_token_id {} of {} is not below the vocabulary size {vocabulary}: the model cannot end an answer with it; \
             correct generation_config.json",
            unknown.join(", "),
            dir.display()
        ));
    }
    notes
}

/// Of settings of generation that change greedy answers, and are not applied.
fn on_generation(dirs: &[&Path]) -> Option<String> {
    const FILE: &str = "generation_config.json";
    let dir = dirs.iter().find(|dir| dir.join(FILE).is_file())?;
    let json = files::read_json_inside(dir, FILE).unwrap_or_default();
    let changing = CHANGES.into_iter().filter(|key| !is_neutral(key, &json[*key]));
    let shown: Vec<String> = changing.map(|key| format!("{key} = {}", json[key])).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "{}: {} is not applied: answers here are the most probable tokens, and `generate` of transformers gives others where \
             it reads that",
            dir.join(FILE).display(),
            shown.join(", ")
        )
    })
}

/// The model that an adapter says it was trained on.
pub(crate) fn base_name(adapter: &Path) -> Option<String> {
    let config = files::read_json_inside(adapter, "adapter_config.json").ok()?;
    config["base_model_name_or_path"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Keys of `generation_config.json` that change which token is the most probable one, or where an answer ends.
const CHANGES: [&str; 18] = [
    "repetition_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "forced_decoder_ids",
    "min_length",
    "min_new_tokens",
    "exponential_decay_length_penalty",
    "sequence_bias",
    "num_beams",
    "penalty_alpha",
    "guidance_scale",
    "stop_strings",
];

/// Whether a value changes nothing.
fn is_neutral(key: &str, value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => {
            let is_factor = ["repetition_penalty", "encoder_repetition_penalty", "num_beams", "guidance_scale"];
            let is_id = key.ends_with("_id");
            !is_id && number.as_f64() == Some(if is_factor.contains(&key) { 1.0 } else { 0.0 })
        }
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        Value::Bool(true) | Value::String(_) => false,
    }
}

/// Whether a directory is of the model that an adapter names.
fn is_base(name: &str, home: &Path) -> bool {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().to_lowercase());
    let is_path_of = |part: &str| {
        let part = part.trim_start_matches("models--").rsplit("--").next().unwrap_or(part).to_lowercase();
        Some(part) == last(Path::new(name))
    };
    let home_is = std::fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
    let config = files::read_json_inside(home, "config.json").unwrap_or_default();
    config["_name_or_path"] == name
        || std::fs::canonicalize(name).is_ok_and(|path| path == home_is)
        || home_is.components().any(|part| is_path_of(&part.as_os_str().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_of_generation_that_change_greedy_answers_are_told_from_those_that_do_not() {
        for (key, value, neutral) in [
            ("repetition_penalty", json!(1.0), true),
            ("repetition_penalty", json!(1), true),
            ("repetition_penalty", json!(1.05), false),
            ("no_repeat_ngram_size", json!(0), true),
            ("no_repeat_ngram_size", json!(3), false),
            ("num_beams", json!(1), true),
            ("num_beams", json!(4), false),
            ("suppress_tokens", json!([]), true),
            ("suppress_tokens", json!([7]), false),
            ("forced_bos_token_id", json!(0), false),
            ("bad_words_ids", json!(null), true),
        ] {
            assert_eq!(is_neutral(key, &value), neutral, "{key} {value}");
        }
    }
}
