//! Jinja templates with a budget: anybody may have written them, and each is rendered when it is read.
//!
//! A template may be 64 KB long and run 200,000 instructions; what it writes and makes, texts and lists, may have 16 MB in
//! all, and what it compares and searches 64 MB; it may take five seconds, on a thread whose stack holds any nesting that
//! fits the rest. minijinja counts instructions alone, so operators and filters are replaced by ones that count. Does NOT know
//! what chat templates may use: see [`crate::chat`].

mod counted;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use minijinja::machinery::{CompiledTemplate, TemplateConfig, Token, Vm, WhitespaceConfig};
use minijinja::value::{Object, Rest, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, filters, machinery};

use crate::caught::Limit;
pub(crate) use counted::look;

type Result<T> = std::result::Result<T, Error>;

/// Bytes that a template may have.
const SOURCE: usize = 64 << 10;
/// Instructions that one rendering may run.
const FUEL: usize = 200_000;
/// Bytes of the texts and lists that one rendering may make, and of what it writes.
const BYTES: usize = 16 << 20;
/// Bytes of an error's message that are kept.
const MESSAGE: usize = 500;
/// Bytes of a list's entry.
const ENTRY: usize = 64;
/// Columns by which text may be indented.
const INDENT: usize = 16;
/// The largest number in a format such as `%8d`.
const WIDTH: usize = 1000;
/// Tokens that one tag may have; some work grows with their square.
const TOKENS: usize = 2000;
/// How often a template may multiply: constants are multiplied when it is read, to 100 MB each.
const PRODUCTS: usize = 4;
/// How long a rendering may take.
const TIME: Duration = Duration::from_secs(5);
/// Stack of the thread that renders.
const STACK: usize = 256 << 20;

/// A template with an environment that [`environment`] began.
#[derive(Debug, Clone)]
pub struct Template {
    environment: Environment<'static>,
    source: Arc<str>,
    limit: Limit,
}

/// Why a template does not parse or render.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct TemplateError {
    /// Line in the template, from 1; 0 when unknown.
    pub line: usize,
    /// The template's own message, or the engine's.
    pub message: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it does not parse, or is too long.
    pub fn new(environment: Environment<'static>, source: &str) -> std::result::Result<Self, TemplateError> {
        if source.len() > SOURCE {
            let message = format!("a template of {} bytes; at most {SOURCE} are read", source.len());
            return Err(TemplateError { line: 0, message });
        }
        let template = Self { environment, source: source.into(), limit: Limit::new(STACK) };
        template.run(None)?;
        Ok(template)
    }

    /// Renders it with the variables of `context`, a map.
    ///
    /// # Errors
    /// What the template raises, and when it goes beyond its budget.
    pub fn render(&self, context: Value) -> std::result::Result<String, TemplateError> {
        self.run(Some(context))
    }

    /// Whether a rendering has taken too long; nothing is rendered any more then.
    pub(crate) fn is_endless(&self) -> bool {
        self.limit.is_endless()
    }

    /// Takes too long.
    #[cfg(test)]
    pub(crate) fn exhaust(&self) {
        let slow = || std::thread::sleep(Duration::from_secs(2));
        assert!(self.limit.run(Duration::from_millis(50), slow).is_err());
    }

    /// Values and errors die on the thread that made them: a value can be nested too deep for any other.
    fn run(&self, context: Option<Value>) -> std::result::Result<String, TemplateError> {
        let (environment, source) = (self.environment.clone(), self.source.clone());
        let work = move || evaluate(environment, &source, context).map_err(|error| plain(&error));
        self.limit.run(TIME, work).unwrap_or_else(|message| Err(TemplateError { line: 0, message }))
    }
}

fn evaluate(mut environment: Environment<'static>, source: &str, context: Option<Value>) -> Result<String> {
    environment.set_debug(false);
    let config = TemplateConfig {
        syntax_config: Default::default(),
        ws_config: WhitespaceConfig {
            keep_trailing_newline: environment.keep_trailing_newline(),
            lstrip_blocks: environment.lstrip_blocks(),
            trim_blocks: environment.trim_blocks(),
        },
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    check_tokens(source, &config)?;
    let mut compiled = CompiledTemplate::new("template", source, &config)?;
    for instructions in std::iter::once(&mut compiled.instructions).chain(compiled.blocks.values_mut()) {
        *instructions = counted::counted(instructions)?;
    }
    let Some(context) = context else { return Ok(String::new()) };
    environment.set_fuel(Some(FUEL as u64));
    let mut text = String::new();
    let mut output = machinery::make_string_output(&mut text);
    Vm::new(&environment).eval(&compiled.instructions, context, &compiled.blocks, &mut output, AutoEscape::None)?;
    Ok(text)
}

/// Refuses tags that are very long, and many products.
fn check_tokens(source: &str, config: &TemplateConfig) -> Result<()> {
    let (mut in_tag, mut products) = (0, 0);
    for token in machinery::tokenize(source, false, config.syntax_config.clone(), config.ws_config) {
        match token?.0 {
            Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd => in_tag = 0,
            Token::Mul => (in_tag, products) = (in_tag + 1, products + 1),
            _ => in_tag += 1,
        }
        if in_tag > TOKENS || products > PRODUCTS {
            return Err(refused(format!("at most {TOKENS} tokens in a tag and {PRODUCTS} products are read")));
        }
    }
    Ok(())
}

fn plain(error: &Error) -> TemplateError {
    let detail = error.detail().unwrap_or_default();
    let message = match error.kind() {
        ErrorKind::OutOfFuel => "runs too many instructions".into(),
        ErrorKind::InvalidOperation if !detail.is_empty() => detail.to_owned(),
        kind if detail.is_empty() => kind.to_string(),
        kind => format!("{kind}: {detail}"),
    };
    TemplateError { line: error.line().unwrap_or(0), message: cut(message) }
}

/// A message without what is too long to read.
fn cut(mut message: String) -> String {
    if message.len() > MESSAGE {
        message.truncate(message.floor_char_boundary(MESSAGE));
        message += " ...";
    }
    message
}

/// Bytes that a rendering has made so far.
#[derive(Debug, Default)]
struct Made(AtomicUsize);

impl Object for Made {}

/// Counts bytes that a rendering makes.
///
/// # Errors
/// When they are too many.
pub(crate) fn count(state: &State<'_, '_>, bytes: usize) -> Result<usize> {
    let made = state.get_or_set_temp_object("bytes made", Made::default);
    let before = made.0.fetch_add(bytes.min(BYTES + 1), Ordering::Relaxed);
    match before.saturating_add(bytes) > BYTES {
        true => Err(refused("makes too much text")),
        false => Ok(BYTES - before),
    }
}

/// A text that is written piece by piece, and counted.
pub(crate) fn text(state: &State<'_, '_>, write: impl FnOnce(&mut Text) -> fmt::Result) -> Result<String> {
    let mut text = Text { text: String::new(), left: count(state, 0)? };
    write(&mut text).map_err(|_| refused("makes too much text"))?;
    count(state, text.text.len())?;
    Ok(text.text)
}

/// The text of a value.
pub(crate) fn text_of(state: &State<'_, '_>, value: &Value) -> Result<String> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => {
            look(state, std::slice::from_ref(value), 1)?;
            text(state, |text| write!(text, "{value}"))
        }
    }
}

/// A text of bounded length.
pub(crate) struct Text {
    text: String,
    left: usize,
}

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.left = self.left.checked_sub(part.len()).ok_or(fmt::Error)?;
        self.text.push_str(part);
        Ok(())
    }
}

pub(crate) fn refused(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// Bytes that a filter may make of a value: letters can have three bytes in the other case.
pub(crate) fn cost(value: &Value) -> usize {
    match value.as_str() {
        Some(text) => text.len() * 3,
        None => value.len().unwrap_or(0).saturating_mul(ENTRY),
    }
}

/// Filters that make a text of what they are given.
const OF_TEXT: [&str; 8] = ["upper", "lower", "title", "capitalize", "trim", "indent", "format", "safe"];

macro_rules! counted {
    ($environment:ident: $($name:ident)*) => {
        $({
            let filter = Value::from_function(filters::$name);
            $environment.add_filter(stringify!($name), move |state: &State<'_, '_>, Rest(mut values): Rest<Value>| {
                if let Some(first) = values.first_mut().filter(|first| first.as_object().is_some()) {
                    if OF_TEXT.contains(&stringify!($name)) {
                        *first = Value::from(text_of(state, first)?);
                    }
                }
                check(state, stringify!($name), &values)?;
                filter.call(state, &values)
            });
        })*
    };
}

/// An environment with a budget for texts; what has no bound, or is not of Jinja, is not in it.
pub fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_formatter(emit);
    for name in ["chain", "zip", "lines", "split", "pprint"] {
        environment.remove_filter(name);
    }
    environment.remove_global("debug");
    counted!(environment: upper lower title capitalize trim dictsort items reverse sort batch slice indent format
        select selectattr reject rejectattr map groupby unique min max sum attr safe);
    counted::add_filters(&mut environment);
    let counted_length = Value::from_function(filters::length);
    let length = Value::from_function(move |state: &State<'_, '_>, value: Value| match value.is_undefined() {
        true => Ok(Value::from(0)), // as Jinja counts it
        false => counted_length.call(state, &[value]),
    });
    for (name, filter) in [
        ("length", length.clone()),
        ("count", length),
        ("int", Value::from_function(filters::int)),
        ("float", Value::from_function(filters::float)),
        ("first", Value::from_function(filters::first)),
        ("last", Value::from_function(filters::last)),
    ] {
        environment.add_filter(name, move |state: &State<'_, '_>, Rest(values): Rest<Value>| {
            values.first().map_or(Ok(()), |first| counted::walk(state, first))?;
            filter.call(state, &values)
        });
    }
    let tojson = Value::from_function(filters::tojson);
    environment.add_filter("tojson", move |state: &State<'_, '_>, value: Value, options: Rest<Value>| {
        if !options.is_empty() {
            return Err(refused("tojson takes no options"));
        }
        look(state, std::slice::from_ref(&value), 1)?;
        let json = tojson.call(state, &[value])?;
        count(state, cost(&json))?;
        Ok(json)
    });
    for name in ["escape", "e"] {
        let escape = Value::from_function(filters::escape);
        environment.add_filter(name, move |state: &State<'_, '_>, value: Value| {
            let text = text_of(state, &value)?;
            count(state, text.len().saturating_mul(6))?; // of a quotation mark
            escape.call(state, &[Value::from(text)])
        });
    }
    environment.add_filter("~", |state: &State<'_, '_>, left: Value, right: Value| {
        defined(state, &[&left, &right])?;
        look(state, &[left.clone(), right.clone()], 1)?;
        text(state, |text| write!(text, "{left}{right}"))
    });
    environment.add_filter("+", add);
    environment.add_filter("*", multiply);
    environment.add_filter("[:]", |state: &State<'_, '_>, value: Value, start: Value, stop: Value, step: Value| {
        count(state, cost(&value))?;
        flat(state, evaluated(state, "a[b:c:d]", [("a", value), ("b", start), ("c", stop), ("d", step)])?)
    });
    environment.add_filter("join", |state: &State<'_, '_>, values: Value, joiner: Option<Value>| {
        join(state, &values, joiner.as_ref().and_then(Value::as_str).unwrap_or_default())
    });
    environment.add_filter("replace", |state: &State<'_, '_>, text: Value, from: Value, to: Value| {
        replace(state, &text_of(state, &text)?, &text_of(state, &from)?, &text_of(state, &to)?, None)
    });
    environment.add_filter("list", |state: &State<'_, '_>, values: Value| list(state, &values));
    environment.add_filter("string", |state: &State<'_, '_>, value: Value| match value.kind() {
        ValueKind::String => Ok(value),
        _ => text_of(state, &value).map(Value::from),
    });
    environment
}

/// The entries of a value as a list, counted.
fn list(state: &State<'_, '_>, values: &Value) -> Result<Value> {
    let mut list = Vec::new();
    for value in values.try_iter()? {
        count(state, ENTRY)?;
        list.push(value);
    }
    Ok(Value::from(list))
}

/// A part or a multiple of a list as a list: the engine's reads the one that it is of at every use, which may be one, too.
fn flat(state: &State<'_, '_>, value: Value) -> Result<Value> {
    if value.kind() == ValueKind::Iterable { list(state, &value) } else { Ok(value) }
}

/// Writes a value as it is, counted.
pub(crate) fn emit(out: &mut minijinja::Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<()> {
    match value.as_str() {
        Some(text) => {
            count(state, text.len())?;
            Ok(out.write_str(text)?)
        }
        None if value.is_undefined() => Ok(()),
        None => Ok(out.write_str(&text_of(state, value)?)?),
    }
}

/// Counts what a filter or method may make and looks through, and checks the numbers that it is given.
pub(crate) fn check(state: &State<'_, '_>, name: &str, values: &[Value]) -> Result<()> {
    let [first, rest @ ..] = values else { return Ok(()) };
    match name {
        "sort" | "unique" | "groupby" | "dictsort" | "min" | "max" => look(state, values, 20)?, // comparisons of each
        "select" | "reject" | "selectattr" | "rejectattr" => {
            look(state, values, 1)?;
            look(state, rest, counted::entries(first))?;
        }
        "strip" | "lstrip" | "rstrip" | "trim" => {
            let length = |value: &Value| value.as_str().map_or(1, str::len);
            counted::spend(state, length(first).saturating_mul(rest.first().map_or(1, length)))?;
        }
        "format" if rest.iter().any(holds_lists) => return Err(refused("format takes texts and numbers")),
        "split" | "splitlines" => {
            let text = first.as_str().unwrap_or_default();
            let ends = |text: &str| text.bytes().filter(u8::is_ascii_whitespace).count();
            let separator = rest.first().and_then(Value::as_str).filter(|separator| !separator.is_empty());
            let parts = separator.map_or_else(|| ends(text), |separator| text.matches(separator).count());
            count(state, parts.saturating_mul(ENTRY))?;
        }
        _ => look(state, values, 1)?,
    }
    let format = values.first().and_then(Value::as_str).filter(|_| name == "format").unwrap_or_default();
    let times = 1 + format.matches(['%', '{']).count();
    count(state, values.iter().map(cost).fold(0, usize::saturating_add).saturating_mul(times))?;
    let most = match name {
        "indent" => INDENT,
        "batch" | "slice" => WIDTH,
        "format" => {
            let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
            return match format.contains('*')
                || numbers.into_iter().any(|n| n.parse().map_or(true, |n: usize| n > WIDTH))
            {
                true => Err(refused(format!("a format may not have `*` or numbers above {WIDTH}"))),
                false => Ok(()),
            };
        }
        _ => return Ok(()),
    };
    // A keyword's value counts as well: the last value is then a map of them.
    let keywords = values.last().filter(|value| value.kind() == ValueKind::Map);
    let named = keywords.and_then(|map| map.get_attr("width").ok());
    let number = |value: &Value| value.kind() == ValueKind::Number && *value > Value::from(most);
    match values.iter().skip(1).chain(&named).any(number) {
        true => Err(refused(format!("{name} takes at most {most}"))),
        false => Ok(()),
    }
}

/// Whether a value is a list, or a map of more than texts and numbers.
fn holds_lists(value: &Value) -> bool {
    let Some(object) = value.as_object() else { return false };
    object.try_iter_pairs().is_none_or(|mut pairs| pairs.any(|(_, value)| value.as_object().is_some()))
}

/// The texts of some values with `joiner` between.
pub(crate) fn join(state: &State<'_, '_>, values: &Value, joiner: &str) -> Result<String> {
    look(state, std::slice::from_ref(values), 1)?;
    let values = values.try_iter()?;
    text(state, |text| {
        for (index, value) in values.enumerate() {
            text.left = text.left.checked_sub(1).ok_or(fmt::Error)?; // empty texts count, too
            write!(text, "{}{value}", if index > 0 { joiner } else { "" })?;
        }
        Ok(())
    })
}

/// `text` with `from` replaced by `to`, as often as `most` says.
pub(crate) fn replace(state: &State<'_, '_>, text: &str, from: &str, to: &str, most: Option<usize>) -> Result<String> {
    let most = most.unwrap_or(usize::MAX);
    let found = text.matches(from).take(most).count();
    count(state, found.saturating_mul(to.len()).saturating_add(text.len()))?;
    Ok(text.replacen(from, to, most))
}

fn add(state: &State<'_, '_>, left: Value, right: Value) -> Result<Value> {
    defined(state, &[&left, &right])?;
    match (left.as_str(), right.as_str()) {
        (Some(left), Some(right)) => text(state, |text| write!(text, "{left}{right}")).map(Value::from),
        _ => {
            let entries = [&left, &right].map(|value| value.len().unwrap_or(0));
            count(state, entries[0].saturating_add(entries[1]).saturating_mul(ENTRY))?;
            evaluated(state, "a + b", [("a", left), ("b", right)])
        }
    }
}

fn multiply(state: &State<'_, '_>, left: Value, right: Value) -> Result<Value> {
    defined(state, &[&left, &right])?;
    let times = |value: &Value, by: &Value| match value.kind() {
        ValueKind::Number => 0,
        _ => cost(value).saturating_mul(by.as_usize().unwrap_or(0)),
    };
    count(state, times(&left, &right).max(times(&right, &left)))?;
    flat(state, evaluated(state, "a * b", [("a", left), ("b", right)])?)
}

fn defined(state: &State<'_, '_>, values: &[&Value]) -> Result<()> {
    let strict = state.undefined_behavior() == minijinja::UndefinedBehavior::Strict;
    match strict && values.iter().any(|value| value.is_undefined()) {
        true => Err(Error::from(ErrorKind::UndefinedError)),
        false => Ok(()),
    }
}

/// The operator itself.
fn evaluated<const N: usize>(state: &State<'_, '_>, expression: &str, values: [(&str, Value); N]) -> Result<Value> {
    let result = state.env().compile_expression(expression)?.eval(Value::from_iter(values));
    // Without its line, which is that of the expression alone: the engine adds the template's.
    result.map_err(|error| Error::new(error.kind(), error.detail().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests;
