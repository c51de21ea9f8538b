//! Settings are the same in JSON and on the command line, whole, and methods have one word in both.

use clap::{CommandFactory as _, Parser};
use recovery::{
    Antidote, Distill, FullRevert, GradientMode, Inputs, Interpolation, Irr, LargestDifference, Method, Needs,
    Projector, Random, Recover, Resta, Rollback, SafeDelta, SafeLora, SafeMerge, Strong, Ties,
};
use serde_json::{Value, json};

use crate::resta::models;
use crate::strong::Golden;
use crate::{Fixture, go_on};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    method: Method,
}

/// Every field of every method's settings has another value than by default. A new field does not compile without one
/// here.
fn changed() -> Vec<Method> {
    let layer = "2/6".parse().unwrap();
    let recover = Recover {
        rate: 0.1,
        steps: 7,
        warmup: 1,
        save_every: 2,
        metric_drop: 0.5,
        rollback_rate: 0.25,
        rollback: Rollback::On,
        batch: 16,
        layer,
        ties: Ties::Strict,
        gradient: GradientMode::PerStep,
    };
    vec![
        recover.into(),
        Strong { lambda: 1.0, momentum: 0.25, rate: 0.01, cap: 0.5, rounds: 3, patience: 1, tolerance: 0.5, drawn: 7 }
            .into(),
        Distill { steps: 3, learning_rate: 0.25, lambda: 1.0, drawn: 7 }.into(),
        Resta { gamma: -0.5, dare: 0.25, rank: Some(3) }.into(),
        SafeLora { share: 0.5, threshold: Some(0.25), projector: Projector::Exact }.into(),
        SafeMerge { threshold: 0.5, weight: 0.25 }.into(),
        Antidote { ratio: 0.25 }.into(),
        SafeDelta { scale: 0.25, block: 8 }.into(),
        Irr { sparsity: 0.25, block: 8 }.into(),
        Random { count: Some(9), layer, batch: 16 }.into(),
        LargestDifference { count: Some(9), layer }.into(),
        FullRevert { layer }.into(),
        Interpolation { lambda: 0.125 }.into(),
    ]
}

#[test]
fn every_setting_is_in_the_json_and_on_the_command_line() {
    for method in changed() {
        let word = method.word();
        let json = serde_json::to_value(&method).unwrap()[word].clone();
        assert_eq!(Method::from_settings(word, json.clone()).unwrap(), method, "a field is not in the JSON");
        let defaults = serde_json::to_value(Method::from_settings(word, json!({})).unwrap()).unwrap()[word].clone();
        let mut arguments = vec!["realign".to_owned(), word.to_owned()];
        for (key, value) in json.as_object().unwrap() {
            assert_ne!(&defaults[key], value, "{word}: {key}");
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            arguments.push(format!("--{}={value}", key.replace('_', "-")));
        }
        assert_eq!(Cli::try_parse_from(arguments).unwrap().method, method, "{word}");
    }
}

#[test]
fn every_word_round_trips_and_an_unknown_one_lists_them() {
    assert_eq!(Method::WORDS, changed().iter().map(Method::word).collect::<Vec<_>>());
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
