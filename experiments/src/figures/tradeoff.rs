//! Figure 4: the trade-off. One point per cell, method and variant, the task score to the right and the lower harmful rate
//! upwards, so that the upper right corner is the best; a panel per task, because scores of two tasks are no one scale.
//!
//! The line of a panel is its Pareto front: no other point of the panel has a higher score without a higher harmful rate.

use anyhow::{Result, ensure};
use plotters::prelude::{Circle, Color, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, draw_upwards, ticks};
use super::marks::{
    FAINT, INK, LegendBox, Pixel, Sheet, draw, draw_legend, draw_mark, draw_text, draw_thin, methods_of,
};
use super::use_embedded_font;
use crate::row::ResultRow;
use crate::sweep::Method;
use crate::tables::distinct;

const LEFT: i32 = 74;
const RIGHT: i32 = 16;
/// Between panels, with room for the words of the scores.
const GAP: (i32, i32) = (30, 52);
/// With more cells in a panel than this, points are not labelled.
const LABELLED: usize = 4;

/// Draws figure 4 as SVG.
///
/// # Errors
/// When there are no rows.
pub fn tradeoff(rows: &[ResultRow]) -> Result<String> {
    ensure!(!rows.is_empty(), "there are no results to draw the trade-off of");
    use_embedded_font()?;
    let all: Vec<&ResultRow> = rows.iter().collect();
    let tasks = distinct(rows, |row| row.task.as_str());
    let columns = match tasks.len() {
        1 => 1,
        2 | 4 => 2,
        _ => 3,
    };
    let (wide, high) = if columns == 1 { (560, 360) } else { (880 / i32::try_from(columns)? - GAP.0, 230) };
    let lines = i32::try_from(tasks.len().div_ceil(columns))?;
    let columns = i32::try_from(columns)?;
    let width = LEFT + columns * (wide + GAP.0) + RIGHT;
    let methods = methods_of(&all);
    let legend = LegendBox { at: (LEFT, 20), right: width - RIGHT, with_lines: false };
    // The height is known when the legend is drawn: it is drawn once to measure it.
    let mut measured = String::new();
    let top = {
        let sheet = SVGBackend::with_string(&mut measured, (u32::try_from(width)?, 400)).into_drawing_area();
        draw_all_of_legend(&sheet, &methods, legend)? + 22
    };
    let height = top + lines * (high + GAP.1) + 6;
    let mut svg = String::new();
    {
        let sheet =
            SVGBackend::with_string(&mut svg, (u32::try_from(width)?, u32::try_from(height)?)).into_drawing_area();
        draw(sheet.fill(&plotters::style::WHITE))?;
        draw_all_of_legend(&sheet, &methods, legend)?;
        for (i, task) in tasks.iter().enumerate() {
            let i = i32::try_from(i)?;
            let (line, column) = (i / columns, i % columns);
            let rows: Vec<&ResultRow> = all.iter().copied().filter(|row| row.task == *task).collect();
            let axes = Axes {
                place: (LEFT + column * (wide + GAP.0), top + line * (high + GAP.1), wide, high),
                x: score_range(&rows),
                y: (-104.0, 4.0),
            };
            axes.rows(&sheet, &ticks(-100.0, 0.0, 5), column == 0)?;
            axes.columns(&sheet, &ticks(axes.x.0, axes.x.1, 5), true)?;
            axes.frame(&sheet, task)?;
            draw_panel(&sheet, &axes, &rows, &methods)?;
        }
        let middle = (LEFT + width - RIGHT - GAP.0) / 2;
        let words = "task score on the test split (%); up and right is better";
        draw_text(&sheet, words, (middle, height - 8), (HPos::Center, VPos::Bottom), 14)?;
        draw_upwards(&sheet, "harmful rate (%), low at the top", (16, (top + height - GAP.1) / 2), 14)?;
        draw(sheet.present())?;
    }
    Ok(svg)
}

fn draw_all_of_legend(sheet: &Sheet, methods: &[Method], place: LegendBox) -> Result<i32> {
    let front = |(x, y): Pixel| {
        draw_thin(sheet, &[(x - 6, y), (x + 6, y)], INK.stroke_width(1))?;
        draw_ring(sheet, (x, y))
    };
    draw_legend(sheet, methods, place, &[("Pareto front", &front)])
}

fn draw_ring(sheet: &Sheet, at: Pixel) -> Result<()> {
    draw(sheet.draw(&Circle::new(at, 9, INK.stroke_width(1))))
}

fn draw_panel(sheet: &Sheet, axes: &Axes, rows: &[&ResultRow], methods: &[Method]) -> Result<()> {
    let place = |row: &ResultRow| axes.at(100.0 * row.task_score, -100.0 * row.harmful_rate);
    draw_cells(sheet, rows, &place)?;
    let front = pareto_front(rows);
    let path: Vec<Pixel> = front.iter().map(|row| place(row)).collect();
    // Between two points of the front the better of each is what can be had: a stair.
    let mut stair = Vec::new();
    for (i, &(x, y)) in path.iter().enumerate() {
        if i > 0 {
            stair.push((path[i - 1].0, y));
        }
        stair.push((x, y));
    }
    draw_thin(sheet, &stair, INK.stroke_width(1))?;
    for &method in methods {
        for row in rows.iter().filter(|row| row.method.label() == method.label()) {
            draw_mark(sheet, method, place(row))?;
        }
    }
    path.into_iter().try_for_each(|at| draw_ring(sheet, at))
}

/// The rows that no other beats, from the lowest score to the highest; of equal ones the first.
fn pareto_front<'a>(rows: &[&'a ResultRow]) -> Vec<&'a ResultRow> {
    let mut sorted: Vec<&ResultRow> = rows.iter().copied().filter(|row| row.task_score.is_finite()).collect();
    sorted.sort_by(|a, b| b.task_score.total_cmp(&a.task_score).then(a.harmful_rate.total_cmp(&b.harmful_rate)));
    let mut lowest = f64::INFINITY;
    let mut front: Vec<&ResultRow> = sorted
        .into_iter()
        .filter(|row| {
            let beats = row.harmful_rate < lowest;
            lowest = lowest.min(row.harmful_rate);
            beats
        })
        .collect();
    front.reverse();
    front
}

/// The lines between a cell's fine-tuned and recovered models, and their counts, where these are few and of one model.
fn draw_cells(sheet: &Sheet, rows: &[&ResultRow], place: &dyn Fn(&ResultRow) -> Pixel) -> Result<()> {
    let cells = distinct(rows.iter().copied(), ResultRow::cell);
    let one_model = distinct(rows.iter().copied(), |row| row.model.as_str()).len() == 1;
    let varied = rows.iter().any(|row| !row.variant.is_empty());
    if cells.len() > LABELLED || !one_model || varied {
        return Ok(());
    }
    for cell in cells {
        let of = |method: Method| rows.iter().filter(move |row| row.cell() == cell && row.method == method);
        for tuned in of(Method::FineTuned) {
            let from = place(tuned);
            for recovered in of(Method::Recovered).filter(|row| row.seed == tuned.seed) {
                draw_thin(sheet, &[from, place(recovered)], FAINT.stroke_width(1))?;
            }
            // Below the mark; near the bottom, where the axis has its words, left of it.
            let (at, anchor) = if tuned.harmful_rate > 0.9 {
                ((from.0 - 12, from.1), (HPos::Right, VPos::Center))
            } else {
                ((from.0, from.1 + 10), (HPos::Center, VPos::Top))
            };
            draw_text(sheet, &cell.2.to_string(), at, anchor, 12)?;
        }
    }
    Ok(())
}

/// The task scores in percent with some room on both sides.
fn score_range(rows: &[&ResultRow]) -> (f64, f64) {
    let scores = || rows.iter().map(|row| 100.0 * row.task_score).filter(|score| score.is_finite());
    let (low, high) = (scores().fold(100.0, f64::min), scores().fold(0.0, f64::max));
    let low = ((low - 4.0) / 5.0).floor() * 5.0;
    let high = ((high + 4.0) / 5.0).ceil() * 5.0;
    (low.max(-4.0), high.min(104.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::tests::row;

    #[test]
    fn the_front_holds_what_no_other_point_beats() {
        let rows = [
            row("a", 0, Method::Aligned, 0, 0.1),
            row("b", 0, Method::Recovered, 2, 0.8),
            row("c", 0, Method::Random, 40, 0.7),
            row("d", 0, Method::FineTuned, 90, 0.9),
            row("e", 0, Method::FullRevert, 0, 0.05),
        ];
        let front = pareto_front(&rows.iter().collect::<Vec<_>>());
        assert_eq!(front.iter().map(|row| row.model.as_str()).collect::<Vec<_>>(), ["a", "b", "d"]);
    }
}
