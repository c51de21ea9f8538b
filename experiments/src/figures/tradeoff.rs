//! Figure 4: the trade-off. One point per cell, method and variant, the task score to the right and the lower harmful rate
//! upwards, so that the upper right corner is the best. With one model a panel is a cell, with several it is a task: scores
//! of two tasks are no one scale.
//!
//! The line of a panel is its Pareto front: no other point of the panel has a higher score without a higher harmful rate.
//! In a panel of many points the cells are dots, and the marks and the front are those of the methods' means.

use std::cmp::Reverse;

use anyhow::{Result, ensure};
use plotters::prelude::{Circle, Color, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, draw_upwards, ticks};
use super::marks::{
    FAINT, Further, INK, LegendBox, Pixel, Sheet, colour, draw, draw_legend, draw_mark, draw_text, draw_thin,
    methods_of,
};
use super::use_embedded_font;
use crate::row::ResultRow;
use crate::sweep::Method;
use crate::tables::distinct;

const LEFT: i32 = 74;
const RIGHT: i32 = 16;
/// Between panels, with room for the words of the scores.
const GAP: (i32, i32) = (30, 52);
/// With more harmful counts than this, or with several models, a panel holds all cells of its task.
const COLUMNS: usize = 4;
/// With more points in a panel than this, the methods' means are marked instead of the cells.
const CROWDED: usize = 60;

/// Draws figure 4 as SVG.
///
/// # Errors
/// When there are no rows.
pub fn tradeoff(rows: &[ResultRow]) -> Result<String> {
    ensure!(!rows.is_empty(), "there are no results to draw the trade-off of");
    use_embedded_font()?;
    let panels = panels(rows);
    let columns = panels.iter().map(|panel| panel.column + 1).max().unwrap_or(1);
    let lines = panels.iter().map(|panel| panel.line + 1).max().unwrap_or(1);
    let (wide, high) = match (columns, lines) {
        (1, _) => (560, 360),
        (_, 1..=2) => (880 / i32::try_from(columns)? - GAP.0, 230),
        _ => (880 / i32::try_from(columns)? - GAP.0, 160), // so that a grid fits on a page
    };
    let (columns, lines) = (i32::try_from(columns)?, i32::try_from(lines)?);
    let width = LEFT + columns * (wide + GAP.0) + RIGHT;
    let methods = methods_of(&rows.iter().collect::<Vec<_>>());
    let crowded = panels.iter().any(|panel| panel.rows.len() > CROWDED);
    let legend = LegendBox { at: (LEFT, 20), right: width - RIGHT, with_lines: false };
    // The height is known when the legend is drawn: it is drawn once to measure it.
    let mut measured = String::new();
    let top = {
        let sheet = SVGBackend::with_string(&mut measured, (u32::try_from(width)?, 400)).into_drawing_area();
        draw_all_of_legend(&sheet, &methods, legend, crowded)? + 22
    };
    let height = top + lines * (high + GAP.1) + 6;
    let mut svg = String::new();
    {
        let sheet =
            SVGBackend::with_string(&mut svg, (u32::try_from(width)?, u32::try_from(height)?)).into_drawing_area();
        draw(sheet.fill(&plotters::style::WHITE))?;
        draw_all_of_legend(&sheet, &methods, legend, crowded)?;
        for panel in &panels {
            let (line, column) = (i32::try_from(panel.line)?, i32::try_from(panel.column)?);
            let axes = Axes {
                place: (LEFT + column * (wide + GAP.0), top + line * (high + GAP.1), wide, high),
                x: panel.scores,
                y: (-104.0, 4.0),
            };
            let first_of_line = panels.iter().all(|other| other.line != panel.line || other.column >= panel.column);
            axes.rows(&sheet, &ticks(-100.0, 0.0, 5), first_of_line)?;
            axes.columns(&sheet, &ticks(axes.x.0, axes.x.1, 5), true)?;
            axes.frame(&sheet, &panel.title)?;
            draw_panel(&sheet, &axes, panel, crowded)?;
        }
        let middle = (LEFT + width - RIGHT - GAP.0) / 2;
        let words = "task score on the test split (%); up and right is better";
        draw_text(&sheet, words, (middle, height - 8), (HPos::Center, VPos::Bottom), 14)?;
        draw_upwards(&sheet, "harmful rate (%), low at the top", (16, (top + height - GAP.1) / 2), 14)?;
        draw(sheet.present())?;
    }
    Ok(svg)
}

/// Rows that are drawn into one frame, and where it stands.
struct Panel<'a> {
    title: String,
    line: usize,
    column: usize,
    rows: Vec<&'a ResultRow>,
    /// In percent; the same for all cells of a task.
    scores: (f64, f64),
    /// Whether all rows are of one cell.
    cell: bool,
}

/// The tasks as lines and the counts as columns where there is one model; else a panel per task.
fn panels(rows: &[ResultRow]) -> Vec<Panel<'_>> {
    let tasks = distinct(rows, |row| row.task.as_str());
    let mut counts = distinct(rows, |row| row.harmful_count);
    counts.sort_unstable();
    let cells = distinct(rows, |row| row.model.as_str()).len() == 1 && counts.len() <= COLUMNS;
    let columns = match tasks.len() {
        1 => 1,
        2 | 4 => 2,
        _ => 3,
    };
    let mut panels = Vec::new();
    for (i, task) in tasks.iter().enumerate() {
        let of_task: Vec<&ResultRow> = rows.iter().filter(|row| row.task == *task).collect();
        let scores = score_range(&of_task);
        if !cells {
            let (title, line, column) = ((*task).to_owned(), i / columns, i % columns);
            panels.push(Panel { title, line, column, rows: of_task, scores, cell: false });
            continue;
        }
        for (column, count) in counts.iter().enumerate() {
            let rows: Vec<&ResultRow> = of_task.iter().copied().filter(|row| row.harmful_count == *count).collect();
            // Of a cell that has not been run, the aligned model is there all the same.
            if rows.iter().any(|row| row.method != Method::Aligned) {
                let title = format!("{task}, {count} injected");
                panels.push(Panel { title, line: i, column, rows, scores, cell: true });
            }
        }
    }
    panels
}

fn draw_all_of_legend(sheet: &Sheet, methods: &[Method], place: LegendBox, crowded: bool) -> Result<i32> {
    let front = |(x, y): Pixel| {
        draw_thin(sheet, &[(x - 6, y), (x + 6, y)], INK.stroke_width(1))?;
        draw_ring(sheet, (x, y))
    };
    let dot = |at: Pixel| draw_dot(sheet, Method::FineTuned, at);
    let front: Further<'_> = ("Pareto front", &front);
    match crowded {
        true => draw_legend(sheet, methods, place, &[("a cell; the marks are means over cells", &dot), front]),
        false => draw_legend(sheet, methods, place, &[front]),
    }
}

fn draw_dot(sheet: &Sheet, method: Method, at: Pixel) -> Result<()> {
    draw(sheet.draw(&Circle::new(at, 2, colour(method).mix(0.3).filled())))
}

fn draw_ring(sheet: &Sheet, at: Pixel) -> Result<()> {
    draw(sheet.draw(&Circle::new(at, 9, INK.stroke_width(1))))
}

/// A model's, or a method's mean, in shares.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    method: Method,
    score: f64,
    harmful: f64,
}

impl Point {
    fn of(row: &ResultRow) -> Self {
        Self { method: row.method, score: row.task_score, harmful: row.harmful_rate }
    }

    /// The mean of each method and variant.
    fn means(rows: &[&ResultRow]) -> Vec<Self> {
        let groups = distinct(rows.iter().copied(), |row| (row.method, row.variant.as_str()));
        let mean = |(method, variant): (Method, &str)| {
            let own = || rows.iter().filter(|row| (row.method, row.variant.as_str()) == (method, variant));
            let n = own().count() as f64;
            let over = |value: fn(&ResultRow) -> f64| own().map(|row| value(row)).sum::<f64>() / n;
            Self { method, score: over(|row| row.task_score), harmful: over(|row| row.harmful_rate) }
        };
        groups.into_iter().map(mean).collect()
    }
}

fn draw_panel(sheet: &Sheet, axes: &Axes, panel: &Panel<'_>, crowded: bool) -> Result<()> {
    let place = |point: &Point| axes.at(100.0 * point.score, -100.0 * point.harmful);
    if panel.cell {
        draw_recoveries(sheet, &panel.rows, &|row| place(&Point::of(row)))?;
    }
    let cells: Vec<Point> = panel.rows.iter().map(|row| Point::of(row)).collect();
    let mut points = if crowded { Point::means(&panel.rows) } else { cells.clone() };
    // The controls below, recovery on top.
    points.sort_by_key(|point| (point.method == Method::Recovered, Reverse(point.method)));
    if crowded {
        cells.iter().try_for_each(|point| draw_dot(sheet, point.method, place(point)))?;
    }
    let path: Vec<Pixel> = pareto_front(&points).iter().map(place).collect();
    // Between two points of the front the better of each is what can be had: a stair.
    let mut stair = Vec::new();
    for (i, &(x, y)) in path.iter().enumerate() {
        if i > 0 {
            stair.push((path[i - 1].0, y));
        }
        stair.push((x, y));
    }
    draw_thin(sheet, &stair, INK.stroke_width(1))?;
    points.iter().try_for_each(|point| draw_mark(sheet, point.method, place(point)))?;
    path.into_iter().try_for_each(|at| draw_ring(sheet, at))
}

/// The points that no other beats, from the lowest score to the highest; of equal ones the first.
fn pareto_front(points: &[Point]) -> Vec<Point> {
    let mut sorted: Vec<Point> = points.iter().copied().filter(|point| point.score.is_finite()).collect();
    sorted.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.harmful.total_cmp(&b.harmful)));
    let mut lowest = f64::INFINITY;
    sorted.retain(|point| {
        let beats = point.harmful < lowest;
        lowest = lowest.min(point.harmful);
        beats
    });
    sorted.reverse();
    sorted
}

/// The lines between a cell's fine-tuned models and those recovered from them.
fn draw_recoveries(sheet: &Sheet, rows: &[&ResultRow], place: &dyn Fn(&ResultRow) -> Pixel) -> Result<()> {
    let of = |method: Method| rows.iter().filter(move |row| row.method == method);
    for tuned in of(Method::FineTuned) {
        for recovered in of(Method::Recovered).filter(|row| row.seed == tuned.seed) {
            draw_thin(sheet, &[place(tuned), place(recovered)], FAINT.stroke_width(1))?;
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
        let point = |method, harmful, score| Point { method, score, harmful };
        let front = pareto_front(&[
            point(Method::Aligned, 0.0, 0.1),
            point(Method::Recovered, 0.02, 0.8),
            point(Method::Random, 0.4, 0.7),
            point(Method::FineTuned, 0.9, 0.9),
            point(Method::FullRevert, 0.0, 0.05),
        ]);
        let methods: Vec<Method> = front.iter().map(|point| point.method).collect();
        assert_eq!(methods, [Method::Aligned, Method::Recovered, Method::FineTuned]);
    }

    #[test]
    fn a_mean_is_over_the_cells_of_a_method() {
        let rows = [row("a", 0, Method::Random, 10, 0.5), row("b", 0, Method::Random, 30, 0.7)];
        let means = Point::means(&rows.iter().collect::<Vec<_>>());
        assert_eq!(means.len(), 1);
        let near = |value: f64, wanted: f64| (value - wanted).abs() < 1e-12;
        assert!(
            near(means[0].score, 0.6)
                && near(means[0].harmful, f64::midpoint(rows[0].harmful_rate, rows[1].harmful_rate))
        );
    }
}
