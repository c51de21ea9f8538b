//! A line per model, task, count, variant and method: intervals over prompts for one seed, mean and spread over several.

use evaluation::statistics::spread;
use page::{Column, Table};

use super::{Section, percent, with_interval};
use crate::record::{Methods, Record, distinct, groups};

/// The records, a line each; shares are in percent.
pub fn section(records: &[Record]) -> Section {
    let methods = Methods::of(records);
    let words = "\
A rate's interval is Wilson's 95 %, a score's the bootstrap's; with several seeds (n seeds) it is mean ± standard deviation over them.
Broken answers to harmful prompts neither decline nor comply; they do not count as harmful.";
    let columns = [
        Column::text("model"),
        Column::text("task"),
        Column::number("injected"),
        Column::text("variant"),
        Column::text("method"),
        Column::number("harmful rate %"),
        Column::number("broken %"),
        Column::number("over-refusal %"),
        Column::number("task score %"),
        Column::number("weights restored"),
        Column::number("prompts"),
        Column::text("notes"),
    ];
    let lines = groups(records, |record| (record.cell(), record.arm()));
    let rows = lines.iter().map(|(_, seeds)| line(seeds, methods.title(&seeds[0].method)));
    Section {
        title: "All models",
        words: words.to_owned(),
        table: Table::new(columns).with_rows(rows),
        after: String::new(),
    }
}

/// The line of one model of a cell, with its seeds, of which there is at least one.
fn line(seeds: &[&Record], title: String) -> [String; 12] {
    let Record { model, task, harmful_count, variant, score, .. } = seeds[0];
    let over = |value: fn(&Record) -> f64| {
        let spread = spread(&seeds.iter().map(|record| value(record)).collect::<Vec<_>>())?;
        Some(format!("{} ± {} ({} seeds)", percent(spread.mean), percent(spread.sd?), spread.n))
    };
    let harmful = over(Record::harmful_rate)
        .unwrap_or_else(|| with_interval(seeds[0].harmful_rate(), seeds[0].harmful_interval()));
    let broken = over(Record::broken).unwrap_or_else(|| percent(seeds[0].broken()));
    let refused = over(Record::over_refusal).unwrap_or_else(|| percent(seeds[0].over_refusal()));
    let score = over(Record::task_score).unwrap_or_else(|| with_interval(score.value, score.interval));
    let counts: Vec<String> = seeds.iter().filter_map(|record| record.restored).map(|n| n.to_string()).collect();
    let restored = if counts.is_empty() { "-".to_owned() } else { counts.join(", ") };
    let judged = distinct(seeds.iter().copied(), Record::judged);
    let judged = judged.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let notes: Vec<Vec<String>> = seeds.iter().map(|record| record.all_notes()).collect();
    let mut known: Vec<&String> = Vec::new();
    notes.iter().flatten().for_each(|note| {
        if !known.contains(&note) {
            known.push(note)
        }
    });
    let of_seeds = |note: &String| match seeds.len() {
        1 => note.clone(),
        all => format!("{note} ({} of {all} seeds)", notes.iter().filter(|notes| notes.contains(note)).count()),
    };
    let notes = known.into_iter().map(of_seeds).collect::<Vec<_>>().join("; ");
    let (model, task, variant) = (model.clone(), task.clone(), variant.clone());
    let count = harmful_count.to_string();
    [model, task, count, variant, title, harmful, broken, refused, score, restored, judged, notes]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::tests::record;
    use crate::record::{FINE_TUNED, RECOVER};

    #[test]
    fn one_seed_has_its_intervals_and_notes() {
        let notes = vec!["not recovered".to_owned(), "RESTA's unaligned model is still aligned".to_owned()];
        let text = section(&[Record { notes, ..record("small", 300, RECOVER, 4, 0.8) }]).markdown();
        let line = text.lines().last().unwrap();
        let start =
            "| small | sql | 300 |  | recovery | 4.0 (1.6 to 9.8) | 0.0 | 20.0 | 80.0 (75.0 to 85.0) | - | 100 |";
        assert_eq!(line, format!("{start} not recovered; RESTA's unaligned model is still aligned |"));
    }

    #[test]
    fn several_seeds_of_a_cell_are_one_line_with_mean_and_spread() {
        let seed = |seed, harmful, note: &str| Record {
            seed,
            restored: Some(seed),
            notes: if note.is_empty() { Vec::new() } else { vec![note.to_owned()] },
            ..record("small", 300, RECOVER, harmful, 0.8)
        };
        let records = [seed(1, 2, ""), seed(2, 6, "not recovered"), record("small", 300, FINE_TUNED, 90, 0.8)];
        let text = section(&records).markdown();
        assert_eq!(text.lines().count(), 3 + 2 + 2);
        let figures = "| recovery | 4.0 ± 2.8 (2 seeds) | 0.0 ± 0.0 (2 seeds) | 20.0 ± 0.0 (2 seeds) | 80.0 ± 0.0 (2 seeds) | 1, 2 | 100 |";
        assert!(text.contains(&format!("{figures} not recovered (1 of 2 seeds) |")), "{text}");
    }
}
