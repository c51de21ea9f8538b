//! Figure 3: the harmful rate against the number of injected samples, a panel per model and task, with the over-refusal as
//! dotted lines.
//!
//! Bars are the 95 % interval of one seed's share, or the standard deviation over several seeds. Counts are at equal
//! distances. Baselines and control arms are in the trade-off.

use anyhow::Result;
use evaluation::statistics::spread;
use plotters::prelude::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::{Axis, draw_frame};
use super::marks::{
    INK, Pixel, Sheet, Style, draw_dashed, draw_legend, draw_path, draw_text, draw_upwards, shortened, styles,
};
use super::on_sheet;
use crate::record::{ALIGNED, FINE_TUNED, Methods, RECOVER, Record, STRONG, distinct};

/// Room on the left for the words of the axis, above, on the right for the models' names, and below.
const ROOM: (i32, i32, i32, i32) = (74, 62, 34, 52);
/// Between panels.
const GAP: i32 = 12;
/// Series are this many pixels beside each other, so that equal values can be seen.
const APART: i32 = 6;
/// Dash and gap of the over-refusal.
const DOTS: (u32, u32) = (2, 3);

/// The methods that it draws.
pub(super) const SERIES: [&str; 4] = [ALIGNED, FINE_TUNED, RECOVER, STRONG];

/// Draws figure 3 as SVG.
pub fn harmful_rate(records: &[Record]) -> Result<String> {
    let drawn = || records.iter().filter(|record| SERIES.contains(&record.method.as_str()));
    let (all, series) = (Methods::of(records), distinct(drawn(), |record| record.method.as_str()));
    let (models, tasks) = (distinct(drawn(), |record| &record.model), distinct(drawn(), |record| &record.task));
    let mut counts = distinct(drawn(), |record| record.harmful_count);
    counts.sort_unstable();
    let (columns, lines) = (i32::try_from(tasks.len())?, i32::try_from(models.len())?);
    let (wide, high) = match columns {
        1 => (440, 240),
        2 | 3 => (250, 150),
        _ => (800 / columns, 124),
    };
    let (left, top, right, below) = ROOM;
    let (width, height) = (left + columns * (wide + GAP) + right, top + lines * (high + GAP) + below);
    on_sheet((width, height), |sheet| {
        let dots = |(x, y): Pixel| draw_dashed(sheet, &[(x - 18, y), (x + 18, y)], DOTS, INK.stroke_width(1));
        draw_legend(sheet, &styles(&all, drawn()), (left, 20, width), true, &[("over-refusal", &dots)])?;
        for (line, model) in (0..).zip(&models) {
            let y = top + line * (high + GAP);
            for (column, task) in (0..).zip(&tasks) {
                let x_axis = Axis::of_names(counts.iter().map(ToString::to_string)).words(line + 1 == lines);
                let y_axis = Axis::of_values(-9.0, 106.0, 4).words(column == 0);
                let title = if line == 0 { task.as_str() } else { "" };
                let place = (left + column * (wide + GAP), y, wide, high);
                let at = draw_frame(sheet, place, title, (x_axis, y_axis))?;
                for (method, shift) in series.iter().zip([-APART, 0, APART, 2 * APART]) {
                    let own: Vec<&Record> = drawn()
                        .filter(|record| (&record.model, &record.task) == (*model, *task) && record.method == *method)
                        .collect();
                    let at = |i: usize, share: f64| {
                        let (x, y) = at(i as f64, 100.0 * share);
                        (x + shift, y)
                    };
                    draw_series(sheet, &at, &counts, &own, Style::of(&all, method))?;
                }
            }
            let name = shortened(sheet, model, high + GAP, 13)?;
            draw_upwards(sheet, &name, (width - right + 8, y + high / 2), 13)?;
        }
        let middle = (left + width - right - GAP) / 2;
        draw_text(sheet, "injected harmful samples", (middle, height - 8), (HPos::Center, VPos::Bottom), 14)?;
        draw_upwards(sheet, "harmful rate (%)", (16, (top + height - below) / 2), 14)
    })
}

/// Draws one method's line over the counts.
fn draw_series(
    sheet: &Sheet<'_>,
    at: &dyn Fn(usize, f64) -> Pixel,
    counts: &[usize],
    records: &[&Record],
    style: Style,
) -> Result<()> {
    let (mut points, mut refused): (Vec<Pixel>, Vec<Pixel>) = Default::default();
    for (i, &count) in counts.iter().enumerate() {
        let seeds: Vec<&Record> = records.iter().copied().filter(|record| record.harmful_count == count).collect();
        let mean = |value: fn(&Record) -> f64| spread(&seeds.iter().map(|record| value(record)).collect::<Vec<_>>());
        let Some(harmful) = mean(Record::harmful_rate).filter(|harmful| !harmful.mean.is_nan()) else { continue };
        let (low, high) = match harmful.sd {
            None => seeds[0].harmful_interval(),
            Some(sd) => ((harmful.mean - sd).max(0.0), (harmful.mean + sd).min(1.0)),
        };
        let (low, high) = (at(i, low), at(i, high));
        draw_path(sheet, &[low, high], style.colour().stroke_width(1))?;
        for (x, y) in [low, high] {
            draw_path(sheet, &[(x - 3, y), (x + 3, y)], style.colour().stroke_width(1))?;
        }
        points.push(at(i, harmful.mean));
        refused.extend(mean(Record::over_refusal).filter(|rate| !rate.mean.is_nan()).map(|rate| at(i, rate.mean)));
    }
    if points.len() > 1 {
        style.line(sheet, &points)?;
    }
    draw_dashed(sheet, &refused, DOTS, style.colour().stroke_width(1))?;
    points.into_iter().try_for_each(|point| style.mark(sheet, point))
}
