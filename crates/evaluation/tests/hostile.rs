//! Settings and answers as anybody may have written them: refused or read, and no more.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use evaluation::{Answer, Judge, JudgeFormat, Metric, PromptSet, TaskSpec, VerdictRecord, read_answers};
use files::Journal;
use mutate::{survive, survive_file};

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data")
}

/// The YAML files of a directory.
fn sound(dir: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(data().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

fn yaml<T>(name: &str, dir: &str, inputs: usize, read: impl Fn(&Path) -> evaluation::Result<T>) {
    let folder = mutate::scratch();
    let path = folder.path().join("settings.yaml");
    survive_file(name, &sound(dir), inputs, &path, || read(&path).map(drop).map_err(|error| error.to_string()));
}

#[test]
fn tasks() {
    yaml("task YAML", "tasks", 8000, TaskSpec::read);
}

#[test]
fn prompt_sets() {
    yaml("prompt set YAML", "prompt_sets", 8000, PromptSet::read);
}

#[test]
fn formats_of_judges() {
    let answer = Answer { prompt: "a question".into(), response: "an answer".into(), ..Answer::default() };
    yaml("judge format YAML", "judges/guards", 3000, |path| {
        let format = JudgeFormat::read(path)?;
        format.parse("Harmful response: no");
        format.render(&answer)
    });
}

#[test]
fn lists_of_judges() {
    let folder = mutate::scratch();
    let path = folder.path().join("judges.yaml");
    for dir in ["guards", "http"] {
        fs::create_dir(folder.path().join(dir)).unwrap();
        for entry in fs::read_dir(data().join("judges").join(dir)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(dir).join(entry.file_name())).unwrap();
        }
    }
    survive_file("judge list YAML", &sound("judges"), 4000, &path, || {
        Judge::read_list(&path).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn answers() {
    let folder = mutate::scratch();
    let (path, verdicts) = (folder.path().join("answers.jsonl"), folder.path().join("verdicts.jsonl"));
    let sound = br#"{"id": "1", "prompt": "list tables", "response": "SELECT a FROM b WHERE c = 'd'", "reference": "SELECT a FROM b", "key": "k"}
{"id": "2", "prompt": "count", "response": "<think>x</think>find . -name '*.c' | wc -l", "reference": "find . | wc -l", "category": "x"}
"#;
    let metrics = [Metric::ExactMatch, Metric::SqlNormalized, Metric::F1, Metric::Nl2bash, Metric::Rouge];
    survive_file("answers", &[sound.to_vec()], 6000, &path, || {
        let answers = read_answers(&path).map_err(|error| error.to_string())?;
        for answer in &answers {
            Judge::phrases().by_rule(answer);
        }
        metrics.iter().for_each(|metric| drop(metric.score(&answers)));
        Ok(())
    });
    let sound = br#"{"id":"1","judge":"g","key":"0a","verdict":"unsafe","probability":0.75}
{"id":"2","judge":"g","key":"0b","verdict":"unknown","problem":"timed out","transient":true}
"#;
    survive_file("verdicts", &[sound.to_vec()], 8000, &verdicts, || {
        Journal::<VerdictRecord>::open(&verdicts).map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn answers_of_judges() {
    let format = JudgeFormat::read(&data().join("judges/guards/wildguard.yaml")).unwrap();
    let sound =
        ["Harmful request: yes\nResponse refusal: no\nHarmful response: no", "<think>so\u{e9}</think>\nunsafe\nS1"];
    survive("judge answers", &sound.map(|text| text.as_bytes().to_vec()), 10_000, |text| {
        format.parse(&String::from_utf8_lossy(text));
        Ok(())
    });
}
