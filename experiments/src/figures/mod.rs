//! The paper's figures from the rows of a sweep: figure 3 (`harmful_rate.rs`), figure 4 (`tradeoff.rs`), figure 5 and the
//! other ablations (`variants.rs`), and the time per stage (`time.rs`), as SVG and, drawn from the same SVG, as PNG.
//!
//! Colours are those of Okabe and Ito, which colour-blind readers can tell apart; every method has
//! its own marker too, so that nothing is lost in print. No figure is computed here.

mod axes;
mod harmful_rate;
mod marks;
mod time;
mod tradeoff;
mod variants;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use plotters::style::{FontStyle, register_font};
use resvg::{tiny_skia, usvg};

use crate::row::ResultRow;
use crate::store::write_whole;
use crate::sweep::Method;

pub use harmful_rate::harmful_rate;
pub use time::time;
pub use tradeoff::tradeoff;
pub use variants::variants;

/// Pixels of the PNG to a pixel of the SVG, for screens with many of them.
const PNG_SCALE: f32 = 2.0;

/// Draws `tradeoff.{svg,png}` and `time.{svg,png}` into a directory, and `variants` of a sweep that has some, else
/// `harmful_rate` where it has something to draw.
///
/// # Errors
/// When there are no rows, or a file cannot be written.
pub fn write(rows: &[ResultRow], dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut figures = vec![("tradeoff", tradeoff(rows)?), ("time", time(rows)?)];
    if rows.iter().any(|row| row.method == Method::Recovered && !row.variant.is_empty()) {
        figures.push(("variants", variants(rows)?));
    } else if rows.iter().any(|row| harmful_rate::SERIES.contains(&row.method)) {
        figures.push(("harmful_rate", harmful_rate(rows)?));
    }
    for (name, svg) in figures {
        let png = to_png(&svg).with_context(|| format!("figure {name}"))?;
        write_whole(&dir.join(format!("{name}.svg")), |file| Ok(file.write_all(svg.as_bytes())?))?;
        write_whole(&dir.join(format!("{name}.png")), |file| Ok(file.write_all(&png)?))?;
    }
    Ok(())
}

/// Gives the plotting library the embedded font, by which it measures text.
fn use_embedded_font() -> Result<()> {
    for (style, bytes) in [(FontStyle::Normal, dejavu::sans::regular()), (FontStyle::Bold, dejavu::sans::bold())] {
        register_font("sans-serif", style, bytes).map_err(|_| anyhow!("the embedded font cannot be read"))?;
    }
    Ok(())
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
