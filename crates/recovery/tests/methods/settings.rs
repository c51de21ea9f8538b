//! Settings are the same in JSON and on the command line, whole, and methods have one word in both.

use clap::{CommandFactory as _, Parser};
use recovery::{Inputs, Method, Needs};
use serde_json::{Map, Value, json};

use crate::resta::models;
use crate::strong::Golden;
use crate::{Fixture, go_on};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    method: Method,
}

/// The methods with their default settings.
fn all() -> Vec<Method> {
    Method::WORDS.iter().map(|word| Method::from_settings(word, Value::Null).unwrap()).collect()
}

/// A value that is not a setting's default: one of those that the command line lists, or the first that the method takes.
fn another(method: &Method, key: &str, default: &Value) -> Value {
    let mut cli = Cli::command();
    let subcommand = cli.find_subcommand_mut(method.word()).unwrap();
    let argument = subcommand.get_arguments().find(|argument| argument.get_id() == key).unwrap();
    let listed = argument.get_possible_values();
    let listed = listed.iter().map(|value| json!(value.get_name()));
    let others = [json!(0.125), json!("2/6"), json!(3), json!(true)];
    let mut fitting = listed.chain(others).filter(|value| value != default);
    let settings = |value: &Value| Method::from_settings(method.word(), json!({key: value}));
    fitting.find(|value| settings(value).is_ok()).unwrap_or_else(|| panic!("{}: no other `{key}`", method.word()))
}

#[test]
fn every_setting_is_in_the_json_and_on_the_command_line() {
    for method in all() {
        let word = method.word();
        let defaults = serde_json::to_value(&method).unwrap()[word].clone();
        let debug = format!("{method:#?}");
        let fields = debug.lines().filter_map(|line| line.strip_prefix("        ")?.split_once(": "));
        let fields = fields.map(|(name, _)| name).filter(|name| !name.starts_with(' '));
        let settings: Map<_, _> = fields.map(|key| (key.to_owned(), another(&method, key, &defaults[key]))).collect();
        let arguments = Cli::command().find_subcommand(word).unwrap().get_arguments().count();
        assert_eq!(settings.len(), arguments, "{word}");
        let changed = Method::from_settings(word, Value::Object(settings.clone())).unwrap();
        assert_eq!(serde_json::to_value(&changed).unwrap()[word], Value::Object(settings.clone()));
        let arguments = settings.iter().map(|(key, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            format!("--{}={value}", key.replace('_', "-"))
        });
        let arguments = ["realign".to_owned(), word.to_owned()].into_iter().chain(arguments);
        assert_eq!(Cli::try_parse_from(arguments).unwrap().method, changed, "{word}");
    }
}

#[test]
fn every_word_round_trips_and_an_unknown_one_lists_them() {
    for &word in Method::WORDS {
        let method = Method::from_settings(word, Value::Null).unwrap();
        assert_eq!(method.word(), word);
        assert!(!method.label().is_empty());
        assert_eq!(serde_json::to_value(&method).unwrap().as_object().unwrap().keys().next().unwrap(), word);
        assert_eq!(serde_json::from_value::<Method>(serde_json::to_value(&method).unwrap()).unwrap(), method);
        assert_eq!(Cli::try_parse_from(["realign", word]).unwrap().method, method, "the same defaults");
        let help = Cli::command().find_subcommand_mut(word).unwrap().render_long_help().to_string();
        assert!(!help.contains('#'), "{help}");
    }
    let error = Method::from_settings("unheard_of", json!({})).unwrap_err().to_string();
    assert!(error.contains("`unheard_of`") && Method::WORDS.iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn a_wrong_setting_is_named() {
    let message = |word, settings| Method::from_settings(word, settings).unwrap_err().to_string();
    let error = message("resta", json!({"gama": 1}));
    assert!(error.contains("`resta`") && error.contains("gama") && error.contains("`gamma`"), "{error}");
    assert!(message("recover", json!({"layer": "7/6"})).contains("7/6"));
    assert!(message("recover", json!({"ties": "none"})).contains("`strict`"));
    for (word, key, value) in
        [("recover", "rate", 1.5), ("recover", "rate", 0.0), ("strong", "cap", 0.0), ("strong", "rate", -1.0)]
    {
        assert!(message(word, json!({key: value})).contains(&format!("`{key}`: {value} is not above 0")));
    }
    for (key, value) in [("metric_drop", -0.1), ("rollback_rate", 2.0)] {
        assert!(message("recover", json!({key: value})).contains(&format!("`{key}`: {value} is not between")));
    }
    for key in ["steps", "warmup", "save_every", "batch"] {
        assert!(message("recover", json!({key: 0})).contains(&format!("`{key}`: 0 is too few")));
    }
    assert!(message("random", json!({"batch": 0})).contains("`batch`"));
    assert!(message("interpolation", json!({"lambda": 1.1})).contains("`lambda`: 1.1"));
    for (word, key, value) in [("antidote", "ratio", 1.5), ("irr", "sparsity", -0.5)] {
        assert!(message(word, json!({key: value})).contains(&format!("`{key}`: {value} is not between")));
    }
    for (word, key) in [("distill", "learning_rate"), ("distill", "lambda"), ("safe_delta", "scale")] {
        assert!(message(word, json!({key: -1.0})).contains(&format!("`{key}`: -1 is not a number of 0 or more")));
    }
    for (word, key) in [("distill", "steps"), ("distill", "drawn"), ("safe_delta", "block"), ("irr", "block")] {
        assert!(message(word, json!({key: 0})).contains(&format!("`{key}`: 0 is too few")));
    }
    assert!(message("resta", json!({"dare": 1.0})).contains("`dare`: 1 is not"));
    assert!(message("resta", json!({"rank": 0})).contains("`rank`: 0 is too few"));
    assert!(message("safe_lora", json!({"threshold": 1.5})).contains("`threshold`: 1.5 is not between"));
    assert!(message("safe_merge", json!({"weight": 2.0})).contains("`weight`: 2 is not between"));
}

#[test]
fn a_missing_input_is_named_with_the_method() {
    let fixture = Fixture::read();
    let lack = |word: &str, settings: Value, what: &str| {
        let method = Method::from_settings(word, settings).unwrap();
        let inputs = Inputs::new(&fixture.aligned, &fixture.tuned, go_on());
        let error = method.repair().apply(inputs).unwrap_err().to_string();
        assert!(error.contains(&format!("`{word}` needs {what}")), "{error}");
        method.repair().needs()
    };
    let needs = Needs::default();
    let recover = lack("recover", json!({}), "recovery prompts");
    assert_eq!(recover, Needs { prompts: true, task_prompts: true, ..needs });
    assert_eq!(lack("resta", json!({}), "an unaligned model"), Needs { unaligned: true, ..needs });
    let evidence = Needs { evidence: true, ..needs };
    for word in ["strong", "distill", "antidote", "safe_delta"] {
        assert_eq!(lack(word, json!({}), "harmful, harmless and task prompts with answers"), evidence);
    }
    let needed = lack("irr", json!({}), "harmful, harmless and task prompts with answers");
    assert_eq!(needed, Needs { unaligned: true, ..evidence });
    assert_eq!(lack("safe_lora", json!({}), "the model before alignment"), Needs { base: true, ..needs });
    assert_eq!(lack("safe_merge", json!({}), "a safe model"), Needs { base: true, safe: true, ..needs });
    let recovery = Needs { recovery: true, ..needs };
    assert_eq!(lack("largest_difference", json!({}), "a number of weights"), recovery);
    assert_eq!(lack("random", json!({}), "recovery prompts"), Needs { prompts: true, ..recovery });
    for (word, settings) in [("recover", json!({"rollback": "on"})), ("random", json!({}))] {
        let method = Method::from_settings(word, settings).unwrap();
        let prompts = fixture.rows("recovery_rows");
        let inputs = Inputs { prompts, ..Inputs::new(&fixture.aligned, &fixture.tuned, go_on()) };
        let error = method.repair().apply(inputs).unwrap_err().to_string();
        assert!(error.contains("task's training prompts") || error.contains("a number of weights"), "{error}");
    }
    let off = Method::from_settings("recover", json!({"rollback": "off"})).unwrap();
    assert_eq!(off.repair().needs(), Needs { prompts: true, ..needs });
}

#[test]
fn a_method_has_a_patch_if_it_says_so() {
    let ([tuned, aligned, unaligned], fixture) = (models(), Fixture::read());
    let evidence = Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}));
    for &word in Method::WORDS {
        let method = Method::from_settings(word, Value::Null).unwrap();
        let inputs = Inputs {
            unaligned: Some(&unaligned),
            base: Some(&unaligned),
            safe: Some(&aligned),
            prompts: fixture.rows("recovery_rows"),
            task_prompts: fixture.rows("task_rows"),
            recovered: Some(7),
            evidence: Some(&evidence),
            ..Inputs::new(&aligned, &tuned, go_on())
        };
        let repaired = method.repair().apply(inputs).unwrap();
        assert_eq!(method.repair().has_patch(), repaired.path.is_some(), "{word}");
    }
}

#[test]
fn a_layer_that_the_model_lacks_is_an_error() {
    let fixture = Fixture::read();
    let method = Method::from_settings("full_revert", json!({"layer": 99})).unwrap();
    let error = method.repair().apply(fixture.inputs(go_on())).unwrap_err().to_string();
    assert!(error.contains("direction layer 99"), "{error}");
}
