//! Figure 3: the harmful rate against the number of injected samples, a panel per model and task.
//!
//! Bars are the 95 % interval of one seed's share, or the standard deviation over several seeds. Counts stand at equal
//! distances. The figures come from the rows as they are; control arms and baselines are in the trade-off.

use anyhow::{Result, ensure};
use evaluation::statistics::spread;
use plotters::prelude::{Color, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, draw_upwards, shortened, ticks};
use super::marks::{
    LegendBox, Pixel, Sheet, colour, draw, draw_legend, draw_line, draw_mark, draw_path, draw_text, methods_of,
};
use super::use_embedded_font;
use crate::row::ResultRow;
use crate::sweep::Method;
use crate::tables::distinct;

/// Room on the left for words of the axis.
const LEFT: i32 = 74;
/// Room on the right for the models' names.
const RIGHT: i32 = 34;
/// Room below the panels.
const BELOW: i32 = 52;
/// Between panels.
const GAP: i32 = 12;
/// Series stand this many pixels beside each other, so that equal values can be seen.
const APART: i32 = 6;

/// What it draws.
pub(super) const SERIES: [Method; 3] = [Method::Aligned, Method::FineTuned, Method::Recovered];

/// Draws figure 3 as SVG.
///
/// # Errors
/// When there are no rows.
pub fn harmful_rate(rows: &[ResultRow]) -> Result<String> {
    let all: Vec<&ResultRow> = rows.iter().filter(|row| SERIES.contains(&row.method)).collect();
    ensure!(!all.is_empty(), "there are no results to draw the harmful rate of");
    use_embedded_font()?;
    let models = distinct(all.iter().copied(), |row| row.model.as_str());
    let tasks = distinct(all.iter().copied(), |row| row.task.as_str());
    let mut counts = distinct(all.iter().copied(), |row| row.harmful_count);
    counts.sort_unstable();
    // Few panels are large ones.
    let side = match tasks.len() {
        1 => (440, 240),
        2 | 3 => (250, 150),
        columns => (800 / i32::try_from(columns)?, 124),
    };
    let width = LEFT + i32::try_from(tasks.len())? * (side.0 + GAP) + RIGHT;
    let top = 62;
    let height = top + i32::try_from(models.len())? * (side.1 + GAP) + BELOW;
    let mut svg = String::new();
    {
        let sheet =
            SVGBackend::with_string(&mut svg, (u32::try_from(width)?, u32::try_from(height)?)).into_drawing_area();
        draw(sheet.fill(&plotters::style::WHITE))?;
        let place = LegendBox { at: (LEFT, 20), right: width, with_lines: true };
        draw_legend(&sheet, &methods_of(&all), place, &[])?;
        for (line, model) in models.iter().enumerate() {
            for (column, task) in tasks.iter().enumerate() {
                let corner =
                    (LEFT + i32::try_from(column)? * (side.0 + GAP), top + i32::try_from(line)? * (side.1 + GAP));
                let axes = Axes {
                    place: (corner.0, corner.1, side.0, side.1),
                    x: (-0.5, counts.len() as f64 - 0.5),
                    y: (-9.0, 106.0),
                };
                let rows: Vec<&ResultRow> =
                    all.iter().copied().filter(|row| row.model == *model && row.task == *task).collect();
                axes.rows(&sheet, &ticks(0.0, 100.0, 4), column == 0)?;
                let words: Vec<(f64, String)> =
                    counts.iter().enumerate().map(|(i, count)| (i as f64, count.to_string())).collect();
                axes.columns(&sheet, &words, line + 1 == models.len())?;
                axes.frame(&sheet, if line == 0 { task } else { "" })?;
                draw_panel(&sheet, &axes, &counts, &rows)?;
            }
            let middle = top + i32::try_from(line)? * (side.1 + GAP) + side.1 / 2;
            let name = shortened(&sheet, model, side.1 + GAP, 13)?;
            draw_upwards(&sheet, &name, (width - RIGHT + 8, middle), 13)?;
        }
        let middle = (LEFT + width - RIGHT - GAP) / 2;
        draw_text(&sheet, "injected harmful samples", (middle, height - 8), (HPos::Center, VPos::Bottom), 14)?;
        draw_upwards(&sheet, "harmful rate (%)", (16, (top + height - BELOW) / 2), 14)?;
        draw(sheet.present())?;
    }
    Ok(svg)
}

fn draw_panel(sheet: &Sheet, axes: &Axes, counts: &[usize], rows: &[&ResultRow]) -> Result<()> {
    for (method, shift) in SERIES.into_iter().zip([-APART, 0, APART]) {
        let mut points: Vec<Pixel> = Vec::new();
        for (i, &count) in counts.iter().enumerate() {
            let seeds: Vec<&ResultRow> =
                rows.iter().copied().filter(|row| row.method == method && row.harmful_count == count).collect();
            let Some((value, low, high)) = figure(&seeds) else { continue };
            let at = |share: f64| -> Pixel {
                let (x, y) = axes.at(i as f64, 100.0 * share);
                (x + shift, y)
            };
            let (low, high) = (at(low), at(high));
            draw_path(sheet, &[low, high], colour(method).stroke_width(1))?;
            for (x, y) in [low, high] {
                draw_path(sheet, &[(x - 3, y), (x + 3, y)], colour(method).stroke_width(1))?;
            }
            points.push(at(value));
        }
        if points.len() > 1 {
            draw_line(sheet, method, &points)?;
        }
        for point in points {
            draw_mark(sheet, method, point)?;
        }
    }
    Ok(())
}

/// A point with the ends of its bar; none without a row.
fn figure(seeds: &[&ResultRow]) -> Option<(f64, f64, f64)> {
    let spread = spread(&seeds.iter().map(|row| row.harmful_rate).collect::<Vec<_>>())?;
    match spread.sd {
        None => Some((spread.mean, seeds[0].harmful_low, seeds[0].harmful_high)),
        Some(sd) => Some((spread.mean, (spread.mean - sd).max(0.0), (spread.mean + sd).min(1.0))),
    }
}
