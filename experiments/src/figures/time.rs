//! The time per stage: a bar per method, what it takes to make its model and to evaluate it, as means over the cells.
//!
//! A bar holds its own stage alone: a recovered model needs its fine-tuned one too.

use anyhow::{Result, ensure};
use plotters::prelude::{Color, IntoDrawingArea, Rectangle, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, ticks};
use super::marks::{FAINT, INK, Sheet, colour, draw, draw_path, draw_text};
use super::use_embedded_font;
use crate::row::ResultRow;
use crate::sweep::Method;
use crate::tables::distinct;

const LEFT: i32 = 190;
const WIDE: i32 = 460;
const RIGHT: i32 = 130;
const TOP: i32 = 46;
const BAR: i32 = 18;
const LINE: i32 = 28;
const BELOW: i32 = 48;

/// A method's mean seconds.
struct Bar {
    name: String,
    method: Method,
    make: f64,
    evaluate: f64,
}

/// Draws the time per stage as SVG.
///
/// # Errors
/// When there are no rows.
pub fn time(rows: &[ResultRow]) -> Result<String> {
    ensure!(!rows.is_empty(), "there are no results to draw the time of");
    use_embedded_font()?;
    let bars: Vec<Bar> = distinct(rows, |row| (row.variant.as_str(), row.method))
        .into_iter()
        .map(|(variant, method)| {
            let own: Vec<&ResultRow> =
                rows.iter().filter(|row| row.variant == variant && row.method == method).collect();
            let mean = |value: fn(&ResultRow) -> f64| own.iter().map(|row| value(row)).sum::<f64>() / own.len() as f64;
            let name = format!("{} {variant}", method.title());
            Bar { name, method, make: mean(|row| row.seconds), evaluate: mean(|row| row.evaluation_seconds) }
        })
        .collect();
    let tall = LINE * i32::try_from(bars.len())?;
    let size = (u32::try_from(LEFT + WIDE + RIGHT)?, u32::try_from(TOP + tall + BELOW)?);
    let longest = bars.iter().map(|bar| bar.make + bar.evaluate).fold(f64::MIN_POSITIVE, f64::max);
    let axes = Axes { place: (LEFT, TOP, WIDE, tall), x: (0.0, longest), y: (bars.len() as f64, 0.0) };
    let mut svg = String::new();
    {
        let sheet = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(sheet.fill(&plotters::style::WHITE))?;
        draw_legend(&sheet)?;
        draw_bars(&sheet, &axes, &bars)?;
        let below = (LEFT + WIDE / 2, TOP + tall + BELOW - 8);
        draw_text(&sheet, "mean seconds of a model", below, (HPos::Center, VPos::Bottom), 14)?;
        draw(sheet.present())?;
    }
    Ok(svg)
}

fn draw_legend(sheet: &Sheet) -> Result<()> {
    let mut x = LEFT;
    for (words, filled) in [("making the model", true), ("evaluating it", false)] {
        draw_bar(sheet, [(x, 14), (x + 24, 26)], Method::Aligned, filled)?;
        draw_text(sheet, words, (x + 32, 20), (HPos::Left, VPos::Center), 14)?;
        x += 190;
    }
    Ok(())
}

fn draw_bars(sheet: &Sheet, axes: &Axes, bars: &[Bar]) -> Result<()> {
    let (left, top, _, tall) = axes.place;
    axes.columns(sheet, &ticks(0.0, axes.x.1, 5), true)?;
    draw_path(sheet, &[(left, top), (left, top + tall), (left + WIDE, top + tall)], INK.stroke_width(1))?;
    for (i, bar) in bars.iter().enumerate() {
        let (_, y) = axes.at(0.0, i as f64);
        let (upper, lower) = (y + (LINE - BAR) / 2, y + (LINE + BAR) / 2);
        let [middle, end] = [bar.make, bar.make + bar.evaluate].map(|seconds| axes.at(seconds, 0.0).0);
        draw_bar(sheet, [(left, upper), (middle, lower)], bar.method, true)?;
        draw_bar(sheet, [(middle, upper), (end, lower)], bar.method, false)?;
        draw_text(sheet, bar.name.trim(), (left - 8, y + LINE / 2), (HPos::Right, VPos::Center), 13)?;
        let words = format!("{:.1} + {:.1} s", bar.make, bar.evaluate);
        draw_text(sheet, &words, (end + 8, y + LINE / 2), (HPos::Left, VPos::Center), 12)?;
    }
    Ok(())
}

/// A filled bar in the method's colour, or an empty one.
fn draw_bar(sheet: &Sheet, corners: [(i32, i32); 2], method: Method, filled: bool) -> Result<()> {
    if filled {
        return draw(sheet.draw(&Rectangle::new(corners, colour(method).filled())));
    }
    draw(sheet.draw(&Rectangle::new(corners, FAINT.mix(0.25).filled())))?;
    draw(sheet.draw(&Rectangle::new(corners, FAINT.stroke_width(1))))
}
