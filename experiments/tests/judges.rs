//! Judges of a sweep: they read the answers that are stored, another one generates nothing, and an endpoint that fails is
//! asked again about what it failed on. The endpoint is a server of this test.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Bench, SWEEP, timeless};
use evaluation::{Answer, RefusalJudge, read_answers};
use experiments::graph::Graph;
use experiments::record::Record;

const METHODS: &str = "methods: [aligned, fine_tuned]\n";

/// The endpoint's answers to all that it is asked: harmful where a text has the word `gate`.
struct Endpoint {
    base_url: String,
    heads: Arc<Mutex<Vec<String>>>,
    requests: Arc<AtomicUsize>,
    /// Whether it fails on texts with the word `song`.
    failing: Arc<AtomicBool>,
}

impl Endpoint {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Self {
            base_url: format!("http://{}/v1", listener.local_addr().unwrap()),
            heads: Arc::default(),
            requests: Arc::default(),
            failing: Arc::default(),
        };
        let (heads, requests, failing) = (endpoint.heads.clone(), endpoint.requests.clone(), endpoint.failing.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let (head, body) = request(&stream);
                heads.lock().unwrap().push(head);
                requests.fetch_add(1, Ordering::Relaxed);
                let fails = failing.load(Ordering::Relaxed) && body.contains("song");
                let word = if body.contains("gate") { "unsafe" } else { "safe" };
                let text = serde_json::json!({"choices": [{"message": {"content": word}}]}).to_string();
                let status = if fails { 500 } else { 200 };
                let (length, close) = (text.len(), "Connection: close");
                let reply = format!("HTTP/1.1 {status} x\r\nContent-Length: {length}\r\n{close}\r\n\r\n{text}");
                (&stream).write_all(reply.as_bytes()).unwrap();
            }
        });
        endpoint
    }

    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

fn request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

impl Bench {
    /// The sweep with these judges.
    fn judged(&self, judges: &str) -> experiments::config::Sweep {
        let format = "{name: word, source: own, licence: own, template: '{{ prompt }} / {{ response }}', \
                      max_new_tokens: 2, labels: {words: {safe: safe, unsafe: unsafe}}}";
        fs::write(self.path("word.yaml"), format).unwrap();
        self.sweep("tiny.yaml", &format!("{SWEEP}{METHODS}{judges}"))
    }

    /// The directories of the safety evaluations, model by model.
    fn answered(&self, graph: &Graph) -> Vec<PathBuf> {
        let dir = |node: usize| self.results().join("evaluate").join(&graph.nodes[node].key);
        graph.cells[&0].evaluated.iter().map(|one| dir(one.safety)).collect()
    }

    /// Every file of the stages that generate.
    fn generated(&self) -> BTreeMap<String, Vec<u8>> {
        let of = |kind: &str| common::files(&self.results().join(kind));
        ["import", "finetune", "evaluate"].into_iter().flat_map(of).collect()
    }
}

fn answers(dir: &std::path::Path, set: &str) -> Vec<Answer> {
    read_answers(&dir.join(format!("answers-{set}.jsonl"))).unwrap()
}

fn phrases_and(endpoint: &Endpoint) -> String {
    // PATH is set wherever tests run; its value serves as a key.
    format!(
        "judges:\n  - {{ kind: refusal, name: phrases }}\n  - {{ kind: http, name: local, base_url: '{}', model: judge, \
         format: word.yaml, api_key_env: PATH, retries: 0 }}\n",
        endpoint.base_url
    )
}

#[test]
fn a_judge_that_is_added_to_a_finished_sweep_judges_and_generates_nothing() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    bench.run(&bench.judged(""), 1).unwrap();
    let before = bench.records();
    assert!(!bench.results().join("judges.md").exists());
    let generated = bench.generated();

    let sweep = bench.judged(&phrases_and(&endpoint));
    assert_eq!(bench.left(&sweep), ["judge"; 4], "two models by two judges");
    bench.run(&sweep, 1).unwrap();
    assert_eq!(bench.generated(), generated);
    let records = bench.records();
    assert_eq!(records.len(), 2);
    for (record, before) in records.iter().zip(&before) {
        assert_eq!((record.harmful(), record.refused()), (before.harmful(), before.refused()), "by the same phrases");
        assert_eq!((&record.score, record.seconds), (&before.score, before.seconds));
    }

    let (rates, pairs) = (bench.csv("judges.csv"), bench.csv("agreement.csv"));
    assert_eq!((rates.len(), pairs.len()), (4, 2));
    for (i, (record, dir)) in records.iter().zip(bench.answered(&bench.graph(&sweep))).enumerate() {
        let answers = answers(&dir, "harmful");
        let judge = RefusalJudge::embedded();
        let local: Vec<bool> =
            answers.iter().map(|one| format!("{} {}", one.prompt, one.response).contains("gate")).collect();
        let phrases: Vec<bool> = answers.iter().map(|answer| !judge.is_refusal(&answer.response)).collect();
        let share = |of: &[bool]| of.iter().filter(|yes| **yes).count() as f64 / answers.len() as f64;
        let of = |line: &BTreeMap<String, String>, column: &str| line[column].parse::<f64>().unwrap();
        let (first, second) = (&rates[2 * i], &rates[2 * i + 1]);
        assert!(share(&local) > 0.0);
        assert_eq!((first["judge"].as_str(), of(first, "harmful_rate")), ("phrases", record.harmful_rate()));
        assert_eq!((second["judge"].as_str(), of(second, "harmful_rate")), ("local", share(&local)));
        assert_eq!((second["over_refusal"].as_str(), second["unknown"].as_str()), ("", "0"), "a judge of safety");
        let equal: Vec<bool> = local.iter().zip(&phrases).map(|(l, p)| l == p).collect();
        assert_eq!(of(&pairs[i], "agreement"), share(&equal));
    }
    let report = fs::read_to_string(bench.results().join("judges.md")).unwrap();
    assert!(report.contains("| small | sql | 2 | 1 |  | fine_tuned | local | ") && report.contains("all 2 models"));

    let key = std::env::var("PATH").unwrap();
    assert!(endpoint.heads.lock().unwrap().iter().all(|head| head.contains(&format!("Bearer {key}"))));
    for (name, bytes) in common::files(&bench.results()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(&key), "{name} holds the key");
    }
}

#[test]
fn judges_in_another_order_and_under_other_names_are_asked_nothing() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let judges = phrases_and(&endpoint);
    bench.run(&bench.judged(&judges), 1).unwrap();
    let before = bench.records();
    endpoint.requests();

    let lines: Vec<&str> = judges.lines().collect();
    let turned = [lines[0], lines[2], lines[1], ""].join("\n").replace("local", "renamed");
    let sweep = bench.judged(&turned);
    assert_eq!(bench.left(&sweep), [] as [&str; 0]);
    bench.run(&sweep, 1).unwrap();
    assert_eq!(endpoint.requests(), 0);
    for (record, before) in bench.records().iter().zip(&before) {
        assert_eq!((&record.judges[0].judge, &before.judges[1].judge), (&"renamed".into(), &"local".into()));
        assert_eq!(record.harmful(), before.judges[1].harmful.rate.as_ref(), "the first judge decides");
        assert_eq!(record.refused(), before.refused(), "the judge of refusals says what is refused");
    }
}

#[test]
fn a_changed_prompt_set_costs_what_it_changed() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let sweep = bench.judged(&phrases_and(&endpoint));
    bench.run(&sweep, 1).unwrap();
    // A mark in the answers that are kept: what is made again has none.
    for dir in bench.answered(&bench.graph(&sweep)) {
        common::mark_answers(&dir, "answers-harmless.jsonl");
    }
    endpoint.requests();
    let text = SWEEP.replace("harmful_eval.jsonl, count: 8", "harmful_eval.jsonl, count: 9");
    let text = text.replace("harmless_eval.jsonl, count: 4", "harmless_eval.jsonl, count: 3");
    let changed = bench.sweep("tiny.yaml", &format!("{text}{METHODS}{}", phrases_and(&endpoint)));
    let kinds = ["divergence", "evaluate", "evaluate", "judge", "judge", "judge", "judge"];
    let mut left = bench.left(&changed);
    left.sort_unstable();
    assert_eq!(left, kinds);
    bench.run(&changed, 1).unwrap();
    assert_eq!(endpoint.requests(), 2, "one new answer of each of the two models is judged");
    for dir in bench.answered(&bench.graph(&changed)) {
        let harmless = answers(&dir, "harmless");
        assert!(harmless.len() == 3 && harmless.iter().all(|answer| answer.response.starts_with("kept ")));
        assert_eq!(answers(&dir, "harmful").len(), 9);
    }
}

#[test]
fn an_endpoint_that_failed_is_asked_again_about_the_answers_that_it_failed_on() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let sweep = bench.judged(&phrases_and(&endpoint));
    endpoint.failing.store(true, Ordering::Relaxed);
    assert_eq!(bench.run(&sweep, 1).unwrap().failed, ["small/sql/2"]);
    assert!(bench.records().is_empty(), "a model without all verdicts has no record");
    let errors = bench.errors(&sweep);
    let named = |error: &String| error.contains("judge local failed on") && error.contains("of 8 answers");
    assert!(errors.len() == 2 && errors.iter().all(named), "one error a model: {errors:?}");
    let first = endpoint.requests();

    endpoint.failing.store(false, Ordering::Relaxed);
    assert!(bench.run(&sweep, 1).unwrap().failed.is_empty());
    let failed =
        |dir: PathBuf| answers(&dir, "harmful").iter().filter(|one| format!("{one:?}").contains("song")).count();
    let failed: Vec<usize> = bench.answered(&bench.graph(&sweep)).into_iter().map(failed).collect();
    assert!(failed.iter().all(|&count| count > 0));
    assert_eq!((first, endpoint.requests()), (2 * 8, failed.iter().sum()));
    assert!(bench.csv("judges.csv").iter().all(|line| line["unknown"] == "0" && line["failed"] == "0"));
}

#[test]
fn a_key_that_is_not_in_the_environment_stops_the_run_before_anything_is_computed() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let sweep = bench.judged(&phrases_and(&endpoint).replace("PATH", "REALIGN_TEST_NO_KEY"));
    let error = bench.run(&sweep, 1).unwrap_err();
    assert!(format!("{error:#}").contains("REALIGN_TEST_NO_KEY"), "{error:#}");
    assert!(!bench.results().join("import").exists());
}

/// The methods of records, in their order.
fn methods(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.method.as_str()).collect()
}

#[test]
fn a_model_that_fails_leaves_the_others_their_records() {
    let bench = Bench::new();
    let words = ["aligned", "fine_tuned", "recover", "random", "full_revert"];
    let sweep = bench.sweep("tiny.yaml", &format!("{SWEEP}methods: [{}]\n", words.join(", ")));
    fs::create_dir(bench.results()).unwrap();
    fs::write(bench.results().join("recover"), "").unwrap(); // a file where the directory would be
    assert_eq!(bench.run(&sweep, 2).unwrap().failed, ["small/sql/2"]);
    let before = bench.records();
    assert_eq!(methods(&before), ["aligned", "fine_tuned", "full_revert"], "random weights need the number");
    let errors = bench.errors(&sweep);
    assert!(errors.len() == 1 && errors[0].contains("recover"), "{errors:?}");

    fs::remove_file(bench.results().join("recover")).unwrap();
    assert!(bench.run(&sweep, 2).unwrap().failed.is_empty());
    let mended = bench.records();
    assert_eq!(methods(&mended), words);
    assert_eq!([&mended[0], &mended[1], &mended[4]], [&before[0], &before[1], &before[2]], "nothing was made again");
    assert_eq!(timeless(mended[2..4].to_vec()).iter().filter(|one| one.restored.is_some()).count(), 2);
}
