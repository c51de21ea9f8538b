//! The tables of earlier results come out the same from records.

use std::path::Path;

use super::{means, write, write_csv};
use crate::record::tests::record as record_of;
use crate::record::{RECOVER, Record};

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

/// The columns that both tables have.
fn shared(left: &[Vec<String>], right: &[Vec<String>]) -> [Vec<Vec<String>>; 2] {
    let of = |table: &[Vec<String>], other: &[Vec<String>]| {
        let keep: Vec<usize> = (0..table[0].len()).filter(|i| other[0].contains(&table[0][*i])).collect();
        table.iter().map(|line| keep.iter().map(|i| line[*i].clone()).collect()).collect()
    };
    [of(left, right), of(right, left)]
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
    let count = of("harmful_count").parse().unwrap();
    let mut record = record_of(of("model"), count, of("method"), 0, real("task_score"));
    record.score.interval = (real("task_low"), real("task_high"));
    let judged = &mut record.judges[0];
    let rate = judged.harmful.rate.as_mut().unwrap();
    (rate.rate, rate.interval) = (real("harmful_rate"), (real("harmful_low"), real("harmful_high")));
    rate.n = of("n").parse().unwrap();
    judged.over_refusal.as_mut().unwrap().rate.as_mut().unwrap().rate = real("over_refusal");
    Record {
        task: of("task").to_owned(),
        seed: of("seed").parse().unwrap(),
        variant: of("variant").to_owned(),
        label: of("method").trim_end_matches(char::is_numeric).replace('_', " "),
        restored: of("restored").parse().ok(),
        seconds: real("seconds"),
        evaluation_seconds: real("evaluation_seconds"),
        notes: Some(of("note").to_owned()).filter(|note| !note.is_empty()).into_iter().collect(),
        ..record
    }
}

/// Whether two cells are the same: numbers up to the rounding of sums in another order.
fn is_close(left: &str, right: &str) -> bool {
    match (left.parse::<f64>(), right.parse::<f64>()) {
        (Ok(left), Ok(right)) => left == right || (left - right).abs() <= 1e-12 * left.abs().max(1.0),
        _ => left == right,
    }
}

#[test]
fn rows_and_means_of_earlier_results_come_out_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str| table(&std::fs::read_to_string(dir.path().join(name)).unwrap());
    // Of the means: how many were not recovered, and the share of the task score of the others.
    let sweeps = [
        ("earlier/lab-125", Some((5, 0.9670050314858499))),
        ("smollm2", Some((2, 1.044230715453694))),
        ("smollm2-gate", None),
    ];
    for (sweep, of_recovery) in sweeps {
        let (rows, records) = (kept(&format!("{sweep}.csv")), records(sweep));
        write(&records, dir.path()).unwrap();
        let [left, right] = shared(&made("results.csv"), &rows);
        assert!(left == right && left[0].len() >= 18, "the rows of {sweep}");
        if let Some((not_recovered, share)) = of_recovery {
            let means = means::means(&means::shared(&records).0).unwrap();
            write_csv(&means, &means::columns(), &dir.path().join("means.csv")).unwrap();
            let [left, right] = shared(&made("means.csv"), &kept(&format!("{sweep}-means.csv")));
            let recovery = means.iter().find(|mean| mean.method == RECOVER).unwrap();
            assert_eq!(recovery.not_recovered, not_recovered);
            assert!((recovery.relative.value - share).abs() < 1e-12, "{sweep}: {}", recovery.relative.value);
            // The intervals drew single cells then, and cells that were not recovered were in the share of the task score.
            let stays = |name: &String| !["_low", "_high", "relative"].iter().any(|part| name.contains(part));
            let stays: Vec<usize> = (0..left[0].len()).filter(|i| stays(&left[0][*i])).collect();
            assert!(stays.len() >= 7);
            let is_same =
                |(left, right): (&Vec<String>, &Vec<String>)| stays.iter().all(|&i| is_close(&left[i], &right[i]));
            let same = left.iter().zip(&right).all(is_same);
            assert!(left.len() == right.len() && same, "{sweep}: {left:?} {right:?}");
        }
    }
}
