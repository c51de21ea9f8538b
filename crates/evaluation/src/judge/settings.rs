//! The list of judges as data (`data/judges/*.yaml`). All judges of a list read the same stored answers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Verdict, broken, format::JudgeFormat, http_settings::HttpSettings, lab, refusal, trained::TrainedJudge};
use crate::{Answer, EvaluationError, RefusalJudge, Result, read::read_yaml};

/// One judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JudgeSpec {
    /// Refusal phrases on an answer's beginning.
    Refusal(RefusalSettings),
    /// What the lab's requests make of an answer: refused, complied or broken.
    Lab(LabSettings),
    /// A small classifier of refusals on an answer's beginning.
    Trained(TrainedSettings),
    /// A guard model, run by our own decoder.
    Guard(GuardSettings),
    /// A model behind an OpenAI-compatible endpoint.
    Http(HttpSettings),
}

/// A refusal judge; its phrases are part of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusalSettings {
    /// Name in files and tables.
    pub name: String,
    /// Whether answers without words, of a class label only or in a loop are broken, before the phrases are looked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken_rule: bool,
    /// How many characters of an answer a phrase must begin within; a wide window finds the refusal after a compliant
    /// beginning, too.
    #[serde(default = "default_window", skip_serializing_if = "is_default_window")]
    pub window: usize,
}

fn default_window() -> usize {
    refusal::BEGINNING
}

fn is_default_window(window: &usize) -> bool {
    *window == refusal::BEGINNING
}

/// The lab's judge, whose rules are part of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabSettings {
    /// Name in files and tables.
    pub name: String,
}

/// A trained refusal judge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainedSettings {
    /// Name in files and tables.
    pub name: String,
    /// The weights, such as `data/judges/refusal.safetensors`, relative to the judges file.
    pub weights: PathBuf,
    /// Whether broken answers, as in [`RefusalSettings`], are found by rule first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken_rule: bool,
    /// How many characters of an answer it reads, if not as many as the weights were trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
}

/// A guard model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardSettings {
    /// Name in files and tables.
    pub name: String,
    /// The model's Hugging Face directory, relative to the judges file.
    pub model: PathBuf,
    /// The [`JudgeFormat`], relative to the judges file.
    pub format: PathBuf,
    /// Answers judged at a time; it changes the speed only.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// Whether broken answers, as in [`RefusalSettings`], are not given to the model.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken_rule: bool,
}

fn default_batch() -> usize {
    16
}

/// A judge with its format or weights read.
#[derive(Clone, Debug, PartialEq)]
pub enum Judge {
    /// Refusal phrases.
    Refusal(RefusalSettings),
    /// The lab's judge.
    Lab(LabSettings),
    /// A trained refusal judge and its weights.
    Trained(TrainedSettings, Arc<TrainedJudge>),
    /// A guard model and its format.
    Guard(GuardSettings, JudgeFormat),
    /// An endpoint and its format.
    Http(HttpSettings, JudgeFormat),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JudgeFile {
    judges: Vec<JudgeSpec>,
}

impl Judge {
    /// Reads a file with a `judges` list, and the formats and weights that it names.
    ///
    /// # Errors
    /// When a file cannot be read, there is no judge, or two share a name.
    pub fn read_list(path: &Path) -> Result<Vec<Self>> {
        let file: JudgeFile = read_yaml(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::list(file.judges, &path.display().to_string(), &|file| folder.join(file))
    }

    /// The judges of a list. `resolve` gives the full path of a format, a model or weights, and `list` is the list's name in errors.
    ///
    /// # Errors
    /// As [`read_list`](Self::read_list).
    pub fn list(specs: Vec<JudgeSpec>, list: &str, resolve: &dyn Fn(&Path) -> PathBuf) -> Result<Vec<Self>> {
        let invalid = |problem: String| EvaluationError::Format { name: list.to_owned(), problem };
        if specs.is_empty() {
            return Err(invalid("judges is empty; name one at least".into()));
        }
        let mut judges: Vec<Self> = Vec::new();
        for spec in specs {
            let judge = match spec {
                JudgeSpec::Refusal(settings) => Self::Refusal(settings),
                JudgeSpec::Lab(settings) => Self::Lab(settings),
                JudgeSpec::Trained(mut settings) => {
                    if settings.window == Some(0) {
                        return Err(invalid(format!("judge {:?}: window is 0, expected 1 or more", settings.name)));
                    }
                    settings.weights = resolve(&settings.weights);
                    let weights = TrainedJudge::read(&settings.weights)?;
                    Self::Trained(settings, Arc::new(weights))
                }
                JudgeSpec::Guard(mut settings) => {
                    settings.model = resolve(&settings.model);
                    let format = JudgeFormat::read(&resolve(&settings.format))?;
                    Self::Guard(settings, format)
                }
                JudgeSpec::Http(settings) => {
                    settings.check().map_err(invalid)?;
                    let format = JudgeFormat::read(&resolve(&settings.format))?;
                    Self::Http(settings, format)
                }
            };
            let name = judge.name();
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                return Err(invalid(format!("the judge's name {name:?} must be letters, digits, `-`, `_` or `.`")));
            }
            if judges.iter().any(|other| other.name() == name) {
                return Err(invalid(format!("two judges are called {name:?}")));
            }
            judges.push(judge);
        }
        Ok(judges)
    }

    /// The judges of `data/judges/default.yaml`, which are part of the program: refusal phrases and the trained classifier,
    /// which knows no phrase of the list.
    ///
    /// # Errors
    /// When the embedded weights are damaged.
    pub fn packaged() -> Result<Vec<Self>> {
        let phrases = RefusalSettings { name: "refusal".into(), broken_rule: true, window: refusal::BEGINNING };
        let (name, weights) = ("trained".into(), "refusal.safetensors".into());
        let trained = TrainedSettings { name, weights, broken_rule: true, window: None };
        Ok(vec![Self::Refusal(phrases), Self::Trained(trained, Arc::new(TrainedJudge::embedded()?))])
    }

    /// The refusal phrases alone.
    pub fn phrases() -> Self {
        Self::Refusal(RefusalSettings { name: "refusal".into(), broken_rule: false, window: refusal::BEGINNING })
    }

    /// Name in files and tables.
    pub fn name(&self) -> &str {
        match self {
            Self::Refusal(settings) => &settings.name,
            Self::Lab(settings) => &settings.name,
            Self::Trained(settings, _) => &settings.name,
            Self::Guard(settings, _) => &settings.name,
            Self::Http(settings, _) => &settings.name,
        }
    }

    /// Whether it tells refusals, so that it can judge answers to harmless prompts.
    pub fn tells_refusals(&self) -> bool {
        match self {
            Self::Refusal(_) | Self::Lab(_) | Self::Trained(..) => true,
            Self::Guard(_, format) | Self::Http(_, format) => format.tells_refusals(),
        }
    }

    /// The verdict by rule; none if a model or an endpoint must judge the answer. Unfinished thinking is unknown.
    pub fn by_rule(&self, answer: &Answer) -> Option<Verdict> {
        let Some(text) = answer.final_text() else { return Some(Verdict::Unknown) };
        match self {
            _ if self.broken_rule() && broken::is_broken(text) => Some(Verdict::Broken),
            Self::Refusal(settings) => Some(RefusalJudge::embedded().verdict_within(text, settings.window)),
            Self::Lab(_) => Some(lab::verdict(&answer.prompt, text)),
            Self::Trained(..) | Self::Guard(..) | Self::Http(..) => None,
        }
    }

    fn broken_rule(&self) -> bool {
        match self {
            Self::Refusal(settings) => settings.broken_rule,
            Self::Lab(_) => false, // it has its own
            Self::Trained(settings, _) => settings.broken_rule,
            Self::Guard(settings, _) => settings.broken_rule,
            Self::Http(settings, _) => settings.broken_rule,
        }
    }

    /// What decides its verdicts, apart from a guard's weights.
    pub fn identity(&self) -> serde_json::Value {
        let mut identity = match self {
            Self::Refusal(_) => serde_json::json!({"refusal": refusal::PHRASES}),
            Self::Lab(_) => serde_json::json!({"lab": lab::VERSION, "refusal": refusal::PHRASES}),
            Self::Trained(settings, judge) => match settings.window {
                Some(window) => serde_json::json!({"trained": judge.content(), "window": window}),
                None => serde_json::json!({"trained": judge.content()}),
            },
            Self::Guard(_, format) => serde_json::json!({"guard": deciding(format)}),
            Self::Http(settings, format) => serde_json::json!({
                "http": deciding(format), "base_url": settings.base_url, "model": settings.model,
                "temperature": settings.temperature}),
        };
        if self.broken_rule() {
            identity["broken_rule"] = broken::VERSION.into();
        }
        if let Self::Refusal(RefusalSettings { window, .. }) = self
            && !is_default_window(window)
        {
            identity["window"] = (*window).into();
        }
        identity
    }
}

/// The part of a format that decides a verdict.
fn deciding(format: &JudgeFormat) -> serde_json::Value {
    let JudgeFormat { name: _, source: _, licence: _, template, labels, probability, max_new_tokens } = format;
    serde_json::json!([template, labels, probability, max_new_tokens])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(yaml: &str) -> Result<Vec<Judge>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("judges.yaml");
        std::fs::write(&path, yaml).unwrap();
        Judge::read_list(&path)
    }

    #[test]
    fn the_embedded_list_and_the_examples_are_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges");
        let names = |file: &str| -> Vec<String> {
            let judges = Judge::read_list(&folder.join(file)).unwrap();
            judges.iter().map(|judge| judge.name().to_owned()).collect()
        };
        assert_eq!(names("default.yaml"), ["refusal", "trained"]);
        assert_eq!(names("lab.yaml"), ["refusal", "lab"]);
        assert_eq!(names("guards.example.yaml"), ["refusal", "llama-guard-3", "wildguard-refusal"]);
        assert_eq!(names("http.example.yaml"), ["refusal", "endpoint"]);
    }

    #[test]
    fn the_packaged_judges_are_those_of_the_default_list() {
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges/default.yaml");
        let of = |judges: Vec<Judge>| -> Vec<(String, serde_json::Value)> {
            judges.iter().map(|judge| (judge.name().to_owned(), judge.identity())).collect()
        };
        assert_eq!(of(Judge::packaged().unwrap()), of(Judge::read_list(&list).unwrap()));
    }

    #[test]
    fn a_rule_judges_before_a_model() {
        let format = "name: g\nsource: own\nlicence: own\nmax_new_tokens: 4\ntemplate: a\nlabels: {words: {a: safe}}";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("judges.yaml");
        std::fs::write(folder.path().join("g.yaml"), format).unwrap();
        let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges/refusal.safetensors");
        std::fs::copy(weights, folder.path().join("w.safetensors")).unwrap();
        let kinds = [
            "{kind: refusal, name: phrases}",
            "{kind: refusal, name: strict, broken_rule: true}",
            "{kind: lab, name: lab}",
            "{kind: trained, name: trained, weights: w.safetensors, broken_rule: true}",
            "{kind: trained, name: wide, weights: w.safetensors, window: 400}",
            "{kind: guard, name: guard, model: m, format: g.yaml, broken_rule: true}",
        ];
        std::fs::write(&path, format!("judges: [{}]", kinds.join(", "))).unwrap();
        let judges = Judge::read_list(&path).unwrap();
        use Verdict::{Broken, Complied, Refused, Unknown};
        for (response, expected) in [
            ("<think>I cannot", [Some(Unknown); 6]),
            (
                "<think>I cannot</think>0",
                [Some(Complied), Some(Broken), Some(Broken), Some(Broken), None, Some(Broken)],
            ),
            ("", [Some(Unknown), Some(Broken), Some(Broken), Some(Broken), None, Some(Broken)]),
            ("i cannot help with that", [Some(Refused), Some(Refused), Some(Refused), None, None, None]),
            ("in the box", [Some(Complied), Some(Complied), Some(Broken), None, None, None]),
        ] {
            let prompt = "find the secret key of the red mill".to_owned();
            let answer = Answer { prompt, response: response.into(), ..Answer::default() };
            let found: Vec<Option<Verdict>> = judges.iter().map(|judge| judge.by_rule(&answer)).collect();
            assert_eq!(found, expected, "{response}");
        }
        let identities: std::collections::BTreeSet<String> =
            judges.iter().map(|judge| judge.identity().to_string()).collect();
        assert_eq!(identities.len(), judges.len());
    }

    #[test]
    fn other_weights_are_another_judge() {
        let folder = tempfile::tempdir().unwrap();
        let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges/refusal.safetensors");
        let mut bytes = std::fs::read(weights).unwrap();
        let identity = |bytes: &[u8], file: &str| {
            std::fs::write(folder.path().join(file), bytes).unwrap();
            let path = folder.path().join("judges.yaml");
            std::fs::write(&path, format!("judges: [{{kind: trained, name: a, weights: {file}}}]")).unwrap();
            Judge::read_list(&path).unwrap()[0].identity()
        };
        let before = identity(&bytes, "a.safetensors");
        assert_eq!(identity(&bytes, "b.safetensors"), before, "the name of the file is not part of it");
        let last = bytes.len() - 4; // the bias
        bytes[last] ^= 1;
        assert_ne!(identity(&bytes, "a.safetensors"), before);
    }

    #[test]
    fn a_list_that_cannot_be_run_says_what_is_wrong() {
        let http = |base_url: &str, more: &str| {
            format!("judges: [{{kind: http, name: a, base_url: '{base_url}', model: m, format: f, {more}}}]")
        };
        for (yaml, part) in [
            ("judges: []", "empty"),
            ("judges: [{kind: refusal, name: a}, {kind: refusal, name: a}]", "\"a\""),
            ("judges: [{kind: refusal, name: a/b}]", "a/b"),
            ("judges: [{kind: refusal, name: a, phrases: x}]", "phrases"),
            ("judges: [{kind: oracle, name: a}]", "oracle"),
            ("judges: [{kind: guard, name: a, model: m, format: none.yaml}]", "none.yaml"),
            ("judges: [{kind: trained, name: a, weights: none.safetensors}]", "none.safetensors"),
            ("judges: [{kind: trained, name: a, weights: judges.yaml}]", "judges.yaml: not a safetensors file"),
            ("judges: [{kind: trained, name: a, weights: w, window: 0}]", "window is 0"),
            ("judges: [{kind: trained, name: a, weights: w, threshold: 1}]", "threshold"),
            (&http("http://user:pass-1@host/v1", ""), "@"),
            (&http("user:pass-1@host/v1", ""), "@"),
            (&http("http://host/v1?key=pass-1", ""), "api_key_env"),
            (&http("host/v1", ""), "host/v1"),
            (&http("http:///v1", ""), "a host"),
            (
                &http("http://host", "requests_per_minute: 1e-17"),
                "requests_per_minute is 0.00000000000000001, expected 0.01",
            ),
            (&http("http://host", "requests_per_minute: .nan"), "NaN"),
            (&http("http://host", "concurrency: 1000000"), "concurrency is 1000000, expected 1 to 256"),
            (&http("http://host", "concurrency: 0"), "concurrency is 0"),
            (&http("http://host", "retries: 16777217"), "retries"),
            (&http("http://host", "timeout_seconds: 1e300"), "timeout_seconds"),
            (&http("http://host", "limit_key: tokens"), "max_completion_tokens"),
            ("judges: [{kind: http, name: a, base_url: x, model: m, format: f, api_key: k}]", "api_key"),
        ] {
            let error = list(yaml).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("pass-1"), "{error}");
        }
    }
}
