//! Figure 3: the harmful rate against the number of injected samples, a panel per model and task.
//!
//! Bars are the 95 % interval of the share. The figures come from the rows as they are.

use anyhow::{Result, ensure};
use plotters::prelude::{ChartBuilder, Color, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::marks::{
    FAINT, INK, Pixel, Sheet, colour, draw, draw_legend, draw_line, draw_mark, draw_text, draw_thin, methods_of, text,
};
use super::{distinct, use_embedded_font};
use crate::row::ResultRow;
use crate::sweep::Method;

/// Width of a figure: what a README shows without shrinking it.
const WIDTH: u32 = 880;
/// Height of the strip with the legend.
const LEGEND: u32 = 40;
/// Series stand this many pixels beside each other, so that equal values can be seen.
const APART: i32 = 5;

/// Draws figure 3 as SVG.
///
/// # Errors
/// When there are no rows.
pub fn harmful_rate(rows: &[ResultRow]) -> Result<String> {
    // Control arms are in the trade-off, where they can be told apart.
    let all: Vec<&ResultRow> = rows.iter().filter(|row| !row.method.is_control()).collect();
    ensure!(!all.is_empty(), "there are no results to draw the harmful rate of");
    use_embedded_font()?;
    let panels = distinct(&all, |row| (row.model.as_str(), row.task.as_str()));
    let tasks = distinct(&all, |row| row.task.as_str()).len();
    let columns = if tasks > 1 { tasks } else { panels.len().min(3) };
    let lines = panels.len().div_ceil(columns);
    let (width, height) = if columns == 1 { (640, 360) } else { (WIDTH, 300) };
    let total = LEGEND + height * u32::try_from(lines)?;
    let mut svg = String::new();
    {
        let sheet = SVGBackend::with_string(&mut svg, (width, total)).into_drawing_area();
        draw(sheet.fill(&plotters::style::WHITE))?;
        draw_legend(&sheet, &methods_of(&all), (80, 22), true)?;
        let (_, below) = sheet.split_vertically(LEGEND);
        for (panel, (model, task)) in below.split_evenly((lines, columns)).iter().zip(panels) {
            let rows: Vec<&ResultRow> =
                all.iter().copied().filter(|row| row.model == model && row.task == task).collect();
            draw_panel(&sheet, panel, &format!("{model}, {task}"), &rows)?;
        }
        draw(sheet.present())?;
    }
    Ok(svg)
}

fn draw_panel(sheet: &Sheet, panel: &Sheet, title: &str, rows: &[&ResultRow]) -> Result<()> {
    let most = rows.iter().map(|row| row.harmful_count).max().unwrap_or(0).max(1) as f64;
    let mut chart = ChartBuilder::on(panel)
        .margin_left(12)
        .margin_right(16)
        .margin_top(30)
        .margin_bottom(4)
        .x_label_area_size(50)
        .y_label_area_size(66)
        .build_cartesian_2d(-0.05 * most..1.05 * most, 0.0..100.0)
        .map_err(|error| anyhow::anyhow!("the figure cannot be drawn: {error}"))?;
    draw(
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(plotters::style::TRANSPARENT)
            .bold_line_style(FAINT.mix(0.35))
            .axis_style(INK)
            .x_desc("injected harmful samples")
            .y_desc("harmful rate (%)")
            .axis_desc_style(text(14))
            .label_style(text(13))
            .x_labels(5)
            .y_labels(6)
            .x_label_formatter(&|x| {
                if *x < 0.0 { String::new() } else { format!("{x:.0}") }
            })
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw(),
    )?;
    let (plot_x, plot_y) = chart.plotting_area().get_pixel_range();
    let middle = (plot_x.start + plot_x.end) / 2;
    draw_text(sheet, title, (middle, plot_y.start - 10), (HPos::Center, VPos::Bottom), 14)?;
    let place =
        |count: usize, share: f64| -> Pixel { chart.plotting_area().map_coordinate(&(count as f64, 100.0 * share)) };
    for (method, shift) in [(Method::Aligned, -APART), (Method::FineTuned, 0), (Method::Recovered, APART)] {
        let mut series: Vec<&&ResultRow> = rows.iter().filter(|row| row.method == method).collect();
        series.sort_by_key(|row| row.harmful_count);
        let at = |row: &ResultRow, share: f64| -> Pixel {
            let (x, y) = place(row.harmful_count, share);
            (x + shift, y)
        };
        let points: Vec<Pixel> = series.iter().map(|row| at(row, row.harmful_rate)).collect();
        if points.len() > 1 {
            draw_line(sheet, method, &points)?;
        }
        for row in &series {
            let (low, high) = (at(row, row.harmful_low), at(row, row.harmful_high));
            draw_thin(sheet, &[low, high], colour(method).stroke_width(1))?;
            for (x, y) in [low, high] {
                draw_thin(sheet, &[(x - 4, y), (x + 4, y)], colour(method).stroke_width(1))?;
            }
        }
        for point in points {
            draw_mark(sheet, method, point)?;
        }
    }
    Ok(())
}
