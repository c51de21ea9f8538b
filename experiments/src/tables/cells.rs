//! A line per model, task, count, variant and method: intervals over prompts where there is one seed, mean and spread
//! over seeds where there are several.

use std::fmt::Write as _;

use evaluation::statistics::spread;

use super::{distinct, percent};
use crate::row::ResultRow;

/// The rows as a Markdown table; shares are in percent.
#[must_use]
pub fn markdown(rows: &[ResultRow]) -> String {
    let mut text = "\
A rate's interval is Wilson's 95 %, a score's the bootstrap's; with several seeds (n seeds) it is mean ± standard deviation over them.

| model | task | injected | variant | method | harmful rate % | over-refusal % | task score % | weights restored | prompts | note |
|---|---|--:|---|---|--:|--:|--:|--:|--:|---|
"
    .to_owned();
    for key in distinct(rows, |row| (row.cell(), row.variant.as_str(), row.method)) {
        let seeds: Vec<&ResultRow> =
            rows.iter().filter(|row| (row.cell(), row.variant.as_str(), row.method) == key).collect();
        text += &line(&seeds);
    }
    text
}

/// The line of one model of a cell, with its seeds, of which there is at least one.
fn line(seeds: &[&ResultRow]) -> String {
    let mut text = String::new();
    let ResultRow { model, task, harmful_count, variant, method, .. } = seeds[0];
    let harmful = figure(seeds, |row| row.harmful_rate, |row| (row.harmful_low, row.harmful_high));
    let score = figure(seeds, |row| row.task_score, |row| (row.task_low, row.task_high));
    let refused = over(seeds, |row| row.over_refusal).unwrap_or_else(|| percent(seeds[0].over_refusal));
    let counts: Vec<String> = seeds.iter().filter_map(|row| row.restored).map(|count| count.to_string()).collect();
    let restored = if counts.is_empty() { "-".to_owned() } else { counts.join(", ") };
    let judged: Vec<String> = distinct(seeds.iter().copied(), |row| row.n).iter().map(ToString::to_string).collect();
    let judged = judged.join(", ");
    let of_seeds = |note: &str| match seeds.len() {
        1 => note.to_owned(),
        all => format!("{note} ({} of {all} seeds)", seeds.iter().filter(|row| row.note == note).count()),
    };
    let notes = distinct(seeds.iter().copied().filter(|row| !row.note.is_empty()), |row| row.note.as_str());
    let note = notes.into_iter().map(of_seeds).collect::<Vec<_>>().join("; ");
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "| {model} | {task} | {harmful_count} | {variant} | {} | {harmful} | {refused} | {score} | {restored} \
         | {judged} | {note} |",
        method.title()
    );
    text
}

fn figure(
    seeds: &[&ResultRow],
    value: impl Fn(&ResultRow) -> f64,
    interval: impl Fn(&ResultRow) -> (f64, f64),
) -> String {
    over(seeds, &value).unwrap_or_else(|| {
        let (low, high) = interval(seeds[0]);
        format!("{} ({} to {})", percent(value(seeds[0])), percent(low), percent(high))
    })
}

/// Mean and spread over several seeds; none of one.
fn over(seeds: &[&ResultRow], value: impl Fn(&ResultRow) -> f64) -> Option<String> {
    let values: Vec<f64> = seeds.iter().map(|row| value(row)).collect();
    let spread = spread(&values)?;
    Some(format!("{} ± {} ({} seeds)", percent(spread.mean), percent(spread.sd?), spread.n))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::row::tests::row;
    use crate::sweep::Method;

    #[test]
    fn one_seed_has_its_intervals() {
        let text = markdown(&[row("small", 300, Method::Recovered, 4, 0.8)]);
        let line = text.lines().last().unwrap();
        assert!(
            line.starts_with("| small | sql | 300 |  | recovered | 4.0 (1.6 to 9.8) | 20.0 | 80.0 (75.0 to 85.0) |")
        );
    }

    #[test]
    fn several_seeds_of_a_cell_are_one_line_with_mean_and_spread() {
        let seed = |seed, harmful, note: &str| ResultRow {
            seed,
            restored: Some(seed),
            note: note.to_owned(),
            ..row("small", 300, Method::Recovered, harmful, 0.8)
        };
        let mut rows = vec![seed(1, 2, ""), seed(2, 6, "not recovered"), row("small", 300, Method::FineTuned, 90, 0.8)];
        let text = markdown(&rows);
        assert_eq!(text.lines().count(), 2 + 2 + 2);
        assert!(
            text.contains("| recovered | 4.0 ± 2.8 (2 seeds) | 20.0 ± 0.0 (2 seeds) | 80.0 ± 0.0 (2 seeds) | 1, 2 |")
        );
        assert!(text.contains("| 1, 2 | 100 | not recovered (1 of 2 seeds) |"));
        let unknown = "1 of 100 answers to harmful prompts not judged";
        rows.insert(2, ResultRow { n: 99, ..seed(3, 4, unknown) });
        let text = markdown(&rows);
        let notes = format!("| 100, 99 | not recovered (1 of 3 seeds); {unknown} (1 of 3 seeds) |");
        assert!(text.contains(&notes), "{text}");
    }
}
