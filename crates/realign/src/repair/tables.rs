//! The report in words: tables for a terminal and for `report.md`.

use std::fmt::Write as _;
use std::time::Duration;

use evaluation::gate::Stored;
use indicatif::{BinaryBytes, HumanDuration};

use super::bounds::BoundCheck;
use super::measures::Figure;
use super::report::Report;

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A share with its interval, in percent.
fn figure(figure: &Figure) -> String {
    let (low, high) = figure.interval;
    let value = figure.value.map_or("unknown".to_owned(), percent);
    format!("{value} ({} to {})", percent(low), percent(high))
}

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

/// The rows of what was measured, with their head.
fn measured(report: &Report) -> Vec<[String; 7]> {
    let head = ["%", "by", "n", "aligned", "fine-tuned", "recovered", "change"].map(str::to_owned);
    let rows = report.measures.iter().map(|one| {
        let change = one.after.value.zip(one.before.value);
        let change = change.map_or(String::new(), |(after, before)| format!("{:+.1}", 100.0 * (after - before)));
        let [aligned, before, after] = [&one.aligned, &one.before, &one.after].map(figure);
        [
            format!("{}, {}", one.figure, one.set),
            one.by.clone(),
            one.after.n.to_string(),
            aligned,
            before,
            after,
            change,
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

/// The rows of the way to the model, with their head.
fn path(report: &Report) -> Vec<[String; 7]> {
    let head = ["round", "restored", "% of blocks", "harmful", "harmless", "task", "merit"].map(str::to_owned);
    let path = &report.path;
    let row = |name: String, restored: usize, share: f64, one: &recovery::Standing| {
        let [harmful, harmless, task, merit] =
            [one.harmful, one.harmless, one.task, one.merit].map(|x| format!("{x:.4}"));
        [name, restored.to_string(), format!("{:.3}", 100.0 * share), harmful, harmless, task, merit]
    };
    let name = |round: usize| if round == path.chosen { format!("{round} (chosen)") } else { round.to_string() };
    let points = path.points.iter().map(|point| row(name(point.round), point.restored, point.share, &point.standing));
    std::iter::once(head).chain([row(name(0), 0, 0.0, &path.base)]).chain(points).collect()
}

/// Restored share by block and module, with its head.
fn restored(report: &Report) -> Vec<Vec<String>> {
    let found = &report.restored;
    let head = std::iter::once("block".to_owned()).chain(found.modules.iter().cloned()).collect();
    let row = |(block, (of, restored)): (usize, (&Vec<usize>, &Vec<usize>))| {
        let share = |(&of, &restored): (&usize, &usize)| format!("{:.2}", 100.0 * restored as f64 / of.max(1) as f64);
        std::iter::once(block.to_string()).chain(of.iter().zip(restored).map(share)).collect()
    };
    std::iter::once(head).chain(found.of.iter().zip(&found.restored).enumerate().map(row)).collect()
}

/// A table for a terminal.
fn plain<R: AsRef<[String]>>(rows: &[R]) -> String {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let width = |column: usize| rows.iter().map(|row| row.as_ref()[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.as_ref().iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(text, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end()).ok();
    }
    text
}

/// A table for Markdown.
fn marked<R: AsRef<[String]>>(rows: &[R]) -> String {
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.as_ref().iter().map(|cell| cell.replace('|', "\\|")).collect();
        writeln!(text, "| {} |", cells.join(" | ")).ok();
        if at == 0 {
            writeln!(text, "|{}", "---|".repeat(row.as_ref().len())).ok();
        }
    }
    text
}

impl Report {
    /// What came of it, for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        format!(
            "\n{}\nheld-out divergences in nats per token, round by round\n{}\n{}",
            plain(&measured(self)),
            plain(&path(self)),
            self.verdict.text
        )
    }

    /// The table of what was measured, for Markdown.
    pub(super) fn measured_table(&self) -> String {
        marked(&measured(self))
    }
}

/// `report.md`.
pub(super) fn markdown(report: &Report) -> String {
    let models = [&report.models.aligned, &report.models.fine_tuned, &report.models.recovered];
    let names = ["aligned", "fine-tuned", "recovered"];
    let mut text = format!("# Repair of {}\n\n**{}**\n\n", report.models.fine_tuned.name, report.verdict.text);
    let _ = writeln!(text, "{}, {}; {}.\n", report.origin.date, version(report), report.verdict.method);
    for warning in &report.warnings {
        let _ = writeln!(text, "- Warning: {warning}.");
    }
    let _ = writeln!(
        text,
        "\n## Before and after\n\nOn the test part, which neither the gradients nor the choice saw; with 95 % intervals. A task is scored on samples of its\n\
         file, which the fine-tuning may have seen.\n\n{}",
        report.measured_table()
    );
    text += "\n| bound | of | value % | |\n|---|---|--:|---|\n";
    for check in &report.verdict.checks {
        let value = check.value.map_or(String::new(), |(value, _)| percent(value));
        let result =
            if check.holds { "holds".to_owned() } else { format!("FAILS: {}", check.why.clone().unwrap_or_default()) };
        let _ = writeln!(text, "| `{}` | {} | {value} | {result} |", check.bound, check.of);
    }
    let _ = writeln!(
        text,
        "\n## The way there\n\nDivergences on the choosing part, in nats per token.\n\n{}",
        marked(&path(report))
    );
    let _ = writeln!(
        text,
        "## Restored weights\n\n{} in all; % by block and module.\n\n{}",
        report.restored.weights,
        marked(&restored(report))
    );
    let direction = &report.direction;
    let _ = writeln!(
        text,
        "Cosine of the mean hidden state on harmful prompts with the aligned model's, layer {}: {:.4} before, {:.4} after.\n",
        direction.layer, direction.before, direction.after
    );
    let _ = writeln!(text, "## The two models\n\n```\n{}\n```\n", report.comparison.text());
    let hashes: Vec<[String; 3]> = std::iter::once(["model", "path", "hash of its files"].map(str::to_owned))
        .chain(names.iter().zip(models).map(|(name, one)| [(*name).to_owned(), one.path.clone(), one.hash.clone()]))
        .collect();
    let _ = writeln!(text, "{}\n## Time and memory\n", marked(&hashes));
    for (step, seconds) in &report.seconds {
        let _ = writeln!(text, "- {step}: {seconds:.1} s");
    }
    let total = report.seconds.iter().map(|(_, seconds)| seconds).sum::<f64>();
    let peak = report.peak_memory.map_or("not known".to_owned(), |bytes| BinaryBytes(bytes).to_string());
    let needs = &report.plan.needs;
    let _ = writeln!(
        text,
        "- in all: {total:.1} s (planned: {}); largest memory {peak} (planned: {})\n",
        HumanDuration(Duration::from_secs_f64(needs.seconds)),
        BinaryBytes(needs.memory())
    );
    text + &asked(report) + &again(report)
}

/// The program's version.
pub(super) fn version(report: &Report) -> String {
    let revision = report.origin.git_revision.as_ref().map_or(String::new(), |git| format!(" ({git})"));
    format!("realign {}{revision} on {}", report.origin.version, report.origin.platform)
}

fn asked(report: &Report) -> String {
    let mut rows = vec![["set", "id", "prompt", "aligned", "fine-tuned", "recovered"].map(str::to_owned)];
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    rows.extend(
        report
            .asked
            .iter()
            .map(|one| [&one.set, &one.id, &one.prompt, &one.aligned, &one.before, &one.after].map(|text| line(text))),
    );
    match report.asked.is_empty() {
        true => "Prompts and answers are left out; `--show-answers` shows them.\n\n".to_owned(),
        false => format!("## Prompts and answers\n\n{}\n", marked(&rows)),
    }
}

/// How it is done again.
pub(super) fn again(report: &Report) -> String {
    let mut text = "## To do it again\n\n".to_owned();
    if !report.origin.command.is_empty() {
        let _ = writeln!(text, "```sh\n{}\n```\n", report.origin.command.join(" "));
    }
    let mut rows = vec![["prompts", "source", "SHA-256", "recover", "choose", "test"].map(str::to_owned)];
    rows.extend(report.plan.kinds.iter().map(|kind| {
        let [recover, choose, test] = [kind.recover, kind.choose, kind.test].map(|count| count.to_string());
        [kind.name.clone(), kind.source.clone(), kind.hash.clone(), recover, choose, test]
    }));
    let settings = serde_yaml::to_string(&report.settings).unwrap_or_default();
    let patch = &report.origin.patch_hash;
    let _ = writeln!(text, "{}\nPatch: SHA-256 `{patch}`.\n\n```yaml\n{settings}```", marked(&rows));
    text
}
