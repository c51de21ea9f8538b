//! Figure 4: the trade-off. One point per cell and method, the task score to the right and the
//! lower harmful rate upwards, so that the upper right corner is the best.
//!
//! A grey line leads from a cell's fine-tuned model to its recovered one.

use anyhow::{Result, ensure};
use plotters::prelude::{ChartBuilder, Color, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::marks::{
    FAINT, INK, Pixel, Sheet, draw, draw_legend, draw_mark, draw_text, draw_thin, label, methods_of, text,
};
use super::{distinct, use_embedded_font};
use crate::row::ResultRow;
use crate::sweep::Method;

const SIZE: (u32, u32) = (640, 480);
/// With more cells than this, points are not labelled.
const LABELLED: usize = 6;
/// Methods in a line of the legend.
const LEGEND_LINE: usize = 4;
const LINE_HEIGHT: i32 = 22;

/// Draws figure 4 as SVG.
///
/// # Errors
/// When there are no rows.
pub fn tradeoff(rows: &[ResultRow]) -> Result<String> {
    ensure!(!rows.is_empty(), "there are no results to draw the trade-off of");
    use_embedded_font()?;
    let mut svg = String::new();
    {
        let sheet = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(sheet.fill(&plotters::style::WHITE))?;
        let methods = methods_of(&rows.iter().collect::<Vec<_>>());
        let mut y = 22;
        for line in methods.chunks(LEGEND_LINE) {
            draw_legend(&sheet, line, (80, y), false)?;
            y += LINE_HEIGHT;
        }
        let hint = (SIZE.0 as i32 - 20, y - LINE_HEIGHT);
        draw_text(&sheet, "better: up and right", hint, (HPos::Right, VPos::Center), 13)?;
        draw_plot(&sheet, rows, &methods, y)?;
        draw(sheet.present())?;
    }
    Ok(svg)
}

/// The plot below height `top`.
fn draw_plot(sheet: &Sheet, rows: &[ResultRow], methods: &[Method], top: i32) -> Result<()> {
    let (low, high) = score_range(rows);
    // The axis runs over minus the harmful rate, and its labels leave the minus out.
    let mut chart = ChartBuilder::on(sheet)
        .margin_left(12)
        .margin_right(20)
        .margin_top(top)
        .margin_bottom(4)
        .x_label_area_size(50)
        .y_label_area_size(66)
        .build_cartesian_2d(low..high, -104.0..4.0)
        .map_err(|error| anyhow::anyhow!("the figure cannot be drawn: {error}"))?;
    draw(
        chart
            .configure_mesh()
            .light_line_style(plotters::style::TRANSPARENT)
            .bold_line_style(FAINT.mix(0.35))
            .axis_style(INK)
            .x_desc("task score on the test split (%)")
            .y_desc("harmful rate (%), low at the top")
            .axis_desc_style(text(14))
            .label_style(text(13))
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y: &f64| format!("{:.0}", y.abs()))
            .draw(),
    )?;
    let place = |row: &ResultRow| -> Pixel {
        let point = (100.0 * row.task_score, -100.0 * row.harmful_rate);
        chart.plotting_area().map_coordinate(&point)
    };
    draw_cells(sheet, rows, &place)?;
    for &method in methods {
        for row in rows.iter().filter(|row| label(row.method) == label(method)) {
            draw_mark(sheet, method, place(row))?;
        }
    }
    Ok(())
}

/// The lines between a cell's models, and their labels where there are few.
fn draw_cells(sheet: &Sheet, rows: &[ResultRow], place: &dyn Fn(&ResultRow) -> Pixel) -> Result<()> {
    let all: Vec<&ResultRow> = rows.iter().collect();
    let cells = distinct(&all, |row| (row.model.as_str(), row.task.as_str(), row.harmful_count));
    let one_task = distinct(&all, |row| (row.model.as_str(), row.task.as_str())).len() == 1;
    for &(model, task, count) in &cells {
        let find = |method: Method| {
            rows.iter().find(|row| {
                (row.model.as_str(), row.task.as_str(), row.harmful_count) == (model, task, count)
                    && row.method == method
            })
        };
        if let (Some(from), Some(to)) = (find(Method::FineTuned), find(Method::Recovered)) {
            draw_thin(sheet, &[place(from), place(to)], FAINT.stroke_width(1))?;
        }
        if cells.len() > LABELLED {
            continue;
        }
        let label = if one_task { count.to_string() } else { format!("{model} {task} {count}") };
        // The recovered models lie close together; the grey line leads to them.
        if let Some(row) = find(Method::FineTuned) {
            let (x, y) = place(row);
            draw_text(sheet, &label, (x + 11, y - 9), (HPos::Left, VPos::Center), 12)?;
        }
    }
    Ok(())
}

/// The task scores in percent with some room on both sides.
fn score_range(rows: &[ResultRow]) -> (f64, f64) {
    let scores = || rows.iter().map(|row| 100.0 * row.task_score).filter(|score| score.is_finite());
    let (low, high) = (scores().fold(100.0, f64::min), scores().fold(0.0, f64::max));
    let low = ((low - 4.0) / 5.0).floor() * 5.0;
    let high = ((high + 4.0) / 5.0).ceil() * 5.0;
    (low.max(-2.0), high.min(102.0))
}
