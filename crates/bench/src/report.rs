//! What is printed.

use std::fmt::Write as _;

use crate::child::Side;
use crate::floor::Floor;
use crate::machine::Peak;
use crate::plan::Plan;
use crate::stage::Stage;

/// Machine, date and plan.
pub fn head(plan: &Plan) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let mut flags = vec!["avx2", "avx512f", "avx512_bf16", "amx_bf16"];
    flags.retain(|flag| info.contains(flag));
    format!(
        "{}, {} threads, {}; {} prompts of {} tokens, {} samples of {} tokens; {} turns of each side",
        named.trim_start_matches([' ', '\t', ':']),
        plan.threads,
        flags.join(" "),
        plan.rows.len(),
        plan.rows.iter().map(Vec::len).sum::<usize>(),
        plan.samples.len(),
        plan.samples.iter().map(Vec::len).sum::<usize>(),
        plan.turns
    )
}

/// One stage.
pub fn stage(stage: Stage, floor: &Floor, peak: &Peak, sides: &[Side]) -> String {
    let mut text = format!("\n## {}\n", stage.word());
    let least = (floor.operations / peak.operations).max(floor.bytes / peak.bytes);
    let _ = writeln!(
        text,
        "floor {:.0} GFLOP and {:.2} GB: {:.3} s at this machine's {:.0} GFLOP/s and {:.1} GB/s",
        floor.operations / 1e9,
        floor.bytes / 1e9,
        least,
        peak.operations / 1e9,
        peak.bytes / 1e9
    );
    for side in sides {
        let seconds = seconds(side);
        let middle = median(&seconds);
        let word = side.turns.last().map_or("", |turn| turn.word.as_str());
        let _ = writeln!(
            text,
            "{:17} {middle:8.3} s ({:.3} to {:.3}), {:6.1} GFLOP/s, {:5.1} GB/s, {:3.0} % of the floor's speed, {:.2} GB; {word}",
            side.name,
            seconds.iter().copied().fold(f64::INFINITY, f64::min),
            seconds.iter().copied().fold(0.0, f64::max),
            floor.operations / middle / 1e9,
            floor.bytes / middle / 1e9,
            100.0 * least / middle,
            side.memory as f64 / 1e9
        );
    }
    let best = |is_ours: bool| {
        let sides = sides.iter().filter(|side| side.is_ours() == is_ours);
        sides.min_by(|a, b| median(&seconds(a)).total_cmp(&median(&seconds(b))))
    };
    let (Some(ours), Some(best)) = (best(true), best(false)) else {
        let _ = writeln!(text, "no peer: no ratio");
        return text;
    };
    // Turns that followed one another, so that both had the same machine.
    let ratios: Vec<f64> = seconds(ours).iter().zip(seconds(best)).map(|(ours, theirs)| theirs / ours).collect();
    let _ = writeln!(
        text,
        "{}: {:.2} times {} ({:.2} to {:.2}), in {:.2} of its memory",
        ours.name,
        median(&ratios),
        best.name,
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
        ours.memory as f64 / best.memory as f64
    );
    text
}

fn seconds(side: &Side) -> Vec<f64> {
    side.turns.iter().map(|turn| turn.seconds).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}
