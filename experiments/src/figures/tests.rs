//! The figures' claims: every series is named, every record is drawn, and the picture is a picture.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::record::tests::record;
use crate::record::{ALIGNED, FINE_TUNED};
use crate::tables::golden;

/// Made-up records, in the manner of a sweep's.
fn records(models: &[&str], counts: &[usize]) -> Vec<Record> {
    let mut records = Vec::new();
    for (i, model) in models.iter().enumerate() {
        let shift = i as f64 * 0.06;
        for (j, &count) in counts.iter().enumerate() {
            let harmful = (20 + 77 * j / counts.len().max(2)).min(97);
            records.push(record(model, count, ALIGNED, 2, 0.02));
            records.push(record(model, count, FINE_TUNED, harmful, 0.22 + shift));
            records.push(record(model, count, RECOVER, 2 + j, 0.20 + shift));
        }
    }
    records
}

/// The vertical places of the discs, which are the recovered models.
fn discs(svg: &str) -> Vec<i32> {
    let of = |line: &str| line.split_once("cy=\"")?.1.split('"').next()?.parse().ok();
    svg.lines().filter(|line| line.contains("<circle") && line.contains("#0072B2")).filter_map(of).collect()
}

fn assert_names(svg: &str, names: &[&str]) {
    names.iter().for_each(|name| assert!(svg.contains(name), "{name} is not in the figure"));
}

#[test]
fn every_series_and_panel_is_named_and_every_record_has_its_marker() {
    let records = records(&["small", "large"], &[0, 300]);
    let shared = ["aligned", "fine-tuned", "recovery", "harmful rate (%)", "over-refusal", "sql"];
    let (rates, tradeoff) = (harmful_rate(&records).unwrap(), tradeoff(&records).unwrap());
    assert_names(&rates, &[&shared[..], &["small", "large", "injected harmful samples"]].concat());
    assert_names(&tradeoff, &shared);
    // One for each record and one in the legend; the trade-off has the over-refusal too, which is the same for both counts.
    assert_eq!((discs(&rates).len(), discs(&tradeoff).len()), (4 + 1, 4 + 2 + 1));
}

#[test]
fn a_model_that_several_records_are_about_has_one_mark() {
    let mut records = records(&["small"], &[300]);
    let before = tradeoff(&records).unwrap();
    let aligned = records[0].clone();
    records.extend([2, 3].map(|seed| Record { seed, ..aligned.clone() }));
    assert_eq!(tradeoff(&records).unwrap(), before);
}

#[test]
fn a_variant_is_a_column_of_the_ablation_and_takes_the_place_of_figure_three() {
    let mut records = records(&["small"], &[300]);
    let recovered = records.pop().unwrap();
    records.extend(["2/6", "4/6"].map(|name| Record { variant: name.to_owned(), ..recovered.clone() }));
    let titles = ["harmful rate (%)", "over-refusal (%)", "task score, % of fine-tuned", "seconds of a recovery"];
    assert_names(&variants(&records).unwrap(), &[&titles[..], &["2/6", "4/6"]].concat());
    let dir = tempfile::tempdir().unwrap();
    write(&records, dir.path()).unwrap();
    assert!(dir.path().join("variants.png").exists() && !dir.path().join("harmful_rate.png").exists());
}

#[test]
fn the_time_of_every_method_is_a_bar_with_its_seconds() {
    let mut records = records(&["small"], &[0, 300]);
    let shared = |name: &str| Record { label: "interpolation".to_owned(), ..record("small", 300, name, 50, 0.2) };
    records.extend([shared("interpolation_20"), shared("interpolation_40")]);
    let svg = time(&records).unwrap();
    assert_names(&svg, &["aligned", "fine-tuned", "recovery", "interpolation 40", "making the model", "evaluating it"]);
    assert_eq!(svg.matches("1.0 + 2.0 s").count(), 5);
}

#[test]
fn a_lower_harmful_rate_is_drawn_higher_up_in_the_tradeoff_and_equal_marks_beside_each_other() {
    let alone = |harmful: usize| {
        let at = |method, harmful| record("m", 0, method, harmful, 0.2);
        tradeoff(&[at(ALIGNED, 0), at(FINE_TUNED, 50), at(RECOVER, harmful)]).unwrap()
    };
    assert!(discs(&alone(4))[1] < discs(&alone(97))[1]);
    let equal = alone(50);
    let places: Vec<&str> = equal.lines().filter(|line| line.contains("<circle") && line.contains("#0072B2")).collect();
    assert!(!alone(49).contains(places[1]), "moved aside: {}", places[1]);
}

#[test]
fn the_tradeoff_has_a_panel_per_cell_of_one_model_and_per_task_of_several() {
    let mut one = records(&["small"], &[0, 300]);
    one.push(record("small", 100, ALIGNED, 1, 0.2));
    let svg = tradeoff(&one).unwrap();
    assert!(svg.contains("sql, 0 injected") && svg.contains("sql, 300 injected") && !svg.contains("sql, 100 injected"));
    let width = |svg: &str| svg.split_once("width=\"").unwrap().1.split('"').next().unwrap().to_owned();
    assert_eq!(width(&svg), width(&tradeoff(&records(&["small"], &[0, 300])).unwrap()), "no column without a panel");
    // A run that was stopped before its first cell.
    let aligned = tradeoff(&[record("small", 0, ALIGNED, 1, 0.2)]).unwrap();
    assert!(aligned.contains("sql") && !aligned.contains("injected"));
    let svg = tradeoff(&records(&["small", "large"], &[0, 300])).unwrap();
    assert!(svg.contains("sql") && !svg.contains("injected"));
}

#[test]
fn figures_are_written_as_svg_and_png() {
    let dir = tempfile::tempdir().unwrap();
    write(&records(&["small"], &[0, 300]), dir.path()).unwrap();
    for name in ["harmful_rate", "tradeoff", "time"] {
        let svg = std::fs::read_to_string(dir.path().join(format!("{name}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        let png = std::fs::read(dir.path().join(format!("{name}.png"))).unwrap();
        let picture = tiny_skia::Pixmap::decode_png(&png).unwrap();
        assert!(picture.width() >= 1000, "{}", picture.width());
        let inked = picture.pixels().iter().filter(|pixel| pixel.red() < 128).count();
        assert!(inked > 2000, "only {inked} dark pixels");
    }
}

#[test]
fn a_sweep_of_baselines_alone_or_without_over_refusal_has_figures_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = record("m", 0, "soft_sft", 10, 0.5);
    one.judges[0].over_refusal = None;
    write(&[one], dir.path()).unwrap();
    assert!(dir.path().join("tradeoff.png").exists() && !dir.path().join("harmful_rate.png").exists());
}

#[test]
fn no_records_are_an_error() {
    assert!(harmful_rate(&[]).is_err() && tradeoff(&[]).is_err() && time(&[]).is_err());
    assert!(write(&[], std::path::Path::new("nowhere")).is_err());
}

#[test]
#[ignore = "draws earlier results into target/figures, to look at"]
fn figures_to_look_at() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/figures");
    for sweep in ["lab-125", "smollm2", "smollm2-gate"] {
        write(&golden::records(sweep), &dir.join(sweep)).unwrap();
    }
}
