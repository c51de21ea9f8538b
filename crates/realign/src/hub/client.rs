//! Requests to the hub. The token goes to the hub's own host alone, and into no message.

use std::time::{Duration, Instant, SystemTime};

use evaluation::judge::http::retry_after;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use crate::error::invalid;
use crate::{Error, Job, Result};

const ENDPOINT: &str = "https://huggingface.co";

/// Attempts without a byte of progress.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt, when the hub asks for none; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, even if the hub asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A transfer that takes longer is cut and gone on with, and so is one that hangs.
const TRANSFER: Duration = Duration::from_secs(300);
/// Redirects of one request.
const REDIRECTS: usize = 10;
/// Characters that are shown of the hub's message.
const LONGEST_MESSAGE: usize = 300;

/// Why a request has no answer.
pub(super) enum Failure {
    /// The hub was not reached, is busy, or broke off; with the pause that it asks for.
    Unreached(String, Option<Duration>),
    /// It said no.
    Refused(String),
    /// Nothing of the hub's: a full disk, a caller that asks to stop.
    Error(Error),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

/// A client of one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(endpoint: Option<String>, token: Option<String>) -> Result<Self> {
        let endpoint = endpoint.as_deref().unwrap_or(ENDPOINT).trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() {
            let shown = without_login(&endpoint);
            return invalid(format!("HF_ENDPOINT is {shown:?}, expected an address such as {ENDPOINT}"));
        }
        let token = token.map(|token| token.trim().to_owned());
        if token.as_ref().is_some_and(|token| token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return invalid("the token of the hub (HF_TOKEN, or the file that `hf auth login` writes) is no token");
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("realign/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_recv_body(Some(TRANSFER));
        Ok(Self { agent: config.build().into(), endpoint, token })
    }

    /// The address of something on the hub.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint)
    }

    /// Asks until there is an answer that is not a failure for the moment. `ask` says how many bytes it got further.
    pub(super) fn patiently<T>(
        &self,
        job: &mut Job<'_>,
        mut ask: impl FnMut(&mut Job<'_>, &mut u64) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let (mut attempts, mut pause) = (1, PAUSE);
        loop {
            let mut progress = 0;
            match ask(job, &mut progress) {
                Err(Failure::Unreached(reason, wanted)) => {
                    if progress > 0 {
                        (attempts, pause) = (1, PAUSE);
                    } else if attempts == ATTEMPTS {
                        return Err(Failure::Unreached(format!("{reason} ({attempts} attempts)"), None));
                    }
                    let wanted = wanted.unwrap_or(pause).min(LONGEST_PAUSE);
                    tracing::info!("{reason}; again in {wanted:?}");
                    wait(wanted, job)?;
                    attempts += 1;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                other => return other,
            }
        }
    }

    /// The headers of what is at an address of the hub; redirects are followed on the hub alone.
    pub(super) fn head(&self, url: &str) -> Result<Response<Body>, Failure> {
        self.follow(url, 0, true)
    }

    /// What is at an address of the hub, from a byte on.
    pub(super) fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        self.follow(url, from, false)
    }

    fn follow(&self, url: &str, from: u64, head: bool) -> Result<Response<Body>, Failure> {
        let mut place = url.to_owned();
        for _ in 0..=REDIRECTS {
            let response = self.once(&place, from, head)?;
            let location = header(&response, "location").filter(|_| response.status().is_redirection());
            let Some(location) = location else { return self.checked(response) };
            let Some(next) = joined(&place, location) else {
                return Err(Failure::Refused(
                    "is redirected to an address that is none, or from https to http".to_owned(),
                ));
            };
            if head && !self.is_own(&next) {
                return Ok(response);
            }
            place = next;
        }
        Err(Failure::Refused(format!("is redirected more than {REDIRECTS} times")))
    }

    fn once(&self, url: &str, from: u64, head: bool) -> Result<Response<Body>, Failure> {
        let mut request = if head { self.agent.head(url) } else { self.agent.get(url) };
        request = request.header("Accept-Encoding", "identity");
        if let Some(token) = self.token.as_ref().filter(|_| self.is_own(url)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| {
            // A signed address is as good as a key, so the host alone is named.
            let host = origin(url).map_or_else(String::new, |(_, host, _)| host);
            Failure::Unreached(format!("{host} cannot be reached: {}", connection(&error)), None)
        })
    }

    fn is_own(&self, url: &str) -> bool {
        origin(url) == origin(&self.endpoint)
    }

    fn checked(&self, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let status = response.status().as_u16();
        if matches!(status, 200..=299) {
            return Ok(response);
        }
        let said =
            header(&response, "x-error-message").map_or_else(String::new, |text| format!(": {}", self.shown(text)));
        let at = without_login(&self.endpoint);
        let refused = match (status, &self.token) {
            (401, None) => format!("is not on {at}, or is private or gated: set HF_TOKEN (status 401{said})"),
            (401, Some(_)) => format!("is refused by {at}: is the token in HF_TOKEN still valid? (status 401{said})"),
            (403, _) => format!("is refused by {at}: has the token's owner access to it? (status 403{said})"),
            (404, _) => format!("is not on {at}, or not in this revision (status 404{said})"),
            (408 | 425 | 429 | 500..=599, _) => {
                let pause = header(&response, "retry-after").and_then(|text| retry_after(text, SystemTime::now()));
                return Err(Failure::Unreached(format!("{at} is busy (status {status}{said})"), pause));
            }
            _ => format!("{at} answers with status {status}{said}"),
        };
        Err(Failure::Refused(refused))
    }

    /// A message of the hub, cut and without the token.
    fn shown(&self, text: &str) -> String {
        let text = self.token.as_ref().map_or_else(|| text.to_owned(), |token| text.replace(token, "(hidden)"));
        text.chars().take(LONGEST_MESSAGE).collect()
    }
}

/// An address without a user name, a password and a query, for messages.
fn without_login(address: &str) -> String {
    let (scheme, rest) =
        address.split_once("://").map_or(("", address), |(scheme, _)| address.split_at(scheme.len() + 3));
    let rest = rest.split('?').next().unwrap_or_default();
    format!("{scheme}{}", rest.rsplit('@').next().unwrap_or_default())
}

/// A header's text.
pub(super) fn header<'a, T>(response: &'a Response<T>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port of an address.
fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    Some((scheme, uri.host()?.to_ascii_lowercase(), uri.port_u16().unwrap_or(usual)))
}

/// The address that `location` means at `place`; none when it is none, or would leave https.
fn joined(place: &str, location: &str) -> Option<String> {
    let (scheme, rest) = place.split_once("://")?;
    let host = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let url = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{host}{location}"),
        _ => location.to_owned(),
    };
    let (from, to) = (origin(place)?, origin(&url)?);
    (from.0 == to.0 || to.0 == "https").then_some(url)
}

/// What went wrong, without addresses.
fn connection(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "timed out".to_owned(),
        ureq::Error::Io(error) => error.to_string(), // of the system or of TLS
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        _ => "the connection failed".to_owned(),
    }
}

/// Waits, unless the caller asks to stop.
fn wait(time: Duration, job: &mut Job<'_>) -> Result<()> {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        job.step(1, 2, "waiting for the hub")?;
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_read_as_browsers_read_it_and_never_leaves_https() {
        let at = |location: &str| joined("https://hub.co:8443/a/b?c=d", location);
        assert_eq!(at("/x?y").as_deref(), Some("https://hub.co:8443/x?y"));
        assert_eq!(at("//cdn.co/x").as_deref(), Some("https://cdn.co/x"));
        assert_eq!(at("https://cdn.co/x").as_deref(), Some("https://cdn.co/x"));
        for wrong in ["http://cdn.co/x", "ftp://cdn.co/x", "x", "", "https://"] {
            assert_eq!(at(wrong), None, "{wrong:?}");
        }
        assert_eq!(joined("http://a/b", "https://c/d").as_deref(), Some("https://c/d"));
    }

    #[test]
    fn a_host_is_the_hubs_own_by_scheme_name_and_port() {
        let client = |token: &str| Client::new(Some("https://Hub.co/".into()), Some(token.into()));
        let hub = client("hf_x").ok();
        let is_own = |url: &str| hub.as_ref().is_some_and(|hub| hub.is_own(url));
        assert!(is_own("https://hub.co/a") && is_own("https://hub.co:443/"));
        for other in ["http://hub.co/a", "https://hub.co:8443/a", "https://hub.co.evil/a", "https://hub.co@evil/a", "x"]
        {
            assert!(!is_own(other), "{other}");
        }
        for wrong in ["hf_\u{e9}", "a b", "\n", "x\r\nHost: evil"] {
            let message = client(wrong).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(message.contains("HF_TOKEN") && !message.contains("evil"), "{message}");
        }
        assert!(Client::new(Some("hub.co".into()), None).is_err());
    }

    #[test]
    fn a_password_in_the_hubs_address_is_in_no_message() {
        for (address, wanted) in [
            ("http://user:secret@hub.co/a", "http://hub.co/a"),
            ("http://user:se/c@ret@hub.co:80", "http://hub.co:80"),
            ("user:secret@hub.co", "hub.co"),
            ("https://hub.co/?key=secret", "https://hub.co/"),
            ("https://hub.co", "https://hub.co"),
        ] {
            assert_eq!(without_login(address), wanted);
        }
        let error = Client::new(Some("user:secret@hub.co".into()), None).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("hub.co") && !error.contains("secret")));
    }
}
