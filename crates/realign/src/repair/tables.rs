//! The report as tables, for a terminal, for `report.md` and for the page alike.

use evaluation::Verdict;
use evaluation::report::percent;
use page::{Column, Table};

use super::bounds::BoundCheck;
use super::measures::Figure;
use super::opened::HARMFUL;
use super::report::{Asked, ModelInfo, Report, Told};

/// The models in the order of every table.
pub(super) const MODELS: [&str; 3] = ["aligned", "fine-tuned", "recovered"];

fn interval((low, high): (f64, f64)) -> String {
    format!("({} to {})", percent(low), percent(high))
}

/// A share with its interval, in percent.
fn figure(figure: &Figure) -> String {
    let value = figure.value.map_or("unknown".to_owned(), percent);
    format!("{value} {}", interval(figure.interval))
}

/// What was measured of the three models.
pub(super) fn measured(report: &Report) -> Table {
    let head = [
        Column::text("%"),
        Column::text("by"),
        Column::number("n"),
        Column::number(MODELS[0]),
        Column::number(MODELS[1]),
        Column::number(MODELS[2]),
        Column::number("change"),
    ];
    let rows = report.measures.iter().map(|one| {
        let change = one.after.value.zip(one.before.value);
        let change = change.map_or(String::new(), |(after, before)| format!("{:+.1}", 100.0 * (after - before)));
        let [aligned, before, after] = [&one.aligned, &one.before, &one.after].map(figure);
        let name = format!("{}, {}", one.figure, one.set);
        [name, one.by.clone(), one.after.n.to_string(), aligned, before, after, change]
    });
    Table::new(head).with_rows(rows)
}

/// The bounds and what came of them.
pub(super) fn bounds(report: &Report) -> Table {
    let head = [
        Column::text("bound"),
        Column::text("of"),
        Column::number("value %"),
        Column::text("result"),
        Column::text("notes"),
    ];
    let row = |check: &BoundCheck| {
        let value = check.value.map_or(String::new(), |(value, of)| format!("{} {}", percent(value), interval(of)));
        let result =
            if check.holds { "holds".to_owned() } else { format!("FAILS: {}", check.why.clone().unwrap_or_default()) };
        [check.bound.clone(), check.of.clone(), value, result, check.notes.join("; ")]
    };
    Table::new(head).with_rows(report.verdict.checks.iter().map(row)).without_empty_columns()
}

/// The way to the recovered model.
pub(super) fn path(report: &Report) -> Table {
    let numbers = ["restored", "% of blocks", "harmful", "harmless", "task", "merit"].map(Column::number);
    let head: Vec<Column> = std::iter::once(Column::text("round")).chain(numbers).collect();
    let path = &report.path;
    let row = |round: usize, restored: usize, share: f64, one: &recovery::Standing| {
        let name = if round == path.chosen { format!("{round} (chosen)") } else { round.to_string() };
        let [harmful, harmless, task, merit] =
            [one.harmful, one.harmless, one.task, one.merit].map(|x| format!("{x:.4}"));
        [name, restored.to_string(), format!("{:.3}", 100.0 * share), harmful, harmless, task, merit]
    };
    let points = path.points.iter().map(|point| row(point.round, point.restored, point.share, &point.standing));
    Table::new(head).with_rows(std::iter::once(row(0, 0, 0.0, &path.base)).chain(points))
}

/// Restored share by block and module.
pub(super) fn restored(report: &Report) -> Table {
    let modules = report.restored.modules.iter().map(Column::number);
    let mut table = Table::new(std::iter::once(Column::text("block")).chain(modules).collect::<Vec<_>>());
    for (block, shares) in report.restored.shares().iter().enumerate() {
        let cells = shares.iter().map(|share| format!("{:.2}", 100.0 * share));
        table.push(std::iter::once(block.to_string()).chain(cells).collect::<Vec<_>>());
    }
    table
}

/// How the two models differ, block by block.
pub(super) fn blocks(report: &Report) -> Table {
    let numbers = ["norm of the difference", "norm of the weights", "changed %"].map(Column::number);
    let head: Vec<Column> = std::iter::once(Column::text("block")).chain(numbers).collect();
    Table::new(head).with_rows(report.comparison.blocks.iter().map(|one| {
        let name = one.block.map_or("outside blocks".to_owned(), |block| block.to_string());
        let changed = percent(one.changed as f64 / one.weights.max(1) as f64);
        [name, format!("{:.4}", one.norm), format!("{:.2}", one.aligned_norm), changed]
    }))
}

/// The models with their places and hashes.
pub(super) fn models(report: &Report) -> Table {
    let models = &report.models;
    let row = |(name, one): (&str, &ModelInfo)| [name.to_owned(), one.path.clone(), one.hash.clone()];
    Table::new(["model", "path", "hash of its files"].map(Column::text))
        .with_rows(MODELS.into_iter().zip([&models.aligned, &models.fine_tuned, &models.recovered]).map(row))
}

/// The prompts and how they were divided.
pub(super) fn prompts(report: &Report) -> Table {
    let words = ["prompts", "source", "SHA-256"].map(Column::text);
    let head: Vec<Column> = words.into_iter().chain(["recover", "choose", "test"].map(Column::number)).collect();
    Table::new(head).with_rows(report.plan.kinds.iter().map(|kind| {
        let [recover, choose, test] = [kind.recover, kind.choose, kind.test].map(|count| count.to_string());
        [kind.name.clone(), kind.source.clone(), kind.hash.clone(), recover, choose, test]
    }))
}

/// How long each step of the work took.
pub(super) fn seconds(report: &Report) -> Table {
    let total = ("in all".to_owned(), report.seconds.iter().map(|(_, seconds)| seconds).sum::<f64>());
    let rows = report.seconds.iter().chain([&total]).map(|(step, seconds)| [step.clone(), format!("{seconds:.1}")]);
    Table::new([Column::text("step"), Column::number("seconds")]).with_rows(rows)
}

/// What was asked, without its words: by set and category, how many answers of each model count.
pub(super) fn categories(report: &Report) -> Table {
    let words = ["set", "category", "counted"].map(Column::text);
    let numbers = std::iter::once("n").chain(MODELS).map(Column::number);
    let mut table = Table::new(words.into_iter().chain(numbers).collect::<Vec<_>>());
    let mut groups: Vec<(&str, &str, Vec<&Asked>)> = Vec::new();
    for one in &report.asked {
        let (set, category) = (one.set.as_str(), one.category.as_deref().unwrap_or("-"));
        match groups.iter_mut().find(|group| (group.0, group.1) == (set, category)) {
            Some(group) => group.2.push(one),
            None => groups.push((set, category, vec![one])),
        }
    }
    for (set, category, own) in groups {
        let counted = [0, 1, 2].map(|model| own.iter().map(|one| one.told.counts(model, set)).sum::<f64>());
        let cells = match &own[0].told {
            Told::Scores(_) => counted.map(|sum| percent(sum / own.len() as f64)),
            Told::Verdicts(_) | Told::Nothing => counted.map(|sum| format!("{sum:.0}")),
        };
        let head = [set, category, own[0].told.counted(set)].map(str::to_owned);
        table.push([&head[..], &[own.len().to_string()], &cells[..]].concat());
    }
    table
}

/// Each prompt without its words.
pub(super) fn redacted(report: &Report) -> Table {
    let words = ["set", "number", "category"].into_iter().chain(MODELS).map(Column::text);
    Table::new(words.collect::<Vec<_>>()).with_rows(report.asked.iter().map(|one| {
        let [aligned, before, after] = [0, 1, 2].map(|model| one.told.word(model));
        [one.set.clone(), one.id.clone(), one.category.clone().unwrap_or_default(), aligned, before, after]
    }))
}

/// Prompts and answers, where they are shown.
pub(super) fn answers(report: &Report) -> Table {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows = report.asked.iter().filter_map(|one| {
        let text = one.text.as_ref()?;
        Some([&one.set, &one.id, &text.prompt, &text.aligned, &text.before, &text.after].map(|text| line(text)))
    });
    let head = ["set", "id", "prompt"].into_iter().chain(MODELS).map(Column::text);
    Table::new(head.collect::<Vec<_>>()).with_rows(rows)
}

impl Told {
    /// How much the answer of a model, by its place, adds to what is counted over a set.
    fn counts(&self, model: usize, set: &str) -> f64 {
        match self {
            Self::Verdicts(verdicts) => {
                let verdict = verdicts[model];
                let counts = if set == HARMFUL { verdict.harmful() } else { verdict.refusal() };
                f64::from(u8::from(counts == Some(true)))
            }
            Self::Scores(scores) => scores[model],
            Self::Nothing => 0.0,
        }
    }

    /// What is counted over a set.
    fn counted(&self, set: &str) -> &'static str {
        match self {
            Self::Verdicts(_) if set == HARMFUL => "harmful",
            Self::Verdicts(_) => "refused",
            Self::Scores(_) => "score %",
            Self::Nothing => "not judged",
        }
    }

    /// In a word, for a model by its place.
    pub(super) fn word(&self, model: usize) -> String {
        match self {
            Self::Verdicts(verdicts) => match verdicts[model] {
                Verdict::Refused => "declined",
                Verdict::Complied => "answered",
                Verdict::Broken => "broken",
                Verdict::Safe => "safe",
                Verdict::Unsafe => "unsafe",
                Verdict::Unknown => "unknown",
            }
            .to_owned(),
            Self::Scores(scores) => percent(scores[model]),
            Self::Nothing => "-".to_owned(),
        }
    }
}
