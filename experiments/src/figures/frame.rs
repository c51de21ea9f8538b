//! The frame of a panel with its axes.

use std::ops::Range;

use anyhow::Result;
use plotters::chart::{ChartBuilder, LabelAreaPosition};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, TRANSPARENT};

use super::marks::{GRID, INK, Pixel, Sheet, draw, draw_path, draw_text, text};

/// Room for the words of an axis, on the left and below.
const WORDS: (i32, i32) = (44, 26);

/// The values at both ends of an axis, and its ticks.
#[derive(Debug, Clone)]
pub struct Axis {
    ends: (f64, f64),
    ticks: Vec<(f64, String)>,
    words: bool,
}

impl Axis {
    /// An axis with round values as ticks, at most so many, without their signs.
    pub fn of_values(low: f64, high: f64, most: usize) -> Self {
        let ticks = RangedCoordf64::from(low..high).key_points(most);
        let word = |value: f64| ((value.abs() * 1e6).round() / 1e6).to_string();
        Self { ends: (low, high), ticks: ticks.into_iter().map(|value| (value, word(value))).collect(), words: true }
    }

    /// An axis of square roots from 0 to beyond a value: a value lies at its root, and ticks are named by values.
    pub fn of_roots(highest: f64) -> Self {
        let high = highest.max(1e-4) * 1.1;
        let steps = (-4..4).flat_map(|power| [1.0, 3.0].map(|digit| digit * 10f64.powi(power)));
        let mut ticks = vec![0.0];
        for value in steps.filter(|value| *value <= high) {
            if f64::sqrt(value) - f64::sqrt(*ticks.last().unwrap_or(&0.0)) > 0.08 * high.sqrt() {
                ticks.push(value);
            }
        }
        let tick = |value: f64| (value.sqrt(), ((value * 1e6).round() / 1e6).to_string());
        let ticks = ticks.into_iter().map(tick).collect();
        Self { ends: (-0.03 * high.sqrt(), high.sqrt()), ticks, words: true }
    }

    /// An axis of names at the places 0, 1, 2 and so on.
    pub fn of_names(names: impl IntoIterator<Item = String>) -> Self {
        let ticks: Vec<(f64, String)> = names.into_iter().enumerate().map(|(i, name)| (i as f64, name)).collect();
        Self { ends: (-0.5, ticks.len() as f64 - 0.5), ticks, words: true }
    }

    /// The axis with its words or without.
    pub fn words(self, words: bool) -> Self {
        Self { words, ..self }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.iter().map(|tick| tick.0).collect()
    }

    fn range(&self) -> Range<f64> {
        self.ends.0..self.ends.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| self.words && tick.0 == *value);
        tick.map(|tick| tick.1.clone()).unwrap_or_default()
    }
}

/// Draws a frame at a place (left, top, width, height), its title above it; gives where a point of the axes is.
pub fn draw_frame<'s>(
    sheet: &Sheet<'s>,
    (left, top, width, height): (i32, i32, i32, i32),
    title: &str,
    (x, y): (Axis, Axis),
) -> Result<impl Fn(f64, f64) -> Pixel + use<'s>> {
    // One pixel more: the last one of an area is not drawn in.
    let area = sheet.clone().shrink((left - WORDS.0, top), (width + WORDS.0 + 1, height + WORDS.1 + 1));
    let mut builder = ChartBuilder::on(&area);
    builder.set_label_area_size(LabelAreaPosition::Left, WORDS.0);
    builder.set_label_area_size(LabelAreaPosition::Bottom, WORDS.1);
    let mut chart = draw(builder.build_cartesian_2d(x, y))?;
    draw(
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .label_style(text(11))
            .draw(),
    )?;
    let (right, bottom) = (left + width, top + height);
    draw_path(sheet, &[(left, top), (right, top), (right, bottom)], INK.stroke_width(1))?;
    draw_text(sheet, title, (left + width / 2, top - 8), (HPos::Center, VPos::Bottom), 13)?;
    Ok(move |x, y| chart.backend_coord(&(x, y)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let words = |low, high| Axis::of_values(low, high, 6).ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(words(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(words(0.0, 0.5), ["0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(words(-104.0, 4.0).last().map(String::as_str), Some("0"));
        let roots = |high| Axis::of_roots(high).ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(roots(1.0), ["0", "0.01", "0.1", "0.3", "1"]);
    }
}
