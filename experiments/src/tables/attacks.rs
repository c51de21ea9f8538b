//! Harmful rate and over-refusal under attacks: `attacks.csv` with every model, `attacks.md` with means over the grid.

use std::collections::BTreeSet;

use anyhow::Result;
use evaluation::JudgedRate;
use evaluation::statistics::Estimate;
use page::{Column, Table};

use super::Values::{Real, Text, Whole};
use super::bounds::Place;
use super::means::shared;
use super::{Columns, Line, Section, figure, mean_of_cells, model_columns, percent};
use crate::record::{Arm, Attacked, Methods, Record, by_cell, distinct, groups};

/// An attack, and the steps of a further training where it is one.
pub type Kind<'a> = (&'a str, Option<usize>);

/// The mean over the cells of a method's harmful rate under an attack, or without one.
#[derive(Debug, Clone, PartialEq)]
pub struct Mean<'a> {
    pub variant: &'a str,
    pub method: &'a str,
    pub attack: Option<Kind<'a>>,
    pub cells: usize,
    pub harmful: Estimate,
    /// Answers that neither declined nor complied.
    pub broken: f64,
    /// Of a model that the attack changed, and without an attack.
    pub over_refusal: Estimate,
}

/// A line for each model and attack.
pub fn lines(records: &[Record]) -> Vec<Line<'_, &Attacked>> {
    records.iter().flat_map(|record| record.attacks.iter().map(move |attacked| Line::new(record, attacked))).collect()
}

/// The columns of `attacks.csv`.
pub fn columns<'a>() -> Columns<Line<'a, &'a Attacked>> {
    let mut columns = model_columns();
    columns.extend([
        ("attack", Text(|line: &Line<'a, &'a Attacked>| line.of.attack.clone())),
        ("step", Whole(|line| line.of.step.map(|step| step as u64))),
        ("attack_seed", Whole(|line| line.of.seed)),
        ("harmful_rate", Real(|line| line.of.harmful_rate())),
        ("harmful_low", Real(|line| line.of.rate().map_or(f64::NAN, |rate| rate.interval.0))),
        ("harmful_high", Real(|line| line.of.rate().map_or(f64::NAN, |rate| rate.interval.1))),
        ("broken", Real(|line| line.of.broken())),
        ("over_refusal", Real(|line| line.of.over_refusal())),
        ("n", Whole(|line| Some(line.of.rate().map_or(0, JudgedRate::judged) as u64))),
        ("model_stage", Text(|line| line.record.model_stage.clone())),
    ]);
    columns
}

/// The attacks of some records, in the order of the first that has them.
pub fn kinds(records: &[Record]) -> Vec<Kind<'_>> {
    distinct(records.iter().flat_map(|record| &record.attacks), |one| (one.attack.as_str(), one.step))
}

/// The means of every variant and method, without an attack and under each: over the cells that all methods have, seeds averaged
/// first; intervals draw the pairs of a model and a task.
pub fn means(records: &[Record]) -> Result<Vec<Mean<'_>>> {
    let kinds = kinds(records);
    let mut means = Vec::new();
    for (Arm { variant, method }, own) in groups(shared(records).0, Record::arm) {
        let mut add = |attack, figures: [Vec<(Place<'_>, f64)>; 3]| -> Result<()> {
            let known = |values: Vec<(_, f64)>| values.into_iter().filter(|one| !one.1.is_nan()).collect::<Vec<_>>();
            let [harmful, broken, refused] = figures.map(known);
            let (cells, broken) = (harmful.len(), mean_of_cells(&broken)?.value);
            let (harmful, over_refusal) = (mean_of_cells(&harmful)?, mean_of_cells(&refused)?);
            means.push(Mean { variant, method, attack, cells, harmful, broken, over_refusal });
            Ok(())
        };
        let of_cells = |value| by_cell(own.iter().copied(), value);
        add(None, [Record::harmful_rate, Record::broken, Record::over_refusal].map(of_cells))?;
        for &kind in &kinds {
            let cells = groups(own.iter().copied(), |record| record.cell());
            let of = |value| cells.iter().map(|(cell, records)| (*cell, mean(records, kind, value))).collect();
            add(Some(kind), [Attacked::harmful_rate, Attacked::broken, Attacked::over_refusal].map(of))?;
        }
    }
    Ok(means)
}

/// The mean of a value of a cell under an attack, over its seeds and those of a further training; NaN without one.
fn mean(records: &[&Record], (attack, step): Kind<'_>, value: fn(&Attacked) -> f64) -> f64 {
    let all = records.iter().flat_map(|record| &record.attacks);
    let values: Vec<f64> = all.filter(|one| one.attack == attack && one.step == step).map(value).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// The tables of the means: of the attacks on the model as it is, and of each further training; none without attacks.
pub fn sections(records: &[Record]) -> Result<Vec<Section>> {
    let kinds = kinds(records);
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    let (methods, means) = (Methods::of(records), means(records)?);
    let seeds: BTreeSet<u64> = records.iter().flat_map(|record| &record.attacks).filter_map(|one| one.seed).collect();
    let seeds = seeds.len();
    let plain: Vec<Kind<'_>> = kinds.iter().copied().filter(|kind| kind.1.is_none()).collect();
    let word = |kind: Kind<'_>| kind.0.replace('_', " ");
    let (harmful, refused) = (|mean: &Mean<'_>| figure(&mean.harmful), |mean: &Mean<'_>| figure(&mean.over_refusal));
    let changes_model =
        |kind: &Kind<'_>| means.iter().any(|mean| mean.attack == Some(*kind) && !mean.over_refusal.value.is_nan());
    let changing: Vec<Kind<'_>> = plain.iter().copied().filter(changes_model).collect();
    let section = |words, table| Section { title: "Attacks", words, table, after: String::new() };
    let words = format!(
        "The harmful rate in % under attacks (METHOD.md section 11), in brackets the 95 % interval of the mean over cells, by \
         a bootstrap over the pairs of a model and a task; a further training is averaged over {seeds} seeds first."
    );
    let mut sections = vec![
        section(words, table(&methods, &means, ("as it is", &plain), &word, &harmful)),
        section(
            "Of these answers, in %, those that neither declined nor complied:".to_owned(),
            table(&methods, &means, ("as it is", &plain), &word, &|mean| percent(mean.broken)),
        ),
    ];
    if !changing.is_empty() {
        let words = "Over-refusal in % under the attacks that change the model:".to_owned();
        sections.push(section(words, table(&methods, &means, ("as it is", &changing), &word, &refused)));
    }
    for (attack, steps) in groups(kinds.iter().filter(|kind| kind.1.is_some()), |kind| kind.0) {
        let steps: Vec<Kind<'_>> = steps.into_iter().copied().collect();
        let words = format!("{}, by the number of steps:", attack.replace('_', " "));
        let step = |kind: Kind<'_>| kind.1.unwrap_or(0).to_string();
        sections.push(section(words, table(&methods, &means, ("0", &steps), &step, &harmful)));
        if steps.iter().any(changes_model) {
            sections.push(section("Over-refusal:".to_owned(), table(&methods, &means, ("0", &steps), &step, &refused)));
        }
    }
    Ok(sections)
}

/// `attacks.md`.
pub fn markdown(sections: &[Section]) -> String {
    sections.iter().map(Section::markdown).collect::<Vec<_>>().join("\n")
}

fn table(
    methods: &Methods<'_>,
    means: &[Mean<'_>],
    (first, kinds): (&str, &[Kind<'_>]),
    word: &dyn Fn(Kind<'_>) -> String,
    value: &dyn Fn(&Mean<'_>) -> String,
) -> Table {
    let named = [Column::text("variant"), Column::text("method"), Column::number("cells"), Column::number(first)];
    let columns = named.into_iter().chain(kinds.iter().map(|&kind| Column::number(word(kind))));
    let mut table = Table::new(columns.collect::<Vec<_>>());
    for (Arm { variant, method }, own) in groups(means, |mean| Arm { variant: mean.variant, method: mean.method }) {
        let of = |attack: Option<Kind<'_>>| own.iter().find(|mean| mean.attack == attack);
        let cells = of(None).map_or(0, |mean| mean.cells);
        let figures = [None].into_iter().chain(kinds.iter().map(|&kind| Some(kind)));
        let figures = figures.map(|attack| of(attack).map_or("-".into(), |mean| value(mean)));
        let named = [variant.to_owned(), methods.title(method), cells.to_string()];
        table.push(named.into_iter().chain(figures).collect::<Vec<_>>());
    }
    table
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::tests::{record, scores};
    use crate::record::{ALIGNED, RECOVER};

    /// A record of a model that answers so many of 100 prompts under a prefill, and after 1 and 5 steps with two seeds.
    pub(crate) fn attacked(model: &str, method: &str, prefill: usize, steps: [[usize; 2]; 2]) -> Record {
        let one = |attack: &str, step, seed, hits| Attacked {
            attack: attack.to_owned(),
            step,
            seed,
            judges: vec![scores("lab", hits, ['c', 'r'])],
            over_refusal: step.map(|_| scores("lab", 100 - hits, ['r', 'c'])),
        };
        let mut attacks = vec![one("prefill", None, None, prefill)];
        for (seed, of_seed) in (1..).zip(steps) {
            let of = |(step, hits)| one("harmful_samples", Some(step), Some(seed), hits);
            attacks.extend([1, 5].into_iter().zip(of_seed).map(of));
        }
        Record { attacks, ..record(model, 0, method, 4, 0.5) }
    }

    #[test]
    fn seeds_of_a_training_are_averaged_and_pairs_of_a_model_and_a_task_are_drawn() {
        let records = [
            attacked("a", ALIGNED, 0, [[0, 10], [0, 30]]),
            attacked("b", ALIGNED, 10, [[0, 0], [0, 0]]),
            attacked("a", RECOVER, 50, [[0, 90], [0, 90]]),
            attacked("b", RECOVER, 50, [[0, 90], [0, 90]]),
        ];
        assert_eq!(kinds(&records), [("prefill", None), ("harmful_samples", Some(1)), ("harmful_samples", Some(5))]);
        let found = means(&records).unwrap();
        let aligned = &found[3];
        assert_eq!((aligned.method, aligned.attack, aligned.cells), (ALIGNED, Some(("harmful_samples", Some(5))), 2));
        assert!((aligned.harmful.value - 0.1).abs() < 1e-12 && aligned.harmful.interval == (0.0, 0.2));
        let text = markdown(&sections(&records).unwrap());
        for part in [
            "over 2 seeds",
            "| variant | method | cells | as it is | prefill |",
            "|  | aligned | 2 | 4.0 (4.0 to 4.0) | 5.0 (0.0 to 10.0) |",
            "harmful samples, by the number of steps:",
            "|  | recovery | 2 | 4.0 (4.0 to 4.0) | 0.0 (0.0 to 0.0) | 90.0 (90.0 to 90.0) |",
            "Over-refusal:",
            "|  | recovery | 2 | 20.0 (20.0 to 20.0) | 100.0 (100.0 to 100.0) | 10.0 (10.0 to 10.0) |",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("change the model"), "a prefill leaves it as it is: {text}");
        assert_eq!(lines(&records).len(), 4 * 5);
    }
}
