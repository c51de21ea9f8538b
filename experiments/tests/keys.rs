//! A stage's key holds every setting that decides what the stage makes: each field of each setting is changed, and the key
//! must change with it. No method, field or word is listed here: what a field may hold instead, its own errors say.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use evaluation::judge::format::JudgeFormat;
use evaluation::judge::http_settings::{HttpSettings, LimitKey};
use evaluation::judge::settings::{GuardSettings, RefusalSettings};
use files::Hashes;
use finetune::{AlignSettings, SoftSftSettings, TrainSettings};
use realign::stage::{
    Align, Attack, Attacked, Divergence, Evaluate, Finetune, Gate, Judge, Objective, Question, Repair, TrainingSet,
};
use realign::{Artifact, Evidence, Parts, Pick, Samples, Stage};
use recovery::{MeritSettings, Method, Reference, Strong};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The key of what is made of a value, or why nothing can be made of it.
type Key<'a> = dyn Fn(Value) -> Result<String, String> + 'a;

/// A value with another field, or with one more.
fn with(value: &Value, path: &str, field: Value) -> Value {
    let (parent, name) = path.rsplit_once('/').unwrap();
    let mut value = value.clone();
    value.pointer_mut(parent).unwrap()[name] = field;
    value
}

/// The words between backticks in an error: what would be right.
fn words(error: &str) -> impl Iterator<Item = String> + '_ {
    error.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The paths of all fields below `at`; those that a value leaves out where they have their default are among them.
fn fields(value: &Value, at: &str, key: &Key<'_>) -> Vec<String> {
    let Some(object) = value.pointer(at).and_then(Value::as_object) else { return vec![at.to_owned()] };
    let mut names: BTreeSet<String> = object.keys().cloned().collect();
    if let Err(error) = key(with(value, &format!("{at}/?"), Value::Null))
        && error.starts_with("unknown field")
    {
        names.extend(words(&error).filter(|word| word != "?"));
    }
    names.iter().flat_map(|name| fields(value, &format!("{at}/{name}"), key)).collect()
}

/// The key with another value of a field, which is another one of those that the field takes.
fn changed(value: &Value, path: &str, key: &Key<'_>) -> String {
    let of = |field: Value| key(with(value, path, field));
    let others: Vec<Value> = match value.pointer(path) {
        None | Some(Value::Null) => vec![1.into(), 0.5.into(), true.into(), "?".into(), json!(["?"])],
        Some(Value::Bool(yes)) => vec![(!yes).into()],
        Some(Value::Number(number)) => match number.as_u64() {
            Some(number) => vec![(number + 1).into()],
            None => vec![(number.as_f64().unwrap() + 0.125).into()],
        },
        Some(Value::Array(items)) if items[0].is_number() => {
            vec![items.iter().map(|item| item.as_f64().unwrap() / 2.0).collect(), items[1..].to_vec().into()]
        }
        Some(Value::Array(items)) => vec![items[1..].to_vec().into()],
        Some(Value::String(word)) => {
            let known = of("?".into()).err().unwrap_or_default();
            let known = words(&known).filter(|known| known != word).map(Value::from);
            ["?".into(), "3/6".into()].into_iter().chain(known).collect()
        }
        Some(Value::Object(_)) => unreachable!("has fields of its own"),
    };
    let found = others.into_iter().find_map(|field| of(field).ok());
    found.unwrap_or_else(|| panic!("{path}: no other value is known"))
}

/// Checks that every field is in the key, but for those of `free`, which decide nothing; how many fields there are.
fn check(what: &str, value: &Value, free: &[&str], key: &Key<'_>) -> usize {
    let before = key(value.clone()).unwrap();
    let mut keys = BTreeSet::from([before.clone()]);
    let fields = fields(value, "", key);
    for path in &fields {
        let found = changed(value, path, key);
        if free.contains(&path.as_str()) {
            assert_eq!(found, before, "{what}: {path} is in the key");
        } else {
            assert!(keys.insert(found), "{what}: {path} is not in the key");
        }
    }
    assert!(free.iter().all(|free| fields.iter().any(|path| path == free)), "{what}: {free:?}, {fields:?}");
    fields.len()
}

/// A field of a value as what it is.
fn field<T: DeserializeOwned>(value: &Value, name: &str) -> Result<T, String> {
    serde_json::from_value(value[name].clone()).map_err(|error| error.to_string())
}

/// The samples whose content a field has.
fn samples(value: &Value, name: &str) -> Result<Samples, String> {
    Ok(Samples { file: "nowhere".into(), content: field(value, name)?, pick: Pick::default() })
}

fn artifact() -> Artifact {
    Artifact { key: "k".into(), path: "nowhere".into() }
}

fn key_of(stage: &impl Stage) -> Result<String, String> {
    stage.key().map_err(|error| error.to_string())
}

fn finetuned(settings: TrainSettings, objective: Objective) -> Result<String, String> {
    let data = TrainingSet::default();
    let (model, kind) = (artifact(), "finetune");
    key_of(&Finetune { model, data, objective, settings, seed: 1, dtype: None, kind })
}

fn repair(method: Method) -> Repair {
    Repair {
        method,
        aligned: artifact(),
        fine_tuned: artifact(),
        unaligned: None,
        base: None,
        safe: None,
        recovery: None,
        prompts: None,
        task: None,
        evidence: None,
        answers: None,
        choose: None,
        gate: None,
        seed: 1,
        dtype: None,
        thinking: None,
        probe: 0,
    }
}

fn parsed<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn every_setting_of_every_training_is_in_the_key() {
    let settings = TrainSettings { only: vec!["norm".into(), "layers.1.".into()], ..TrainSettings::default() };
    let trained = check("finetune", &json!(settings), &[], &|value| finetuned(parsed(value)?, Objective::Sft));
    assert!(trained > 12, "{trained} fields");
    check("soft_sft", &json!(SoftSftSettings::default()), &[], &|value| {
        let settings = parsed(value)?;
        finetuned(TrainSettings::default(), Objective::SoftSft { settings, references: vec![artifact()] })
    });
    let evading = json!({"prompts": "a", "layer": "4/6", "weight": 1.0});
    check("evading", &evading, &[], &|value| {
        let (prompts, layer, weight) = (samples(&value, "prompts")?, field(&value, "layer")?, field(&value, "weight")?);
        finetuned(TrainSettings::default(), Objective::Evading { prompts: Box::new(prompts), layer, weight })
    });
    let align = json!({"settings": AlignSettings::default(), "refusals": "a", "refusal_texts": ["no"], "helpful": "b",
        "helpful_max_new_tokens": 4, "seed": 1});
    let aligned = check("align", &align, &[], &|value| {
        key_of(&Align {
            model: artifact(),
            refusals: samples(&value, "refusals")?,
            refusal_texts: field(&value, "refusal_texts")?,
            helpful: vec![samples(&value, "helpful")?],
            helpful_max_new_tokens: field(&value, "helpful_max_new_tokens")?,
            settings: field(&value, "settings")?,
            seed: field(&value, "seed")?,
            dtype: None,
        })
    });
    assert!(aligned > trained, "{aligned} fields");
}

#[test]
fn every_setting_of_every_method_is_in_the_key() {
    let fields = Method::WORDS.iter().map(|&word| {
        let method = Method::from_settings(word, Value::Null).unwrap();
        let settings = json!(method)[word].clone();
        check(word, &settings, &[], &|value| key_of(&repair(parsed(json!({ word: value }))?)))
    });
    assert!(fields.sum::<usize>() > 2 * Method::WORDS.len());
}

#[test]
fn all_that_decides_about_a_repair_is_in_the_key() {
    let parts = |kind: &str| json!({"train": kind, "held_out": format!("{kind} held out")});
    let evidence = json!({"harmful": parts("harmful"), "harmless": parts("harmless"), "task": parts("task"),
        "max_new_tokens": 4, "reference": Reference::Aligned, "merit": MeritSettings::default(), "screen": true});
    check("evidence", &evidence, &[], &|value| {
        let parts = |kind: &str| -> Result<Parts, String> {
            Ok(Parts { train: samples(&value[kind], "train")?, held_out: samples(&value[kind], "held_out")? })
        };
        let evidence = Evidence {
            harmful: parts("harmful")?,
            harmless: parts("harmless")?,
            task: Some(parts("task")?),
            max_new_tokens: field(&value, "max_new_tokens")?,
            reference: field(&value, "reference")?,
            merit: field(&value, "merit")?,
            screen: field(&value, "screen")?,
        };
        key_of(&Repair { evidence: Some(evidence), ..repair(Strong::default().into()) })
    });
    check("gate", &json!({"samples": "a", "metric": "rouge", "max_new_tokens": 4}), &[], &|value| {
        let (samples, metric) = (samples(&value, "samples")?, field(&value, "metric")?);
        let gate = Gate { samples, metric, max_new_tokens: field(&value, "max_new_tokens")? };
        key_of(&Repair { gate: Some(gate), ..repair(Strong::default().into()) })
    });
}

#[test]
fn every_setting_of_every_attack_is_in_the_key() {
    let attacked = |value: &Value, attack| {
        key_of(&Attacked {
            model: artifact(),
            attack,
            kind: field(value, "kind")?,
            samples: samples(value, "asked")?,
            max_new_tokens: field(value, "max_new_tokens")?,
            phrases: Value::Null,
            dtype: None,
        })
    };
    let of = |attack: Value| json!({"asked": "a", "kind": "harmful", "max_new_tokens": 4, "attack": attack});
    check("prefill", &of(json!({"text": "Sure"})), &[], &|value| {
        attacked(&value, Attack::Prefill { text: field(&value["attack"], "text")? })
    });
    check("harmful start", &of(json!({"answers": "b", "tokens": 4})), &[], &|value| {
        let attack = &value["attack"];
        attacked(
            &value,
            Attack::HarmfulStart { answers: samples(attack, "answers")?, tokens: field(attack, "tokens")? },
        )
    });
    let sampling = json!({"sampling": {"temperature": 0.5, "top_p": 0.9}, "draws": 8, "seed": 1});
    check("sampling", &of(sampling), &[], &|value| {
        let attack = &value["attack"];
        let (sampling, draws) = (field(attack, "sampling")?, field(attack, "draws")?);
        attacked(&value, Attack::Sampling { sampling, draws, seed: field(attack, "seed")? })
    });
    check("ablation", &of(json!({"harmful": "b", "harmless": "c", "layer": "4/6"})), &[], &|value| {
        let attack = &value["attack"];
        let (harmful, harmless) = (samples(attack, "harmful")?, samples(attack, "harmless")?);
        attacked(&value, Attack::Ablation { harmful, harmless, layer: field(attack, "layer")? })
    });
    let retraining = json!({"task": "b", "settings": TrainSettings::default(), "steps": [2, 4], "seed": 1});
    check("retraining", &of(retraining), &[], &|value| {
        let attack = &value["attack"];
        let data = TrainingSet { task: Some(samples(attack, "task")?), ..TrainingSet::default() };
        let (settings, steps) = (field(attack, "settings")?, field(attack, "steps")?);
        attacked(&value, Attack::Retraining { data, settings, steps, seed: field(attack, "seed")? })
    });
}

#[test]
fn what_is_asked_and_how_it_is_scored_is_in_the_key() {
    let question = json!({"asked": {"name": "task", "aim": {"task": ["f1", "rouge"]}}, "samples": "a",
        "max_new_tokens": 4, "phrases": "p"});
    check("evaluate", &question, &[], &|value| {
        let (asked, samples) = (field(&value, "asked")?, samples(&value, "samples")?);
        let question = Question { asked, samples, max_new_tokens: field(&value, "max_new_tokens")? };
        let phrases = field(&value, "phrases")?;
        key_of(&Evaluate { model: artifact(), questions: vec![question], phrases, dtype: None })
    });
}

#[test]
fn what_a_model_is_compared_by_is_in_the_key() {
    let asked = json!({"name": "harmless", "aim": {"prompts": "harmless"}});
    let compared = json!({"model": "a", "fine_tuned": "b", "answers": "c", "asked": asked, "max_new_tokens": 4});
    check("divergence", &compared, &[], &|value| {
        let (asked, max_new_tokens) = (field(&value, "asked")?, field(&value, "max_new_tokens")?);
        let of = |name| Ok::<_, String>(Artifact { key: field(&value, name)?, path: "nowhere".into() });
        let (model, fine_tuned, answers) = (of("model")?, of("fine_tuned")?, of("answers")?);
        let samples = Samples { file: "nowhere".into(), content: String::new(), pick: Pick::default() };
        key_of(&Divergence { model, fine_tuned, answers, asked, samples, max_new_tokens })
    });
}

fn format() -> Value {
    json!({"name": "g", "source": "own", "licence": "own", "template": "{{ prompt }}", "max_new_tokens": 2,
        "labels": {"after": "Harm:", "words": {"yes": "unsafe", "no": "safe"}},
        "probability": {"after": "Harm:", "unsafe": ["yes"], "safe": ["no"]}})
}

fn judged(judge: &evaluation::Judge) -> Result<String, String> {
    let stage = Judge::new(judge, artifact(), Vec::new(), &Hashes::default());
    key_of(&stage.map_err(|error| error.to_string())?)
}

#[test]
fn what_decides_a_judges_verdicts_is_in_the_key_and_its_name_place_and_speed_are_not() {
    let refusal = RefusalSettings { name: "phrases".into(), broken_rule: true, window: 60 };
    check("refusal", &json!(refusal), &["/name"], &|value| judged(&evaluation::Judge::Refusal(parsed(value)?)));

    let dir = tempfile::tempdir().unwrap();
    let own = |dir: &Path, weights: &str| fs::write(dir.join("model.safetensors"), weights).unwrap();
    let guard = GuardSettings {
        name: "guard".into(),
        model: "guards/g".into(),
        format: "g.yaml".into(),
        batch: 4,
        broken_rule: true,
    };
    let format_says = ["/format/name", "/format/source", "/format/licence"];
    let free = ["/settings/name", "/settings/model", "/settings/format", "/settings/batch"];
    let value = json!({"settings": guard, "format": format(), "weights": "one"});
    check("guard", &value, &[&free[..], &format_says].concat(), &|value| {
        own(dir.path(), &field::<String>(&value, "weights")?);
        let settings = GuardSettings { model: dir.path().to_owned(), ..field(&value, "settings")? };
        judged(&evaluation::Judge::Guard(settings, field::<JudgeFormat>(&value, "format")?))
    });

    let http = HttpSettings {
        name: "endpoint".into(),
        base_url: "http://localhost/v1".into(),
        model: "judge".into(),
        format: "g.yaml".into(),
        api_key_env: Some("KEY".into()),
        concurrency: 4,
        retries: 5,
        backoff_seconds: 1.5,
        requests_per_minute: Some(7.5),
        temperature: Some(0.5),
        limit_key: LimitKey::MaxTokens,
        timeout_seconds: 7.5,
        broken_rule: true,
    };
    let of_requests = ["api_key_env", "concurrency", "retries", "backoff_seconds", "requests_per_minute", "limit_key"];
    let free = ["name", "format", "timeout_seconds"].iter().chain(&of_requests).map(|name| format!("/settings/{name}"));
    let free: Vec<String> = free.collect();
    let free: Vec<&str> = free.iter().map(String::as_str).chain(format_says).collect();
    check("http", &json!({"settings": http, "format": format()}), &free, &|value| {
        judged(&evaluation::Judge::Http(field(&value, "settings")?, field(&value, "format")?))
    });
}
