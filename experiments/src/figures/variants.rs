//! Figure 5 and the other ablations: what the recovery's variants do to the harmful rate and the task, and the time that they
//! take, side by side. Means over the cells; bars are 95 % intervals of a bootstrap over cells.

use anyhow::{Result, ensure};
use evaluation::statistics::Estimate;
use plotters::prelude::{Color, IntoDrawingArea, SVGBackend};
use plotters::style::text_anchor::{HPos, VPos};

use super::axes::{Axes, shortened, ticks};
use super::marks::{LegendBox, Sheet, colour, draw, draw_legend, draw_line, draw_mark, draw_path, draw_text};
use super::use_embedded_font;
use crate::row::ResultRow;
use crate::sweep::Method;
use crate::tables::means::{Mean, means, shared};

const SIZE: (i32, i32) = (300, 220);
const LEFT: i32 = 54;
const GAP: i32 = 60;
const TOP: i32 = 70;
const BELOW: i32 = 40;

/// What a panel shows of the recoveries.
struct Panel {
    title: &'static str,
    values: Vec<Estimate>,
    /// Values of the methods that a line leads across for.
    levels: Vec<(Method, f64)>,
    /// The highest value there can be.
    most: Option<f64>,
}

/// Draws the ablation as SVG.
///
/// # Errors
/// When no recovery has a variant.
pub fn variants(rows: &[ResultRow]) -> Result<String> {
    let means = means(&shared(rows).0)?;
    let recovered: Vec<&Mean> =
        means.iter().filter(|mean| mean.method == Method::Recovered && !mean.variant.is_empty()).collect();
    ensure!(!recovered.is_empty(), "there are no variants of recovery to draw");
    use_embedded_font()?;
    let panels = panels(&means, &recovered);
    let width = LEFT + i32::try_from(panels.len())? * (SIZE.0 + GAP);
    let height = TOP + SIZE.1 + BELOW;
    let mut svg = String::new();
    {
        let sheet =
            SVGBackend::with_string(&mut svg, (u32::try_from(width)?, u32::try_from(height)?)).into_drawing_area();
        draw(sheet.fill(&plotters::style::WHITE))?;
        let mut methods: Vec<Method> = panels[0].levels.iter().map(|level| level.0).collect();
        methods.push(Method::Recovered);
        draw_legend(&sheet, &methods, LegendBox { at: (LEFT, 20), right: width, with_lines: true }, &[])?;
        for (i, panel) in panels.iter().enumerate() {
            let left = LEFT + i32::try_from(i)? * (SIZE.0 + GAP);
            draw_panel(&sheet, left, panel, &recovered)?;
        }
        draw(sheet.present())?;
    }
    Ok(svg)
}

fn panels(means: &[Mean], recovered: &[&Mean]) -> Vec<Panel> {
    let percent = |estimate: Estimate| {
        let (low, high) = estimate.interval;
        Estimate { value: 100.0 * estimate.value, interval: (100.0 * low, 100.0 * high) }
    };
    let level = |method: Method, value: fn(&Mean) -> f64| {
        means.iter().find(|mean| mean.method == method).map(|mean| (method, 100.0 * value(mean)))
    };
    let harmful = |method| level(method, |mean| mean.harmful.value);
    let exact = |value: f64| Estimate { value, interval: (value, value) };
    let mut panels = vec![Panel {
        title: "harmful rate (%)",
        values: recovered.iter().map(|mean| percent(mean.harmful)).collect(),
        levels: [harmful(Method::Aligned), harmful(Method::FineTuned)].into_iter().flatten().collect(),
        most: Some(104.0),
    }];
    let relative: Option<Vec<Estimate>> = recovered.iter().map(|mean| mean.relative.map(percent)).collect();
    if let Some(values) = relative {
        panels.push(Panel {
            title: "task score, % of fine-tuned",
            values,
            levels: vec![(Method::FineTuned, 100.0)],
            most: None,
        });
    }
    panels.push(Panel {
        title: "seconds of a recovery",
        values: recovered.iter().map(|mean| exact(mean.seconds)).collect(),
        levels: Vec::new(),
        most: None,
    });
    panels
}

fn draw_panel(sheet: &Sheet, left: i32, panel: &Panel, recovered: &[&Mean]) -> Result<()> {
    let ends = panel.values.iter().map(|value| value.interval.1).chain(panel.levels.iter().map(|level| level.1));
    let most = panel.most.unwrap_or_else(|| 1.1 * ends.fold(f64::MIN_POSITIVE, f64::max));
    let axes =
        Axes { place: (left, TOP, SIZE.0, SIZE.1), x: (-0.5, recovered.len() as f64 - 0.5), y: (-0.04 * most, most) };
    axes.rows(sheet, &ticks(0.0, most, 5), true)?;
    axes.columns(sheet, &(0..recovered.len()).map(|i| (i as f64, String::new())).collect::<Vec<_>>(), false)?;
    axes.frame(sheet, panel.title)?;
    let room = SIZE.0 / i32::try_from(recovered.len())? - 4;
    for &(method, value) in &panel.levels {
        draw_line(sheet, method, &axes.level(value))?;
    }
    let points: Vec<_> = panel.values.iter().enumerate().map(|(i, value)| axes.at(i as f64, value.value)).collect();
    if points.len() > 1 {
        draw_line(sheet, Method::Recovered, &points)?;
    }
    for (i, (mean, value)) in recovered.iter().zip(&panel.values).enumerate() {
        let [low, high] = [value.interval.0, value.interval.1].map(|end| axes.at(i as f64, end));
        draw_path(sheet, &[low, high], colour(Method::Recovered).stroke_width(1))?;
        draw_mark(sheet, Method::Recovered, points[i])?;
        let words = shortened(sheet, &mean.variant, room, 12)?;
        let (x, bottom) = axes.at(i as f64, axes.y.0);
        draw_text(sheet, &words, (x, bottom + 8), (HPos::Center, VPos::Top), 12)?;
    }
    Ok(())
}
