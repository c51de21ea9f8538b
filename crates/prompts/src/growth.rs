//! How much longer the steps that a tokenizer.json asks for can make a text: each is harmless, a row of them is not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

/// How many times longer a text, and one byte more, can become by a normaliser, pre-tokenizer or decoder.
///
/// # Errors
/// Names a step that is not known here, since nothing tells what it does to a text.
pub(crate) fn growth(steps: &impl Serialize) -> Result<usize, String> {
    serde_json::to_value(steps).map_or(Ok(1), |steps| of(&steps))
}

fn of(step: &Value) -> Result<usize, String> {
    if step.is_null() {
        return Ok(1);
    }
    let is_empty = |key: &str| step[key].as_str().is_some_and(str::is_empty);
    let own = match step["type"].as_str().unwrap_or_default() {
        "Sequence" | "Strip" | "StripAccents" | "Nmt" | "Replace" | "Prepend" | "Precompiled" => 1,
        "BertPreTokenizer" | "CharDelimiterSplit" | "Delimiter" | "Digits" | "FixedLength" | "Punctuation"
        | "Split" | "UnicodeScripts" | "Whitespace" | "WhitespaceSplit" => 1,
        "ByteFallback" | "Fuse" => 1,
        // A character for each byte, of up to two bytes; before them a space for each part of a text.
        "ByteLevel" if step["add_prefix_space"] == true => 4,
        "ByteLevel" | "Lowercase" | "WordPiece" => 2,
        // What Unicode's own forms make of a character at most.
        "NFC" | "NFD" => 3,
        "NFKC" | "NFKD" => 11,
        // Spaces around a character of three bytes, its parts, small letters.
        "Bert" | "BertNormalizer" => 2 * 3 * 2,
        "Metaspace" => step["replacement"].as_str().map_or(4, str::len).saturating_add(1),
        // What is empty is found between any two characters.
        "BPEDecoder" => 1 + usize::from(is_empty("suffix")),
        "CTC" => 1 + usize::from(is_empty("word_delimiter_token")),
        "" => return Err("a step without a \"type\"".into()),
        other => return Err(format!("the step \"{other}\", which is not known")),
    };
    // By their keys whatever the type says: the library reads some steps by these alone.
    let replaced = step.get("pattern").map_or(1, |pattern| replaced(pattern, &step["content"]));
    // Once for each part of a text between added tokens, which may be as short as they are.
    let prepended = step["prepend"].as_str().map_or(1, |text| text.len().saturating_add(1));
    let mapped = step["precompiled_charsmap"].as_str().map_or(Some(1), longest_mapped);
    let mapped = mapped.ok_or("a \"precompiled_charsmap\" that cannot be read")?;
    let own = [replaced, prepended, mapped].into_iter().fold(own, usize::saturating_mul);
    let rows =
        ["normalizers", "pretokenizers", "decoders"].into_iter().filter_map(|key| step[key].as_array()).flatten();
    rows.map(of).try_fold(own, |product, step| Ok(product.saturating_mul(step?)))
}

/// Bytes of the new text for each of the old; a regular expression may find nothing between any two characters.
fn replaced(pattern: &Value, content: &Value) -> usize {
    let content = content.as_str().unwrap_or_default().len();
    match pattern["String"].as_str().filter(|pattern| !pattern.is_empty()) {
        Some(pattern) => content.div_ceil(pattern.len()).max(1),
        None => content + 1,
    }
}

/// The longest text that a SentencePiece map writes for a character: after the length of its index and the index are the texts,
/// with zeros between.
fn longest_mapped(map: &str) -> Option<usize> {
    let map = STANDARD.decode(map).ok()?;
    let (length, rest) = map.split_first_chunk()?;
    let index = usize::try_from(u32::from_le_bytes(*length)).ok()? / 4 * 4;
    let texts = rest.get(index..)?.split(|&byte| byte == 0);
    Some(texts.map(<[u8]>::len).max().unwrap_or(0).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn known(step: &Value) -> usize {
        growth(step).unwrap()
    }

    #[test]
    fn growth_multiplies_over_a_row() {
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let space = replace(json!({"String": " "}), "\u{2581}");
        let between = replace(json!({"Regex": "x*"}), "ab");
        let shorter = replace(json!({"String": "``"}), "\"");
        assert_eq!([&space, &between, &shorter].map(known), [3, 3, 1]);
        let row = json!({"type": "Sequence", "normalizers": [&space, {"type": "NFC"}, between, shorter]});
        assert_eq!(known(&row), 27);
        assert_eq!(known(&json!({"type": "Sequence", "decoders": [row]})), 27);
        assert_eq!(growth(&None::<Value>), Ok(1));
        let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
        assert_eq!(known(&prepend), 4);
        assert_eq!(known(&json!({"type": "Sequence", "normalizers": [prepend, space]})), 12);
    }

    #[test]
    fn every_kind_of_step_counts_and_an_unknown_one_is_named() {
        let bytes = |prefix: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "use_regex": false});
        assert_eq!([bytes(false), bytes(true), json!({"type": "ByteLevel"})].map(|step| known(&step)), [2, 4, 2]);
        assert_eq!(known(&json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first"})), 4);
        let suffix = |suffix: &str| known(&json!({"type": "BPEDecoder", "suffix": suffix}));
        assert_eq!((suffix("</w>"), suffix("")), (1, 2));
        let delimiter = |text: &str| known(&json!({"type": "CTC", "pad_token": "x", "word_delimiter_token": text}));
        assert_eq!((delimiter("|"), delimiter("")), (1, 2));
        let map = STANDARD.encode([&4_u32.to_le_bytes()[..], b"tree", b"ab\0abcde\0a\0"].concat());
        assert_eq!(known(&json!({"type": "Precompiled", "precompiled_charsmap": map})), 5);
        assert!(growth(&json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})).is_err());
        assert!(
            growth(&json!({"type": "Sequence", "normalizers": [{"type": "New"}]})).unwrap_err().contains("\"New\"")
        );
        assert!(growth(&json!({"prepend": "a"})).unwrap_err().contains("without a \"type\""));
    }
}
