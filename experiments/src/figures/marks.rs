//! What the figures share: how a method looks, and the legend above the plots.
//!
//! Marks are drawn in pixels on the whole drawing, so that their size does not depend on the axes.

use anyhow::{Result, anyhow};
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::{
    Circle, Color, DrawingArea, FontTransform, IntoFont, PathElement, Polygon, RGBColor, ShapeStyle, Text, TextStyle,
};
use plotters::style::WHITE;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::record::{Methods, Record};

/// A whole figure, in pixels.
pub type Sheet<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A place on a sheet, in pixels from its upper left corner.
pub type Pixel = (i32, i32);

/// A word of the legend that is not a method, and what draws its mark.
pub type Further<'a> = (&'a str, &'a dyn Fn(Pixel) -> Result<()>);

/// Colour of axes' texts.
pub const INK: RGBColor = RGBColor(40, 40, 40);
/// Colour of the lines behind a plot.
pub const GRID: RGBColor = RGBColor(222, 222, 222);
/// Colour of lines that only guide the eye.
pub const FAINT: RGBColor = RGBColor(150, 150, 150);

/// The colours, of Okabe and Ito; the yellow is darker than theirs, because the lines are thin.
const COLOURS: [u32; 9] = [0x000000, 0xd55e00, 0x0072b2, 0xbeaa00, 0x6e6e6e, 0xe69f00, 0x56b4e9, 0x009e73, 0xcc79a7];

/// The corners of the markers: a hollow square, a triangle, a disc, which has none, and so on.
const SHAPES: [&[Pixel]; 9] = [
    &[(-3, -3), (3, -3), (3, 3), (-3, 3)],
    &[(0, -6), (6, 4), (-6, 4)],
    &[],
    &[(-3, -5), (3, -5), (5, 0), (3, 5), (-3, 5), (-5, 0)],
    &[(-3, -3), (3, -3), (3, 3), (-3, 3)],
    &[(0, -5), (5, 0), (0, 5), (-5, 0)],
    &[(0, 6), (6, -4), (-6, -4)],
    &[(0, -2), (3, -5), (5, -3), (2, 0), (5, 3), (3, 5), (0, 2), (-3, 5), (-5, 3), (-2, 0), (-5, -3), (-3, -5)],
    &[(-1, -5), (2, -5), (2, -1), (6, -1), (6, 2), (2, 2), (2, 6), (-1, 6), (-1, 2), (-5, 2), (-5, -1), (-1, -1)],
];

/// How a method looks: the number of its label among all labels. No two of the first 81 look the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Style(usize);

impl Style {
    /// The style of a method.
    pub fn of(methods: &Methods<'_>, method: &str) -> Self {
        Self(methods.index(method))
    }

    /// The colour.
    pub fn colour(self) -> RGBColor {
        let [_, red, green, blue] = COLOURS[self.0 % COLOURS.len()].to_be_bytes();
        RGBColor(red, green, blue)
    }

    fn shape(self) -> usize {
        (self.0 + self.0 / SHAPES.len()) % SHAPES.len()
    }

    /// Draws the marker.
    pub fn mark(self, sheet: &Sheet<'_>, at: Pixel) -> Result<()> {
        self.mark_of_size(sheet, at, 2)
    }

    /// Draws the marker half as large again, with a white edge, to be seen among others.
    pub fn mark_large(self, sheet: &Sheet<'_>, at: Pixel) -> Result<()> {
        let corners = self.corners(at, 3);
        let edge = corners.iter().chain(corners.first()).copied().collect::<Vec<_>>();
        draw_path(sheet, &edge, WHITE.stroke_width(3))?;
        self.mark_of_size(sheet, at, 3)
    }

    /// The corners in a size of so many halves of the usual one.
    fn corners(self, (x, y): Pixel, halves: i32) -> Vec<Pixel> {
        SHAPES[self.shape()].iter().map(|(dx, dy)| (x + dx * halves / 2, y + dy * halves / 2)).collect()
    }

    fn mark_of_size(self, sheet: &Sheet<'_>, at: Pixel, halves: i32) -> Result<()> {
        let corners = self.corners(at, halves);
        match self.shape() {
            0 => {
                draw(sheet.draw(&Polygon::new(corners.clone(), WHITE.filled())))?;
                let outline = corners.iter().chain(&corners[..2]).copied().collect::<Vec<_>>();
                draw_path(sheet, &outline, self.colour().stroke_width(2))
            }
            2 => {
                draw(sheet.draw(&Circle::new(at, 5 * halves / 2, WHITE.filled())))?;
                draw(sheet.draw(&Circle::new(at, 4 * halves / 2, self.colour().filled())))
            }
            _ => draw(sheet.draw(&Polygon::new(corners, self.colour().filled()))),
        }
    }

    /// Draws a line, dashed for the hollow marker.
    pub fn line(self, sheet: &Sheet<'_>, points: &[Pixel]) -> Result<()> {
        match self.shape() {
            0 => draw_dashed(sheet, points, (6, 5), self.colour().stroke_width(2)),
            _ => draw_path(sheet, points, self.colour().stroke_width(2)),
        }
    }
}

/// The labels of some records with their styles, which are those among all records, in the order of the legend.
pub fn styles<'a>(all: &Methods<'a>, of: impl IntoIterator<Item = &'a Record>) -> Vec<(&'a str, Style)> {
    let drawn = Methods::of(of).labels();
    let labels = all.labels().into_iter().enumerate();
    labels.filter(|(_, label)| drawn.contains(label)).map(|(i, label)| (label, Style(i))).collect()
}

/// A text style of this many pixels.
pub fn text(pixels: u32) -> TextStyle<'static> {
    // The SVG backend divides sizes by 1.24: the number here is what a reader measures.
    ("sans-serif", f64::from(pixels) * 1.24).into_font().color(&INK)
}

/// Draws a line; there is none through points that are all one.
pub fn draw_path(sheet: &Sheet<'_>, points: &[Pixel], style: impl Into<ShapeStyle>) -> Result<()> {
    if points.iter().all(|point| *point == points[0]) {
        return Ok(());
    }
    draw(sheet.draw(&PathElement::new(points.to_vec(), style)))
}

/// Draws a line of dashes and gaps of so many pixels.
pub fn draw_dashed(
    sheet: &Sheet<'_>,
    points: &[Pixel],
    (dash, gap): (u32, u32),
    style: impl Into<ShapeStyle>,
) -> Result<()> {
    if points.len() < 2 {
        return Ok(());
    }
    draw(sheet.draw(&DashedPathElement::new(points.iter().copied(), dash, gap, style)))
}

/// Writes a text.
pub fn draw_text(sheet: &Sheet<'_>, words: &str, at: Pixel, (h, v): (HPos, VPos), pixels: u32) -> Result<()> {
    draw(sheet.draw(&Text::new(words.to_owned(), at, text(pixels).pos(Pos::new(h, v)))))
}

/// Writes a text that reads upwards, its middle at a place.
pub fn draw_upwards(sheet: &Sheet<'_>, words: &str, at: Pixel, pixels: u32) -> Result<()> {
    let style = text(pixels).transform(FontTransform::Rotate270);
    draw(sheet.draw(&Text::new(words.to_owned(), at, style.pos(Pos::new(HPos::Center, VPos::Center)))))
}

/// A text of at most this many pixels: a longer one loses its end.
pub fn shortened(sheet: &Sheet<'_>, words: &str, pixels: i32, size: u32) -> Result<String> {
    let mut kept: Vec<char> = words.chars().collect();
    let mut short = words.to_owned();
    while kept.len() > 1 && i64::from(draw(sheet.estimate_text_size(&short, &text(size)))?.0) > i64::from(pixels) {
        kept.pop();
        short = kept.iter().chain(&['…']).collect();
    }
    Ok(short)
}

/// Height of a legend's line.
const LEGEND_LINE: i32 = 22;

/// Draws the legend from a place, the middle of its first line, to a right end, in as many lines as it takes, with or without
/// the methods' lines. Gives the height below it.
pub fn draw_legend(
    sheet: &Sheet<'_>,
    styles: &[(&str, Style)],
    (left, top, right): (i32, i32, i32),
    with_lines: bool,
    further: &[Further<'_>],
) -> Result<i32> {
    let line = if with_lines { 36 } else { 12 };
    let (mut x, mut y) = (left, top);
    let mut next = |words: &str| -> Result<Pixel> {
        let (width, _) = draw(sheet.estimate_text_size(words, &text(14)))?;
        let width = line + 8 + i32::try_from(width)?;
        if x + width > right && x > left {
            (x, y) = (left, y + LEGEND_LINE);
        }
        let at = (x, y);
        x += width + 20;
        draw_text(sheet, words, (at.0 + line + 8, at.1), (HPos::Left, VPos::Center), 14)?;
        Ok(at)
    };
    for (label, style) in styles {
        let (x, y) = next(label)?;
        if with_lines {
            style.line(sheet, &[(x, y), (x + line, y)])?;
        }
        style.mark(sheet, (x + line / 2, y))?;
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
