//! Two costs against each other: the lower left corner is the best.

use super::{BOTTOM, LEFT, Mark, RIGHT, Svg, TOP, Words, drawing, line, tick_word, ticks, upright, words};

/// A path of points by two costs, with what was tried beside it.
#[derive(Debug, Clone)]
pub struct Plane<'a> {
    /// Its title and what it shows.
    pub words: Words<'a>,
    /// What lies along and upwards.
    pub axes: (&'a str, &'a str),
    /// The largest values that are allowed.
    pub allowed: (f64, f64),
    /// Points that were tried and not taken.
    pub tried: Vec<(f64, f64)>,
    /// The path; its first point is where it begins.
    pub path: Vec<(f64, f64)>,
    /// The names of the first point and of the chosen one.
    pub names: (&'a str, &'a str),
    /// The place of the chosen point in the path.
    pub chosen: usize,
}

impl Plane<'_> {
    /// Draws it.
    #[must_use]
    pub fn draw(&self) -> Svg {
        let points = || self.tried.iter().chain(&self.path);
        let most = |of: fn(&(f64, f64)) -> f64, allowed: f64| ticks(points().map(of).fold(allowed, f64::max));
        let (xs, ys) = (most(|point| point.0, self.allowed.0), most(|point| point.1, self.allowed.1));
        let end = |ticks: &[f64]| ticks.last().copied().unwrap_or(1.0);
        let (wide, tall) = (end(&xs), end(&ys));
        let place = |(x, y): (f64, f64)| (LEFT + (RIGHT - LEFT) * x / wide, BOTTOM - (BOTTOM - TOP) * y / tall);
        let mut drawn = self.region(place(self.allowed));
        for &x in &xs {
            drawn += &line("grid", place((x, 0.0)), place((x, tall)));
            drawn += &words("tick", "middle", (place((x, 0.0)).0, BOTTOM + 16.0), &tick_word(x));
        }
        drawn += &upright(&ys, |y| place((0.0, y)).1, self.axes);
        for &point in &self.tried {
            let (x, y) = place(point);
            drawn += &format!("<circle class=\"tried\" cx=\"{x:.2}%\" cy=\"{y:.1}\" r=\"2.5\"/>");
        }
        self.path.windows(2).for_each(|pair| drawn += &line("path", place(pair[0]), place(pair[1])));
        for (at, &point) in self.path.iter().enumerate().filter(|(at, _)| *at != self.chosen) {
            let (x, y) = place(point);
            drawn += &if at == 0 { Mark::Triangle.at(x, y) } else { dot(x, y) };
        }
        drawn += &self.named(&place);
        drawing(self.words, &[], BOTTOM + 42.0, &drawn)
    }

    /// What the bounds allow.
    fn region(&self, (right, top): (f64, f64)) -> String {
        let (width, height) = ((right - LEFT).clamp(0.0, RIGHT - LEFT), (BOTTOM - top).clamp(0.0, BOTTOM - TOP));
        let top = BOTTOM - height;
        format!("<rect class=\"allowed\" x=\"{LEFT}%\" y=\"{top:.1}\" width=\"{width:.2}%\" height=\"{height:.1}\"/>")
    }

    /// The first and the chosen point with their names.
    fn named(&self, place: &impl Fn((f64, f64)) -> (f64, f64)) -> String {
        let name = |point: (f64, f64), name: &str, above: f64| {
            let (x, y) = place(point);
            let (anchor, aside) = if x > 60.0 { ("end", -2.0) } else { ("start", 2.0) };
            words("name", anchor, (x + aside, y + above), name)
        };
        let mut text = String::new();
        if let Some(&point) = self.path.get(self.chosen) {
            let (x, y) = place(point);
            let chosen = if self.chosen == 0 { Mark::Triangle } else { Mark::Disc };
            text += &format!("<circle class=\"chosen\" cx=\"{x:.2}%\" cy=\"{y:.1}\" r=\"9\"/>");
            text += &chosen.at(x, y);
            text += &name(point, self.names.1, -14.0);
        }
        match self.path.first() {
            Some(&point) if self.chosen != 0 => text + &name(point, self.names.0, 4.0),
            _ => text,
        }
    }
}

fn dot(x: f64, y: f64) -> String {
    format!("<circle class=\"step\" cx=\"{x:.2}%\" cy=\"{y:.1}\" r=\"3.5\"/>")
}
