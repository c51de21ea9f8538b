//! The figures' claims: every series is named, every row is drawn, and the picture is a picture.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::row::tests::row;
use crate::sweep::Method;

/// Made-up rows, in the manner of a sweep's.
fn rows(models: &[&str], counts: &[usize]) -> Vec<ResultRow> {
    let mut rows = Vec::new();
    for (i, model) in models.iter().enumerate() {
        let shift = i as f64 * 0.06;
        for (j, &count) in counts.iter().enumerate() {
            let harmful = (20 + 77 * j / counts.len().max(2)).min(97);
            rows.push(row(model, count, Method::Aligned, 2, 0.02));
            rows.push(row(model, count, Method::FineTuned, harmful, 0.22 + shift));
            rows.push(row(model, count, Method::Recovered, 2 + j, 0.20 + shift));
        }
    }
    rows
}

#[test]
fn every_series_and_panel_is_named() {
    let rows = rows(&["small", "large"], &[0, 300]);
    for svg in [harmful_rate(&rows).unwrap(), tradeoff(&rows).unwrap()] {
        for name in ["aligned", "fine-tuned", "recovered", "harmful rate (%)"] {
            assert!(svg.contains(name), "{name} is not in the figure");
        }
    }
    let svg = harmful_rate(&rows).unwrap();
    for name in ["small", "large", "sql", "injected harmful samples"] {
        assert!(svg.contains(name), "{name} is not in the figure");
    }
}

#[test]
fn every_row_has_its_marker() {
    let rows = rows(&["small"], &[0, 300]);
    for svg in [harmful_rate(&rows).unwrap(), tradeoff(&rows).unwrap()] {
        // Discs are the recovered models: one per row, and one in the legend.
        let discs = svg.lines().filter(|line| line.contains("<circle") && line.contains("#0072B2"));
        assert_eq!(discs.count(), 2 + 1);
        assert_eq!(svg.matches("<polygon").count(), 2 + 1);
    }
}

#[test]
fn a_model_that_several_rows_are_about_has_one_mark() {
    let mut rows = rows(&["small"], &[300]);
    let before = tradeoff(&rows).unwrap();
    let aligned = rows[0].clone();
    rows.extend([2, 3].map(|seed| ResultRow { seed, ..aligned.clone() }));
    assert_eq!(tradeoff(&rows).unwrap(), before);
}

#[test]
fn a_variant_is_a_column_of_the_ablation_and_takes_the_place_of_figure_three() {
    let mut rows = rows(&["small"], &[300]);
    let recovered = rows.pop().unwrap();
    rows.extend(["2/6", "4/6"].map(|name| ResultRow { variant: name.to_owned(), ..recovered.clone() }));
    let svg = variants(&rows).unwrap();
    for name in ["2/6", "4/6", "harmful rate (%)", "task score, % of fine-tuned", "seconds of a recovery"] {
        assert!(svg.contains(name), "{name} is not in the figure");
    }
    let dir = tempfile::tempdir().unwrap();
    write(&rows, dir.path()).unwrap();
    assert!(dir.path().join("variants.png").exists() && !dir.path().join("harmful_rate.png").exists());
}

#[test]
fn the_time_of_every_method_is_a_bar_with_its_seconds() {
    let mut rows = rows(&["small"], &[0, 300]);
    rows.push(row("small", 300, Method::Interpolation(40), 50, 0.2));
    rows.push(row("small", 300, Method::Resta, 50, 0.2));
    let svg = time(&rows).unwrap();
    let names = ["aligned", "fine-tuned", "recovered", "interpolation 40 %", "RESTA"];
    for words in names.into_iter().chain(["making the model", "evaluating it"]) {
        assert!(svg.contains(words), "{words} is not in the figure");
    }
    assert_eq!(svg.matches("1.0 + 2.0 s").count(), 5);
}

#[test]
fn a_lower_harmful_rate_is_drawn_higher_up_in_the_tradeoff() {
    let height = |harmful: usize| -> i32 {
        let svg = tradeoff(&[row("small", 0, Method::Recovered, harmful, 0.2)]).unwrap();
        let disc = svg.lines().rfind(|line| line.contains("<circle") && line.contains("#0072B2")).unwrap();
        let (_, rest) = disc.split_once("cy=\"").unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    };
    assert!(height(4) < height(97));
}

#[test]
fn the_tradeoff_has_a_panel_per_cell_of_one_model_and_per_task_of_several() {
    let mut one = rows(&["small"], &[0, 300]);
    one.push(row("small", 100, Method::Aligned, 1, 0.2));
    let svg = tradeoff(&one).unwrap();
    assert!(svg.contains("sql, 0 injected") && svg.contains("sql, 300 injected") && !svg.contains("sql, 100 injected"));
    let width = |svg: &str| svg.split_once("width=\"").unwrap().1.split('"').next().unwrap().to_owned();
    assert_eq!(width(&svg), width(&tradeoff(&rows(&["small"], &[0, 300])).unwrap()), "no column without a panel");
    // A run that was stopped before its first cell.
    let aligned = tradeoff(&[row("small", 0, Method::Aligned, 1, 0.2)]).unwrap();
    assert!(aligned.contains("sql") && !aligned.contains("injected"));
    let svg = tradeoff(&rows(&["small", "large"], &[0, 300])).unwrap();
    assert!(svg.contains("sql") && !svg.contains("injected"));
}

#[test]
fn marks_of_equal_values_stand_beside_each_other() {
    let at = |method| row("small", 0, method, 90, 0.2);
    let svg = tradeoff(&[at(Method::FineTuned), at(Method::Recovered)]).unwrap();
    let disc = svg.lines().rfind(|line| line.contains("<circle") && line.contains("#0072B2")).unwrap();
    let alone = tradeoff(&[at(Method::Recovered)]).unwrap();
    assert!(!alone.contains(disc), "{disc}");
}

#[test]
fn figures_are_written_as_svg_and_png() {
    let dir = tempfile::tempdir().unwrap();
    write(&rows(&["small"], &[0, 300]), dir.path()).unwrap();
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
fn a_sweep_of_baselines_alone_has_figures_too() {
    let dir = tempfile::tempdir().unwrap();
    write(&[row("m", 0, Method::SoftSft, 10, 0.5)], dir.path()).unwrap();
    assert!(dir.path().join("tradeoff.png").exists() && !dir.path().join("harmful_rate.png").exists());
}

#[test]
fn no_rows_are_an_error() {
    assert!(harmful_rate(&[]).is_err() && tradeoff(&[]).is_err() && time(&[]).is_err());
}
