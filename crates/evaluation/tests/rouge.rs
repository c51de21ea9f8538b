//! ROUGE agrees with py-rouge within 1e-6: on the project's own pairs (`scripts/goldens/rouge_pairs.py`), and on 300 real
//! pairs that stay outside the repository.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use evaluation::metrics::rouge_pair;
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;

/// The pairs of a file, and those with a figure that is off, each with its line.
fn compare(text: &str) -> (usize, Vec<String>) {
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let pair: Value = serde_json::from_str(line).unwrap();
        let scores = rouge_pair(pair["reference"].as_str().unwrap(), pair["response"].as_str().unwrap());
        for (name, got) in [("rouge_1", scores.rouge_1), ("rouge_2", scores.rouge_2), ("rouge_l", scores.rouge_l)] {
            for (key, got) in [("p", got.precision), ("r", got.recall), ("f", got.f)] {
                let want = pair[name][key].as_f64().unwrap();
                if (got - want).abs() > TOLERANCE {
                    wrong.push(format!("line {}: {name} {key} is {got}, not {want}", index + 1));
                }
            }
        }
    }
    (text.lines().count(), wrong)
}

#[test]
fn own_pairs_agree_with_py_rouge() {
    let (n, wrong) = compare(include_str!("fixtures/rouge.jsonl"));
    assert!(n >= 30, "{n} pairs");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
#[ignore = "needs ../shared/golden"]
fn real_pairs_agree_with_py_rouge() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/rouge.jsonl");
    let text = fs::read_to_string(path).unwrap();
    let (n, wrong) = compare(&text);
    assert_eq!(n, 300);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
