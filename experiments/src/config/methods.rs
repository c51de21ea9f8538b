//! What is compared in every cell: the aligned and the fine-tuned model, a model trained with SoftSFT, and the repairs of
//! the crate `recovery`, each by its word there.

use std::collections::BTreeMap;

use finetune::{SoftSftSettings, TrainSettings};
use recovery::{Knob, Method, Needs};
use serde::{Deserialize, Serialize};
use serde_yaml::{Mapping, Value};

use super::layers::merge;

/// One of the models of a cell that are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Compared {
    /// Name in files and tables: its word, unless the sweep gives another.
    pub name: String,
    /// Name for people.
    pub label: String,
    /// How it is made.
    pub what: What,
    /// Whether its knob or step is chosen by held-out merit (`choose: true`); a method that trains is trained with each value.
    pub by_merit: bool,
    /// Keys over `finetune`, of a method that trains.
    pub train: Option<Value>,
}

/// How a compared model is made.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The original chat model.
    Aligned,
    /// The aligned model, fine-tuned on the task and the injected samples.
    FineTuned,
    /// The same with SoftSFT in place of the usual loss.
    SoftSft(SoftSftSettings),
    /// The same with the aligned model's refusals mixed in (SafeInstruct, Bianchi et al. 2024).
    SafeInstruct(SafeInstruct),
    /// The fine-tuned model, trained further on a few of the aligned model's refusals (Safety at One Shot, 2601.01887).
    OneShot(OneShot),
    /// The fine-tuned model, repaired.
    Repair(Method),
}

/// Settings of SafeInstruct.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SafeInstruct {
    /// Refusals that are mixed in, as a share of the task's samples.
    pub share: f64,
}

impl Default for SafeInstruct {
    fn default() -> Self {
        Self { share: 0.03 }
    }
}

/// Settings of the one-shot patch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneShot {
    /// Prompts with the aligned model's answers.
    pub pairs: usize,
    /// Whether they are harmless ones, as a control.
    pub harmless: bool,
}

impl Default for OneShot {
    fn default() -> Self {
        Self { pairs: 1, harmless: false }
    }
}

impl Compared {
    /// Whether it reads evidence.
    #[must_use]
    pub fn reads_evidence(&self) -> bool {
        let asked = matches!(self.what, What::SafeInstruct(_) | What::OneShot(_));
        self.by_merit || asked || self.what.needs().is_some_and(|needs| needs.evidence || needs.safe)
    }

    /// What it needs beside the aligned and the fine-tuned model, in words, where repairs may read the task's samples or not.
    #[must_use]
    pub fn needs_in_words(&self, trust_task: bool) -> Vec<String> {
        let needs = self.what.needs().unwrap_or_default();
        let all = self.by_merit || needs.evidence;
        let (harmful, harmless) = match self.what {
            What::SafeInstruct(_) => (true, false),
            What::OneShot(OneShot { harmless, .. }) => (!harmless, harmless),
            _ => (all || needs.prompts || needs.safe, all || needs.safe),
        };
        let words = [
            ("the fine-tuning itself", matches!(self.what, What::SoftSft(_) | What::SafeInstruct(_))),
            ("harmful prompts", harmful),
            ("harmless prompts", harmless),
            ("task samples", trust_task && (all || needs.task_prompts)),
            ("an unaligned model", needs.unaligned),
            ("the model before alignment", needs.base),
            ("a safe model", needs.safe),
            ("a recovery's number of weights", needs.recovery),
        ];
        words.into_iter().filter(|word| word.1).map(|word| word.0.to_owned()).collect()
    }

    /// The settings of its training, over those of the fine-tuning.
    ///
    /// # Errors
    /// When a key is unknown, or a value makes no sense.
    pub fn training(&self, finetune: &TrainSettings) -> Result<TrainSettings, String> {
        training(finetune, self.train.as_ref())
    }
}

/// The settings of the fine-tuning, with keys over them if there are some.
///
/// # Errors
/// When a key is unknown, or a value makes no sense.
pub fn training(finetune: &TrainSettings, train: Option<&Value>) -> Result<TrainSettings, String> {
    let Some(train) = train else { return Ok(finetune.clone()) };
    let below = serde_yaml::to_value(finetune).map_err(|error| error.to_string())?;
    let settings: TrainSettings =
        serde_yaml::from_value(merge(below, train.clone())).map_err(|error| error.to_string())?;
    settings.check().map_err(|error| error.to_string())?;
    Ok(settings)
}

impl What {
    /// What a repair needs beside the two models; nothing for the others.
    #[must_use]
    pub fn needs(&self) -> Option<Needs> {
        match self {
            Self::Repair(method) => Some(method.repair().needs()),
            Self::Aligned | Self::FineTuned | Self::SoftSft(_) | Self::SafeInstruct(_) | Self::OneShot(_) => None,
        }
    }

    /// What is chosen among where the sweep says so, values from little to much.
    #[must_use]
    pub fn knob(&self) -> Option<Knob> {
        match self {
            Self::Aligned | Self::FineTuned => None,
            Self::SoftSft(_) => Some(Knob { key: "betas times", values: &[0.125, 0.25, 0.5, 1.0, 2.0] }),
            Self::SafeInstruct(_) => Some(Knob { key: "share", values: &[0.01, 0.03, 0.1] }),
            Self::OneShot(_) => Some(Knob { key: "pairs", values: &[1.0, 2.0, 4.0, 8.0, 16.0, 64.0] }),
            Self::Repair(method) => method.repair().knob(),
        }
    }

    /// A method that trains, with a value of its knob; others as they are.
    #[must_use]
    pub fn with(&self, value: f64) -> Self {
        match self.clone() {
            Self::SoftSft(settings) => Self::SoftSft(settings.times(value)),
            Self::SafeInstruct(_) => Self::SafeInstruct(SafeInstruct { share: value }),
            Self::OneShot(settings) => Self::OneShot(OneShot { pairs: value as usize, ..settings }),
            other => other,
        }
    }

    /// The word of a method that trains a model, which is the kind of the stage, too.
    #[must_use]
    pub fn trained(&self) -> Option<&'static str> {
        match self {
            Self::SoftSft(_) => Some("soft_sft"),
            Self::SafeInstruct(_) => Some("safe_instruct"),
            Self::OneShot(_) => Some("one_shot"),
            Self::Aligned | Self::FineTuned | Self::Repair(_) => None,
        }
    }

    /// The word's settings, checked; an unknown word is answered with all there are.
    fn from_settings(word: &str, settings: Value) -> Result<Self, String> {
        let json = serde_json::to_value(settings).map_err(|error| error.to_string())?;
        let without = |what: Self| match json.as_object().is_some_and(serde_json::Map::is_empty) {
            true => Ok(what),
            false => Err(format!("{word} has no settings")),
        };
        match word {
            "aligned" => without(Self::Aligned),
            "fine_tuned" => without(Self::FineTuned),
            "soft_sft" => {
                let settings: SoftSftSettings = serde_json::from_value(json).map_err(|error| error.to_string())?;
                settings.check().map_err(|error| error.to_string())?;
                Ok(Self::SoftSft(settings))
            }
            "safe_instruct" => {
                let settings: SafeInstruct = serde_json::from_value(json).map_err(|error| error.to_string())?;
                match settings.share > 0.0 && settings.share <= 1.0 {
                    true => Ok(Self::SafeInstruct(settings)),
                    false => Err(format!("`share`: {} must be above 0 and at most 1", settings.share)),
                }
            }
            "one_shot" => {
                let settings: OneShot = serde_json::from_value(json).map_err(|error| error.to_string())?;
                if settings.pairs > 0 { Ok(Self::OneShot(settings)) } else { Err("`pairs`: at least 1".into()) }
            }
            word if Method::WORDS.contains(&word) => {
                Ok(Self::Repair(Method::from_settings(word, json).map_err(|error| error.to_string())?))
            }
            _ => {
                let known =
                    ["aligned", "fine_tuned", "soft_sft", "safe_instruct", "one_shot"].iter().chain(Method::WORDS);
                let known: Vec<String> = known.map(|word| format!("`{word}`")).collect();
                Err(format!("unknown variant `{word}`, expected one of {}", known.join(", ")))
            }
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Aligned => "aligned",
            Self::FineTuned => "fine-tuned",
            Self::SoftSft(_) => "SoftSFT",
            Self::SafeInstruct(_) => "SafeInstruct",
            Self::OneShot(_) => "one-shot patch",
            Self::Repair(method) => method.label(),
        }
    }
}

/// The words of older sweeps have today's meaning.
fn canonical(word: &str) -> &str {
    match word {
        "recovered" => "recover",
        "softsft" => "soft_sft",
        word => word,
    }
}

/// The entries of `methods` over the settings of `settings`. A mistake is a key and a sentence.
pub(super) fn compared(
    entries: &[Value],
    settings: &BTreeMap<String, Value>,
) -> (Vec<Compared>, Vec<(String, String)>) {
    let mut problems = Vec::new();
    for (word, settings) in settings {
        if let Err(what) = What::from_settings(word, settings.clone()) {
            let unknown = what.contains(&format!("unknown variant `{word}`"));
            problems.push((if unknown { "settings".to_owned() } else { format!("settings.{word}") }, what));
        }
    }
    let mut compared: Vec<Compared> = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        match resolve(entry, settings) {
            Ok(one) if compared.iter().any(|other| other.name == one.name) => {
                problems.push((format!("methods[{i}]"), format!("{:?} is there twice; give one a `name`", one.name)));
            }
            Ok(one) => compared.push(one),
            Err(_)
                if entry.is_string() && entry.as_str().is_some_and(|word| settings.contains_key(canonical(word))) => {}
            Err(what) => problems.push((format!("methods[{i}]"), what)),
        }
    }
    (compared, problems)
}

/// An entry: a word, or a mapping of one word to settings of its own, with a name and a label where it has them.
fn resolve(entry: &Value, settings: &BTreeMap<String, Value>) -> Result<Compared, String> {
    let mut keys = match entry {
        Value::String(word) => Mapping::from_iter([(Value::from(word.as_str()), Value::Null)]),
        Value::Mapping(keys) => keys.clone(),
        _ => return Err("must be a word, or a mapping such as {name: fast, recover: {steps: 5}}".into()),
    };
    let text = |keys: &mut Mapping, key: &str| match keys.remove(key) {
        None => Ok(None),
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(Some(text)),
        Some(_) => Err(format!("`{key}` must be a text")),
    };
    let (name, label) = (text(&mut keys, "name")?, text(&mut keys, "label")?);
    let by_merit = match keys.remove("choose") {
        None => false,
        Some(Value::Bool(choose)) => choose,
        Some(_) => return Err("`choose` must be true or false".into()),
    };
    let train = keys.remove("train");
    let mut words = keys.into_iter();
    let (Some((Value::String(word), own)), None) = (words.next(), words.next()) else {
        return Err("must have one method beside `name` and `label`, such as {name: fast, recover: {steps: 5}}".into());
    };
    let word = canonical(&word);
    let below = settings.get(word).cloned().unwrap_or_else(|| Value::Mapping(Mapping::new()));
    let what = What::from_settings(word, if own.is_null() { below } else { merge(below, own) })?;
    let label = label.or_else(|| Some(name.as_ref()?.replace('_', " ")));
    let label = label.unwrap_or_else(|| what.label().to_owned());
    if by_merit && what.knob().is_none() {
        return Err(format!("`choose`: {word} has no knob to choose by held-out merit"));
    }
    if train.is_some() && what.trained().is_none() {
        return Err(format!("`train`: {word} does not train"));
    }
    Ok(Compared { name: name.unwrap_or_else(|| word.to_owned()), label, what, by_merit, train })
}
