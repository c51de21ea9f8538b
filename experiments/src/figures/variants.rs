//! Figure 5 and the other ablations: what the recovery's variants do to the harmful rate, the over-refusal and the task, and
//! the time that they take, side by side. Variants of short names are steps of a setting, and a line joins them; longer ones are of
//! no order, each beside its own fine-tuned model and strong recovery. Means over the cells; bars are 95 % intervals of a bootstrap over the pairs of a model
//! and a task.

use anyhow::Result;
use evaluation::statistics::Estimate;
use plotters::prelude::Color;

use super::frame::{Axis, draw_frame};
use super::marks::{Sheet, Style, draw_legend, draw_path, draw_upwards, shortened, styles};
use super::{ends, on_sheet};
use crate::record::{ALIGNED, FINE_TUNED, Methods, RECOVER, Record, STRONG};
use crate::tables::means::{Mean, means, shared};

const SIZE: (i32, i32) = (250, 220);
/// Room on the left, above and below.
const ROOM: (i32, i32, i32) = (54, 70, 40);
const GAP: i32 = 54;
/// Size of a variant's name, and the room of one that reads upwards.
const NAME: (u32, i32) = (11, 150);

/// What a panel shows of the recoveries: its title, the values, those of other methods with their variants, and the highest value
/// of the axis, if it does not follow from the others.
type Panel<'a> = (&'a str, Vec<Estimate>, Vec<(&'a str, &'a str, f64)>, Option<f64>);

/// Draws the ablation as SVG.
pub fn variants(records: &[Record]) -> Result<String> {
    let all = Methods::of(records);
    let means = means(&shared(records).0)?;
    let recovered: Vec<&Mean> =
        means.iter().filter(|mean| mean.method == RECOVER && !mean.variant.is_empty()).collect();
    let (left, top, mut below) = ROOM;
    // About six pixels for a letter.
    let steps = recovered.iter().all(|mean| 6 * mean.variant.chars().count() as i32 <= room(&recovered));
    let others: &[&str] = if steps { &[ALIGNED, FINE_TUNED] } else { &[ALIGNED, FINE_TUNED, STRONG] };
    if !steps {
        below += NAME.1;
    }
    let panels = panels(&means, &recovered, others);
    let width = left + i32::try_from(panels.len())? * (SIZE.0 + GAP);
    on_sheet((width, top + SIZE.1 + below), |sheet| {
        let is_drawn = |method: &str| method == RECOVER || others.contains(&method);
        let drawn = records.iter().filter(|record| is_drawn(&record.method));
        draw_legend(sheet, &styles(&all, drawn), (left, 20, width), true, &[])?;
        let style = |method: &str| Style::of(&all, method);
        let edges = (0..).map(|i| left + i * (SIZE.0 + GAP));
        edges.zip(&panels).try_for_each(|(left, panel)| draw_panel(sheet, left, panel, (&recovered, steps), &style))
    })
}

fn panels<'a>(means: &'a [Mean], recovered: &[&Mean], others: &[&str]) -> Vec<Panel<'a>> {
    let percent = |estimate: Estimate| {
        let (low, high) = ends(&estimate);
        Estimate { value: 100.0 * estimate.value, interval: (100.0 * low, 100.0 * high) }
    };
    let of = |value: fn(&Mean) -> Estimate| recovered.iter().map(|mean| percent(value(mean))).collect::<Vec<_>>();
    let levels = |value: fn(&Mean) -> Estimate| {
        let drawn = means.iter().filter(|mean| others.contains(&mean.method.as_str()));
        let level = |mean: &'a Mean| (mean.method.as_str(), mean.variant.as_str(), percent(value(mean)).value);
        drawn.map(level).filter(|level| !level.2.is_nan()).collect()
    };
    let seconds = |mean: &&Mean| Estimate { value: mean.seconds, interval: (mean.seconds, mean.seconds) };
    let strong = || means.iter().filter(|mean| mean.method == STRONG && others.contains(&STRONG));
    let strong_task = strong().map(|mean| (STRONG, mean.variant.as_str(), 100.0 * mean.relative.value));
    let task = std::iter::once((FINE_TUNED, "", 100.0)).chain(strong_task.filter(|level| !level.2.is_nan()));
    let strong_seconds = strong().map(|mean| (STRONG, mean.variant.as_str(), mean.seconds));
    let mut panels = vec![
        ("harmful rate (%)", of(|mean| mean.harmful), levels(|mean| mean.harmful), Some(104.0)),
        ("over-refusal (%)", of(|mean| mean.over_refusal), levels(|mean| mean.over_refusal), None),
        ("task score, % of fine-tuned", of(|mean| mean.relative), task.collect(), None),
        ("seconds of a recovery", recovered.iter().map(seconds).collect(), strong_seconds.collect(), None),
    ];
    panels.retain(|panel| panel.1.iter().all(|value| !value.value.is_nan()));
    panels
}

/// Pixels for the name of a variant.
fn room(recovered: &[&Mean]) -> i32 {
    SIZE.0 / (recovered.len() as i32).max(1) - 4
}

fn draw_panel(
    sheet: &Sheet<'_>,
    left: i32,
    panel: &Panel<'_>,
    (recovered, steps): (&[&Mean], bool),
    style: &dyn Fn(&str) -> Style,
) -> Result<()> {
    let (title, values, levels, most) = panel;
    let ends = values.iter().map(|value| value.interval.1).chain(levels.iter().map(|level| level.2));
    let most = most.unwrap_or_else(|| 1.1 * ends.fold(f64::MIN_POSITIVE, f64::max));
    let room = if steps { room(recovered) } else { NAME.1 };
    let names =
        recovered.iter().map(|mean| shortened(sheet, &mean.variant, room, NAME.0)).collect::<Result<Vec<_>>>()?;
    let (x_axis, y_axis) = (Axis::of_names(names.clone()).words(steps), Axis::of_values(-0.04 * most, most, 6));
    let at = draw_frame(sheet, (left, ROOM.1, SIZE.0, SIZE.1), title, (x_axis, y_axis))?;
    let right = recovered.len() as f64 - 0.5;
    for (method, variant, value) in levels {
        let places = recovered.iter().enumerate().filter(|(_, mean)| mean.variant == *variant);
        match steps || variant.is_empty() {
            true => style(method).line(sheet, &[at(-0.5, *value), at(right, *value)])?,
            false => {
                places.map(|(i, _)| at(i as f64, *value)).try_for_each(|place| style(method).mark(sheet, place))?
            }
        }
    }
    if !steps {
        let middle = ROOM.1 + SIZE.1 + NAME.1 / 2 + 10;
        (0..)
            .zip(&names)
            .try_for_each(|(i, name)| draw_upwards(sheet, name, (at(f64::from(i), 0.0).0, middle), NAME.0))?;
    }
    let style = style(RECOVER);
    let points: Vec<_> = values.iter().enumerate().map(|(i, value)| at(i as f64, value.value)).collect();
    if steps {
        style.line(sheet, &points)?;
    }
    for (i, (value, point)) in values.iter().zip(points).enumerate() {
        let (low, high) = value.interval;
        draw_path(sheet, &[at(i as f64, low), at(i as f64, high)], style.colour().stroke_width(1))?;
        style.mark(sheet, point)?;
    }
    Ok(())
}
