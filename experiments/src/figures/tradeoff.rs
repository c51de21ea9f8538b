//! Figure 4: the trade-off. One point per cell, method and variant, the task score to the right and the lower rate upwards:
//! above the harmful rate, below the over-refusal, so that the upper right corner is the best. With one model and few counts
//! a panel is a cell, else it is a task: scores of two tasks are not on one scale.
//!
//! The line of a panel is its Pareto front: no other point of the panel has a higher score without a higher harmful rate.
//! In a panel of many points the cells are dots, and the marks and the front are those of the methods' means. Every mark is at
//! its values; of marks in one place the last is seen, so the recoveries are drawn last, and larger.

use std::cmp::Reverse;

use anyhow::Result;
use plotters::prelude::{Circle, Color};
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::{Axis, draw_frame};
use super::marks::{FAINT, INK, Pixel, Sheet, Style, draw, draw_legend, draw_path, draw_text, draw_upwards, styles};
use super::{legend_height, on_sheet};
use crate::record::{ALIGNED, FINE_TUNED, Methods, RECOVER, Record, STRONG, distinct, groups, mean};

const LEFT: i32 = 86;
const RIGHT: i32 = 16;
/// Between panels, with room for the words of the scores, and between the two frames of a panel.
const GAP: (i32, i32) = (30, 58);
const BETWEEN: i32 = 8;
/// With more harmful counts than this, or with several models, a panel holds all cells of its task.
const COLUMNS: usize = 5;
/// Pixels between the outermost values and the frame, so that no mark is across it.
const ROOM: f64 = 10.0;
/// With more points in a panel than this, the methods' means are marked instead of the cells.
const CROWDED: usize = 60;

/// Draws something at a place.
type Drawing<'a> = &'a dyn Fn(Pixel) -> Result<()>;

/// Draws figure 4 as SVG.
pub fn tradeoff(records: &[Record]) -> Result<String> {
    let methods = Methods::of(records);
    let panels = panels(records);
    let columns = panels.iter().map(|panel| panel.column + 1).max().unwrap_or(1);
    let lines = panels.iter().map(|panel| panel.line + 1).max().unwrap_or(1);
    let (columns, lines) = (i32::try_from(columns)?, i32::try_from(lines)?);
    let (wide, high, low) = match (columns, lines) {
        (1, _) => (560, 320, 150),
        (_, 1..=2) => (880 / columns - GAP.0, 210, 100),
        _ => (880 / columns - GAP.0, 150, 84), // so that a grid fits on a page
    };
    let width = LEFT + columns * (wide + GAP.0) + RIGHT;
    let crowded = panels.iter().any(|panel| panel.records.len() > CROWDED);
    let styles = styles(&methods, records);
    let top = legend_height(width, |sheet| legend(sheet, &styles, width, crowded))? + 22;
    let tall = high + BETWEEN + low + GAP.1;
    let height = top + lines * tall + 2;
    let most_refused = records.iter().map(|record| 100.0 * record.over_refusal()).fold(8.0, f64::max);
    on_sheet((width, height), |sheet| {
        legend(sheet, &styles, width, crowded)?;
        for panel in &panels {
            let (line, column) = (i32::try_from(panel.line)?, i32::try_from(panel.column)?);
            let (x, y) = (LEFT + column * (wide + GAP.0), top + line * tall);
            let first = panels.iter().all(|other| other.line != panel.line || other.column >= panel.column);
            let score = axis(panel.scores, wide, 6);
            let rates = |most: f64, pixels, ticks| axis((-most, 0.0), pixels, ticks).words(first);
            let axes = (score.clone().words(false), rates(100.0, high, 6));
            let harmful = draw_frame(sheet, (x, y, wide, high), &panel.title, axes)?;
            let place = (x, y + high + BETWEEN, wide, low);
            let refused = draw_frame(sheet, place, "", (score, rates(most_refused, low, 4)))?;
            if first {
                draw_upwards(sheet, "harmful rate (%)", (x - 50, y + high / 2), 12)?;
                draw_upwards(sheet, "over-refusal (%)", (x - 50, y + high + BETWEEN + low / 2), 12)?;
            }
            let at = |point: &Point| harmful(100.0 * point.score, -100.0 * point.harmful);
            let marks = Marks { sheet, methods: &methods, crowded };
            marks.draw(panel, &at, true)?;
            marks.draw(panel, &|point| refused(100.0 * point.score, -100.0 * point.refused), false)?;
        }
        let middle = (LEFT + width - RIGHT - GAP.0) / 2;
        let words = "task score on the test split (%); up and right is better";
        draw_text(sheet, words, (middle, height - 6), (HPos::Center, VPos::Bottom), 14)
    })
}

/// Records that are drawn into one panel, and its place.
struct Panel<'a> {
    title: String,
    line: usize,
    column: usize,
    records: Vec<&'a Record>,
    /// In percent; the same for all cells of a task.
    scores: (f64, f64),
    /// Whether all records are of one cell.
    cell: bool,
}

/// A panel per cell for one model and few counts, else one per task. A cell of which there is the aligned model alone has not
/// been run: it has no panel.
fn panels(records: &[Record]) -> Vec<Panel<'_>> {
    let run = || records.iter().filter(|record| record.method != ALIGNED);
    let of_task = |task: &str| records.iter().filter(|record| record.task == task).collect::<Vec<_>>();
    let tasks = distinct(run(), |record| record.task.as_str());
    let mut counts = distinct(run(), |record| record.harmful_count);
    counts.sort_unstable();
    let one_model = distinct(records, |record| record.model.as_str()).len() == 1;
    if tasks.is_empty() || !one_model || counts.len() > COLUMNS {
        let tasks = distinct(records, |record| record.task.as_str());
        let columns = columns_of(tasks.len());
        let panel = |(i, task): (usize, &&str)| {
            let (records, title) = (of_task(task), (*task).to_owned());
            let scores = score_range(&records);
            Panel { title, line: i / columns, column: i % columns, records, scores, cell: false }
        };
        return tasks.iter().enumerate().map(panel).collect();
    }
    // The counts are the columns, or the tasks if there is one count.
    let columns = if counts.len() == 1 { columns_of(tasks.len()) } else { counts.len() };
    let cells = tasks.iter().flat_map(|task| counts.iter().map(move |count| (*task, *count)));
    let panel = |(i, (task, count)): (usize, (&str, usize))| {
        let (scores, mut records) = (score_range(&of_task(task)), of_task(task));
        records.retain(|record| record.harmful_count == count);
        let (title, own) = (format!("{task}, {count} injected"), records.iter().any(|record| record.method != ALIGNED));
        own.then_some(Panel { title, line: i / columns, column: i % columns, records, scores, cell: true })
    };
    cells.enumerate().filter_map(panel).collect()
}

/// The number of columns for so many panels.
fn columns_of(panels: usize) -> usize {
    match panels {
        1 => 1,
        2 | 4 => 2,
        _ => 3,
    }
}

/// Round numbers below and above the task scores, in percent.
fn score_range(records: &[&Record]) -> (f64, f64) {
    let scores = || records.iter().map(|record| 100.0 * record.task_score()).filter(|score| score.is_finite());
    let (low, high) = (scores().fold(100.0, f64::min), scores().fold(0.0, f64::max));
    let (low, high) = (((low - 1.0) / 5.0).floor() * 5.0, ((high + 1.0) / 5.0).ceil() * 5.0);
    (low.max(0.0), high.min(100.0))
}

/// An axis from one value to another over so many pixels, with room for the marks at both ends.
fn axis(values: (f64, f64), pixels: i32, ticks: usize) -> Axis {
    let (low, high) = with_room(values, pixels);
    Axis::of_values(low, high, ticks)
}

fn with_room((low, high): (f64, f64), pixels: i32) -> (f64, f64) {
    let room = ROOM * (high - low) / (f64::from(pixels) - 2.0 * ROOM);
    (low - room, high + room)
}

fn legend(sheet: &Sheet<'_>, styles: &[(&str, Style)], width: i32, crowded: bool) -> Result<i32> {
    let front = |(x, y): Pixel| {
        draw_path(sheet, &[(x - 6, y), (x + 6, y)], INK.stroke_width(1))?;
        draw_ring(sheet, (x, y))
    };
    let dot = |at: Pixel| draw_dot(sheet, styles[styles.len() / 2].1, at);
    let further: [(&str, Drawing<'_>); 2] =
        [("Pareto front", &front), ("a model; the marks are means over models", &dot)];
    draw_legend(sheet, styles, (LEFT, 20, width - RIGHT), false, &further[..1 + usize::from(crowded)])
}

fn draw_dot(sheet: &Sheet<'_>, style: Style, at: Pixel) -> Result<()> {
    draw(sheet.draw(&Circle::new(at, 2, style.colour().mix(0.3).filled())))
}

fn draw_ring(sheet: &Sheet<'_>, at: Pixel) -> Result<()> {
    draw(sheet.draw(&Circle::new(at, 9, INK.stroke_width(1))))
}

/// A model's, or a method's mean, in shares.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    style: Style,
    /// The recoveries' places in the order of drawing, after the 0 of all others.
    rank: usize,
    score: f64,
    harmful: f64,
    refused: f64,
}

impl Point {
    /// The mean of some records of one method.
    fn mean(records: &[&Record], methods: &Methods<'_>) -> Self {
        let over = |value| mean(records.iter().copied(), value);
        let method = records[0].method.as_str();
        Self {
            style: Style::of(methods, method),
            rank: [RECOVER, STRONG].iter().position(|name| *name == method).map_or(0, |at| at + 1),
            score: over(Record::task_score),
            harmful: over(Record::harmful_rate),
            refused: over(Record::over_refusal),
        }
    }
}

/// What draws a panel's points.
struct Marks<'a, 's> {
    sheet: &'a Sheet<'s>,
    methods: &'a Methods<'a>,
    crowded: bool,
}

impl Marks<'_, '_> {
    /// Draws the points of a panel at their places, with the Pareto front and the lines of the recoveries, or without.
    fn draw(&self, panel: &Panel<'_>, place: &dyn Fn(&Point) -> Pixel, with_lines: bool) -> Result<()> {
        let Self { sheet, methods, crowded } = *self;
        let of = |record: &&Record| Point::mean(&[record], methods);
        let varied = panel.records.iter().any(|record| !record.variant.is_empty());
        if with_lines && panel.cell && !crowded && !varied {
            let named = |method: &'static str| panel.records.iter().filter(move |record| record.method == method);
            for tuned in named(FINE_TUNED) {
                for recovered in named(RECOVER).filter(|record| record.seed == tuned.seed) {
                    draw_path(sheet, &[place(&of(tuned)), place(&of(recovered))], FAINT.stroke_width(1))?;
                }
            }
        }
        let is_known = |point: &Point| {
            let rate = if with_lines { point.harmful } else { point.refused };
            !rate.is_nan() && !point.score.is_nan()
        };
        let cells: Vec<Point> = panel.records.iter().map(of).filter(is_known).collect();
        let mut points = cells.clone();
        if crowded {
            points = groups(panel.records.iter().copied(), Record::arm)
                .iter()
                .map(|(_, own)| Point::mean(own, methods))
                .filter(is_known)
                .collect();
            cells.iter().try_for_each(|point| draw_dot(sheet, point.style, place(point)))?;
        }
        // Equal marks of one method are one, as those of the aligned model, which is the same for every seed.
        points.sort_by_key(|point| (point.rank, Reverse(point.style), place(point)));
        points.dedup_by_key(|point| (point.style, place(point)));
        let front: Vec<Pixel> = if with_lines { pareto_front(&points).iter().map(place).collect() } else { Vec::new() };
        if with_lines {
            // Between two points of the front the better of each is what can be had: a stair.
            let stair = front.iter().enumerate().flat_map(|(i, &(x, y))| [(front[i.saturating_sub(1)].0, y), (x, y)]);
            draw_path(sheet, &stair.collect::<Vec<_>>(), INK.stroke_width(1))?;
        }
        for point in &points {
            let mark = if point.rank > 0 { Style::mark_large } else { Style::mark };
            mark(point.style, sheet, place(point))?;
        }
        front.into_iter().try_for_each(|at| draw_ring(sheet, at))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::record;

    #[test]
    fn a_mark_at_the_end_of_an_axis_is_within_the_frame() {
        for pixels in [84, 150, 560] {
            let (low, high) = with_room((-38.0, 0.0), pixels);
            let wide = f64::from(pixels) / (high - low);
            assert!((high * wide - ROOM).abs() < 1e-9 && ((-38.0 - low) * wide - ROOM).abs() < 1e-9, "{pixels}");
        }
    }

    #[test]
    fn the_front_holds_what_no_other_point_beats() {
        let methods = ["random", ALIGNED, RECOVER, FINE_TUNED, "full_revert"];
        let figures = [(40, 0.7), (0, 0.1), (2, 0.8), (90, 0.9), (0, 0.05)];
        let records: Vec<_> =
            methods.iter().zip(figures).map(|(name, (harmful, score))| record("m", 0, name, harmful, score)).collect();
        let points: Vec<Point> = records.iter().map(|record| Point::mean(&[record], &Methods::of(&records))).collect();
        assert_eq!(pareto_front(&points), points[1..4]);
    }
}
