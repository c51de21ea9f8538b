//! The harmful rate under attacks: a panel of the attacks on the model as it is, and one with curves over the steps of each
//! further training. Means over the cells; bars and bands are 95 % intervals of a bootstrap over
//! the pairs of a model and a task.

use anyhow::Result;
use evaluation::statistics::Estimate;
use plotters::prelude::{Color, Polygon};
use plotters::style::text_anchor::{HPos, VPos};

use super::frame::{Axis, draw_frame};
use super::marks::{Sheet, Style, draw, draw_legend, draw_path, draw_text, draw_upwards, shortened, styles};
use super::{ends, on_sheet};
use crate::record::{Methods, Record, groups};
use crate::tables::attacks::{Kind, Mean, kinds, means};

const HEIGHT: i32 = 260;
const CURVE: i32 = 270;
/// Between two methods of one attack.
const APART: i32 = 10;
/// Room on the left, above and below, and between panels.
const ROOM: (i32, i32, i32, i32) = (74, 92, 52, 54);
/// How much of a band's colour shows.
const BAND: f64 = 0.12;

/// Draws the attacks as SVG; with variants, those of the first.
pub fn attacks(records: &[Record]) -> Result<String> {
    let (all, found, kinds) = (Methods::of(records), means(records)?, kinds(records));
    let mut methods: Vec<(&str, Vec<&Mean<'_>>)> = groups(&found, |mean| mean.method);
    for (_, own) in &mut methods {
        let first = own[0].variant;
        own.retain(|mean| mean.variant == first);
    }
    let plain: Vec<Kind<'_>> = kinds.iter().copied().filter(|kind| kind.1.is_none()).collect();
    let trainings: Vec<(&str, Vec<Kind<'_>>)> = groups(kinds.iter().filter(|kind| kind.1.is_some()), |kind| kind.0)
        .into_iter()
        .map(|(attack, steps)| (attack, steps.into_iter().copied().collect()))
        .collect();
    let (left, top, below, gap) = ROOM;
    let slot = (APART * i32::try_from(methods.len())? + 22).max(66);
    let first = if plain.is_empty() { 0 } else { slot * i32::try_from(plain.len() + 1)? };
    let curves = (CURVE + gap) * i32::try_from(trainings.len())?;
    let width = left + first + if first > 0 { gap } else { 0 } + curves;
    on_sheet((width, top + HEIGHT + below), |sheet| {
        draw_legend(sheet, &styles(&all, records), (left, 20, width - 10), true, &[])?;
        draw_upwards(sheet, "harmful rate (%)", (16, top + HEIGHT / 2), 14)?;
        let mut at = left;
        if first > 0 {
            draw_points(sheet, (at, first), (&plain, slot), &methods, &all)?;
            at += first + gap;
        }
        for (attack, steps) in &trainings {
            draw_curves(sheet, at, (attack, steps), &methods, &all)?;
            at += CURVE + gap;
        }
        Ok(())
    })
}

/// A method's estimate under an attack, or without one.
fn of<'a>(own: &[&'a Mean<'a>], attack: Option<Kind<'_>>) -> Option<&'a Estimate> {
    let mean = own.iter().find(|mean| mean.attack == attack)?;
    Some(&mean.harmful).filter(|estimate| !estimate.value.is_nan())
}

/// The attacks side by side, the methods of one beside each other.
fn draw_points(
    sheet: &Sheet<'_>,
    (left, width): (i32, i32),
    (kinds, slot): (&[Kind<'_>], i32),
    methods: &[(&str, Vec<&Mean<'_>>)],
    all: &Methods<'_>,
) -> Result<()> {
    let word = |kind: &Kind<'_>| shortened(sheet, &kind.0.replace('_', " "), slot - 6, 11);
    let names = kinds.iter().map(word).collect::<Result<Vec<_>>>()?;
    let names = ["as it is".to_owned()].into_iter().chain(names);
    let axes = (Axis::of_names(names), Axis::of_values(-4.0, 104.0, 6));
    let at = draw_frame(sheet, (left, ROOM.1, width, HEIGHT), "attacks on the model as it is", axes)?;
    let attacks = [None].into_iter().chain(kinds.iter().map(|kind| Some(*kind)));
    for (place, attack) in attacks.enumerate() {
        for (i, (method, own)) in (0..).zip(methods) {
            let Some(estimate) = of(own, attack) else { continue };
            let style = Style::of(all, method);
            let shift = APART * i - APART * (i32::try_from(methods.len())? - 1) / 2;
            let point = |share: f64| {
                let (x, y) = at(place as f64, 100.0 * share);
                (x + shift, y)
            };
            let (low, high) = ends(estimate);
            draw_path(sheet, &[point(low), point(high)], style.colour().stroke_width(1))?;
            style.mark(sheet, point(estimate.value))?;
        }
    }
    Ok(())
}

/// A curve with its band for each method over the steps of a further training.
fn draw_curves(
    sheet: &Sheet<'_>,
    left: i32,
    (attack, steps): (&str, &[Kind<'_>]),
    methods: &[(&str, Vec<&Mean<'_>>)],
    all: &Methods<'_>,
) -> Result<()> {
    let names = ["0".to_owned()].into_iter().chain(steps.iter().map(|kind| kind.1.unwrap_or(0).to_string()));
    let axes = (Axis::of_names(names), Axis::of_values(-4.0, 104.0, 6));
    let title = attack.replace('_', " ");
    let at = draw_frame(sheet, (left, ROOM.1, CURVE, HEIGHT), &title, axes)?;
    let middle = (left + CURVE / 2, ROOM.1 + HEIGHT + 44);
    draw_text(sheet, "steps of further training", middle, (HPos::Center, VPos::Bottom), 13)?;
    let attacks: Vec<Option<Kind<'_>>> = [None].into_iter().chain(steps.iter().map(|kind| Some(*kind))).collect();
    let known = |own: &[&Mean<'_>]| -> Vec<(f64, Estimate)> {
        let all = attacks.iter().enumerate();
        all.filter_map(|(i, attack)| Some((i as f64, *of(own, *attack)?))).collect()
    };
    for (method, own) in methods {
        let curve = known(own);
        let low = curve.iter().map(|(x, estimate)| at(*x, 100.0 * ends(estimate).0));
        let high = curve.iter().rev().map(|(x, estimate)| at(*x, 100.0 * ends(estimate).1));
        let band = Style::of(all, method).colour().mix(BAND).filled();
        draw(sheet.draw(&Polygon::new(low.chain(high).collect::<Vec<_>>(), band)))?;
    }
    for (method, own) in methods {
        let style = Style::of(all, method);
        let points: Vec<_> = known(own).iter().map(|(x, estimate)| at(*x, 100.0 * estimate.value)).collect();
        if points.len() > 1 {
            style.line(sheet, &points)?;
        }
        points.into_iter().try_for_each(|point| style.mark(sheet, point))?;
    }
    Ok(())
}
