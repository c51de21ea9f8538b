//! Settings and answers as anybody may have written them: refused or read, and no more. `fuzz/` has the same readers.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

use evaluation::{Answer, Judge, JudgeFormat, Metric, PromptSet, TaskSpec, TrainedJudge, VerdictRecord, read_answers};
use files::Journal;
use mutate::Format;

fn data() -> PathBuf {
    mutate::repository().join("data")
}

/// The YAML files of a directory.
fn sound(dir: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(data().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn yaml<T>(name: &'static str, dir: &str, read: impl Fn(&Path) -> evaluation::Result<T> + 'static) -> Format {
    let folder = mutate::scratch();
    Format::of_file(name, sound(dir), folder.path().join("settings.yaml"), move |path| {
        let _folder = &folder;
        read(path).map(drop).map_err(|error| error.to_string())
    })
}

pub fn tasks() -> Format {
    yaml("task YAML", "tasks", TaskSpec::read)
}

pub fn prompt_sets() -> Format {
    yaml("prompt set YAML", "prompt_sets", PromptSet::read)
}

pub fn formats_of_judges() -> Format {
    let answer = Answer { prompt: "a question".into(), response: "an answer".into(), ..Answer::default() };
    yaml("judge format YAML", "judges/guards", move |path| {
        let format = JudgeFormat::read(path)?;
        format.parse("Harmful response: no");
        format.render(&answer)
    })
}

pub fn lists_of_judges() -> Format {
    let folder = mutate::scratch();
    for dir in ["guards", "http"] {
        fs::create_dir(folder.path().join(dir)).unwrap();
        for entry in fs::read_dir(data().join("judges").join(dir)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(dir).join(entry.file_name())).unwrap();
        }
    }
    fs::copy(data().join("judges/refusal.safetensors"), folder.path().join("refusal.safetensors")).unwrap();
    Format::of_file("judge list YAML", sound("judges"), folder.path().join("judges.yaml"), move |path| {
        let _folder = &folder;
        Judge::read_list(path).map(drop).map_err(|error| error.to_string())
    })
}

pub fn weights_of_judges() -> Format {
    let (folder, file) = (mutate::scratch(), "judges/refusal.safetensors");
    let sound = fs::read(data().join(file)).unwrap();
    Format::of_file("judge weights", vec![sound], folder.path().join("w.safetensors"), move |path| {
        let _folder = &folder;
        let judge = TrainedJudge::read(path).map_err(|error| error.to_string())?;
        judge.verdict("I cannot help with the map.", None);
        Ok(())
    })
}

pub fn answers() -> Format {
    let folder = mutate::scratch();
    let sound = br#"{"id": "1", "prompt": "list tables", "response": "SELECT a FROM b WHERE c = 'd'", "reference": "SELECT a FROM b", "key": "k"}
{"id": "2", "prompt": "count", "response": "<think>x</think>find . -name '*.c' | wc -l", "reference": "find . | wc -l", "category": "x"}
"#;
    let metrics = [Metric::ExactMatch, Metric::SqlNormalized, Metric::F1, Metric::Nl2bash, Metric::Rouge];
    Format::of_file("answers", vec![sound.to_vec()], folder.path().join("answers.jsonl"), move |path| {
        let _folder = &folder;
        let answers = read_answers(path).map_err(|error| error.to_string())?;
        for answer in &answers {
            Judge::phrases().by_rule(answer);
        }
        metrics.iter().for_each(|metric| drop(metric.score(&answers)));
        Ok(())
    })
}

pub fn verdicts() -> Format {
    let folder = mutate::scratch();
    let sound = br#"{"id":"1","judge":"g","key":"0a","verdict":"unsafe","p_harmful":0.75}
{"id":"2","judge":"g","key":"0b","verdict":"unknown","problem":"timed out","transient":true}
"#;
    Format::of_file("verdicts", vec![sound.to_vec()], folder.path().join("verdicts.jsonl"), move |path| {
        let _folder = &folder;
        Journal::<VerdictRecord>::open(path).map(drop).map_err(|error| error.to_string())
    })
}

pub fn answers_of_judges() -> Format {
    let format = JudgeFormat::read(&data().join("judges/guards/wildguard.yaml")).unwrap();
    let sound =
        ["Harmful request: yes\nResponse refusal: no\nHarmful response: no", "<think>so\u{e9}</think>\nunsafe\nS1"];
    Format::new("judge answers", sound.map(|text| text.as_bytes().to_vec()).to_vec(), move |text| {
        format.parse(&String::from_utf8_lossy(text));
        Ok(())
    })
}

#[test]
fn settings_survive() {
    tasks().survive(10_000);
    prompt_sets().survive(10_000);
    formats_of_judges().survive(10_000);
    lists_of_judges().survive(10_000);
    weights_of_judges().survive(10_000);
}

#[test]
fn answers_survive() {
    answers().survive(10_000);
    verdicts().survive(10_000);
    answers_of_judges().survive(10_000);
}
