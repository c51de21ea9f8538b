//! Values along steps, a line for each series.

use super::{BOTTOM, LEFT, Mark, RIGHT, Svg, TOP, Words, drawing, line, ticks, upright, words};

/// A series.
#[derive(Debug, Clone)]
pub struct Line<'a> {
    /// Its name.
    pub name: &'a str,
    /// How its points look.
    pub mark: Mark,
    /// Its values, step by step.
    pub values: Vec<f64>,
}

/// A chart of values along steps that are counted from 0.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    /// Its title and what it shows.
    pub words: Words<'a>,
    /// What lies along and upwards.
    pub axes: (&'a str, &'a str),
    /// The series.
    pub lines: Vec<Line<'a>>,
    /// The step that was chosen.
    pub chosen: usize,
}

/// So many steps have their number below the axis at most.
const NUMBERED: usize = 13;

impl Lines<'_> {
    /// Draws it.
    #[must_use]
    pub fn draw(&self) -> Svg {
        let steps = self.lines.iter().map(|line| line.values.len()).max().unwrap_or(0);
        let ys = ticks(self.lines.iter().flat_map(|line| &line.values).copied().fold(0.0, f64::max));
        let tall = ys.last().copied().unwrap_or(1.0);
        let x = |step: usize| LEFT + (RIGHT - LEFT) * (step as f64 + 0.5) / steps.max(1) as f64;
        let y = |value: f64| BOTTOM - (BOTTOM - TOP) * value / tall;
        let mut drawn = upright(&ys, y, self.axes);
        drawn += &line("chosen", (x(self.chosen), TOP), (x(self.chosen), BOTTOM));
        for step in (0..steps).step_by(steps.div_ceil(NUMBERED).max(1)) {
            drawn += &words("tick", "middle", (x(step), BOTTOM + 16.0), &step.to_string());
        }
        for series in &self.lines {
            let place = |(step, value): (usize, &f64)| (x(step), y(*value));
            let points: Vec<(f64, f64)> = series.values.iter().enumerate().map(place).collect();
            let class = format!("series {}", series.mark.class());
            points.windows(2).for_each(|pair| drawn += &line(&class, pair[0], pair[1]));
            points.iter().for_each(|point| drawn += &series.mark.at(point.0, point.1));
        }
        let legend: Vec<(&str, Mark)> = self.lines.iter().map(|line| (line.name, line.mark)).collect();
        drawing(self.words, &legend, BOTTOM + 42.0, &drawn)
    }
}
