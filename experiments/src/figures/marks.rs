//! What the figures share: how a method looks, and the legend above the plots.
//!
//! Marks are drawn in pixels on the whole drawing, so that their size does not depend on the axes.

use anyhow::{Result, anyhow};
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::{
    Circle, Color, DrawingArea, IntoFont, PathElement, Polygon, RGBColor, Rectangle, ShapeStyle, Text, TextStyle,
};
use plotters::style::WHITE;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::row::ResultRow;
use crate::sweep::Method;

/// A whole figure, in pixels.
pub type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A place on a sheet, in pixels from its upper left corner.
pub type Pixel = (i32, i32);

/// A word of the legend that is no method, and what draws its mark.
pub type Further<'a> = (&'a str, &'a dyn Fn(Pixel) -> Result<()>);

/// Colour of axes' texts.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// Colour of the lines behind a plot.
pub const GRID: RGBColor = RGBColor(222, 222, 222);
/// Colour of lines that only guide the eye.
pub const FAINT: RGBColor = RGBColor(150, 150, 150);

const FONT: &str = "sans-serif";
const MARK: i32 = 5;

/// The colour of a method, one of Okabe and Ito's.
pub fn colour(method: Method) -> RGBColor {
    match method {
        Method::FineTuned => RGBColor(213, 94, 0),
        Method::Recovered => RGBColor(0, 114, 178),
        Method::Aligned => RGBColor(0, 0, 0),
        // The palette's yellow, darker: the lines are thin.
        Method::SoftSft => RGBColor(190, 170, 0),
        Method::Resta => RGBColor(110, 110, 110),
        Method::Random => RGBColor(230, 159, 0),
        Method::LargestDifference => RGBColor(86, 180, 233),
        Method::FullRevert => RGBColor(0, 158, 115),
        Method::Interpolation(_) => RGBColor(204, 121, 167),
    }
}

/// A text style of this many pixels.
pub fn text(pixels: u32) -> TextStyle<'static> {
    // The SVG backend divides sizes by 1.24: the number here is what a reader measures.
    (FONT, f64::from(pixels) * 1.24).into_font().color(&INK)
}

/// The methods that the rows are about, in the order of the legend; all interpolations look the same
/// and are there once.
pub fn methods_of(rows: &[&ResultRow]) -> Vec<Method> {
    let mut methods: Vec<Method> = rows.iter().map(|row| row.method).collect();
    methods.sort_by_key(|&method| (method == Method::Aligned, method));
    methods.dedup_by_key(|method| method.label());
    methods
}

/// Draws a method's marker: each has its own shape.
pub fn draw_mark(sheet: &Sheet, method: Method, (x, y): Pixel) -> Result<()> {
    let fill = colour(method).filled();
    let half = MARK - 2;
    let polygon = |corners: &[Pixel]| {
        let corners: Vec<Pixel> = corners.iter().map(|(dx, dy)| (x + dx, y + dy)).collect();
        draw(sheet.draw(&Polygon::new(corners, fill)))
    };
    let strokes = |ends: [(Pixel, Pixel); 2]| {
        ends.into_iter().try_for_each(|((ax, ay), (bx, by))| {
            let line = vec![(x + ax, y + ay), (x + bx, y + by)];
            draw(sheet.draw(&PathElement::new(line, colour(method).stroke_width(3))))
        })
    };
    match method {
        Method::FineTuned => polygon(&[(0, -MARK - 1), (MARK + 1, MARK - 1), (-MARK - 1, MARK - 1)]),
        Method::Recovered => {
            draw(sheet.draw(&Circle::new((x, y), MARK, WHITE.filled())))?;
            draw(sheet.draw(&Circle::new((x, y), MARK - 1, fill)))
        }
        Method::Aligned => {
            let corners = [(x - half, y - half), (x + half, y + half)];
            draw(sheet.draw(&Rectangle::new(corners, WHITE.filled())))?;
            draw(sheet.draw(&Rectangle::new(corners, colour(method).stroke_width(2))))
        }
        Method::SoftSft => {
            polygon(&[(-half, -MARK), (half, -MARK), (MARK, 0), (half, MARK), (-half, MARK), (-MARK, 0)])
        }
        Method::Resta => polygon(&[(-half, -half), (half, -half), (half, half), (-half, half)]),
        Method::Random => polygon(&[(0, -MARK), (MARK, 0), (0, MARK), (-MARK, 0)]),
        Method::LargestDifference => polygon(&[(0, MARK + 1), (MARK + 1, -MARK + 1), (-MARK - 1, -MARK + 1)]),
        Method::FullRevert => strokes([((-half, -half), (half, half)), ((-half, half), (half, -half))]),
        Method::Interpolation(_) => strokes([((-MARK, 0), (MARK, 0)), ((0, -MARK), (0, MARK))]),
    }
}

/// Draws a method's line; the aligned model's is dashed, because no fine-tuning is in it.
pub fn draw_line(sheet: &Sheet, method: Method, points: &[Pixel]) -> Result<()> {
    let style = colour(method).stroke_width(2);
    if method == Method::Aligned && points.len() > 1 {
        let dashes = DashedPathElement::new(points.iter().copied(), 6, 5, style);
        return draw(sheet.draw(&dashes));
    }
    draw_path(sheet, points, style)
}

/// Draws a line; there is none through points that are all one.
pub fn draw_path(sheet: &Sheet, points: &[Pixel], style: impl Into<ShapeStyle>) -> Result<()> {
    if points.iter().all(|point| *point == points[0]) {
        return Ok(());
    }
    draw(sheet.draw(&PathElement::new(points.to_vec(), style)))
}

/// Writes a text.
pub fn draw_text(sheet: &Sheet, words: &str, at: Pixel, (h, v): (HPos, VPos), pixels: u32) -> Result<()> {
    draw(sheet.draw(&Text::new(words.to_owned(), at, text(pixels).pos(Pos::new(h, v)))))
}

/// Height of a legend's line.
const LEGEND_LINE: i32 = 22;

/// Where a legend goes: its left end, the middle of its first line, and its right end.
#[derive(Debug, Clone, Copy)]
pub struct LegendBox {
    /// Its upper left corner; the height is the middle of the first line.
    pub at: Pixel,
    /// Where a line ends at the latest.
    pub right: i32,
    /// Whether methods have lines.
    pub with_lines: bool,
}

/// Draws the legend, in as many lines as it takes, with further entries of a mark and a word each.
/// Gives back the height below it.
pub fn draw_legend(sheet: &Sheet, methods: &[Method], place: LegendBox, further: &[Further<'_>]) -> Result<i32> {
    let line = if place.with_lines { 36 } else { 12 };
    let (mut x, mut y) = place.at;
    let mut next = |words: &str| -> Result<Pixel> {
        let (width, _) = draw(sheet.estimate_text_size(words, &text(14)))?;
        let width = line + 8 + i32::try_from(width).unwrap_or(100);
        if x + width > place.right && x > place.at.0 {
            (x, y) = (place.at.0, y + LEGEND_LINE);
        }
        let at = (x, y);
        x += width + 20;
        draw_text(sheet, words, (at.0 + line + 8, at.1), (HPos::Left, VPos::Center), 14)?;
        Ok(at)
    };
    for &method in methods {
        let (x, y) = next(method.label())?;
        if place.with_lines {
            draw_line(sheet, method, &[(x, y), (x + line, y)])?;
        }
        draw_mark(sheet, method, (x + line / 2, y))?;
    }
    for (words, mark) in further {
        let (x, y) = next(words)?;
        mark((x + line / 2, y))?;
    }
    Ok(y + LEGEND_LINE)
}

/// A drawing error in words; drawing into a string fails for programming mistakes only.
pub fn draw<T, E: std::error::Error + Send + Sync>(
    result: Result<T, plotters::drawing::DrawingAreaErrorKind<E>>,
) -> Result<T> {
    result.map_err(|error| anyhow!("the figure cannot be drawn: {error}"))
}
