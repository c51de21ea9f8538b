//! The report in words: lines for a terminal, and `report.md`.

use std::fmt::Write as _;
use std::time::Duration;

use evaluation::gate::Stored;
use evaluation::report::percent;
use indicatif::{BinaryBytes, HumanDuration};

use super::bounds::BoundCheck;
use super::report::Report;
use super::tables;

/// A bound that does not hold.
pub(super) fn failed(check: &BoundCheck) -> String {
    let value = check.value.map_or(String::new(), |(value, _)| format!(" is {} %", percent(value)));
    let why = check.why.as_deref().map_or(String::new(), |why| format!(" ({why})"));
    let of = if check.of.is_empty() { String::new() } else { format!(", {}", check.of) };
    format!("{}{of}{value}{why}", check.bound)
}

/// All figures of one model.
pub(super) fn one_line(stored: &Stored) -> String {
    let sets = stored.evaluation.prompt_sets.iter().flat_map(|set| set.judges.iter().map(move |judge| (set, judge)));
    let mut parts: Vec<String> = sets
        .map(|(set, judge)| {
            let rate = judge.rate.as_ref().map_or("unknown".to_owned(), |rate| percent(rate.rate) + " %");
            format!("{} {rate} ({}, n {})", set.kind.rate_name(), judge.judge, judge.n)
        })
        .collect();
    let tasks = stored.evaluation.tasks.iter().flat_map(|task| &task.scores);
    parts.extend(
        tasks.map(|score| format!("task score {} % ({}, n {})", percent(score.value), score.metric.name(), score.n)),
    );
    parts.join(", ")
}

impl Report {
    /// What came of it, for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "\n{}\nheld-out divergences in nats per token, round by round\n{}\n{}",
            tables::measured(self).plain(),
            tables::path(self).plain(),
            self.verdict.text
        )
    }
}

/// `report.md`.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = format!("# Repair of {}\n\n**{}**\n\n", report.models.fine_tuned.name, report.verdict.text);
    let _ = writeln!(text, "{}, {}; {}.\n", report.origin.date, version(report), report.verdict.method);
    for warning in &report.warnings {
        let _ = writeln!(text, "- Warning: {warning}.");
    }
    let direction = &report.direction;
    let _ = write!(
        text,
        "\n## Before and after\n\nOn the test part, which neither the gradients nor the choice saw; with 95 % intervals. A task is scored on samples of its\n\
         file, which the fine-tuning may have seen.\n\n{}\n{}\n\
         ## The way there\n\nDivergences on the choosing part, in nats per token.\n\n{}\n\
         ## Restored weights\n\n{} in all; % by block and module.\n\n{}\n\
         Cosine of the mean hidden state on harmful prompts with the aligned model's, layer {}: {:.4} before, {:.4} after.\n\n\
         ## The two models\n\n```\n{}\n```\n\n{}\n## Time and memory\n\n{}\n{}\n\n",
        tables::measured(report).markdown(),
        tables::bounds(report).markdown(),
        tables::path(report).markdown(),
        report.restored.weights,
        tables::restored(report).markdown(),
        direction.layer,
        direction.before,
        direction.after,
        report.comparison.text(),
        tables::models(report).markdown(),
        tables::seconds(report).markdown(),
        machine(report)
    );
    text + &answers(report) + &again(report)
}

/// The program's version.
pub(super) fn version(report: &Report) -> String {
    let revision = report.origin.git_revision.as_ref().map_or(String::new(), |git| format!(" ({git})"));
    format!("realign {}{revision} on {}", report.origin.version, report.origin.platform)
}

/// Time and memory beside what was planned.
pub(super) fn machine(report: &Report) -> String {
    let peak = report.peak_memory.map_or("not known".to_owned(), |bytes| BinaryBytes(bytes).to_string());
    let needs = &report.plan.needs;
    format!(
        "Largest memory {peak} (planned: {}); planned time: {}.",
        BinaryBytes(needs.memory()),
        HumanDuration(Duration::from_secs_f64(needs.seconds))
    )
}

/// The settings as a file has them.
pub(super) fn settings(report: &Report) -> String {
    serde_yaml::to_string(&report.settings).unwrap_or_default()
}

fn answers(report: &Report) -> String {
    let table = tables::answers(report);
    match table.rows.is_empty() {
        true => "Prompts and answers are left out; `--show-answers` shows them.\n\n".to_owned(),
        false => format!("## Prompts and answers\n\n{}\n", table.markdown()),
    }
}

/// How it is done again.
pub(super) fn again(report: &Report) -> String {
    let mut text = "## To do it again\n\n".to_owned();
    if !report.origin.command.is_empty() {
        let _ = writeln!(text, "```sh\n{}\n```\n", report.origin.command.join(" "));
    }
    let (prompts, patch) = (tables::prompts(report).markdown(), &report.origin.patch_hash);
    let _ = writeln!(text, "{prompts}\nPatch: SHA-256 `{patch}`.\n\n```yaml\n{}```", settings(report));
    text
}
