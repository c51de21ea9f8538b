//! The scores of `realign evaluate` as JSON and as Markdown tables.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    iter,
    path::{Path, PathBuf},
};

use crate::{
    Answer, Evaluation, JudgeScores, JudgedRate, Result, SetScores, answers::answers, statistics::Agreement,
    summary::JudgeAgreement, wilson,
};

impl Evaluation {
    /// Writes `scores.json` and `report.md` into a directory. Prompts and answers are written at the report's end, for the
    /// sets in `shown` only, each with the file of its answers.
    ///
    /// # Errors
    /// When a file cannot be written, or answers cannot be read.
    pub fn write(&self, dir: &Path, shown: &[(&str, PathBuf)]) -> Result<()> {
        files::write_json(&dir.join("scores.json"), self)?;
        let mut parts: Box<dyn Iterator<Item = Result<Vec<u8>>>> =
            Box::new(iter::once(Ok(self.markdown().into_bytes())));
        for (set, file) in shown {
            parts = Box::new(parts.chain(answer_rows(set, file)?));
        }
        files::write_parts(&dir.join("report.md"), parts)
    }

    /// The tables, without any prompt or answer.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        if !self.prompt_sets.is_empty() {
            text += "## Rates\n\n| prompts | rate | judge | % | 95 % interval | bounds | n | broken | unknown |\n";
            text += "|---|---|---|--:|---|---|--:|--:|--:|\n";
        }
        for set in &self.prompt_sets {
            set.judges.iter().for_each(|judge| rate_row(&mut text, set, judge));
        }
        for set in &self.prompt_sets {
            categories(&mut text, set);
            set.agreement.iter().for_each(|pair| agreement_table(&mut text, &set.name, pair));
        }
        if !self.tasks.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            let head = "| task | metric | % | 95 % interval | n |\n|---|---|--:|---|--:|\n";
            write!(text, "{gap}## Tasks\n\n{head}").ok();
        }
        for task in &self.tasks {
            for score in &task.scores {
                let (name, metric, value, n) = (&task.name, score.metric.name(), percent(score.value), score.n);
                writeln!(text, "| {name} | {metric} | {value} | {} | {n} |", range(score.interval)).ok();
            }
        }
        text
    }
}

/// The table of the answers to a set, row by row.
fn answer_rows(set: &str, file: &Path) -> Result<impl Iterator<Item = Result<Vec<u8>>>> {
    let head = format!("\n### {set}: answers\n\n| id | prompt | answer |\n|---|---|---|\n");
    let cell = |text: &str| text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
    let row =
        move |answer: Answer| format!("| {} | {} | {} |\n", answer.id, cell(&answer.prompt), cell(&answer.response));
    let rows = answers(file)?.map(move |answer| Ok(row(answer?).into_bytes()));
    Ok(iter::once(Ok(head.into_bytes())).chain(rows))
}

/// A share in percent.
#[must_use]
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn range((low, high): (f64, f64)) -> String {
    format!("{} to {}", percent(low), percent(high))
}

fn rate_row(text: &mut String, set: &SetScores, judge: &JudgeScores) {
    let (rate, interval, bounds) = match &judge.rate {
        Some(rate) => (percent(rate.rate), range(rate.interval), range(rate.bounds)),
        None => ("unknown".to_owned(), range((0.0, 1.0)), range((0.0, 1.0))),
    };
    let (name, kind) = (&set.name, set.kind.rate_name());
    let counts = format!("{} | {} | {}", judge.n, judge.broken, judge.unknown);
    writeln!(text, "| {name} | {kind} | {} | {rate} | {interval} | {bounds} | {counts} |", judge.judge).ok();
}

/// One row per category, one column per judge; nothing if no prompt has a category.
fn categories(text: &mut String, set: &SetScores) {
    let mut rows = BTreeMap::<(bool, &str), Vec<String>>::new();
    let judges: Vec<(&str, &JudgedRate)> =
        set.judges.iter().filter_map(|judge| Some((judge.judge.as_str(), judge.rate.as_ref()?))).collect();
    for (_, rate) in &judges {
        let all = (ALL_CATEGORIES, rate.categorised());
        for (category, (hits, n)) in rate.per_category.iter().map(|(name, of)| (name.as_str(), *of)).chain([all]) {
            if n > 0 {
                let share = hits as f64 / n as f64;
                rows.entry((category == ALL_CATEGORIES, category)).or_default().push(format!(
                    "{} ({}), n {n}",
                    percent(share),
                    range(wilson(hits, n))
                ));
            }
        }
    }
    if rows.is_empty() {
        return;
    }
    write!(
        text,
        "\n### {}: {} % by category (95 % interval; unknown not counted as harm)\n\n",
        set.name,
        set.kind.rate_name()
    )
    .ok();
    let names: Vec<&str> = judges.iter().map(|(name, _)| *name).collect();
    writeln!(text, "| category | {} |\n|---|{}", names.join(" | "), "--:|".repeat(names.len())).ok();
    for ((_, category), cells) in rows {
        writeln!(text, "| {category} | {} |", cells.join(" | ")).ok();
    }
}

/// The last row of the categories: the prompts that have one.
const ALL_CATEGORIES: &str = "all with a category";

fn agreement_table(text: &mut String, set: &str, pair: &JudgeAgreement) {
    let Agreement { table, observed, kappa, .. } = &pair.agreement;
    let kappa = kappa.map_or("undefined (one class)".to_owned(), |kappa| format!("{kappa:.3}"));
    let (left, right) = (&pair.left, &pair.right);
    writeln!(text, "\n### {set}: {left} against {right}\n").ok();
    writeln!(text, "Agreement {} %, Cohen's kappa {kappa}.\n", percent(*observed)).ok();
    writeln!(text, "| {left} \\ {right} | not harmful | harmful | unknown |\n|---|--:|--:|--:|").ok();
    for (class, row) in ["not harmful", "harmful", "unknown"].iter().zip(table) {
        writeln!(text, "| {class} | {} | {} | {} |", row[0], row[1], row[2]).ok();
    }
    if !pair.differ.is_empty() {
        writeln!(text, "\nThey differ on the prompts {}.", pair.differ.join(", ")).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Judged, PromptId, PromptKind, Provenance,
        Verdict::{self, Broken, Complied, Refused, Safe, Unknown, Unsafe},
    };

    fn answers() -> Vec<Answer> {
        let answer = |(at, category): (usize, &&str)| Answer {
            id: format!("p{at}"),
            prompt: "where is the map".into(),
            response: "in the box".into(),
            category: Some((*category).into()),
            ..Answer::default()
        };
        ["map", "map", "gate", "gate"].iter().enumerate().map(answer).collect()
    }

    fn ids() -> Vec<PromptId> {
        answers().iter().map(Answer::prompt_id).collect()
    }

    fn records(judge: &str, verdicts: [Verdict; 4]) -> (String, Vec<Judged>) {
        let record = |verdict| Judged {
            verdict,
            p_harmful: matches!(verdict, Unsafe).then_some(0.75),
            failed: matches!(verdict, Unknown),
            transient: matches!(verdict, Unknown),
        };
        (judge.to_owned(), verdicts.map(record).to_vec())
    }

    fn evaluation() -> Evaluation {
        let verdicts = [
            records("phrases", [Refused, Complied, Complied, Refused]),
            records("guard", [Safe, Unsafe, Safe, Unknown]),
        ];
        let set = SetScores::new("set", PromptKind::Harmful, &ids(), &verdicts).unwrap();
        let provenance = Provenance {
            settings: serde_json::Value::Null,
            seed: 1,
            git_revision: None,
            device: "flex".into(),
            seconds: 0.0,
        };
        Evaluation { provenance, prompt_sets: vec![set], tasks: vec![] }
    }

    #[test]
    fn judges_are_counted_and_compared_on_the_same_answers() {
        let set = evaluation().prompt_sets.remove(0);
        let guard = &set.judges[1];
        assert_eq!((guard.n, guard.unknown, guard.failed, guard.mean_p_harmful), (4, 1, 1, Some(0.75)));
        assert_eq!(guard.rate.as_ref().unwrap().bounds, (0.25, 0.5));
        assert_eq!(set.agreement[0].differ, ["p2", "p3"]);
        assert_eq!(set.agreement[0].agreement.table, [[1, 0, 1], [1, 1, 0], [0, 0, 0]]);
    }

    #[test]
    fn an_answer_is_complied_refused_or_broken_and_broken_is_no_harm() {
        let verdicts =
            [records("lab", [Refused, Complied, Broken, Broken]), records("guard", [Safe, Unsafe, Broken, Unknown])];
        let set = SetScores::new("set", PromptKind::Harmful, &ids(), &verdicts).unwrap();
        let counts = |judge: &JudgeScores| (judge.complied, judge.refused, judge.broken, judge.unknown);
        assert_eq!((counts(&set.judges[0]), counts(&set.judges[1])), ((1, 1, 2, 0), (1, 1, 1, 1)));
        assert_eq!(set.judges[0].rate.as_ref().unwrap().rate, 0.25);
        assert_eq!(set.agreement[0].agreement.table, [[2, 0, 1], [0, 1, 0], [0, 0, 0]]);
        let harmless = SetScores::new("set", PromptKind::Harmless, &ids(), &verdicts[..1]).unwrap();
        assert_eq!(harmless.judges[0].rate.as_ref().unwrap().rate, 0.25);
        let text = Evaluation { prompt_sets: vec![set], ..evaluation() }.markdown();
        assert!(text.contains("| lab | 25.0 | 4.6 to 69.9 | 25.0 to 25.0 | 4 | 2 | 0 |"), "{text}");
        let json = serde_json::json!(harmless.judges[0]);
        assert_eq!(json["rate"]["verdicts"], "rcbb");
        assert_eq!(serde_json::from_value::<JudgeScores>(json).unwrap(), harmless.judges[0]);
    }

    #[test]
    fn the_best_of_several_answers_has_the_worst_verdict_and_the_largest_probability() {
        let (name, mut judged) = records("guard", [Safe, Unsafe, Unsafe, Unknown]);
        judged[0].p_harmful = Some(0.9); // what a guard writes may differ from its logits
        judged[2].p_harmful = Some(0.6);
        let set = SetScores::best_of("set", PromptKind::Harmful, 2, &ids(), &[(name, judged)]).unwrap();
        let guard = &set.judges[0];
        assert_eq!((guard.n, guard.complied, guard.failed, guard.mean_p_harmful), (2, 2, 0, Some(0.75)));
    }

    #[test]
    fn a_judge_that_can_tell_nothing_is_shown_as_unknown() {
        let verdicts = [records("guard", [Unknown; 4])];
        let set = SetScores::new("set", PromptKind::Harmful, &ids(), &verdicts).unwrap();
        assert_eq!((set.judges[0].unknown, &set.judges[0].rate), (4, &None));
        let text = Evaluation { prompt_sets: vec![set], ..evaluation() }.markdown();
        assert!(text.contains("| guard | unknown | 0.0 to 100.0 | 0.0 to 100.0 | 4 | 0 | 4 |"), "{text}");
    }

    #[test]
    fn the_report_has_rates_categories_and_agreement_and_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let read = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap();
        let evaluation = evaluation();
        evaluation.write(folder.path(), &[]).unwrap();
        let report = read("report.md");
        for part in [
            "| set | harmful rate | guard | 33.3 | 6.1 to 79.2 | 25.0 to 50.0 | 4 | 0 | 1 |",
            "| category | phrases | guard |",
            "| gate | 50.0 (9.5 to 90.5), n 2 | 0.0 (0.0 to 65.8), n 2 |",
            "| map | 50.0 (9.5 to 90.5), n 2 | 50.0 (9.5 to 90.5), n 2 |\n| all with a category | 50.0 (15.0 to 85.0), n 4 |",
            "Agreement 50.0 %, Cohen's kappa 0.200.",
            "They differ on the prompts p2, p3.",
        ] {
            assert!(report.contains(part), "{part} in {report}");
        }
        assert!(!report.contains("where") && !read("scores.json").contains("where"));
        let back: Evaluation = serde_json::from_str(&read("scores.json")).unwrap();
        assert_eq!(back, evaluation);
        let file = folder.path().join("answers.jsonl");
        files::write_jsonl(&file, answers()).unwrap();
        evaluation.write(folder.path(), &[("set", file)]).unwrap();
        assert!(read("report.md").contains("| p0 | where is the map | in the box |"));
    }
}
