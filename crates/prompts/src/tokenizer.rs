//! The tokenizer of a model directory: text to ids, samples to ids with a loss mask, ids to text.
//!
//! Paper section IV-A: the loss is on the response tokens only, the end-of-turn token among them, so that
//! a model learns to stop. Does NOT pad, truncate or add special tokens of its own: what a model reads is
//! what its chat template writes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::added::added;
use crate::caught::Limit;
use crate::chat::{ChatTemplate, Message, Role};
use crate::config::Places;
use crate::error::{Error, Result};
use crate::growth::growth;

/// A tokenizer.json may have this many bytes; the largest known has 35 MB.
const LARGEST: u64 = 128 << 20;
/// Values that it may hold; the largest known holds two million.
const MOST_VALUES: usize = 4_000_000;
/// Bytes that its added tokens may have in all, normalised; the library takes 150 times as much memory for them.
const MOST_ADDED: usize = 2 << 20;
/// Bytes that a token of a Unigram vocabulary may have; the library needs stack for each.
const LONGEST_TOKEN: usize = 1 << 10;
/// Bytes that the tokens of a Unigram vocabulary may have in all, of which the library takes 380 times as much memory; a quarter
/// of a million tokens have less than three million.
const MOST_TOKENS: usize = 4 << 20;
/// Bytes that a text may have; the library takes a hundred times as much memory.
const LONGEST: usize = 4 << 20;
/// Bytes that a text may become by the steps of a tokenizer.
const LONGEST_GROWN: usize = 12 << 20;
/// How long the library may take for a text; regular expressions of a file can take for ever.
const TIME: Duration = Duration::from_secs(5);
/// Bytes of a tokenizer.json for which it may take a second more.
const SLOWEST: usize = 4 << 20;
/// Stack of the thread that it works on.
const STACK: usize = 16 << 20;

/// A tokenizer with its chat template and the ids that mean something to generation.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    /// How many times longer a text and an answer can become.
    growth: [usize; 2],
    limit: Limit,
    template: ChatTemplate,
    path: PathBuf,
    end_of_turn: Option<u32>,
    eos_ids: Vec<u32>,
}

/// A sample as ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The whole conversation up to the end-of-turn token.
    pub ids: Vec<u32>,
    /// As long as `ids`: true on the response's tokens and the end-of-turn token.
    pub loss_mask: Vec<bool>,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, the chat template and the special tokens of a Hugging Face directory.
    ///
    /// Truncation and padding that `tokenizer.json` may ask for are switched off.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Self::from_dirs(&[dir])
    }

    /// The same from several directories, each file from the first that has it: those of an adapter and its base.
    pub fn from_dirs(dirs: &[&Path]) -> Result<Self> {
        let places = Places::new(dirs)?;
        let path = places.path("tokenizer.json");
        let wrap = |source| Error::Tokenizer { path: path.clone(), source };
        let others = ["tokenizer.model", "vocab.json"].map(|name| places.path(name));
        if let (false, Some(other)) = (path.exists(), others.into_iter().find(|other| other.exists())) {
            let problem = "is the only tokenizer; tokenizer.json is needed: in transformers, \
                           AutoTokenizer.from_pretrained(dir).save_pretrained(dir) writes it";
            return Err(Error::Config { path: other, problem: problem.into() });
        }
        let bytes = places.bytes("tokenizer.json", LARGEST)?;
        let mut inner = of_bytes(bytes).map_err(wrap)?;
        inner.with_truncation(None).map_err(wrap)?;
        inner.with_padding(None);
        let (normal, parts) = (growth(&inner.get_normalizer()), growth(&inner.get_pre_tokenizer()));
        let read = normal.and_then(|normal| Ok(normal.saturating_mul(parts?)));
        let [read, written] =
            [read, growth(&inner.get_decoder())].map(|growth| growth.map_err(|step| wrap(asked(&step))));
        let growth = [read?, written?];
        let inner = with_added(inner, &places)?;
        let (limit, template) = (Limit::new(STACK), ChatTemplate::from_places(&places)?);
        let mut tokenizer =
            Self { inner: Arc::new(inner), growth, limit, template, path, end_of_turn: None, eos_ids: Vec::new() };
        tokenizer.end_of_turn = tokenizer.find_end_of_turn()?;
        tokenizer.eos_ids = eos_ids(&places, &tokenizer.inner, tokenizer.end_of_turn)?;
        Ok(tokenizer)
    }

    /// With what the template sees as `enable_thinking`; without it the template decides.
    ///
    /// # Errors
    /// When the template takes too long.
    pub fn with_thinking(mut self, thinking: Option<bool>) -> Result<Self> {
        self.template.set_thinking(thinking)?;
        Ok(self)
    }

    /// Whether the template writes the head of an answer, or needs none because an answer follows a question at once.
    ///
    /// # Errors
    /// When the template fails.
    pub fn heads_answers(&self) -> Result<bool> {
        const ANSWER: &str = "An answer.";
        let mut messages = conversation("A question?", None);
        let (head, bare) = (self.template.render(&messages, true)?, self.template.render(&messages, false)?);
        messages.push(Message::new(Role::Assistant, ANSWER));
        let whole = self.template.render(&messages, false)?;
        let follows = |rest: &str| rest.trim_start().starts_with(ANSWER);
        Ok(head != bare || whole.strip_prefix(&head).is_none_or(follows))
    }

    /// The ids of `text` as it is; nothing is added before or after.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.check_length(self.growth[0], text.len())?;
        let (inner, text) = (Arc::clone(&self.inner), text.to_owned());
        let encoding = contained(&self.limit, TIME, move || inner.encode_fast(text, false));
        let encoding = encoding.map_err(|source| self.error(source))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens if `skip_special`.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        // Something may be written even for an empty token.
        let length = |id: &u32| self.inner.id_to_token(*id).map_or(0, |token| token.len() + 1);
        self.check_length(self.growth[1], ids.iter().map(length).fold(0, usize::saturating_add))?;
        let (inner, ids) = (Arc::clone(&self.inner), ids.to_vec());
        let text = contained(&self.limit, TIME, move || inner.decode(&ids, skip_special));
        text.map_err(|source| self.error(source))
    }

    /// Checks that a text and what it can become are not too long.
    fn check_length(&self, growth: usize, length: usize) -> Result<()> {
        let grown = growth.saturating_mul(length);
        let reason = if length > LONGEST {
            format!("a text of {length} bytes; at most {LONGEST} are read")
        } else if grown > LONGEST_GROWN {
            format!("a text of {length} bytes can become {grown}, more than {LONGEST_GROWN}, by what the file asks for")
        } else {
            return Ok(());
        };
        Err(self.error(reason.into()))
    }

    /// Number of tokens, the added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The ids at which generation stops; at least one.
    ///
    /// Those of `generation_config.json`, else of `config.json`, else the `eos_token` of `tokenizer_config.json` or
    /// `special_tokens_map.json`, and the token that the template writes after an assistant's message.
    pub fn eos_ids(&self) -> Vec<u32> {
        self.eos_ids.clone()
    }

    /// The file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The chat template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// What a model reads before it answers: the rendered conversation with the generation prompt.
    pub fn encode_prompt(&self, prompt: &str, system: Option<&str>) -> Result<Vec<u32>> {
        self.encode(&self.template.render_question(&conversation(prompt, system))?)
    }

    /// As [`Self::encode_prompt`], with the first words of the answer, tokenised in their place.
    ///
    /// # Errors
    /// When the template fails.
    pub fn encode_begun(&self, prompt: &str, start: &str, system: Option<&str>) -> Result<Vec<u32>> {
        self.encode(&(self.template.render_question(&conversation(prompt, system))? + start))
    }

    /// A conversation with its answer; however long it is, the caller drops it or not.
    ///
    /// The ids begin with exactly those of [`Self::encode_prompt`], which is what generation sees. What
    /// follows is the response, taken from the whole conversation's ids where these begin with the prompt's
    /// (so a response is tokenised in its place, which matters to sentencepiece), else tokenised on its own
    /// (where a token would reach over the border, as with a response that begins with a line break).
    /// Template text after the end-of-turn token is dropped.
    pub fn encode_sample(&self, prompt: &str, response: &str, system: Option<&str>) -> Result<Encoded> {
        let mut messages = conversation(prompt, system);
        let head = self.template.render_question(&messages)?;
        messages.push(Message::new(Role::Assistant, response));
        let whole = self.template.render(&messages, false)?;
        let name = || self.template.name().to_string();
        let tail = whole.strip_prefix(&head).ok_or_else(|| Error::NotAPrefix {
            name: name(),
            at: head.bytes().zip(whole.bytes()).take_while(|(a, b)| a == b).count(),
        })?;
        let prompt_ids = self.encode(&head)?;
        let whole_ids = self.encode(&whole)?;
        let mut answer = match whole_ids.strip_prefix(&prompt_ids[..]) {
            Some(answer) => answer.to_vec(),
            None => self.encode(tail)?,
        };
        let end = answer
            .iter()
            .rposition(|&id| Some(id) == self.end_of_turn)
            .ok_or_else(|| Error::NoEndOfTurn { name: name() })?;
        answer.truncate(end + 1);
        let loss_mask = [vec![false; prompt_ids.len()], vec![true; answer.len()]].concat();
        Ok(Encoded { ids: [prompt_ids, answer].concat(), loss_mask })
    }

    /// The first added token that the template writes after an assistant's message.
    ///
    /// `None` for a template without one, or one that fails on a plain exchange: generation can do without,
    /// and [`Self::encode_sample`] meets the same failure and reports it.
    fn find_end_of_turn(&self) -> Result<Option<u32>> {
        const ANSWER: &str = "An answer.";
        let exchange = [Message::new(Role::User, "A question?"), Message::new(Role::Assistant, ANSWER)];
        let Ok(rendered) = self.template.render(&exchange, false) else { return Ok(None) };
        let Some((_, tail)) = rendered.rsplit_once(ANSWER) else { return Ok(None) };
        let added = self.inner.get_added_tokens_decoder();
        Ok(self.encode(tail)?.into_iter().find(|id| added.contains_key(id)))
    }

    fn error(&self, source: tokenizers::Error) -> Error {
        Error::Tokenizer { path: self.path.clone(), source }
    }
}

/// What the library returns; a panic in it, or work without an end, becomes an error.
fn contained<T: Send + 'static>(
    limit: &Limit,
    time: Duration,
    work: impl FnOnce() -> std::result::Result<T, tokenizers::Error> + Send + 'static,
) -> std::result::Result<T, tokenizers::Error> {
    limit.run(time, work).unwrap_or_else(|reason| Err(format!("the library cannot take it ({reason})").into()))
}

/// What decides how much memory the library takes for a tokenizer.json.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    model: Vocabulary,
}

#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    content: String,
}

#[derive(Default, Deserialize)]
struct Vocabulary {
    #[serde(default)]
    vocab: Lengths,
}

/// Bytes of the tokens of a Unigram vocabulary, which is a list of tokens with their scores; those of others do not count.
#[derive(Default)]
struct Lengths {
    longest: usize,
    sum: usize,
}

impl<'de> Deserialize<'de> for Lengths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(LengthsVisitor)
    }
}

struct LengthsVisitor;

impl<'de> Visitor<'de> for LengthsVisitor {
    type Value = Lengths;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Lengths, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Lengths::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Lengths, A::Error> {
        let mut lengths = Lengths::default();
        while let Some((token, _)) = list.next_element::<(String, IgnoredAny)>()? {
            lengths.longest = lengths.longest.max(token.len());
            lengths.sum = lengths.sum.saturating_add(token.len());
        }
        Ok(lengths)
    }
}

/// Why a file with a step that nothing is known of is refused.
fn asked(step: &str) -> tokenizers::Error {
    format!("it asks for {step}: a text may become of any length by it").into()
}

/// The library's tokenizer of a tokenizer.json.
pub(crate) fn of_bytes(bytes: Vec<u8>) -> std::result::Result<tokenizers::Tokenizer, tokenizers::Error> {
    // The library panics on some files that are cut off.
    files::check_json(&bytes, MOST_VALUES).map_err(|error| format!("not valid JSON, is the file whole? {error}"))?;
    let outline: Outline = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let added = outline.added_tokens.iter().map(|token| token.content.len()).fold(0, usize::saturating_add);
    let Lengths { longest, sum } = outline.model.vocab;
    if longest > LONGEST_TOKEN || sum > MOST_TOKENS {
        let reason = format!(
            "the longest token of \"model.vocab\" has {longest} bytes, all have {sum}: at most {LONGEST_TOKEN} and {MOST_TOKENS} are read"
        );
        return Err(reason.into());
    }
    check_added(&outline.normalizer, added)?;
    let time = TIME + Duration::from_secs((bytes.len() / SLOWEST) as u64);
    contained(&Limit::new(STACK), time, || tokenizers::Tokenizer::from_bytes(bytes))
}

/// The tokenizer with the tokens that other files add to it.
fn with_added(mut inner: tokenizers::Tokenizer, places: &Places<'_>) -> Result<tokenizers::Tokenizer> {
    let added = added(&inner, places)?;
    if added.is_empty() {
        return Ok(inner);
    }
    let wrap = |source| Error::Tokenizer { path: places.path("tokenizer.json"), source };
    let bytes = added.iter().map(|one| one.token.content.len()).fold(0, usize::saturating_add);
    check_added(&inner.get_normalizer(), bytes).map_err(wrap)?;
    let tokens: Vec<_> = added.iter().map(|one| one.token.clone()).collect();
    let work = move || inner.add_tokens(tokens).map(|_| inner);
    let inner = contained(&Limit::new(STACK), TIME, work).map_err(wrap)?;
    added.iter().try_for_each(|one| one.check(&inner))?;
    Ok(inner)
}

/// Checks that added tokens with so many bytes in all do not become too long by a normaliser.
fn check_added(normalizer: &impl Serialize, bytes: usize) -> std::result::Result<(), tokenizers::Error> {
    let grown = growth(normalizer).map_err(|step| asked(&step))?.saturating_mul(bytes);
    match grown > MOST_ADDED {
        true => Err(format!("added tokens have {bytes} bytes and can become {grown}, more than {MOST_ADDED}").into()),
        false => Ok(()),
    }
}

fn conversation(prompt: &str, system: Option<&str>) -> Vec<Message> {
    let system = system.map(|text| Message::new(Role::System, text));
    system.into_iter().chain([Message::new(Role::User, prompt)]).collect()
}

fn eos_ids(places: &Places<'_>, inner: &tokenizers::Tokenizer, end_of_turn: Option<u32>) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for file in ["generation_config.json", "config.json"] {
        let (path, json) = places.json(file)?;
        let id = |value: &Value| {
            value.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(|| Error::Config {
                path: path.clone(),
                problem: format!("eos_token_id is {value}, expected a token id or a list of them"),
            })
        };
        ids = match &json["eos_token_id"] {
            Value::Null => continue,
            Value::Array(ids) => ids.iter().map(id).collect::<Result<_>>()?,
            number => vec![id(number)?],
        };
        if !ids.is_empty() {
            break;
        }
    }
    if ids.is_empty() {
        ids.extend(places.special_token("eos_token").map(|token| token_id(places, inner, &token)).transpose()?);
    }
    ids.extend(end_of_turn.filter(|end| !ids.contains(end)));
    match ids.is_empty() {
        true => Err(Error::Config {
            path: places.config_path(),
            problem: "no token at which generation stops; set \"eos_token\"".into(),
        }),
        false => Ok(ids),
    }
}

fn token_id(places: &Places<'_>, inner: &tokenizers::Tokenizer, token: &str) -> Result<u32> {
    inner.token_to_id(token).ok_or_else(|| Error::Config {
        path: places.config_path(),
        problem: format!("\"eos_token\" is \"{token}\", which tokenizer.json does not know"),
    })
}
