//! How a model is prompted to judge, as data (`data/judges/guards/*.yaml`): prompt template, labels, and the probability of
//! the harmful label if the method defines it. It renders and parses; it runs no model and tokenises nothing.

use std::{collections::BTreeMap, path::Path};

use minijinja::{UndefinedBehavior, context};
use prompts::template::{Template, environment};
use serde::{Deserialize, Serialize};

use super::Verdict;
use crate::{
    Answer, EvaluationError, Result,
    answers::final_text,
    read::{check_new_tokens, read_yaml},
};

/// How a model judge is prompted and its answer read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeFormat {
    /// Name in messages.
    pub name: String,
    /// Where the format is published, and what here differs from it.
    pub source: String,
    /// Licence of the model or of the text.
    pub licence: String,
    /// What the model reads: minijinja with `prompt` and `response`; a guard's special tokens are written out.
    pub template: String,
    /// How its answer is read.
    pub labels: Labels,
    /// The probability of the harmful label, if the model's method defines one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<Probability>,
    /// Length of its answer in tokens.
    pub max_new_tokens: usize,
}

/// How a judge's answer is read: its first word, in lower case, after a mark.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// The text before the label; without it the label is the answer's first word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The verdict of each word, in lower case. Any other word is unknown.
    pub words: BTreeMap<String, Verdict>,
}

/// The probability of the harmful label, read from the logits of one position.
///
/// # Mathematical Definition
///
/// With p the softmax over the vocabulary and U, S the first tokens of the texts: p(U) / (p(U) + p(S)), or p(U) if
/// `safe` is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probability {
    /// Text that the answer is taken to begin with; the position is after it.
    #[serde(default)]
    pub after: String,
    /// Labels of harm.
    #[serde(rename = "unsafe")]
    pub unsafe_labels: Vec<String>,
    /// The other labels; if empty, the whole vocabulary.
    #[serde(default, rename = "safe")]
    pub safe_labels: Vec<String>,
}

impl JudgeFormat {
    /// Reads a format and checks that it renders and has labels of one kind.
    pub fn read(path: &Path) -> Result<Self> {
        let format: Self = read_yaml(path)?;
        format.check().map_err(|problem| EvaluationError::Format { name: path.display().to_string(), problem })?;
        Ok(format)
    }

    fn check(&self) -> Result<(), String> {
        check_new_tokens(self.max_new_tokens, 0)?;
        self.render(&Answer { prompt: "a".into(), response: "b".into(), ..Answer::default() })
            .map_err(|error| error.to_string())?;
        let words = &self.labels.words;
        let speaks = |of: fn(&Verdict) -> bool| !words.is_empty() && words.values().all(of);
        let of_refusal = speaks(|verdict| matches!(verdict, Verdict::Refused | Verdict::Complied));
        let of_safety = speaks(|verdict| matches!(verdict, Verdict::Safe | Verdict::Unsafe));
        if !of_refusal && !of_safety {
            return Err("labels.words must give verdicts of one kind: safe and unsafe, or refused and answered".into());
        }
        if let Some(word) = words.keys().find(|word| first_word(word) != **word) {
            return Err(format!("labels.words: {word:?} is not one word in lower case"));
        }
        match &self.probability {
            Some(probability) if probability.unsafe_labels.is_empty() => {
                Err("probability.unsafe names no label".into())
            }
            _ => Ok(()),
        }
    }

    /// Whether its labels are refused and complied, so that it can judge answers to harmless prompts.
    pub fn tells_refusals(&self) -> bool {
        self.labels.words.values().any(|verdict| verdict.refusal().is_some())
    }

    /// What the model reads.
    ///
    /// # Errors
    /// When the template fails or has an unknown variable.
    pub fn render(&self, answer: &Answer) -> Result<String> {
        let mut environment = environment();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_keep_trailing_newline(true);
        environment.set_trim_blocks(true);
        let values =
            context! { prompt => answer.prompt.trim(), response => answer.final_text().unwrap_or_default().trim() };
        let text = Template::new(environment, &self.template).and_then(|template| template.render(values));
        text.map_err(|error| EvaluationError::Format { name: self.name.clone(), problem: error.to_string() })
    }

    /// The verdict of what the model wrote, after its thinking if it thinks.
    pub fn parse(&self, text: &str) -> Verdict {
        let rest = final_text(text).and_then(|text| match &self.labels.after {
            Some(mark) => text.split_once(mark.as_str()).map(|(_, rest)| rest),
            None => Some(text),
        });
        let label = rest.map(first_word).unwrap_or_default();
        self.labels.words.get(&label).copied().unwrap_or(Verdict::Unknown)
    }
}

/// The first run of letters and digits, in lower case.
fn first_word(text: &str) -> String {
    let word = text.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
    word.unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(yaml: &str) -> Result<JudgeFormat> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guard.yaml");
        std::fs::write(&path, format!("name: g\nsource: here\nlicence: own\nmax_new_tokens: 4\n{yaml}")).unwrap();
        JudgeFormat::read(&path)
    }

    #[test]
    fn the_first_word_after_the_mark_is_the_label() {
        let plain = format("template: '{{ prompt }}'\nlabels: {words: {safe: safe, unsafe: unsafe}}").unwrap();
        for (text, verdict) in [
            ("safe", Verdict::Safe),
            ("\n\n**Unsafe**\nS1", Verdict::Unsafe),
            ("<think>unsafe?</think>\nsafe", Verdict::Safe),
            ("<think>safe", Verdict::Unknown),
            ("unsafely", Verdict::Unknown),
            ("it is safe", Verdict::Unknown),
            ("", Verdict::Unknown),
        ] {
            assert_eq!(plain.parse(text), verdict, "{text:?}");
        }
        let marked = "template: '{{ response }}'\nlabels: {after: 'Harm:', words: {'yes': unsafe, 'no': safe}}";
        let marked = format(marked).unwrap();
        assert_eq!(marked.parse("Refusal: yes\nHarm: no"), Verdict::Safe);
        assert_eq!(marked.parse("yes"), Verdict::Unknown);
    }

    #[test]
    fn a_format_that_cannot_judge_is_refused_with_its_file_and_key() {
        let labels = "labels: {words: {safe: safe, unsafe: unsafe}}";
        for (yaml, part) in [
            ("template: '{{ answer }}'\nlabels: {words: {safe: safe}}".to_owned(), "undefined"),
            ("template: a\nlabels: {words: {a: safe, b: refused}}".to_owned(), "one kind"),
            ("template: a\nlabels: {words: {}}".to_owned(), "one kind"),
            ("template: a\nlabels: {words: {'not ok': safe}}".to_owned(), "not ok"),
            (format!("template: a\n{labels}\nprobability: {{unsafe: []}}"), "probability.unsafe"),
            (format!("template: a\n{labels}\nthreshold: 1"), "threshold"),
            (format!("template: {}\n{labels}", "a".repeat(65_537)), "65537 bytes"),
            (
                format!(
                    "template: '{{% for a in range(100000) %}}{{% for b in range(100000) %}}{{% endfor %}}{{% endfor %}}'\n{labels}"
                ),
                "too many instructions",
            ),
            (format!("template: '{{{{ prompt | indent(4611686018427387904) }}}}'\n{labels}"), "at most 16"),
            (format!("template: \"{{{{ '%9999999999d'|format(1) }}}}\"\n{labels}"), "format"),
        ] {
            let error = format(&yaml).unwrap_err().to_string();
            assert!(error.contains("guard.yaml") && error.contains(part), "{error}");
        }
    }
}
