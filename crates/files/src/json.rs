//! JSON and YAML that anybody may have written: what a short text may become in memory is bounded.

use std::cell::Cell;
use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::Result;
use crate::read::{read_inside, read_regular, refused};
use crate::write::json;

/// Values that a JSON file may hold; each takes up to 72 bytes, be it `0`.
const MOST_VALUES: usize = 2_000_000;
/// Bytes that a YAML file may have.
const LARGEST_YAML: u64 = 1 << 20;
/// Values that a YAML file may hold, aliases followed.
const MOST_IN_YAML: usize = 100_000;
/// Bytes of text that a YAML file may hold, aliases followed.
const MOST_YAML_TEXT: usize = 4 << 20;

/// Bytes of a YAML file, each as often as there may be brackets around it: the reader looks at all of them at each.
const MOST_BRACKETED: usize = 1 << 27;
/// Lines of a YAML file that may begin with `%`: the reader compares each with all others.
const MOST_DIRECTIVES: usize = 100;

/// A JSON value of any form, without a byte order mark.
///
/// # Errors
/// When it is not JSON, or holds more values than any file of a model does.
pub fn json_value(bytes: &[u8]) -> std::result::Result<Value, serde_json::Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    check_json(bytes, MOST_VALUES)?;
    serde_json::from_slice(bytes)
}

/// Checks that a text is JSON and holds so many values at most, without taking memory for them.
///
/// # Errors
/// When it is not or does not.
pub fn check_json(bytes: &[u8], most: usize) -> std::result::Result<(), serde_json::Error> {
    let room = Room::new(most, usize::MAX);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    Count(&room).deserialize(&mut reader)?;
    reader.end()
}

/// A JSON file of any form may have this many bytes.
const LARGEST_JSON: u64 = 64 << 20;

/// The value of a JSON file of any form.
///
/// # Errors
/// As [`read_regular`] and [`json_value`].
pub fn read_json_value(path: &Path) -> Result<Value> {
    json_value(&read_regular(path, LARGEST_JSON)?).map_err(|source| json(path, None, source))
}

/// The same of a model's directory.
///
/// # Errors
/// As [`read_inside`] and [`json_value`].
pub fn read_json_inside(dir: &Path, file: &str) -> Result<Value> {
    json_value(&read_inside(dir, file, LARGEST_JSON)?).map_err(|source| json(&dir.join(file), None, source))
}

/// The text of a YAML file, without a byte order mark.
///
/// # Errors
/// As [`read_regular`]; when it is not UTF-8, would take long to read, or its aliases make it larger than any settings are.
/// What is no YAML is for its reader to tell.
pub fn read_yaml_text(path: &Path) -> Result<String> {
    let text = String::from_utf8(read_regular(path, LARGEST_YAML)?);
    let text = text.map_err(|_| refused(path, "it is not UTF-8 text".into()))?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    check_yaml(&text).map_err(|reason| refused(path, reason))?;
    Ok(text)
}

/// Follows the aliases of a YAML text without keeping what they refer to.
fn check_yaml(text: &str) -> std::result::Result<(), String> {
    if bracketed(text) > MOST_BRACKETED {
        return Err("it has too many brackets within brackets; close them, or write lists and maps line by line".into());
    }
    let directives = text.lines().filter(|line| line.starts_with('%')).count();
    if directives > MOST_DIRECTIVES {
        return Err(format!("{directives} of its lines begin with %; at most {MOST_DIRECTIVES} are read"));
    }
    let room = Room::new(MOST_IN_YAML, MOST_YAML_TEXT);
    for document in serde_yaml::Deserializer::from_str(text) {
        match Count(&room).deserialize(document) {
            Err(error) if error.to_string().contains(FULL) => return Err(FULL.into()),
            Err(_) => break,
            Ok(()) => {}
        }
    }
    Ok(())
}

/// The bytes of a YAML text, each as often as there can be brackets around it. A bracket that closes is believed where nothing
/// since the one that it closes can hide it: a comment, a tag, or quotes but for those that surely begin a value and end on its
/// line; after other quotes no quotes are sure.
fn bracketed(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut open, mut hidden, mut sum) = (0_usize, 0, 0_usize);
    let (mut at, mut before, mut is_sure) = (0, [b'\n'; 2], true);
    while let Some(&byte) = bytes.get(at) {
        let mut length = 1;
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' if open > hidden => open -= 1,
            b'\'' | b'"' => match quoted(&bytes[at..], before).filter(|_| is_sure) {
                Some(found) => {
                    length = found;
                    open += bytes[at..at + found].iter().filter(|byte| b"[{".contains(byte)).count();
                }
                None => (hidden, is_sure) = (open, false),
            },
            b'#' | b'!' => hidden = open,
            _ => {}
        }
        sum = sum.saturating_add(open.saturating_mul(length));
        at += length;
        let last = bytes[at - 1];
        before = [last, if b" \t".contains(&last) { before[1] } else { last }];
    }
    sum
}

/// The length of a quoted scalar that surely begins here and ends on its line. `before` are the byte before it and the last one
/// that is no blank.
fn quoted(text: &[u8], before: [u8; 2]) -> Option<usize> {
    let begins = b"[{,".contains(&before[1]) || (before[1] == b':' && before[0] == b' ');
    let quote = *text.first().filter(|_| begins)?;
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'\n' | b'\r' => return None,
            b'\\' if quote == b'"' => at += 2,
            found if found != quote => at += 1,
            _ if quote == b'\'' && text.get(at + 1) == Some(&quote) => at += 2,
            _ => return Some(at + 1),
        }
    }
}

const FULL: &str = "it holds more values or text than such a file has";

/// What may still be read.
struct Room {
    values: Cell<usize>,
    text: Cell<usize>,
}

impl Room {
    fn new(values: usize, text: usize) -> Self {
        Self { values: Cell::new(values), text: Cell::new(text) }
    }

    fn take<E: serde::de::Error>(&self, text: usize) -> std::result::Result<(), E> {
        let left = |room: &Cell<usize>, taken| room.get().checked_sub(taken).map(|left| room.set(left));
        left(&self.values, 1).and(left(&self.text, text)).ok_or_else(|| E::custom(FULL))
    }
}

/// Counts a value and what is in it.
#[derive(Clone, Copy)]
struct Count<'a>(&'a Room);

impl<'de> DeserializeSeed<'de> for Count<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Visits that count one value.
macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E: serde::de::Error>(self, _: $type) -> std::result::Result<(), E> { self.0.take(0) })*
    };
}

impl<'de> Visitor<'de> for Count<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64);

    fn visit_unit<E: serde::de::Error>(self) -> std::result::Result<(), E> {
        self.0.take(0)
    }

    fn visit_none<E: serde::de::Error>(self) -> std::result::Result<(), E> {
        self.0.take(0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> std::result::Result<(), E> {
        self.0.take(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<(), A::Error> {
        self.0.take(0)?;
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<(), A::Error> {
        self.0.take(0)?;
        while map.next_key_seed(self)?.is_some() {
            map.next_value_seed(self)?;
        }
        Ok(())
    }

    /// A YAML tag.
    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, tagged: A) -> std::result::Result<(), A::Error> {
        use serde::de::VariantAccess as _;
        let ((), content) = tagged.variant_seed(self)?;
        content.newtype_variant_seed(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_cannot_become_a_large_value() {
        assert_eq!(json_value(b"\xef\xbb\xbf{\"a\": [1, null, \"x\"]}").unwrap()["a"][2], "x");
        let many = format!("[{}0]", "0,".repeat(MOST_VALUES));
        assert!(json_value(many.as_bytes()).unwrap_err().to_string().contains(FULL));
        assert!(json_value(b"{").is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        std::fs::write(&path, many).unwrap();
        let error = read_json_value(&path).unwrap_err().to_string();
        assert!(error.contains("a.json") && error.contains(FULL), "{error}");
    }

    #[test]
    fn aliases_of_a_yaml_file_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_yaml_text(&path).map_err(|error| error.to_string())
        };
        let aliases = |count: usize| format!("x: &a \"{}\"\ny: [{}]\n", "b".repeat(10_000), "*a, ".repeat(count));
        assert!(read(&aliases(300)).is_ok());
        assert!(read(&aliases(5000)).unwrap_err().contains(FULL));
        let mut nested = "a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            nested += &format!("a{i}: &a{i} [{}]\n", format!("*a{}, ", i - 1).repeat(8));
        }
        assert!(read(&nested).is_err() || serde_yaml::from_str::<serde_yaml::Value>(&nested).is_err());
        assert!(read("a: !tag [1, 2]\n? [b]\n: 1.5\n--- \n c: ~").is_ok());
        assert!(read("a: [").is_ok(), "what is no YAML is told by its reader, with its line");
        assert!(read(&"#".repeat(1 << 21)).unwrap_err().contains("bytes"));
    }

    #[test]
    fn brackets_within_brackets_and_directives_are_bounded_before_they_are_read() {
        for hidden in ["", " # ]\n", " ']',", " \"]\",", " !<]> a,"] {
            let reason = check_yaml(&format!("x: {}", format!("[{hidden}").repeat(30_000))).unwrap_err();
            assert!(reason.contains("brackets within brackets"), "{hidden}: {reason}");
        }
        assert!(check_yaml(&"%TAG ! tag:a,2000:\n".repeat(200)).unwrap_err().contains("200 of its lines begin with %"));
        let entry = "- { name: \"a [b\", source: { dir: 'c' }, of: [1, 2] } # [see]\n  text: it's [so] {far}\n";
        assert!(bracketed(&entry.repeat(900)) < MOST_BRACKETED);
        assert_eq!(bracketed("a: [1, [2], {b: c}]"), 22);
        // Quotes that begin a value and end on its line hide nothing; others may.
        assert_eq!(bracketed("- { a: \"it's ]\", b: 'it''s' }\nx"), bracketed("- { a: ........, b: ....... }\nx"));
        let samples = "- { prompt: \"How do I bake bread at home?\", id: 1 }\n".repeat(20_000);
        assert!(bracketed(&samples) < samples.len());
        assert!(bracketed(&("[\"\n".to_owned() + &"[\"]\"".repeat(30_000))) > MOST_BRACKETED);
    }
}
