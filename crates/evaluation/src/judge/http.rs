//! A judge behind any OpenAI-compatible endpoint (`POST {base_url}/chat/completions`): concurrent requests, a rate limit, a
//! time-out, and repeated attempts with growing pauses. The key comes from the environment, is sent in one header, and
//! is in no message or file. It streams nothing and requests no probabilities.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use ureq::Agent;

use super::{
    Verdict,
    format::JudgeFormat,
    http_settings::{HttpSettings, Key, LimitKey},
    verdicts::unusable,
};
use crate::{Answer, EvaluationError, Result};

/// The longest pause between two attempts, even if the server asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A pause that is worth a line; shorter ones pass unseen.
const LONG_PAUSE: Duration = Duration::from_secs(5);

/// How long nothing comes before the caller hears that.
const SILENCE: Duration = Duration::from_millis(500);

/// Bytes that are read of a server's answer.
const LONGEST_BODY: u64 = 1 << 20;

/// Characters that are shown of a server's message.
const LONGEST_MESSAGE: usize = 300;

/// An endpoint's verdict on one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOutcome {
    /// The verdict; unknown if there is a problem or no label.
    pub verdict: Verdict,
    /// Why there is no answer after all attempts. Such a verdict is not final.
    pub problem: Option<String>,
    /// Whether the problem may be gone by the next run: a time-out, a busy server.
    pub transient: bool,
    /// The beginning of what the model wrote, where it holds no label.
    pub reply: Option<String>,
}

/// What gets the outcomes of a judge, by the answers' indices, and none while there is nothing.
pub type Heard<'a> = dyn FnMut(Option<(usize, HttpOutcome)>) -> Result<()> + 'a;

/// A client of one endpoint.
#[derive(Debug)]
pub struct HttpJudge<'a> {
    settings: &'a HttpSettings,
    format: &'a JudgeFormat,
    url: String,
    key: Option<Key>,
    agent: Agent,
    next: Mutex<Instant>,
    /// Whether a long pause has been said.
    warned: AtomicBool,
}

/// Why an attempt gave no text.
enum Failure {
    /// Worth another attempt, after the pause that the server asks for.
    Transient(String, Option<Duration>),
    /// Of this request alone, and final.
    Request(String),
    /// Of every request: the key or the address is wrong.
    Fatal(String),
}

impl<'a> HttpJudge<'a> {
    /// A client with the key of the environment.
    ///
    /// # Errors
    /// When the variable that the settings name holds no key, or one that cannot be sent.
    pub fn new(settings: &'a HttpSettings, format: &'a JudgeFormat) -> Result<Self> {
        let key = settings.api_key_env.as_ref().map(|variable| {
            let value = std::env::var_os(variable);
            Key::new(value.map(|value| value.to_string_lossy().into_owned()).as_deref()).map_err(|problem| {
                let problem = format!("the environment variable {variable} {problem}");
                EvaluationError::Judge { name: settings.name.clone(), problem }
            })
        });
        let key = key.transpose()?;
        let config = Agent::config_builder()
            .timeout_global(Some(Duration::from_secs_f64(settings.timeout_seconds)))
            .http_status_as_error(false)
            .max_redirects(0) // the key goes nowhere else
            .build();
        let url = format!("{}/chat/completions", settings.base_url.trim_end_matches('/'));
        Ok(Self {
            settings,
            format,
            url,
            key,
            agent: config.into(),
            next: Mutex::new(Instant::now()),
            warned: AtomicBool::new(false),
        })
    }

    /// Judges all answers, several at a time; `heard` gets each one's index and outcome as it comes, in any order, and none
    /// now and then while nothing comes, so that it can stop the judging.
    ///
    /// # Errors
    /// When the key or the address is refused, the template fails, or `heard` fails; earlier outcomes were passed on.
    pub fn judge(&self, answers: &[&Answer], heard: &mut Heard<'_>) -> Result<()> {
        let (cursor, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            for _ in 0..self.settings.concurrency.min(answers.len()) {
                let (sender, cursor, stop) = (sender.clone(), &cursor, &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let index = cursor.fetch_add(1, Ordering::Relaxed);
                        let Some(answer) = answers.get(index) else { break };
                        let Some(outcome) = self.ask(answer, stop) else { break };
                        if outcome.is_err() {
                            stop.store(true, Ordering::Relaxed); // here, before this worker takes another answer
                        }
                        if sender.send((index, outcome)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            let mut result = Ok(());
            loop {
                let found = match receiver.recv_timeout(SILENCE) {
                    Ok((index, outcome)) => outcome.map(|outcome| Some((index, outcome))),
                    Err(RecvTimeoutError::Timeout) => Ok(None),
                    Err(RecvTimeoutError::Disconnected) => break,
                };
                if result.is_ok() {
                    result = found.and_then(&mut *heard);
                }
                if result.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            result
        })
    }

    /// All attempts of one answer; none if the run was stopped meanwhile.
    fn ask(&self, answer: &Answer, stop: &AtomicBool) -> Option<Result<HttpOutcome>> {
        let prompt = match self.format.render(answer) {
            Ok(prompt) => prompt,
            Err(error) => return Some(Err(error)),
        };
        let body = self.body(&prompt);
        let mut pause = Duration::from_secs_f64(self.settings.backoff_seconds);
        let mut attempt = 0;
        let (problem, transient) = loop {
            if !wait(self.turn(), stop) {
                return None;
            }
            match self.send(&body) {
                Ok(text) => {
                    let verdict = self.format.parse(&text);
                    let reply = unusable(verdict, &self.hidden(text));
                    return Some(Ok(HttpOutcome { verdict, problem: None, transient: false, reply }));
                }
                Err(Failure::Fatal(problem)) => {
                    return Some(Err(EvaluationError::Judge { name: self.settings.name.clone(), problem }));
                }
                Err(Failure::Request(problem)) => break (problem, false),
                Err(Failure::Transient(problem, _)) if attempt == self.settings.retries => break (problem, true),
                Err(Failure::Transient(problem, wanted)) => {
                    let wanted = wanted.unwrap_or(pause).min(LONGEST_PAUSE);
                    self.say_pause(&problem, wanted);
                    if !wait(wanted, stop) {
                        return None;
                    }
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    attempt += 1;
                }
            }
        };
        Some(Ok(HttpOutcome { verdict: Verdict::Unknown, problem: Some(problem), transient, reply: None }))
    }

    /// Says why the first long pause is made; the others are like it.
    fn say_pause(&self, problem: &str, pause: Duration) {
        let (name, seconds) = (&self.settings.name, pause.as_secs_f64());
        if pause >= LONG_PAUSE && !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!("judge {name}: {problem}; asked again in {seconds:.0} s");
        } else {
            tracing::debug!("judge {name}: {problem}; asked again in {seconds} s");
        }
    }

    /// What the model wrote, without the key: an endpoint may send it back.
    fn hidden(&self, text: String) -> String {
        match &self.key {
            Some(Key(key)) => text.replace(key, "(hidden)"),
            None => text,
        }
    }

    /// The request's body.
    fn body(&self, prompt: &str) -> String {
        let messages = serde_json::json!([{"role": "user", "content": prompt}]);
        let mut body = serde_json::json!({"model": self.settings.model, "messages": messages});
        if let Some(temperature) = self.settings.temperature {
            body["temperature"] = temperature.into();
        }
        let limit = match self.settings.limit_key {
            LimitKey::MaxTokens => "max_tokens",
            LimitKey::MaxCompletionTokens => "max_completion_tokens",
        };
        body[limit] = self.format.max_new_tokens.into();
        body.to_string()
    }

    /// The time until this request may begin, under the rate limit.
    fn turn(&self) -> Duration {
        let Some(rate) = self.settings.requests_per_minute else { return Duration::ZERO };
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let begin = (*next).max(now);
        *next = begin + Duration::from_secs_f64(60.0 / rate);
        begin - now
    }

    /// One attempt: the text that the model wrote.
    fn send(&self, body: &str) -> Result<String, Failure> {
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        if let Some(Key(key)) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        // What the client says of a failed connection holds only the address.
        let mut response = request.send(body).map_err(|error| Failure::Transient(connection(&error), None))?;
        let status = response.status().as_u16();
        let pause = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let pause = pause.and_then(|value| retry_after(value, SystemTime::now()));
        let text = response.body_mut().with_config().limit(LONGEST_BODY).read_to_string();
        let said = || match text.as_ref().ok().and_then(|text| self.message(text)) {
            Some(message) => format!("status {status}: {message}"),
            None => format!("status {status}"),
        };
        match status {
            200..=299 => {}
            300..=399 => {
                let url = &self.url;
                let problem =
                    format!("{url} answers with a redirect (status {status}), which is not followed: correct base_url");
                return Err(Failure::Fatal(problem));
            }
            401..=405 => {
                let problem = format!("{} answers with {}; check the key, base_url and model", self.url, said());
                return Err(Failure::Fatal(problem));
            }
            408 | 409 | 425 | 429 | 500..=599 => return Err(Failure::Transient(said(), pause)),
            _ => return Err(Failure::Request(said())),
        }
        let text = text.as_ref().map_err(|error| Failure::Transient(connection(error), None))?;
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        match json.pointer("/choices/0/message/content").and_then(Value::as_str) {
            Some(content) => Ok(content.to_owned()),
            None if !json["error"].is_null() => Err(Failure::Request(said())),
            None => {
                let said = self.message(text).map_or_else(String::new, |message| format!(": {message}"));
                Err(Failure::Transient(format!("the body is no chat completion{said}"), None))
            }
        }
    }

    /// The server's own message in the body of an error, or the body itself, on one line and without the key.
    fn message(&self, body: &str) -> Option<String> {
        let json = serde_json::from_str::<Value>(body).ok();
        let places = ["/error/message", "/error", "/message", "/detail"];
        let own = |json: &Value| places.iter().find_map(|place| json.pointer(place)?.as_str()).map(str::to_owned);
        let message = json.map(|json| own(&json).unwrap_or_else(|| without_inputs(json).to_string()));
        let message = self.hidden(message.unwrap_or_else(|| body.to_owned()));
        let words = message.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
        let message: String = words.collect::<Vec<_>>().join(" ").chars().take(LONGEST_MESSAGE).collect();
        (!message.is_empty()).then_some(message)
    }
}

/// The pause of a `Retry-After` header, in seconds or as a date (RFC 9110, section 10.2.3). None if it is neither or the
/// date is in the past, as from a server whose clock is behind.
#[must_use]
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = value.trim().parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(value.trim()).ok()?.duration_since(now).ok())
}

/// What went wrong, without addresses or bodies.
fn connection(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "timed out".into(),
        ureq::Error::Io(error) => format!("connection failed: {}", error.kind()),
        _ => "the connection failed".into(),
    }
}

/// A message without what it repeats of the request, as FastAPI's do, for that holds a prompt and an answer.
fn without_inputs(mut message: Value) -> Value {
    match &mut message {
        Value::Object(map) => {
            map.retain(|key, _| !["input", "body", "messages", "prompt", "content", "ctx"].contains(&key.as_str()));
            map.values_mut().for_each(|value| *value = without_inputs(value.take()));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| *value = without_inputs(value.take())),
        _ => {}
    }
    message
}

/// Waits, unless the run is stopped meanwhile; whether it may go on.
fn wait(time: Duration, stop: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    loop {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_after_is_in_seconds_or_a_date_of_any_form() {
        // RFC 9110, section 5.6.7: its own example in the three forms, 784,111,777 s after 1970.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 90);
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(90)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(90)),
            ("Sun Nov  6 08:49:37 1994", Some(90)),
            ("Sun, 06 Nov 1994 08:48:00 GMT", None), // in the past
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }
}
