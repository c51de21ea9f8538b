//! How much longer the replacements that a tokenizer.json asks for can make a text: each is harmless, a row of them is not.

use serde::Serialize;
use serde_json::Value;

/// How many times longer a text can become by a normaliser or decoder. What a `precompiled_charsmap` writes is not
/// counted, nor are the few characters that Unicode's own forms add.
pub(crate) fn growth(steps: &impl Serialize) -> usize {
    serde_json::to_value(steps).map_or(1, |steps| of(&steps))
}

fn of(step: &Value) -> usize {
    let rows = ["normalizers", "decoders"].into_iter().filter_map(|key| step[key].as_array()).flatten();
    // Files without types are read, too.
    let own = match (step.get("pattern"), step["prepend"].as_str()) {
        (Some(_), _) => replaced(step),
        // Once for each part of a text between added tokens, which may be as short as they are.
        (None, Some(prepend)) => prepend.len().saturating_add(1),
        (None, None) => 1,
    };
    rows.map(of).fold(own, usize::saturating_mul)
}

/// Bytes of the new text for each of the old; a regular expression may find nothing between any two characters.
fn replaced(step: &Value) -> usize {
    let content = step["content"].as_str().unwrap_or_default().len();
    match step["pattern"]["String"].as_str().filter(|pattern| !pattern.is_empty()) {
        Some(pattern) => content.div_ceil(pattern.len()).max(1),
        None => content + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn growth_multiplies_over_a_row() {
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let space = replace(json!({"String": " "}), "\u{2581}");
        let between = replace(json!({"Regex": "x*"}), "ab");
        let shorter = replace(json!({"String": "``"}), "\"");
        assert_eq!([&space, &between, &shorter].map(growth), [3, 3, 1]);
        let row = json!({"type": "Sequence", "normalizers": [&space, {"type": "NFC"}, between, shorter]});
        assert_eq!(growth(&row), 9);
        assert_eq!(growth(&json!({"type": "Sequence", "decoders": [row]})), 9);
        assert_eq!(growth(&None::<Value>), 1);
        let prepend = json!({"type": "Prepend", "prepend": "\u{2581}"});
        assert_eq!(growth(&prepend), 4);
        assert_eq!(growth(&json!({"type": "Sequence", "normalizers": [prepend, space]})), 12);
    }
}
