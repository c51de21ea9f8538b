//! The paper's figures from records: figure 3 (`harmful_rate.rs`), figure 4 (`tradeoff.rs`), figure 5 and the other
//! ablations (`variants.rs`), the attacks (`attacks.rs`), methods over their knobs (`knobs.rs`), and the time per stage (`time.rs`),
//! as SVG and, drawn from the same SVG, as PNG.
//!
//! Colours are those of Okabe and Ito, which colour-blind readers can tell apart; every method has its own marker too, so
//! that nothing is lost in print. Both follow from the method's place among the records.

mod attacks;
mod frame;
mod harmful_rate;
mod knobs;
mod marks;
mod time;
mod tradeoff;
mod variants;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use evaluation::statistics::Estimate;
use plotters::backend::SVGBackend;
use plotters::drawing::IntoDrawingArea;
use plotters::style::{FontStyle, WHITE, register_font};
use resvg::{tiny_skia, usvg};

use crate::record::{RECOVER, Record};
use marks::{Sheet, draw};

pub use attacks::attacks;
pub use harmful_rate::harmful_rate;
pub use knobs::knobs;
pub use time::time;
pub use tradeoff::tradeoff;
pub use variants::variants;

/// Pixels of the PNG to a pixel of the SVG, for screens with many of them.
const PNG_SCALE: f32 = 2.0;

/// A figure of a sweep.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Its file's name, without an ending.
    pub name: &'static str,
    /// What it shows, in words.
    pub words: &'static str,
    /// The drawing.
    pub svg: String,
}

/// Draws `tradeoff` and `time`, and `variants` of a sweep that has some, else `harmful_rate` if it has something to draw;
/// `attacks` where there were some, and `knobs` where a method was chosen by one.
pub fn figures(records: &[Record]) -> Result<Vec<Figure>> {
    ensure!(!records.is_empty(), "there are no results to draw; run the sweep");
    let mut figures = vec![
        Figure {
            name: "tradeoff",
            words: "Trade-off by task: the task score to the right; upwards a lower harmful rate above, and a lower over-refusal below",
            svg: tradeoff(records)?,
        },
        Figure {
            name: "time",
            words: "Mean seconds by method, to make a model and to evaluate it",
            svg: time(records)?,
        },
    ];
    if records.iter().any(|record| record.method == RECOVER && !record.variant.is_empty()) {
        figures.push(Figure {
            name: "variants",
            words: "Harmful rate, over-refusal, task score and seconds of the recovery's variants",
            svg: variants(records)?,
        });
    } else if records.iter().any(|record| harmful_rate::SERIES.contains(&record.method.as_str())) {
        figures.push(Figure {
            name: "harmful_rate",
            words: "Harmful rate by the number of injected harmful samples, for each model and task",
            svg: harmful_rate(records)?,
        });
    }
    if records.iter().any(|record| !record.attacks.is_empty()) {
        figures.push(Figure {
            name: "attacks",
            words: "Harmful rate by method under attacks, and by the steps of further trainings",
            svg: attacks(records)?,
        });
    }
    if records.iter().any(|record| !record.curve.is_empty()) {
        figures.push(Figure {
            name: "knobs",
            words: "Each method over its knob, its steps or its rounds: what is left on held-out harmful prompts, against what it costs",
            svg: knobs(records)?,
        });
    }
    Ok(figures)
}

/// Writes figures into a directory, each as SVG and PNG.
pub fn write(figures: &[Figure], dir: &Path) -> Result<()> {
    for Figure { name, svg, .. } in figures {
        let png = to_png(svg).with_context(|| format!("figure {name}"))?;
        files::write_whole(&dir.join(format!("{name}.svg")), svg.as_bytes())?;
        files::write_whole(&dir.join(format!("{name}.png")), &png)?;
    }
    Ok(())
}

/// The ends of a mean's interval; the mean itself where it has none.
fn ends(Estimate { value, interval: (low, high) }: &Estimate) -> (f64, f64) {
    if low.is_nan() { (*value, *value) } else { (*low, *high) }
}

/// The height of a legend, which is known when it is drawn.
fn legend_height(width: i32, legend: impl FnOnce(&Sheet<'_>) -> Result<i32>) -> Result<i32> {
    let mut height = 0;
    on_sheet((width, 400), |sheet| {
        height = legend(sheet)?;
        Ok(())
    })?;
    Ok(height)
}

/// Draws on a white sheet of some width and height, and gives it as SVG.
fn on_sheet((width, height): (i32, i32), paint: impl FnOnce(&Sheet<'_>) -> Result<()>) -> Result<String> {
    for (style, bytes) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
        // The plotting library measures text with it.
        register_font("sans-serif", style, bytes).map_err(|_| anyhow!("the embedded font cannot be read"))?;
    }
    let mut svg = String::new();
    {
        let size = (u32::try_from(width)?, u32::try_from(height)?);
        let sheet = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(sheet.fill(&WHITE))?;
        paint(&sheet)?;
        draw(sheet.present())?;
    }
    Ok(svg)
}

/// Renders an SVG with the embedded font, so that the picture is the same on every machine.
fn to_png(svg: &str) -> Result<Vec<u8>> {
    let mut fonts = usvg::fontdb::Database::new();
    for bytes in [dejavu::sans::regular(), dejavu::sans::bold()] {
        fonts.load_font_source(usvg::fontdb::Source::Binary(Arc::new(bytes)));
    }
    fonts.set_sans_serif_family("DejaVu Sans");
    let options = usvg::Options { fontdb: Arc::new(fonts), ..usvg::Options::default() };
    let tree = usvg::Tree::from_str(svg, &options).context("the SVG cannot be read")?;
    let size = tree.size().to_int_size();
    let scaled = |side: u32| (side as f32 * PNG_SCALE) as u32;
    let mut picture =
        tiny_skia::Pixmap::new(scaled(size.width()), scaled(size.height())).context("a picture without pixels")?;
    let transform = tiny_skia::Transform::from_scale(PNG_SCALE, PNG_SCALE);
    resvg::render(&tree, transform, &mut picture.as_mut());
    picture.encode_png().context("the PNG cannot be encoded")
}

#[cfg(test)]
mod tests;
