//! `report.html`: the report as one page that needs no other file. A function of the report alone.

use page::chart::{Dot, Intervals, Line, Lines, Mark, Plane, Row, Words};
use page::{Svg, Table};
use serde::Serialize;

use super::measures::Figure;
use super::report::{Report, Restored};
use super::tables::{self, MODELS};
use super::text;

/// What the template sees.
#[derive(Debug, Serialize)]
struct View<'a> {
    report: &'a Report,
    /// The verdict's sentence without its first word.
    verdict: &'a str,
    version: String,
    measured: Table,
    measured_chart: Svg,
    bounds: Table,
    path: Table,
    losses: Svg,
    trade_off: Svg,
    restored: Table,
    shades: Vec<Vec<f64>>,
    blocks: Table,
    models: Table,
    prompts: Table,
    categories: Table,
    redacted: Table,
    /// What each prompt's three answers are, in a word.
    told: Vec<[String; 3]>,
    seconds: Table,
    machine: String,
    command: String,
    settings: String,
}

/// The page.
///
/// # Errors
/// When the template does not fit the report.
pub(super) fn html(report: &Report) -> page::Result<String> {
    let text = report.verdict.text.as_str();
    let view = View {
        report,
        verdict: text.split_once(": ").map_or(text, |(_, rest)| rest),
        version: text::version(report),
        measured: tables::measured(report),
        measured_chart: measured_chart(report),
        bounds: tables::bounds(report),
        path: tables::path(report),
        losses: losses(report),
        trade_off: trade_off(report),
        restored: tables::restored(report),
        shades: report.restored.shades(),
        blocks: tables::blocks(report),
        models: tables::models(report),
        prompts: tables::prompts(report),
        categories: tables::categories(report).without_empty_columns(),
        redacted: tables::redacted(report).without_empty_columns(),
        told: report.asked.iter().map(|one| [0, 1, 2].map(|model| one.told.word(model))).collect(),
        seconds: tables::seconds(report),
        machine: text::machine(report),
        command: report.origin.command.join(" "),
        settings: text::settings(report),
    };
    page::render(include_str!("report.html.jinja"), view)
}

/// How the models look in charts.
const LOOKS: [(&str, Mark); 3] = [(MODELS[0], Mark::Square), (MODELS[1], Mark::Triangle), (MODELS[2], Mark::Disc)];

fn measured_chart(report: &Report) -> Svg {
    let dot = |figure: &Figure| figure.value.map(|value| Dot::new(value, figure.interval));
    let rows = report.measures.iter().map(|one| Row {
        label: format!("{} (by {}, n {})", one.figure, one.by, one.after.n),
        dots: [&one.aligned, &one.before, &one.after].map(dot).to_vec(),
    });
    let words = Words {
        id: "measured",
        title: "Before and after, with 95 % intervals",
        description: "For each rate and score a mark for the aligned, the fine-tuned and the recovered model on a scale from 0 to \
                      100 percent; the table below has the same figures.",
    };
    Intervals { words, series: &LOOKS, rows: rows.collect() }.draw()
}

fn losses(report: &Report) -> Svg {
    let path = &report.path;
    let standings: Vec<_> =
        std::iter::once(&path.base).chain(path.points.iter().map(|point| &point.standing)).collect();
    let line = |name, mark, of: fn(&recovery::Standing) -> f64| Line {
        name,
        mark,
        values: standings.iter().map(|one| of(one)).collect(),
    };
    let mut lines = vec![
        line("harmful prompts", Mark::Triangle, |one| one.harmful),
        line("harmless prompts", Mark::Diamond, |one| one.harmless),
    ];
    if standings.iter().any(|one| one.task != 0.0) {
        lines.push(line("task", Mark::Square, |one| one.task));
    }
    let words = Words {
        id: "losses",
        title: "Held-out divergences, round by round",
        description: "A line for each loss in nats per token from round 0, the fine-tuned model; a dashed line marks the chosen \
                      round. The table below has the same figures.",
    };
    Lines { words, axes: ("round", "loss, nats per token"), lines, chosen: path.chosen }.draw()
}

fn trade_off(report: &Report) -> Svg {
    let path = &report.path;
    let place = |one: &recovery::Standing| (one.harmless, one.harmful);
    let points = std::iter::once(&path.base).chain(path.points.iter().map(|point| &point.standing));
    let chosen = format!("chosen: round {}", path.chosen);
    let words = Words {
        id: "trade-off",
        title: "Harm against over-refusal along the path",
        description: "The loss on harmful prompts upwards against the loss on harmless prompts, from the fine-tuned model over \
                      the rounds to the chosen one; small circles are numbers of weights that were tried. The lower left corner is the \
                      best, and the shaded part is within the bounds of the choice.",
    };
    Plane {
        words,
        axes: ("loss on harmless prompts (over-refusal)", "loss on harmful prompts (harm)"),
        allowed: (path.base.harmless + path.merit.max_harmless, path.merit.max_harmful),
        tried: path.points.iter().flat_map(|point| &point.trials).map(|trial| place(&trial.standing)).collect(),
        path: points.map(place).collect(),
        names: ("fine-tuned", &chosen),
        chosen: path.chosen,
    }
    .draw()
}

impl Restored {
    /// Restored share by block and module.
    pub(super) fn shares(&self) -> Vec<Vec<f64>> {
        let share = |(&of, &restored): (&usize, &usize)| restored as f64 / of.max(1) as f64;
        self.of.iter().zip(&self.restored).map(|(of, restored)| of.iter().zip(restored).map(share).collect()).collect()
    }

    /// The square roots of the shares, as parts of the largest: small shares differ, too.
    fn shades(&self) -> Vec<Vec<f64>> {
        let shares = self.shares();
        let most = shares.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
        let shade = |share: f64| (1e3 * (share / most).sqrt()).round() / 1e3;
        shares.into_iter().map(|row| row.into_iter().map(shade).collect()).collect()
    }
}
