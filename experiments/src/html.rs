//! `report.html` of a sweep: one page with its tables, which can be sorted and filtered, and its figures. A function of records
//! alone.

use anyhow::Result;
use page::Svg;
use page::chart::{Dot, Intervals, Mark, Row, Words};
use serde::Serialize;

use crate::figures::Figure;
use crate::record::{Methods, Record, distinct};
use crate::tables::Section;
use crate::tables::mean_tables::Summary;
use crate::tables::means::Mean;

/// What the template sees.
#[derive(Debug, Serialize)]
struct View<'a> {
    name: &'a str,
    facts: Vec<(&'static str, String)>,
    words: String,
    chart: Svg,
    sections: Vec<Section>,
    figures: Vec<Drawn>,
}

#[derive(Debug, Serialize)]
struct Drawn {
    name: &'static str,
    words: &'static str,
    svg: Svg,
}

/// The page of the sweep of this name, with its means and tables that have been made already.
pub fn page(
    name: &str,
    records: &[Record],
    summary: Summary,
    figures: &[Figure],
    made: Vec<Section>,
) -> Result<String> {
    let chart = chart(&Methods::of(records), &summary.means);
    let mut sections = [summary.sections, made].concat();
    sections.iter_mut().for_each(|section| section.table = section.table.without_empty_columns());
    let drawn = |figure: &Figure| Drawn {
        name: figure.name,
        words: figure.words,
        svg: Svg::foreign(&figure.svg, figure.words),
    };
    let view = View {
        name,
        facts: facts(records),
        words: summary.words,
        chart,
        sections,
        figures: figures.iter().map(drawn).collect(),
    };
    Ok(page::render(include_str!("report.html.jinja"), view)?)
}

/// What the records are of.
fn facts(records: &[Record]) -> Vec<(&'static str, String)> {
    let names = |of: fn(&Record) -> String| distinct(records, of).join("; ");
    vec![
        ("models", names(|record| record.model.clone())),
        ("tasks", names(|record| record.task.clone())),
        ("injected harmful samples", names(|record| record.harmful_count.to_string())),
        ("methods", Methods::of(records).labels().join("; ")),
        ("seeds", names(|record| record.seed.to_string())),
        ("judges, the deciding one first", judges(records)),
        ("evaluated models", records.len().to_string()),
    ]
}

fn judges(records: &[Record]) -> String {
    let judges = records.iter().flat_map(|record| &record.judges);
    distinct(judges, |judged| judged.judge.as_str()).join("; ")
}

/// The means of harm and, beside it, of over-refusal.
fn chart(methods: &Methods<'_>, means: &[Mean]) -> Svg {
    let dot = |one: &evaluation::statistics::Estimate| (!one.value.is_nan()).then(|| Dot::new(one.value, one.interval));
    let rows = means.iter().map(|mean| Row {
        label: format!("{} {}", methods.title(&mean.method), mean.variant).trim_end().to_owned(),
        dots: vec![dot(&mean.harmful), dot(&mean.over_refusal)],
    });
    let words = Words {
        id: "means-chart",
        title: "Mean harmful rate and over-refusal by method, with 95 % intervals",
        description: "For each method a triangle for the harmful rate and a diamond for the over-refusal, on a scale from 0 to 100 \
                      percent; the table of means has the same figures.",
    };
    let series = [("harmful rate", Mark::Triangle), ("over-refusal", Mark::Diamond)];
    Intervals { words, series: &series, rows: rows.collect() }.draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::figures;
    use crate::record::tests::record;
    use crate::record::{ALIGNED, FINE_TUNED, RECOVER};
    use crate::tables::{cells, differences};

    #[test]
    fn the_page_has_every_row_and_figure_and_shows_no_name_as_markup() {
        let name = "<script>alert(1)</script>";
        let cell = |count| {
            let of = |method, harmful, score| record(name, count, method, harmful, score);
            [of(ALIGNED, 0, 0.1), of(FINE_TUNED, 90, 0.8), of(RECOVER, 4, 0.7)]
        };
        let records = [cell(0), cell(300)].concat();
        let figures = figures(&records).unwrap();
        let found = differences::differences(&records, 0).unwrap();
        let made = vec![differences::section(&found, &records, "refusal").unwrap(), cells::section(&records)];
        let rows = made[1].table.rows.clone();
        let page = page(name, &records, Summary::of(&records).unwrap(), &figures, made).unwrap();
        assert_eq!(page.matches("<script").count(), 1, "its own");
        for raw in ["<img", "<link", "src=", "https:", "url(", "@import"] {
            assert!(!page.contains(raw), "{raw} in the page");
        }
        assert_eq!(page.matches("role=\"img\"").count(), figures.len() + 1);
        for cell in rows.iter().flatten().filter(|cell| !cell.is_empty() && *cell != name) {
            assert!(page.contains(&format!(">{cell}<")), "{cell} in the page");
        }
        assert_eq!(page.matches(">4.0 (1.6 to 9.8)<").count(), 2, "both recovered models");
        for (fact, value) in facts(&records) {
            assert!(
                page.contains(fact)
                    && page.contains(&value.replace('<', "&lt;").replace('>', "&gt;").replace('/', "&#x2f;"))
            );
        }
        let filters = page.matches("data-filter").count();
        assert_eq!(filters, 4, "model, task, injected and method; there are no variants");
    }
}
