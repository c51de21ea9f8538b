//! Figure 4: the trade-off. One point per cell, method and variant, the task score to the right and the lower harmful rate
//! upwards, so that the upper right corner is the best. With one model and few counts a panel is a cell, else it is a
//! task: scores of two tasks are no one scale.
//!
//! The line of a panel is its Pareto front: no other point of the panel has a higher score without a higher harmful rate.
//! In a panel of many points the cells are dots, and the marks and the front are those of the methods' means.

use anyhow::{Result, ensure};
use plotters::prelude::{Circle, Color, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, draw_upwards, ticks};
use super::marks::{
    FAINT, Further, INK, LegendBox, Pixel, Sheet, colour, draw, draw_legend, draw_mark, draw_path, draw_text,
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
const COLUMNS: usize = 5;

/// Marks of equal values stand this many pixels beside each other.
const APART: i32 = 9;

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

/// A panel per cell where there is one model and there are few counts, else one per task. Of a cell that has not been run
/// the aligned model is there all the same: it has no panel.
fn panels(rows: &[ResultRow]) -> Vec<Panel<'_>> {
    let run = rows.iter().filter(|row| row.method != Method::Aligned);
    let tasks = distinct(run.clone(), |row| row.task.as_str());
    let mut counts = distinct(run.clone(), |row| row.harmful_count);
    counts.sort_unstable();
    let one_model = distinct(rows, |row| row.model.as_str()).len() == 1;
    if tasks.is_empty() || !one_model || counts.len() > COLUMNS {
        return task_panels(rows);
    }
    // The counts are the columns, or the tasks where there is one count.
    let columns = if counts.len() == 1 { columns_of(tasks.len()) } else { counts.len() };
    let cells = tasks.iter().flat_map(|task| counts.iter().map(move |count| (*task, *count)));
    let panel = |(i, (task, count)): (usize, (&str, usize))| {
        let scores = score_range(&rows.iter().filter(|row| row.task == task).collect::<Vec<_>>());
        let own = run.clone().any(|row| (row.task.as_str(), row.harmful_count) == (task, count));
        let rows = rows.iter().filter(|row| (row.task.as_str(), row.harmful_count) == (task, count)).collect();
        let title = format!("{task}, {count} injected");
        own.then_some(Panel { title, line: i / columns, column: i % columns, rows, scores, cell: true })
    };
    cells.enumerate().filter_map(panel).collect()
}

fn task_panels(rows: &[ResultRow]) -> Vec<Panel<'_>> {
    let tasks = distinct(rows, |row| row.task.as_str());
    let columns = columns_of(tasks.len());
    let panel = |(i, task): (usize, &&str)| {
        let rows: Vec<&ResultRow> = rows.iter().filter(|row| row.task == *task).collect();
        let (line, column, scores) = (i / columns, i % columns, score_range(&rows));
        Panel { title: (*task).to_owned(), line, column, rows, scores, cell: false }
    };
    tasks.iter().enumerate().map(panel).collect()
}

/// In how many columns panels stand.
fn columns_of(panels: usize) -> usize {
    match panels {
        1 => 1,
        2 | 4 => 2,
        _ => 3,
    }
}

fn draw_all_of_legend(sheet: &Sheet, methods: &[Method], place: LegendBox, crowded: bool) -> Result<i32> {
    let front = |(x, y): Pixel| {
        draw_path(sheet, &[(x - 6, y), (x + 6, y)], INK.stroke_width(1))?;
        draw_ring(sheet, (x, y))
    };
    let dot = |at: Pixel| draw_dot(sheet, Method::FineTuned, at);
    let front: Further<'_> = ("Pareto front", &front);
    match crowded {
        true => draw_legend(sheet, methods, place, &[("a model; the marks are means over models", &dot), front]),
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
    let varied = panel.rows.iter().any(|row| !row.variant.is_empty());
    if panel.cell && !crowded && !varied {
        draw_recoveries(sheet, &panel.rows, &|row| place(&Point::of(row)))?;
    }
    let cells: Vec<Point> = panel.rows.iter().map(|row| Point::of(row)).collect();
    let mut points = if crowded { Point::means(&panel.rows) } else { cells.clone() };
    // Equal marks of one method are one, as those of the aligned model, which is the same for every seed.
    points.sort_by_key(|point| (point.method, place(point)));
    points.dedup_by_key(|point| (point.method, place(point)));
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
    draw_path(sheet, &stair, INK.stroke_width(1))?;
    // What was not recovered equals the fine-tuned model, and so do the controls of its size: all are to be seen.
    let equal = |i: usize| points[..i].iter().filter(|other| place(other) == place(&points[i])).count();
    for (i, point) in points.iter().enumerate().rev() {
        let (x, y) = place(point);
        draw_mark(sheet, point.method, (x + APART * i32::try_from(equal(i))?, y))?;
    }
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
            draw_path(sheet, &[place(tuned), place(recovered)], FAINT.stroke_width(1))?;
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
