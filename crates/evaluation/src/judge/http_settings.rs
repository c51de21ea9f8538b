//! The settings of an endpoint that judges, and its key. How requests are made is in `http.rs`.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// An endpoint and how requests are made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Name in files and tables.
    pub name: String,
    /// The part of the address before `/chat/completions`, such as `http://localhost:8000/v1`. With `http://` the key is
    /// sent without encryption.
    pub base_url: String,
    /// The model's name at the endpoint.
    pub model: String,
    /// The [`JudgeFormat`](super::format::JudgeFormat), relative to the judges file.
    pub format: PathBuf,
    /// The environment variable that holds the key; without it none is sent. The variable's value is sent to `base_url`,
    /// so name no other variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_env: Option<String>,
    /// Requests at a time.
    #[serde(default = "defaults::concurrency")]
    pub concurrency: usize,
    /// Attempts after the first.
    #[serde(default = "defaults::retries")]
    pub retries: u32,
    /// The first pause; each further one is twice as long, or what the server's `Retry-After` asks for.
    #[serde(default = "defaults::backoff_seconds")]
    pub backoff_seconds: f64,
    /// Requests per minute at most; no limit if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<f64>,
    /// The temperature; `null` sends none, for models that accept no other than their own.
    #[serde(default = "defaults::temperature")]
    pub temperature: Option<f64>,
    /// The name that the endpoint has for the longest answer.
    #[serde(default)]
    pub limit_key: LimitKey,
    /// Time limit of one attempt.
    #[serde(default = "defaults::timeout_seconds")]
    pub timeout_seconds: f64,
    /// Whether broken answers, as in [`RefusalSettings`](super::settings::RefusalSettings), are not sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub broken_rule: bool,
}

/// The request's key for the longest answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// `max_tokens`, which most servers know.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's newer models want.
    MaxCompletionTokens,
}

mod defaults {
    pub(super) fn temperature() -> Option<f64> {
        Some(0.0)
    }
    pub(super) fn concurrency() -> usize {
        4
    }
    pub(super) fn retries() -> u32 {
        5
    }
    pub(super) fn backoff_seconds() -> f64 {
        1.0
    }
    pub(super) fn timeout_seconds() -> f64 {
        60.0
    }
}

impl HttpSettings {
    /// What makes the settings unusable. A password or key in the address is in no message.
    pub(super) fn check(&self) -> Result<(), String> {
        let failed = |problem: String| Err(format!("judge {:?}: {problem}", self.name));
        let url = &self.base_url;
        if url.contains(['@', '?', '#']) {
            return failed(
                "base_url holds one of @ ? #: take user name, password or key out, and set api_key_env".into(),
            );
        }
        let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if address.is_none_or(|address| address.is_empty() || address.starts_with('/')) {
            return failed(format!("base_url {url:?} must begin with http:// or https:// and a host"));
        }
        for (key, value, least, most) in [
            ("concurrency", self.concurrency as f64, 1.0, 256.0),
            ("retries", f64::from(self.retries), 0.0, 100.0),
            ("timeout_seconds", self.timeout_seconds, 0.001, 86_400.0),
            ("backoff_seconds", self.backoff_seconds, 0.001, 86_400.0),
            ("requests_per_minute", self.requests_per_minute.unwrap_or(1.0), 0.01, 1e6),
            ("temperature", self.temperature.unwrap_or_default(), 0.0, 2.0),
        ] {
            if !(least..=most).contains(&value) {
                return failed(format!("{key} is {value}, expected {least} to {most}"));
            }
        }
        Ok(())
    }
}

/// A key that no message shows.
pub(super) struct Key(pub(super) String);

impl Key {
    /// The key in a variable's value, if a header can carry it.
    pub(super) fn new(value: Option<&str>) -> Result<Self, &'static str> {
        let key = value.unwrap_or_default().trim();
        match key {
            "" => Err("holds no key; set it, or take api_key_env out"),
            _ if key.contains(['\n', '\r']) => Err("holds a line break inside its key; set it to one line"),
            _ if !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err("holds a space, control or non-ASCII character inside its key; no key has one")
            }
            _ => Ok(Self(key.to_owned())),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_no_header_can_carry_is_named_without_its_text() {
        assert_eq!(Key::new(Some(" abc-1/2\n")).unwrap().0, "abc-1/2");
        for (value, part) in [
            (None, "no key"),
            (Some(" \n"), "no key"),
            (Some("abc\ndef"), "line break"),
            (Some("abc def"), "space"),
            (Some("abc\u{e9}"), "non-ASCII"),
        ] {
            let problem = Key::new(value).unwrap_err();
            assert!(problem.contains(part) && !problem.contains("abc"), "{problem}");
        }
    }
}
