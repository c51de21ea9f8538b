//! The NL2Bash score agrees with a reference on the project's own pairs (`scripts/goldens/nl2bash_pairs.py`), and with
//! the released score on real pairs that stay outside the repository.
#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use evaluation::metrics::nl2bash_pair;
use serde_json::Value;

/// Difference from the released score that is agreement (issue 3).
const TOLERANCE: f64 = 0.01;

/// The number of pairs, and the lines whose score is off.
fn compare(text: &str, tolerance: f64) -> (usize, Vec<(usize, f64, f64)>) {
    let mut wrong = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let pair: Value = serde_json::from_str(line).unwrap();
        let got = nl2bash_pair(pair["reference"].as_str().unwrap(), pair["response"].as_str().unwrap());
        let want = pair["score"].as_f64().unwrap();
        if (got - want).abs() > tolerance {
            wrong.push((index + 1, got, want));
        }
    }
    (text.lines().count(), wrong)
}

#[test]
fn own_pairs_agree_with_the_reference() {
    let (n, wrong) = compare(include_str!("fixtures/nl2bash.jsonl"), 1e-9);
    assert!(n >= 30, "{n} pairs");
    assert!(wrong.is_empty(), "line, score, expected: {wrong:?}");
}

/// The four that differ: an argument count and a value that the released parser refuses (lines 12, 294), a backslash
/// at the end that the grammar refuses (85), a flag that the released parser does not know (354).
#[test]
#[ignore = "needs ../shared/golden"]
fn real_pairs_agree_with_the_released_score_but_for_four() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden/nl2bash.jsonl");
    let text = fs::read_to_string(path).unwrap();
    let (n, wrong) = compare(&text, TOLERANCE);
    assert_eq!(n, 600);
    println!("{} of {n} agree; line, score, released: {wrong:?}", n - wrong.len());
    let lines: Vec<usize> = wrong.iter().map(|(line, ..)| *line).collect();
    assert_eq!(lines, [12, 85, 294, 354], "{wrong:?}");
}
