//! The time per stage: a bar per method, what it takes to make its model and to evaluate it, as means over the cells.
//!
//! A bar holds its own stage alone: a recovered model needs its fine-tuned one too.

use anyhow::Result;
use plotters::prelude::{Color, RGBColor, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::{Axis, draw_frame};
use super::marks::{FAINT, INK, Pixel, Sheet, Style, draw, draw_text};
use super::on_sheet;
use crate::record::{Arm, Methods, Record, groups, mean};

/// Room on the left for the names, above, on the right for the seconds, and below.
const ROOM: (i32, i32, i32, i32) = (190, 46, 130, 48);
const WIDE: i32 = 460;
const BAR: i32 = 18;
const LINE: i32 = 28;

/// Draws the time per stage as SVG.
pub fn time(records: &[Record]) -> Result<String> {
    let methods = Methods::of(records);
    let bars = groups(records, Record::arm);
    let seconds: Vec<(f64, f64)> = bars
        .iter()
        .map(|(_, own)| {
            let over = |value| mean(own.iter().copied(), value);
            (over(|record| record.seconds), over(|record| record.evaluation_seconds))
        })
        .collect();
    let (left, top, right, below) = ROOM;
    let tall = LINE * i32::try_from(bars.len())?;
    let longest = seconds.iter().map(|(make, evaluate)| make + evaluate).fold(f64::MIN_POSITIVE, f64::max);
    on_sheet((left + WIDE + right, top + tall + below), |sheet| {
        for (x, words, colour) in [(left, "making the model", Some(INK)), (left + 190, "evaluating it", None)] {
            draw_bar(sheet, [(x, 14), (x + 24, 26)], colour)?;
            draw_text(sheet, words, (x + 32, 20), (HPos::Left, VPos::Center), 14)?;
        }
        let x_axis = Axis::of_values(0.0, longest, 5);
        let at = draw_frame(sheet, (left, top, WIDE, tall), "", (x_axis, Axis::of_names([])))?;
        for (i, ((Arm { variant, method }, _), (make, evaluate))) in (0..).zip(bars.iter().zip(&seconds)) {
            let middle = top + LINE * i + LINE / 2;
            let (upper, lower) = (middle - BAR / 2, middle + BAR / 2);
            let [start, end] = [*make, make + evaluate].map(|seconds| at(seconds, 0.0).0);
            draw_bar(sheet, [(left, upper), (start, lower)], Some(Style::of(&methods, method).colour()))?;
            draw_bar(sheet, [(start, upper), (end, lower)], None)?;
            let name = format!("{} {variant}", methods.title(method));
            draw_text(sheet, name.trim(), (left - 8, middle), (HPos::Right, VPos::Center), 13)?;
            let words = format!("{make:.1} + {evaluate:.1} s");
            draw_text(sheet, &words, (end + 8, middle), (HPos::Left, VPos::Center), 12)?;
        }
        let place = (left + WIDE / 2, top + tall + below - 8);
        draw_text(sheet, "mean seconds of a model", place, (HPos::Center, VPos::Bottom), 14)
    })
}

/// A bar of a colour, or an empty one; none that is narrower than a pixel.
fn draw_bar(sheet: &Sheet<'_>, corners: [Pixel; 2], colour: Option<RGBColor>) -> Result<()> {
    if corners[0].0 == corners[1].0 {
        return Ok(());
    }
    if let Some(colour) = colour {
        return draw(sheet.draw(&Rectangle::new(corners, colour.filled())));
    }
    draw(sheet.draw(&Rectangle::new(corners, FAINT.mix(0.25).filled())))?;
    draw(sheet.draw(&Rectangle::new(corners, FAINT.stroke_width(1))))
}
