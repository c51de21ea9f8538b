//! Axes of a panel, in pixels: where a value goes, the frame, and ticks with or without words.
//!
//! Panels of one figure share their words: only those on the left and at the bottom have them.

use anyhow::Result;
use plotters::prelude::{Color, FontTransform, IntoFont, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::marks::{GRID, INK, Pixel, Sheet, draw, draw_path, draw_text, text};

/// Pixels of the words at ticks.
const TICK_TEXT: u32 = 11;

/// A panel's place on the sheet and the values at its edges.
#[derive(Debug, Clone, Copy)]
pub struct Axes {
    /// Left edge, upper edge, width and height.
    pub place: (i32, i32, i32, i32),
    /// Values at the left and the right edge.
    pub x: (f64, f64),
    /// Values at the lower and the upper edge.
    pub y: (f64, f64),
}

impl Axes {
    /// Where a point goes.
    pub fn at(&self, x: f64, y: f64) -> Pixel {
        let (left, top, width, height) = self.place;
        let share = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
        let (right, down) = (share(x, self.x) * f64::from(width), (1.0 - share(y, self.y)) * f64::from(height));
        (left + right.round() as i32, top + down.round() as i32)
    }

    /// Draws the frame, and above it the title.
    pub fn frame(&self, sheet: &Sheet, title: &str) -> Result<()> {
        let (left, top, width, height) = self.place;
        let (right, bottom) = (left + width, top + height);
        let corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)];
        draw_path(sheet, &corners, INK.stroke_width(1))?;
        draw_text(sheet, title, (left + width / 2, top - 8), (HPos::Center, VPos::Bottom), 13)
    }

    /// Draws a line across the panel at each value, with its words on the left where they are wanted.
    pub fn rows(&self, sheet: &Sheet, ticks: &[(f64, String)], words: bool) -> Result<()> {
        for (value, label) in ticks {
            let (left, y) = self.at(self.x.0, *value);
            draw_path(sheet, &[(left, y), (left + self.place.2, y)], GRID.stroke_width(1))?;
            if words {
                draw_text(sheet, label, (left - 6, y), (HPos::Right, VPos::Center), TICK_TEXT)?;
            }
        }
        Ok(())
    }

    /// Draws a tick below the panel at each value, with its words where they are wanted.
    pub fn columns(&self, sheet: &Sheet, ticks: &[(f64, String)], words: bool) -> Result<()> {
        for (value, label) in ticks {
            let (x, bottom) = self.at(*value, self.y.0);
            draw_path(sheet, &[(x, bottom), (x, bottom + 4)], INK.stroke_width(1))?;
            if words {
                draw_text(sheet, label, (x, bottom + 7), (HPos::Center, VPos::Top), TICK_TEXT)?;
            }
        }
        Ok(())
    }

    /// Draws a line across the panel at a height.
    pub fn level(&self, y: f64) -> [Pixel; 2] {
        [self.at(self.x.0, y), self.at(self.x.1, y)]
    }
}

/// Writes a text that reads upwards, its middle at a place.
pub fn draw_upwards(sheet: &Sheet, words: &str, at: Pixel, pixels: u32) -> Result<()> {
    let style = ("sans-serif", f64::from(pixels) * 1.24).into_font().transform(FontTransform::Rotate270).color(&INK);
    draw(sheet.draw(&Text::new(words.to_owned(), at, style.pos(Pos::new(HPos::Center, VPos::Center)))))
}

/// Words of at most this many pixels: a longer text loses its end.
pub fn shortened(sheet: &Sheet, words: &str, pixels: i32, size: u32) -> Result<String> {
    let mut kept = words.to_owned();
    while kept.chars().count() > 1 {
        let (width, _) = draw(sheet.estimate_text_size(&kept, &text(size)))?;
        if i32::try_from(width).unwrap_or(i32::MAX) <= pixels {
            break;
        }
        kept = format!(
            "{}…",
            kept.trim_end_matches('…').chars().rev().skip(1).collect::<Vec<_>>().iter().rev().collect::<String>()
        );
    }
    Ok(kept)
}

/// Round values within a range, about so many, each with its words.
pub fn ticks(low: f64, high: f64, about: usize) -> Vec<(f64, String)> {
    let rough = (high - low) / about.max(1) as f64;
    let power = 10.0_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(rough);
    let decimals = if step < 1.0 { (-step.log10()).ceil() as usize } else { 0 };
    let first = (low / step).ceil() as i64;
    (first..)
        .map(|i| i as f64 * step)
        .take_while(|value| *value <= high + step * 1e-9)
        .map(|value| (value, format!("{:.decimals$}", value.abs())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        let words = |low, high, about| ticks(low, high, about).into_iter().map(|tick| tick.1).collect::<Vec<_>>();
        assert_eq!(words(0.0, 100.0, 5), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(words(0.0, 0.5, 5), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]);
        assert_eq!(words(-100.0, 0.0, 4), ["100", "50", "0"]);
        assert_eq!(words(73.0, 98.0, 5), ["75", "80", "85", "90", "95"]);
    }

    #[test]
    fn a_point_goes_where_its_values_are() {
        let axes = Axes { place: (10, 20, 100, 200), x: (0.0, 10.0), y: (-100.0, 0.0) };
        assert_eq!((axes.at(0.0, -100.0), axes.at(10.0, 0.0), axes.at(5.0, -25.0)), ((10, 220), (110, 20), (60, 70)));
    }
}
