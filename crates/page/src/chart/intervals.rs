//! Shares with their intervals, a row for each thing that was measured.

use super::{Mark, Svg, Words, drawing, line, words};

/// A share and its interval, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dot {
    value: f64,
    interval: (f64, f64),
}

impl Dot {
    /// A share and its interval.
    #[must_use]
    pub fn new(value: f64, interval: (f64, f64)) -> Self {
        Self { value, interval }
    }
}

/// What was measured of one thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its name.
    pub label: String,
    /// A share for each series, if it is known.
    pub dots: Vec<Option<Dot>>,
}

/// A chart of shares with their intervals.
#[derive(Debug, Clone)]
pub struct Intervals<'a> {
    /// Its title and what it shows.
    pub words: Words<'a>,
    /// The names of the series and how they look.
    pub series: &'a [(&'a str, Mark)],
    /// The rows, from above.
    pub rows: Vec<Row>,
}

/// Pixels for the axis above the rows, a row's name, a series of a row, and between rows.
const AXIS: f64 = 20.0;
const NAME: f64 = 20.0;
const SERIES: f64 = 13.0;
const GAP: f64 = 10.0;

impl Intervals<'_> {
    /// Draws it.
    #[must_use]
    pub fn draw(&self) -> Svg {
        let tall = NAME + SERIES * self.series.len() as f64 + GAP;
        let height = AXIS + tall * self.rows.len() as f64;
        let mut drawn = String::new();
        for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
            let anchor = if percent == 0.0 {
                "start"
            } else if percent == 100.0 {
                "end"
            } else {
                "middle"
            };
            drawn += &line("grid", (percent, AXIS), (percent, height));
            drawn += &words("tick", anchor, (percent, 12.0), &format!("{percent} %"));
        }
        for (at, row) in self.rows.iter().enumerate() {
            let top = AXIS + tall * at as f64;
            drawn += &words("name", "start", (0.0, top + 16.0), &row.label);
            for (place, (dot, (_, mark))) in row.dots.iter().zip(self.series).enumerate() {
                let y = top + NAME + SERIES * (place as f64 + 0.5);
                drawn += &dot.map_or(String::new(), |dot| dot.draw(*mark, y));
            }
        }
        drawing(self.words, self.series, height, &drawn)
    }
}

impl Dot {
    fn draw(self, mark: Mark, y: f64) -> String {
        let place = |share: f64| 100.0 * share.clamp(0.0, 1.0);
        let (low, high) = self.interval;
        let whisker = if low.is_nan() || high.is_nan() {
            String::new()
        } else {
            line(&format!("whisker {}", mark.class()), (place(low), y), (place(high), y))
        };
        if self.value.is_nan() { whisker } else { whisker + &mark.at(place(self.value), y) }
    }
}
