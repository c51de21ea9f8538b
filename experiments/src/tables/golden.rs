//! The tables of earlier results come out the same from records.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use serde_json::json;

use super::{means, write, write_csv};
use crate::record::Record;

/// A table of `results/tables` as lines of values, its methods by the names that they have now.
fn table(text: &str) -> Vec<Vec<String>> {
    let name = |word: &str| match word {
        "recovered" => "recover".to_owned(),
        "softsft" => "soft_sft".to_owned(),
        word => word.to_owned(),
    };
    text.lines().map(|line| line.split(',').map(name).collect()).collect()
}

fn kept(name: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/tables").join(name);
    table(&std::fs::read_to_string(path).unwrap())
}

/// The columns of a table that are not named.
fn without(table: Vec<Vec<String>>, names: &[&str]) -> Vec<Vec<String>> {
    let keep: Vec<bool> = table[0].iter().map(|name| !names.contains(&name.as_str())).collect();
    let line =
        |line: Vec<String>| line.into_iter().zip(&keep).filter(|(_, keep)| **keep).map(|(value, _)| value).collect();
    table.into_iter().map(line).collect()
}

/// The records of the rows of a sweep's earlier results.
pub(crate) fn records(sweep: &str) -> Vec<Record> {
    let rows = kept(&format!("{sweep}.csv"));
    rows[1..].iter().map(|row| record(&rows[0], row)).collect()
}

/// The record of a row, without verdicts and samples, which rows do not have.
fn record(names: &[String], row: &[String]) -> Record {
    let of = |name: &str| row[names.iter().position(|known| known == name).unwrap()].trim_matches('"');
    let real = |name: &str| of(name).parse::<f64>().unwrap();
    let whole = |name: &str| of(name).parse::<u64>().ok();
    let scores = |rate: f64, interval: [f64; 2]| {
        let n = whole("n");
        let rate = json!({"rate": rate, "interval": interval, "bounds": interval, "n": n, "unknown": 0,
            "per_category": {}, "verdicts": ""});
        json!({"judge": "refusal", "n": n, "unknown": 0, "failed": 0, "rate": rate})
    };
    let harmful = scores(real("harmful_rate"), [real("harmful_low"), real("harmful_high")]);
    let judged =
        json!({"judge": "refusal", "harmful": harmful, "over_refusal": scores(real("over_refusal"), [0.0, 1.0])});
    let score = json!({"metric": "exact_match", "n": 100, "value": real("task_score"),
        "interval": [real("task_low"), real("task_high")], "per_sample": []});
    let notes: Vec<&str> = Some(of("note")).filter(|note| !note.is_empty()).into_iter().collect();
    let label = of("method").trim_end_matches(char::is_numeric).trim_end_matches('_');
    let record = json!({"model": of("model"), "task": of("task"), "harmful_count": whole("harmful_count"),
        "seed": whole("seed"), "variant": of("variant"), "method": of("method"), "label": label,
        "model_stage": "", "restored": whole("restored"), "seconds": real("seconds"),
        "evaluation_seconds": real("evaluation_seconds"), "judges": [judged], "score": score, "notes": notes});
    serde_json::from_value(record).unwrap()
}

#[test]
fn rows_and_means_of_earlier_results_come_out_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str| table(&std::fs::read_to_string(dir.path().join(name)).unwrap());
    for sweep in ["lab-125", "smollm2", "smollm2-gate"] {
        let (rows, records) = (kept(&format!("{sweep}.csv")), records(sweep));
        write(&records, dir.path()).unwrap();
        let same =
            without(made("results.csv"), &["model_stage", "broken"]) == without(rows, &["safety_stage", "task_stage"]);
        assert!(same, "the rows of {sweep}");
        if sweep != "smollm2-gate" {
            let means = means::means(&means::shared(&records).0).unwrap();
            write_csv(&means, &means::columns(), &dir.path().join("means.csv")).unwrap();
            let new = ["broken", "harmful_worst", "over_refusal_worst", "relative_worst", "meets_all"];
            assert_eq!(without(made("means.csv"), &new), kept(&format!("{sweep}-means.csv")), "{sweep}");
        }
    }
}
