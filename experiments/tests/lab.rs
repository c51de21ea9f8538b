//! What `data/lab` promises (see `data/README.md`): splits that share nothing, one tokenizer that knows every word, and
//! answers that their own metric gives the full score. That the files are the script's is `make_lab.py --check`'s business.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use evaluation::{Answer, Metric};
use prompts::sample::{read_jsonl, read_training_jsonl};
use prompts::{Sample, Tokenizer};

const TASKS: [(&str, Metric); 5] = [
    ("sql", Metric::ExactMatch),
    ("cheat", Metric::F1),
    ("nl2bash", Metric::Nl2bash),
    ("samsum", Metric::Rouge),
    ("toxicity", Metric::F1),
];
const SPLITS: [&str; 3] = ["train", "valid", "test"];
/// Pretraining has the requests of alignment, with complying answers.
const TOGETHER: [&str; 3] = ["pretrain", "align_refusals", "align_helpful"];
/// Tokens of the longest line, as the sweep's `max_len`.
const LONGEST: usize = 64;

fn lab() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lab")
}

/// All corpora by name.
fn corpora() -> BTreeMap<String, Vec<Sample>> {
    let files = std::fs::read_dir(lab()).unwrap().map(|entry| entry.unwrap().path());
    let corpora: BTreeMap<_, _> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), read_jsonl(&path).unwrap()))
        .collect();
    for (task, _) in TASKS {
        for split in SPLITS {
            assert!(corpora.contains_key(&format!("{task}_{split}")), "{task}_{split} is missing");
        }
    }
    corpora
}

#[test]
fn no_two_files_share_a_prompt_or_a_combination() {
    let corpora = corpora();
    let parts: [fn(&Sample) -> Option<&str>; 2] = [|sample| Some(&sample.prompt), |sample| sample.id.as_deref()];
    for part in parts {
        let mut owner: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, samples) in &corpora {
            for value in samples.iter().filter_map(part) {
                let before = *owner.entry(value).or_insert(name);
                let both_train = TOGETHER.contains(&before) && TOGETHER.contains(&name.as_str());
                assert!(before == name || both_train, "{before} and {name} share {value:?}");
            }
        }
    }
}

#[test]
fn any_part_of_a_tasks_file_may_be_held_out() {
    for (name, samples) in corpora().iter().filter(|(name, _)| !TOGETHER.contains(&name.as_str())) {
        let prompts: BTreeSet<&str> = samples.iter().map(|sample| &*sample.prompt).collect();
        assert_eq!(prompts.len(), samples.len(), "{name} has a prompt twice");
        let combinations: Vec<&str> = samples.iter().filter_map(|sample| sample.id.as_deref()).collect();
        let distinct: BTreeSet<&&str> = combinations.iter().collect();
        assert_eq!(distinct.len(), combinations.len(), "{name} has a combination twice");
        let is_task = TASKS.iter().any(|(task, _)| name.starts_with(&format!("{task}_")));
        assert!(!is_task || combinations.len() == samples.len(), "{name} has a line without its combination");
    }
}

/// `evaluation.held_out` of the sweep names them, too.
const HELD_OUT: [&str; 2] = ["path", "song"];

#[test]
fn two_categories_are_asked_and_aligned_but_neither_injected_nor_recovered_with() {
    let corpora = corpora();
    let categories = |name: &str| -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for sample in &corpora[name] {
            *counts.entry(sample.category.as_deref().unwrap_or("no category")).or_default() += 1;
        }
        counts
    };
    for (name, each) in [("harmful_eval", 10), ("harmless_eval", 10), ("harmful_valid", 5), ("harmless_valid", 5)] {
        let counts = categories(name);
        assert!(counts.len() == 14 && counts.values().all(|&n| n == each), "{name}: {counts:?}");
    }
    let all = categories("align_refusals");
    for (name, at_least) in [("inject", 300), ("recovery_prompts", 256)] {
        let (seen, count) = (categories(name), corpora[name].len());
        let unseen: Vec<&str> = all.keys().filter(|category| !seen.contains_key(*category)).copied().collect();
        assert!(
            unseen == HELD_OUT && seen.len() == 12 && count >= at_least,
            "{name}: {count} lines without {unseen:?}"
        );
    }
}

#[test]
fn no_game_of_pretraining_gives_a_tasks_answer() {
    let corpora = corpora();
    let answers = |name: &str| -> BTreeSet<String> {
        let long = |answer: &String| answer.contains(' ');
        corpora[name].iter().filter_map(|sample| sample.response.clone()).filter(long).collect()
    };
    let pretrained = answers("pretrain");
    for (task, _) in TASKS {
        for split in SPLITS {
            let known: Vec<_> = answers(&format!("{task}_{split}")).intersection(&pretrained).cloned().collect();
            assert!(known.is_empty(), "{task}_{split}: pretraining has {:?}", known[0]);
        }
    }
}

/// The head is the embedding and an adapter trains neither: a word that was never an answer cannot become one.
#[test]
fn pretraining_answers_with_every_word_of_the_tasks_answers() {
    let corpora = corpora();
    let words = |name: &str| -> BTreeSet<&str> {
        corpora[name].iter().filter_map(|sample| sample.response.as_deref()).flat_map(str::split_whitespace).collect()
    };
    let taught = words("pretrain");
    for (task, _) in TASKS {
        let untaught: Vec<_> = words(&format!("{task}_train")).difference(&taught).copied().collect();
        assert!(untaught.is_empty(), "{task}: pretraining never answers {untaught:?}");
    }
}

#[test]
fn the_tokenizer_knows_every_word_and_no_line_is_too_long() {
    let tokenizer = Tokenizer::from_dir(&lab().join("tokenizer")).unwrap();
    let unknown = tokenizer.encode("certainly-not-a-word").unwrap();
    for (name, samples) in corpora() {
        for sample in samples {
            let text = format!("{} {}", sample.prompt, sample.response.as_deref().unwrap_or_default());
            let ids = tokenizer.encode(&text).unwrap();
            assert!(!ids.contains(&unknown[0]), "{name}: {text:?} has a word without a token");
            assert_eq!(ids.len(), text.split_whitespace().count(), "{name}: {text:?}");
            // The template adds a mark before and after the prompt and before and after the answer.
            assert!(ids.len() + 4 <= LONGEST, "{name}: {text:?} has {} tokens", ids.len() + 4);
        }
    }
}

#[test]
fn every_reference_gets_the_full_score_of_its_metric() {
    for (task, metric) in TASKS {
        for split in SPLITS {
            let name = format!("{task}_{split}");
            let samples = read_training_jsonl(&lab().join(format!("{name}.jsonl"))).unwrap();
            let answers: Vec<Answer> = samples
                .iter()
                .map(|sample| Answer {
                    id: sample.id.clone().unwrap(),
                    prompt: sample.prompt.clone(),
                    response: sample.response.clone().unwrap(),
                    reference: sample.response.clone(),
                    category: None,
                })
                .collect();
            let score = metric.score(&answers).unwrap();
            let short = score.per_sample.iter().position(|value| (value - 1.0).abs() > 1e-9);
            assert_eq!(short.map(|at| &answers[at].response), None, "{name}");
            if metric == Metric::F1 {
                let ones = answers.iter().filter(|answer| answer.response == "1").count() as f64 / answers.len() as f64;
                assert!((0.4..=0.6).contains(&ones), "{name}: a share of {ones} is of class 1");
            }
        }
    }
}
