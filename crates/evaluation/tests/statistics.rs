//! F1 and the statistics against scikit-learn, statsmodels and scipy (scripts/goldens/evaluation.py).
#![allow(clippy::unwrap_used)]

use evaluation::{
    Answer, Metric, Verdict,
    metrics::F1Details,
    statistics::{BootstrapSettings, Estimate, agreement, bootstrap_mean, mcnemar, paired_bootstrap, spread, wilson},
};
use serde::{Deserialize, de::DeserializeOwned};

const TOLERANCE: f64 = 1e-9;

/// The rows of one part of the fixture.
fn golden<T: DeserializeOwned>(part: &str) -> T {
    let all: serde_json::Value = serde_json::from_str(include_str!("fixtures/statistics.json")).unwrap();
    serde_json::from_value(all[part].clone()).unwrap()
}

#[track_caller]
fn near(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "{got} is not {expected} within {tolerance}");
}

#[test]
fn wilson_intervals_agree_with_statsmodels() {
    #[derive(Deserialize)]
    struct Row {
        k: usize,
        n: usize,
        interval: (f64, f64),
    }
    for row in golden::<Vec<Row>>("wilson") {
        let (low, high) = wilson(row.k, row.n);
        near(low, row.interval.0, TOLERANCE);
        near(high, row.interval.1, TOLERANCE);
    }
}

#[test]
fn mcnemar_agrees_with_statsmodels() {
    #[derive(Deserialize)]
    struct Row {
        left_only: usize,
        right_only: usize,
        p: f64,
    }
    for row in golden::<Vec<Row>>("mcnemar") {
        let outcomes = |only: bool| -> Vec<bool> {
            let counts = [(true, 5), (only, row.left_only), (!only, row.right_only), (false, 7)];
            counts.into_iter().flat_map(|(outcome, n)| std::iter::repeat_n(outcome, n)).collect()
        };
        let test = mcnemar(&outcomes(true), &outcomes(false)).unwrap();
        assert_eq!((test.left_only, test.right_only), (row.left_only, row.right_only));
        near(test.p_value, row.p, TOLERANCE);
        near(test.p_value / row.p, 1.0, TOLERANCE);
    }
}

#[test]
fn kappa_and_table_agree_with_scikit_learn() {
    #[derive(Deserialize)]
    struct Row {
        left: Vec<Verdict>,
        right: Vec<Verdict>,
        kappa: f64,
        table: [[usize; 3]; 3],
    }
    for row in golden::<Vec<Row>>("kappa") {
        let found = agreement(&row.left, &row.right).unwrap();
        assert_eq!(found.table, row.table);
        near(found.kappa.unwrap(), row.kappa, TOLERANCE);
    }
}

#[test]
fn f1_agrees_with_scikit_learn_where_no_label_is_a_third_class() {
    #[derive(Deserialize)]
    struct Row {
        reference: Vec<String>,
        response: Vec<String>,
        f1: f64,
        precision: f64,
        recall: f64,
        accuracy: f64,
        counts: [[usize; 3]; 2],
    }
    for row in golden::<Vec<Row>>("f1") {
        let answer = |(response, reference): (&String, &String)| Answer {
            response: response.clone(),
            reference: Some(reference.clone()),
            ..Answer::default()
        };
        let answers: Vec<Answer> = row.response.iter().zip(&row.reference).map(answer).collect();
        let score = Metric::F1.score(&answers).unwrap();
        let details: F1Details = serde_json::from_value(score.details.unwrap()).unwrap();
        near(score.value, row.f1, TOLERANCE);
        near(details.precision, row.precision, TOLERANCE);
        near(details.recall, row.recall, TOLERANCE);
        near(details.accuracy, row.accuracy, TOLERANCE);
        near(score.per_sample.iter().sum::<f64>() / answers.len() as f64, row.accuracy, TOLERANCE);
        let counts = [
            [details.true_positives, details.false_negatives, details.unparsable_1],
            [details.false_positives, details.true_negatives, details.unparsable_0],
        ];
        assert_eq!(counts, row.counts);
    }
}

#[test]
fn mean_and_spread_agree_with_numpy() {
    #[derive(Deserialize)]
    struct Row {
        values: Vec<f64>,
        mean: f64,
        sd: f64,
    }
    for row in golden::<Vec<Row>>("spread") {
        let found = spread(&row.values).unwrap();
        near(found.mean, row.mean, TOLERANCE);
        near(found.sd.unwrap(), row.sd, TOLERANCE);
    }
}

#[test]
fn bootstrap_intervals_agree_with_scipy_within_the_monte_carlo_error() {
    #[derive(Deserialize)]
    struct Expected {
        value: f64,
        interval: (f64, f64),
        tolerance: f64,
    }
    #[derive(Deserialize)]
    struct Row {
        left: Vec<f64>,
        right: Vec<f64>,
        mean: Expected,
        difference: Expected,
    }
    let check = |found: Estimate, expected: Expected| {
        near(found.value, expected.value, TOLERANCE);
        near(found.interval.0, expected.interval.0, expected.tolerance);
        near(found.interval.1, expected.interval.1, expected.tolerance);
        let width = expected.interval.1 - expected.interval.0;
        assert!(expected.tolerance < 0.15 * width, "the tolerance says nothing");
    };
    let settings = BootstrapSettings::default();
    for row in golden::<Vec<Row>>("bootstrap") {
        check(bootstrap_mean(&row.left, &settings).unwrap(), row.mean);
        check(paired_bootstrap(&row.left, &row.right, &settings).unwrap(), row.difference);
    }
}

#[test]
fn a_tiny_paired_bootstrap_has_the_interval_of_all_its_resamples() {
    #[derive(Deserialize)]
    struct Row {
        left: Vec<f64>,
        right: Vec<f64>,
        interval: (f64, f64),
    }
    let row: Row = golden("enumerated");
    for seed in 1..=5 {
        let settings = BootstrapSettings { seed, ..BootstrapSettings::default() };
        let found = paired_bootstrap(&row.left, &row.right, &settings).unwrap();
        near(found.interval.0, row.interval.0, TOLERANCE);
        near(found.interval.1, row.interval.1, TOLERANCE);
    }
}
