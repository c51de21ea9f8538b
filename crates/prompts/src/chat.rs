//! Chat templates: the model's own Jinja template, rendered byte for byte as transformers renders it.
//!
//! Paper section III-B: prompts are rendered with the model's template before a hidden state is read.
//! What transformers adds to Jinja is here (`raise_exception`, `strftime_now`, its `tojson`, Python's
//! methods and its way to print `None`; `{% generation %}` marks change nothing); tools and documents are not.
//! Does NOT turn text into ids: see [`crate::tokenizer`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use chrono::format::{Item, StrftimeItems};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, State};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::config::Places;
use crate::error::{Error, Result};
use crate::template::{self, Template, TemplateError, refused};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The instructions before the conversation.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text of the turn.
    pub content: String,
}

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// A compiled chat template with the special tokens it may write.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    template: Template,
    name: String,
    special_tokens: BTreeMap<String, String>,
    thinking: Option<bool>,
    is_dated: bool,
    probed: Probed,
}

/// What rendering one question showed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Probed {
    /// Whether the question is not to be seen.
    hides_prompt: bool,
    /// The end of the head of an answer from a `<think>` on that it leaves open; empty where it opens none.
    thinking: String,
}

/// A question that no template says by itself.
const QUESTION: &str = "Which of the 7 blue maps is this?";

impl ChatTemplate {
    /// Compiles a template; `bos` and `eos` are the texts of the tokens it knows under `bos_token` and `eos_token`.
    pub fn from_source(source: String, bos: Option<String>, eos: Option<String>) -> Result<Self> {
        let tokens = [("bos_token", bos), ("eos_token", eos)];
        let special_tokens = tokens.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?))).collect();
        Self::compile("in memory".into(), &source, special_tokens)
    }

    /// The template of a Hugging Face directory: `chat_template.jinja`, else that of `tokenizer_config.json`.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Self::from_places(&Places::new(&[dir])?)
    }

    /// The template of the first place that has one.
    pub(crate) fn from_places(places: &Places<'_>) -> Result<Self> {
        let (name, source) = places.chat_template()?;
        Self::compile(name, &source, places.variables())
    }

    fn compile(name: String, source: &str, special_tokens: BTreeMap<String, String>) -> Result<Self> {
        let source = source.replace("\r\n", "\n").replace('\r', "\n"); // as Jinja reads a template
        let template = Template::new(transformers_environment(), &without_generation_marks(&source));
        let template = template.map_err(|error| template_error(&name, error))?;
        let is_dated = source.contains("strftime_now");
        let new = Self { template, name, special_tokens, thinking: None, is_dated, probed: Probed::default() };
        Ok(Self { probed: new.probe()?, ..new })
    }

    /// Renders one question. A template that fails on it shows nothing here; who renders it meets the error. One that takes
    /// too long does so once.
    fn probe(&self) -> Result<Probed> {
        let text = match self.render(&[Message::new(Role::User, QUESTION)], true) {
            Ok(text) => text,
            Err(error) if self.template.is_endless() => return Err(error),
            Err(_) => return Ok(Probed::default()),
        };
        let Some((_, head)) = text.rsplit_once(QUESTION) else {
            return Ok(Probed { hides_prompt: true, ..Probed::default() });
        };
        let open = head.rfind("<think>").map(|at| &head[at..]).filter(|open| !open.contains("</think>"));
        Ok(Probed { hides_prompt: false, thinking: open.unwrap_or_default().to_owned() })
    }

    /// Renders a conversation; `add_generation_prompt` also writes the head of the answer that is to come.
    ///
    /// # Errors
    /// What the template raises, with its message and line.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let mut context: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(key, text)| (key.as_str(), Value::from(text.as_str()))).collect();
        context.insert("messages", Value::from_serialize(messages));
        context.insert("add_generation_prompt", add_generation_prompt.into());
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        if let Some(thinking) = self.thinking {
            context.insert("enable_thinking", thinking.into());
        }
        self.template.render(Value::from_iter(context)).map_err(|error| template_error(&self.name, error))
    }

    /// The head of an answer to `messages`, as [`render`](Self::render) writes it; what is asked must be in it.
    ///
    /// # Errors
    /// What the template raises, and [`Error::NotShown`].
    pub(crate) fn render_question(&self, messages: &[Message]) -> Result<String> {
        let hidden = |what: &'static str| Err(Error::NotShown { name: self.name.clone(), what });
        if self.probed.hides_prompt {
            return hidden("the user's turn");
        }
        let text = self.render(messages, true)?;
        let system = messages.iter().find(|message| message.role == Role::System);
        match system.is_some_and(|system| !text.contains(system.content.trim_matches(is_python_space))) {
            true => hidden("the system turn"),
            false => Ok(text),
        }
    }

    /// The template of the first directory that has one: that of an adapter before its base's.
    ///
    /// # Errors
    /// When there is none, or it cannot be read or compiled.
    pub fn from_dirs(dirs: &[&Path]) -> Result<Self> {
        Self::from_places(&Places::new(dirs)?)
    }

    /// With what the template sees as `enable_thinking`; without it the template decides.
    ///
    /// # Errors
    /// When the template takes too long.
    pub fn with_thinking(mut self, thinking: Option<bool>) -> Result<Self> {
        self.set_thinking(thinking)?;
        Ok(self)
    }

    /// Sets what the template sees as `enable_thinking`; without it the template decides.
    pub(crate) fn set_thinking(&mut self, thinking: Option<bool>) -> Result<()> {
        self.thinking = thinking;
        self.probed = self.probe()?;
        Ok(())
    }

    /// What of the model's thinking the template itself writes: the end of the head of an answer from a `<think>` on that it
    /// leaves open, so that an answer begins within the thinking. Empty where it opens none.
    pub fn opened_thinking(&self) -> &str {
        &self.probed.thinking
    }

    /// What the template makes of a question today, if it asks for the date.
    ///
    /// # Errors
    /// What the template raises.
    pub fn dated(&self) -> Result<Option<String>> {
        let render = || self.render(&[Message::new(Role::User, QUESTION)], true);
        self.is_dated.then(render).transpose()
    }

    /// Where the template came from, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn template_error(name: &str, TemplateError { line, message }: TemplateError) -> Error {
    Error::Template { name: name.to_owned(), line, message }
}

/// The marks that tell a trainer which text is the model's, as blocks that do nothing; a block hides the variables that
/// are set in it, and so do they.
fn without_generation_marks(source: &str) -> String {
    let (mut out, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(at) = rest.find("{%") {
        let end = rest[at..].find("%}").map_or(rest.len(), |end| at + end);
        let tag = &rest[at..end];
        out.push_str(&rest[..at]);
        out.push_str(&match tag.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['-', '+']).trim() {
            "generation" => tag.replacen("generation", "with", 1),
            "endgeneration" => tag.replacen("endgeneration", "endwith", 1),
            _ => tag.to_owned(),
        });
        rest = &rest[end..];
    }
    out + rest
}

/// The Jinja environment in which transformers compiles chat templates.
fn transformers_environment() -> Environment<'static> {
    let mut environment = template::environment();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_unknown_method_callback(python_method);
    environment.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            Err(refused("writes a list or a map in Python's own form, which is not supported; `tojson` and `join` are"))
        }
        _ => template::emit(out, state, value),
    });
    // What Python holds of a value, where the engine holds otherwise.
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("sequence", |value: &Value| match value.kind() {
        ValueKind::Iterable => value.len().is_some(),
        kind => matches!(kind, ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Undefined),
    });
    environment.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    for (name, is_case, is_other) in [
        ("lower", char::is_lowercase as fn(char) -> bool, char::is_uppercase as fn(char) -> bool),
        ("upper", char::is_uppercase, char::is_lowercase),
    ] {
        environment.add_test(name, move |text: &str| text.chars().any(is_case) && !text.chars().any(is_other));
    }
    environment.add_filter("tojson", tojson);
    environment.add_filter("trim", |state: &State<'_, '_>, value: &Value, chars: Option<&str>| {
        let text = template::text_of(state, value)?;
        template::count(state, text.len())?;
        template::check(state, "trim", &[Value::from(text.as_str()), chars.unwrap_or_default().into()])?;
        Ok(match chars {
            Some(chars) => text.trim_matches(|c| chars.contains(c)).to_string(),
            None => text.trim_matches(is_python_space).to_string(),
        })
    });
    environment.add_function("raise_exception", |state: &State<'_, '_>, message: &Value| {
        Err::<(), _>(refused(template::text_of(state, message)?))
    });
    environment.add_function("strftime_now", strftime_now);
    environment
}

/// What Python's `str.strip()` takes off: Unicode white space and the four ASCII separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn python_method(
    state: &State<'_, '_>,
    value: &Value,
    method: &str,
    args: &[Value],
) -> std::result::Result<Value, minijinja::Error> {
    let values: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
    template::check(state, method, &values)?;
    match (value.as_str(), method, args) {
        (Some(text), "join", [values]) => template::join(state, values, text).map(Value::from),
        (Some(text), "replace", [from, to, most @ ..]) if most.len() < 2 => {
            let most = most.first().and_then(Value::as_usize);
            let argument =
                |value: &Value| value.as_str().map(str::to_owned).ok_or_else(|| refused("replace takes strings"));
            template::replace(state, text, &argument(from)?, &argument(to)?, most).map(Value::from)
        }
        (Some(text), "strip", []) => Ok(text.trim_matches(is_python_space).into()),
        (Some(text), "lstrip", []) => Ok(text.trim_start_matches(is_python_space).into()),
        (Some(text), "rstrip", []) => Ok(text.trim_end_matches(is_python_space).into()),
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// Bytes that a format of a date may have; each can become a dozen.
const LONGEST_FORMAT: usize = 256;

/// The date in the local time zone; a template that asks for it renders differently tomorrow.
fn strftime_now(format: &str) -> std::result::Result<String, minijinja::Error> {
    if format.len() > LONGEST_FORMAT {
        return Err(refused(format!("strftime_now takes a format of {LONGEST_FORMAT} bytes at most")));
    }
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        let message = format!("strftime_now does not know the format \"{format}\"");
        return Err(refused(message));
    }
    Ok(chrono::Local::now().format_with_items(items.iter()).to_string())
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: no HTML escapes, a space after `,` and `:`.
fn tojson(state: &State<'_, '_>, value: &Value, options: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    template::check(state, "indent", &[Value::UNDEFINED, indent.unwrap_or(0).into()])?;
    if options.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(refused("tojson(ensure_ascii=true) is not supported"));
    }
    options.assert_all_used()?;
    template::look(state, std::slice::from_ref(value), 1)?;
    template::text(state, |text| {
        let bytes = Bytes(text);
        match indent {
            Some(width) => write_json(value, PrettyFormatter::with_indent(" ".repeat(width).as_bytes()), bytes),
            None => write_json(value, OneLine, bytes),
        }
        .map_err(|_| std::fmt::Error)
    })
}

fn write_json(value: &Value, formatter: impl Formatter, bytes: Bytes<'_>) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(bytes, formatter))
}

/// The serializer writes bytes; each piece is valid UTF-8.
struct Bytes<'a>(&'a mut template::Text);

impl std::io::Write for Bytes<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let part = std::str::from_utf8(bytes).map_err(std::io::Error::other)?;
        self.0.write_str(part).map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// JSON on one line as Python writes it: `{"a": [1, 2]}`.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, out: &mut W, first: bool) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests;
