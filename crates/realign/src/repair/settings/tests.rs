//! Settings from YAML.

use serde_yaml::Value;

use super::*;

#[test]
fn the_template_has_every_key_with_its_default_and_a_comment() {
    let template = template();
    assert_eq!(Settings::parse(&template).unwrap(), Settings::default());
    let keys = |value: &Value| -> Vec<String> {
        let mut open = vec![value.clone()];
        let mut found = Vec::new();
        while let Some(value) = open.pop() {
            for (key, value) in value.as_mapping().into_iter().flatten() {
                found.push(key.as_str().unwrap().to_owned());
                open.push(value.clone());
            }
        }
        found.sort();
        found
    };
    let default = serde_yaml::to_value(Settings::default()).unwrap();
    assert_eq!(keys(&serde_yaml::from_str(&template).unwrap()), keys(&default));
    let bare = template.lines().find(|line| !line.trim().is_empty() && !line.contains('#'));
    assert_eq!(bare, None, "a line without a comment");
}

#[test]
fn keys_that_are_left_out_have_their_defaults_at_every_depth() {
    let settings = Settings::parse("strong: {lambda: 1.0}\nseed: 4\ntask: t.jsonl\n# nothing else").unwrap();
    let strong = Strong { lambda: 1.0, ..Settings::default().strong };
    assert_eq!(settings, Settings { strong, seed: 4, task: Some("t.jsonl".into()), ..Settings::default() });
    assert_eq!(Settings::parse("").unwrap(), Settings::default());
    assert!(Settings::parse("harmfull: x").is_err() && Settings::parse("strong: {lamda: 1}").is_err());
    assert!(Settings::parse("[1]").is_err());
    let error = |yaml: &str| Settings::parse(yaml).unwrap_err().to_string();
    let wrong = error("seed: 2\nstrong:\n  rate: '0.001'\n");
    assert!(wrong.contains("strong.rate") && wrong.contains("line 3"), "{wrong}");
    assert!(error("merit: {mu: 1, mi: 2}").contains("merit: unknown field `mi`"));
}

#[test]
fn a_reference_has_the_words_of_the_flag() {
    for (word, reference) in
        [("aligned", Reference::Aligned), ("fine_tuned", Reference::FineTuned), ("finetuned", Reference::FineTuned)]
    {
        assert_eq!(Settings::parse(&format!("reference: {word}")).unwrap().reference, reference, "{word}");
        assert_eq!(<Reference as clap::ValueEnum>::from_str(word, false).unwrap(), reference, "{word}");
    }
}

#[test]
fn a_setting_out_of_its_range_is_named() {
    let message = |yaml: &str| {
        let settings = Settings::parse(yaml).unwrap();
        settings.check().err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(message("seed: 2"), "");
    assert!(message("parts: {test: 0}").contains("parts.test is 0"));
    assert!(message("gate: {max_harmful: 2}").contains("gate.max_harmful is 2"));
    assert!(message("strong: {rate: 7}").contains("rate"));
}
