//! Charts as SVG in text. What lies along a chart is in percent of its width and all else in pixels, so that a chart fits any
//! width and its words keep their size; colours are those of the page, light or dark.

mod intervals;
mod lines;
mod plane;

use std::fmt::Write as _;

use minijinja::{HtmlEscape, Value};
use serde::{Serialize, Serializer};

pub use intervals::{Dot, Intervals, Row};
pub use lines::{Line, Lines};
pub use plane::Plane;

/// A drawing for a page, with its legend; templates do not escape it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svg(String);

impl Svg {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A whole drawing by another program, with what it shows in words. Its texts must have been escaped.
    #[must_use]
    pub fn foreign(svg: &str, words: &str) -> Self {
        let head = format!("<svg role=\"img\" aria-label=\"{}\" ", HtmlEscape(words));
        Self(svg.replacen("<svg ", &head, 1))
    }
}

impl Serialize for Svg {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Value::from_safe_string(self.0.clone()).serialize(serializer)
    }
}

/// How the points of a series look; colour and shape go together, so that nothing is lost in print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A hollow grey square.
    Square,
    /// A vermilion triangle.
    Triangle,
    /// A blue disc.
    Disc,
    /// A purple diamond.
    Diamond,
}

impl Mark {
    fn class(self) -> &'static str {
        match self {
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Disc => "disc",
            Self::Diamond => "diamond",
        }
    }

    fn shape(self) -> &'static str {
        match self {
            Self::Square => "<rect x=\"-3.5\" y=\"-3.5\" width=\"7\" height=\"7\"/>",
            Self::Triangle => "<path d=\"M0-5 5 4H-5Z\"/>",
            Self::Disc => "<circle r=\"4.5\"/>",
            Self::Diamond => "<path d=\"M0-5.5 5 0 0 5.5-5 0Z\"/>",
        }
    }

    /// At a place, in percent and pixels.
    fn at(self, x: f64, y: f64) -> String {
        format!(
            "<svg x=\"{x:.2}%\" y=\"{y:.1}\" overflow=\"visible\" class=\"mark {}\">{}</svg>",
            self.class(),
            self.shape()
        )
    }
}

/// What a chart is called and shows, in words.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    /// A name that no other chart of the page has.
    pub id: &'a str,
    /// The title.
    pub title: &'a str,
    /// What it shows, for those who do not see it.
    pub description: &'a str,
}

/// Puts what is drawn, this many pixels high, into a drawing with its words, below its legend.
fn drawing(words: Words<'_>, legend: &[(&str, Mark)], height: f64, drawn: &str) -> Svg {
    let Words { id, title, description } = words;
    let mut text = String::from("<div class=\"legend\" aria-hidden=\"true\">");
    for (name, mark) in legend {
        let mark = format!("<svg width=\"14\" height=\"14\">{}</svg>", mark.at(50.0, 7.0));
        let _ = write!(text, "<span>{mark}{}</span>", HtmlEscape(name));
    }
    let _ = write!(
        text,
        "</div><svg class=\"chart\" width=\"100%\" height=\"{height:.0}\" role=\"img\" aria-labelledby=\"{id}-title {id}-about\">\
         <title id=\"{id}-title\">{}</title><desc id=\"{id}-about\">{}</desc>{drawn}</svg>",
        HtmlEscape(title),
        HtmlEscape(description)
    );
    Svg(text)
}

/// A line between two places, in percent and pixels.
fn line(class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!("<line class=\"{class}\" x1=\"{x1:.2}%\" y1=\"{y1:.1}\" x2=\"{x2:.2}%\" y2=\"{y2:.1}\"/>")
}

/// Words at a place; `anchor` is `start`, `middle` or `end`.
fn words(class: &str, anchor: &str, (x, y): (f64, f64), text: &str) -> String {
    format!("<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.2}%\" y=\"{y:.1}\">{}</text>", HtmlEscape(text))
}

/// Edges of what two axes span: left and right in percent, top and bottom in pixels.
const LEFT: f64 = 9.0;
const RIGHT: f64 = 97.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 236.0;

/// The grid of what lies upwards, `y` being the height of a value, and what both axes are called.
fn upright(values: &[f64], y: impl Fn(f64) -> f64, axes: (&str, &str)) -> String {
    let mut drawn = String::new();
    for &value in values {
        drawn += &line("grid", (LEFT, y(value)), (RIGHT, y(value)));
        drawn += &words("tick", "end", (LEFT - 1.5, y(value) + 4.0), &tick_word(value));
    }
    drawn += &words("axis", "start", (0.0, 12.0), axes.1);
    drawn + &words("axis", "end", (RIGHT, BOTTOM + 34.0), axes.0)
}

/// Round values from 0 to the first that is not below `most`, at most six.
fn ticks(most: f64) -> Vec<f64> {
    let most = if most.is_finite() && most > 0.0 { most } else { 1.0 };
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| step * 5.0 >= most * 0.999_999);
    let step = step.unwrap_or(10.0 * power);
    let count = (most / step * 0.999_999).ceil().max(1.0) as usize;
    (0..=count).map(|at| at as f64 * step).collect()
}

/// A tick's value without a tail of rounding.
fn tick_word(value: f64) -> String {
    format!("{}", (value * 1e9).round() / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_reach_the_largest_value() {
        let words = |most| ticks(most).into_iter().map(tick_word).collect::<Vec<_>>();
        assert_eq!(words(0.693), ["0", "0.2", "0.4", "0.6", "0.8"]);
        assert_eq!(words(0.1434), ["0", "0.05", "0.1", "0.15"]);
        assert_eq!(words(1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(ticks(f64::NAN).len(), 6);
        assert_eq!(ticks(0.0).len(), 6);
    }

    #[test]
    fn names_are_escaped_and_a_drawing_says_what_it_shows() {
        let words = Words { id: "c", title: "<b>", description: "a & b" };
        let row = Row { label: "<script>".to_owned(), dots: vec![Some(Dot::new(0.5, (0.25, 0.75))), None] };
        let svg = Intervals { words, series: &[("<i>", Mark::Disc), ("two", Mark::Square)], rows: vec![row] }.draw();
        let text = svg.as_str();
        assert!(text.contains("role=\"img\"") && text.contains("<title id=\"c-title\">&lt;b&gt;"), "{text}");
        assert!(!text.contains("<script>") && !text.contains("<i>"), "{text}");
        assert!(
            Svg::foreign("<svg width=\"1\"/>", "a \"b\"").as_str().contains("aria-label=\"a &quot;b&quot;\" width")
        );
        let page = crate::render("{{ svg }}", std::collections::BTreeMap::from([("svg", svg.clone())])).unwrap();
        assert_eq!(page, text, "not escaped again");
    }
}
