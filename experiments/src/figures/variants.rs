//! Figure 5 and the other ablations: what the recovery's variants do to the harmful rate, the over-refusal and the task, and
//! the time that they take, side by side. Means over the cells; bars are 95 % intervals of a bootstrap over cells.

use anyhow::{Result, ensure};
use evaluation::statistics::Estimate;
use plotters::prelude::Color;

use super::frame::{Axis, draw_frame};
use super::marks::{Sheet, Style, draw_legend, draw_path, shortened, styles};
use super::on_sheet;
use crate::record::{ALIGNED, FINE_TUNED, Methods, RECOVER, Record};
use crate::tables::means::{Mean, means, shared};

const SIZE: (i32, i32) = (250, 220);
/// Room on the left, above and below.
const ROOM: (i32, i32, i32) = (54, 70, 40);
const GAP: i32 = 54;

/// What a panel shows of the recoveries.
struct Panel<'a> {
    title: &'static str,
    values: Vec<Estimate>,
    /// Values of the methods that a line leads across for.
    levels: Vec<(&'a str, f64)>,
    /// The highest value of the axis.
    most: Option<f64>,
}

/// Draws the ablation as SVG.
///
/// # Errors
/// When no recovery has a variant.
pub fn variants(records: &[Record]) -> Result<String> {
    let all = Methods::of(records);
    let means = means(&shared(records).0)?;
    let recovered: Vec<&Mean> =
        means.iter().filter(|mean| mean.method == RECOVER && !mean.variant.is_empty()).collect();
    ensure!(!recovered.is_empty(), "there are no variants of recovery to draw");
    let panels = panels(&means, &recovered);
    let (left, top, below) = ROOM;
    let width = left + i32::try_from(panels.len())? * (SIZE.0 + GAP);
    on_sheet((width, top + SIZE.1 + below), |sheet| {
        let in_legend = [ALIGNED, FINE_TUNED, RECOVER];
        let drawn = records.iter().filter(|record| in_legend.contains(&record.method.as_str()));
        draw_legend(sheet, &styles(&all, drawn), (left, 20, width), true, &[])?;
        let style = |method: &str| Style::of(&all, method);
        let places = (0..).map(|i| left + i * (SIZE.0 + GAP));
        places.zip(&panels).try_for_each(|(left, panel)| draw_panel(sheet, left, panel, &recovered, &style))
    })
}

fn panels<'a>(means: &'a [Mean], recovered: &[&Mean]) -> Vec<Panel<'a>> {
    let percent = |estimate: Estimate| {
        let (low, high) = estimate.interval;
        Estimate { value: 100.0 * estimate.value, interval: (100.0 * low, 100.0 * high) }
    };
    let levels = |value: fn(&Mean) -> f64| {
        let level = |method| means.iter().find(|mean| mean.method == method).map(|mean| (method, 100.0 * value(mean)));
        [level(ALIGNED), level(FINE_TUNED)].into_iter().flatten().filter(|level| !level.1.is_nan()).collect()
    };
    let of = |value: fn(&Mean) -> Estimate| recovered.iter().map(|mean| percent(value(mean))).collect::<Vec<_>>();
    let seconds = |mean: &&Mean| Estimate { value: mean.seconds, interval: (mean.seconds, mean.seconds) };
    let mut panels = vec![
        Panel {
            title: "harmful rate (%)",
            values: of(|mean| mean.harmful),
            levels: levels(|mean| mean.harmful.value),
            most: Some(104.0),
        },
        Panel {
            title: "over-refusal (%)",
            values: of(|mean| mean.over_refusal),
            levels: levels(|mean| mean.over_refusal.value),
            most: None,
        },
        Panel {
            title: "task score, % of fine-tuned",
            values: of(|mean| mean.relative),
            levels: vec![(FINE_TUNED, 100.0)],
            most: None,
        },
        Panel {
            title: "seconds of a recovery",
            values: recovered.iter().map(seconds).collect(),
            levels: Vec::new(),
            most: None,
        },
    ];
    panels.retain(|panel| panel.values.iter().all(|value| !value.value.is_nan()));
    panels
}

fn draw_panel(
    sheet: &Sheet<'_>,
    left: i32,
    panel: &Panel<'_>,
    recovered: &[&Mean],
    style: &dyn Fn(&str) -> Style,
) -> Result<()> {
    let ends = panel.values.iter().map(|value| value.interval.1).chain(panel.levels.iter().map(|level| level.1));
    let most = panel.most.unwrap_or_else(|| 1.1 * ends.fold(f64::MIN_POSITIVE, f64::max));
    let room = SIZE.0 / i32::try_from(recovered.len())? - 4;
    let names = recovered.iter().map(|mean| shortened(sheet, &mean.variant, room, 11)).collect::<Result<Vec<_>>>()?;
    let (x_axis, y_axis) = (Axis::of_names(names), Axis::of_values(-0.04 * most, most, 6));
    let at = draw_frame(sheet, (left, ROOM.1, SIZE.0, SIZE.1), panel.title, (x_axis, y_axis))?;
    let right = recovered.len() as f64 - 0.5;
    for (method, value) in &panel.levels {
        style(method).line(sheet, &[at(-0.5, *value), at(right, *value)])?;
    }
    let style = style(RECOVER);
    let points: Vec<_> = panel.values.iter().enumerate().map(|(i, value)| at(i as f64, value.value)).collect();
    style.line(sheet, &points)?;
    for (i, (value, point)) in panel.values.iter().zip(points).enumerate() {
        let (low, high) = value.interval;
        draw_path(sheet, &[at(i as f64, low), at(i as f64, high)], style.colour().stroke_width(1))?;
        style.mark(sheet, point)?;
    }
    Ok(())
}
