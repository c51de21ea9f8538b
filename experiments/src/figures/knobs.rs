//! Each method over its knob, its steps or its rounds, on held-out prompts: the divergence on harmful prompts upwards, and to the
//! right what it costs, on harmless prompts and on the task. Means over the models; both axes are of square roots, as most of
//! a curve lies near zero.

use anyhow::Result;
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::{Axis, draw_frame};
use super::marks::{Sheet, Style, draw_legend, draw_text, draw_upwards, styles};
use super::{legend_height, on_sheet};
use crate::record::{Methods, Record, groups};
use crate::tables::knobs::{Point, points};

const SIDE: i32 = 380;
/// Room on the left and below, and between panels.
const ROOM: (i32, i32, i32) = (74, 56, 70);

/// What a point costs.
type Cost = fn(&Point<'_>) -> f64;

/// Draws the curves as SVG; with variants, those of the first.
pub fn knobs(records: &[Record]) -> Result<String> {
    let (all, found) = (Methods::of(records), points(records));
    let mut methods: Vec<(&str, Vec<&Point<'_>>)> = groups(&found, |point| point.method);
    for (_, own) in &mut methods {
        let first = own[0].variant;
        own.retain(|point| point.variant == first);
    }
    let costs: [(&str, Cost); 2] = [
        ("KL on harmless prompts (over-refusal), nats per token", |point| point.standing.harmless),
        ("KL to the fine-tuned model on the task, nats per token", |point| point.standing.task),
    ];
    let harm = |point: &Point<'_>| point.standing.harmful;
    let highest = |value: &dyn Fn(&Point<'_>) -> f64| found.iter().map(value).fold(0.0, f64::max);
    let (left, below, gap) = ROOM;
    let width = left + 2 * SIDE + gap + 20;
    let drawn = styles(&all, records.iter().filter(|record| !record.curve.is_empty()));
    let legend = |sheet: &Sheet<'_>| draw_legend(sheet, &drawn, (left, 20, width - 10), true, &[]);
    let top = legend_height(width, legend)? + 8;
    on_sheet((width, top + SIDE + below), |sheet| {
        legend(sheet)?;
        draw_upwards(sheet, "KL to the aligned model on harmful prompts, nats per token", (16, top + SIDE / 2), 13)?;
        for (panel, (words, cost)) in (0..).zip(costs) {
            let place = left + panel * (SIDE + gap);
            let axes = (Axis::of_roots(highest(&cost)), Axis::of_roots(highest(&harm)));
            let at = draw_frame(sheet, (place, top, SIDE, SIDE), "", axes)?;
            draw_text(sheet, words, (place + SIDE / 2, top + SIDE + 44), (HPos::Center, VPos::Bottom), 13)?;
            for (method, own) in &methods {
                let style = Style::of(&all, method);
                let curve: Vec<_> =
                    own.iter().map(|point| at(cost(point).max(0.0).sqrt(), harm(point).max(0.0).sqrt())).collect();
                if curve.len() > 1 {
                    style.line(sheet, &curve)?;
                }
                curve.into_iter().try_for_each(|point| style.mark(sheet, point))?;
            }
        }
        Ok(())
    })
}
