//! Runs of a sweep: a model that fails leaves the others their rows; judges read the answers that are stored, another one
//! generates nothing, and an endpoint that fails is asked again about what it failed on. The models are tiny, and the
//! endpoint is a server of this test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use burn::tensor::Device;
use evaluation::{RefusalJudge, Verdict, read_answers};
use experiments::row::ResultRow;
use experiments::run::{Options, run};
use experiments::store::Store;
use experiments::survey::{CellState, Survey};
use experiments::sweep::{Method, Sweep};
use experiments::tables;
use prompts::Sample;
use realign::Loaded;
use realign::stage::generate::{GenerateSettings, answers};

const SWEEP: &str = "\
name: tiny
data: data
models: [{ name: small, source: { dir: small } }]
tasks: [{ name: sql, train: train.jsonl, test: test.jsonl, metric: exact_match, max_new_tokens: 3, validation: 0.5 }]
harmful_counts: [0]
inject: train.jsonl
finetune: { lora: { rank: 2, alpha: 2, dropout: 0.0 }, learning_rate: 1.0e-6, batch: 2, max_len: 64 }
recovery: { prompts: train.jsonl, count: 1 }
evaluation:
  harmful: { file: harmful.jsonl, count: 8, max_new_tokens: 3 }
  harmless: { file: harmless.jsonl, count: 4, max_new_tokens: 3 }
methods: [aligned, fine_tuned]
";

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

fn prompt(i: usize) -> String {
    format!("where is the {}", ["map", "gate", "song", "code"][i % 4])
}

/// A repository with a tiny random model, its data and the sweep, and its results.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lab/tokenizer");
        let vocabulary = prompts::Tokenizer::from_dir(&tokenizer).unwrap().vocab_size();
        let config = serde_json::json!({"model_type": "llama", "vocab_size": vocabulary, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
            "max_position_embeddings": 128, "tie_word_embeddings": true});
        let config = model::DecoderConfig::from_json(&config, Path::new("tiny")).unwrap();
        // The first seed whose model answers with words, which a judge of phrases needs.
        let model = bench.path("small");
        for seed in 1.. {
            let decoder = finetune::init_random(&config, 0.3, seed, &Device::default());
            model::checkpoint::save(&decoder, &model).unwrap();
            for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
                fs::copy(tokenizer.join(file), model.join(file)).unwrap();
            }
            let samples = [0, 1, 2, 3].map(|i| Sample { prompt: prompt(i), ..Sample::default() });
            let (loaded, settings) =
                (Loaded::open(&model, &Device::default()).unwrap(), GenerateSettings { max_new_tokens: 3, batch: 4 });
            let found = answers(&loaded, &samples, settings, &mut |_, _, _| {}).unwrap();
            let judge = RefusalJudge::embedded();
            if found.iter().all(|answer| judge.verdict(&answer.response) != Verdict::Unknown) {
                break;
            }
        }
        fs::create_dir(bench.path("data")).unwrap();
        for (name, count) in [("train", 6), ("test", 4), ("harmful", 8), ("harmless", 4)] {
            let asked = |i| if name == "train" { prompt(i).replace("where is", "find") } else { prompt(i) };
            let line = |i: usize| serde_json::json!({"prompt": asked(i), "response": "box"});
            let lines: String = (0..count).map(|i| format!("{}\n", line(i))).collect();
            fs::write(bench.path("data").join(format!("{name}.jsonl")), lines).unwrap();
        }
        fs::write(
            bench.path("word.yaml"),
            "{name: word, source: own, licence: own, template: '{{ prompt }} / {{ response }}', max_new_tokens: 2, \
             labels: {words: {safe: safe, unsafe: unsafe}}}",
        )
        .unwrap();
        fs::write(bench.path("Cargo.lock"), "").unwrap(); // what marks a repository
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The sweep with these judges.
    fn sweep(&self, judges: &str) -> Sweep {
        fs::write(self.path("tiny.yaml"), format!("{SWEEP}{judges}")).unwrap();
        Sweep::load(&self.path("tiny.yaml")).unwrap()
    }

    fn results(&self) -> PathBuf {
        self.path("results")
    }

    /// The kinds of the stages that are to be run.
    fn left(&self, sweep: &Sweep) -> Vec<&'static str> {
        let survey = Survey::of(sweep, &self.results().as_path().into(), &self.results());
        let cells = survey.select(&sweep.choose(&[]).unwrap());
        survey.left(sweep, &cells).iter().map(|stage| stage.kind).collect()
    }

    fn run(&self, sweep: &Sweep) -> anyhow::Result<Vec<ResultRow>> {
        let store = Store::open(self.results().as_path(), "flex").unwrap();
        run(sweep, &store, &self.results(), &Device::default(), &Options { cells: sweep.choose(&[])?, jobs: 1 })?;
        tables::read(&self.results())
    }

    /// A table's lines by column.
    fn csv(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        let text = fs::read_to_string(self.results().join(name)).unwrap();
        let head: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let line = |line: &str| head.iter().map(ToString::to_string).zip(line.split(',').map(str::to_owned)).collect();
        text.lines().skip(1).map(line).collect()
    }

    /// Every file below the results but the judges' stages, with what is in it.
    fn files(&self, kinds: &[&str]) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs: Vec<PathBuf> = kinds.iter().map(|kind| self.results().join(kind)).collect();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { drop(files.insert(path.clone(), fs::read(path).unwrap())) }
            }
        }
        files
    }
}

#[test]
fn a_model_that_fails_leaves_the_others_their_rows() {
    let bench = Bench::new();
    let mut sweep = bench.sweep("");
    sweep.methods = vec![Method::Aligned, Method::FineTuned, Method::Recovered, Method::Random, Method::FullRevert];
    fs::create_dir(bench.results()).unwrap();
    fs::write(bench.results().join("recover"), "").unwrap(); // a file where the directory would be
    let methods = |rows: &[ResultRow]| rows.iter().map(|row| row.method).collect::<Vec<_>>();
    let error = bench.run(&sweep).unwrap_err().to_string();
    assert!(error.contains("1 of 1 failed: small/sql/0"), "{error}");
    let rows = tables::read(&bench.results()).unwrap();
    assert_eq!(
        methods(&rows),
        [Method::Aligned, Method::FineTuned, Method::FullRevert],
        "random weights need the number"
    );
    let survey = Survey::of(&sweep, &bench.results().as_path().into(), &bench.results());
    let CellState::Failed(error) = &survey.cells[0].state else { panic!("{}", survey.cells[0].state) };
    assert!(error.contains("stage recover"), "{error}");
    assert_eq!(survey.cells[0].rows, rows, "they are found again");

    fs::remove_file(bench.results().join("recover")).unwrap();
    let mended = bench.run(&sweep).unwrap();
    assert_eq!(methods(&mended), sweep.methods);
    assert_eq!((&mended[..2], &mended[4]), (&rows[..2], &rows[2]), "nothing was made anew");
}

const GENERATED: [&str; 3] = ["import", "finetune", "evaluate"];

fn phrases_and(endpoint: &Endpoint) -> String {
    // PATH is set wherever tests run; its value stands for a key.
    format!(
        "judges:\n  - {{ kind: refusal, name: phrases }}\n  - {{ kind: http, name: local, base_url: '{}', model: judge, \
         format: word.yaml, api_key_env: PATH, retries: 0 }}\n",
        endpoint.base_url
    )
}

#[test]
fn a_judge_that_is_added_to_a_finished_sweep_judges_and_generates_nothing() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let rows = bench.run(&bench.sweep("")).unwrap();
    assert!(!bench.results().join("judges.md").exists());
    let generated = bench.files(&GENERATED);

    let sweep = bench.sweep(&phrases_and(&endpoint));
    assert_eq!(bench.left(&sweep), ["judge"; 4], "two models by two judges");
    let judged = bench.run(&sweep).unwrap();
    assert_eq!(bench.files(&GENERATED), generated, "nothing was made anew");
    let phrases_stay = |(row, before): (&ResultRow, &ResultRow)| {
        let seconds = row.evaluation_seconds;
        assert_eq!(row, &ResultRow { evaluation_seconds: seconds, ..before.clone() });
    };
    judged.iter().zip(&rows).for_each(phrases_stay);

    let (rates, pairs) = (bench.csv("judges.csv"), bench.csv("agreement.csv"));
    assert_eq!((rates.len(), pairs.len()), (4, 2));
    for (i, row) in rows.iter().enumerate() {
        let answers =
            read_answers(&bench.results().join("evaluate").join(&row.safety_stage).join("answers-harmful.jsonl"));
        let answers = answers.unwrap();
        let judge = RefusalJudge::embedded();
        let texts: Vec<String> =
            answers.iter().map(|answer| format!("{} {}", answer.prompt, answer.response)).collect();
        let local: Vec<bool> = texts.iter().map(|text| text.contains("gate")).collect();
        let phrases: Vec<bool> = answers.iter().map(|answer| !judge.is_refusal(&answer.response)).collect();
        let share = |of: Vec<bool>| of.iter().filter(|yes| **yes).count() as f64 / answers.len() as f64;
        let of = |line: &BTreeMap<String, String>, column: &str| line[column].parse::<f64>().unwrap();
        let (first, second) = (&rates[2 * i], &rates[2 * i + 1]);
        assert_eq!((first["judge"].as_str(), of(first, "harmful_rate")), ("phrases", row.harmful_rate));
        assert_eq!((second["judge"].as_str(), of(second, "harmful_rate")), ("local", share(local.clone())));
        assert_eq!((second["over_refusal"].as_str(), second["unknown"].as_str()), ("", "0"), "a judge of safety");
        let equal = local.iter().zip(&phrases).map(|(l, p)| l == p).collect();
        assert_eq!(of(&pairs[i], "agreement"), share(equal));
    }
    let report = fs::read_to_string(bench.results().join("judges.md")).unwrap();
    assert!(report.contains("| small | sql | 0 | 1 |  | fine_tuned | local | ") && report.contains("all 2 models"));

    let key = std::env::var("PATH").unwrap();
    assert!(endpoint.heads.lock().unwrap().iter().all(|head| head.contains(&format!("Bearer {key}"))));
    for (path, bytes) in bench.files(&[""]) {
        assert!(!String::from_utf8_lossy(&bytes).contains(&key), "{} holds the key", path.display());
    }

    // Another order needs no judging at all: the first judge's rates are those of the results.
    let judges = phrases_and(&endpoint).replace("local", "other name");
    let (first, second) = judges.split_once("  - { kind: http").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let turned = format!(
        "judges:\n  - {{ kind: http{}{}",
        second.replace("other name", "renamed"),
        first.replace("judges:\n", "")
    );
    let sweep = bench.sweep(&turned);
    endpoint.requests();
    assert_eq!(bench.left(&sweep), [] as [&str; 0]);
    let store = Store::open(bench.results().as_path(), "flex").unwrap();
    let survey = Survey::of(&sweep, store.roots(), store.roots().own());
    let rates = rates.iter().filter(|line| line["judge"] == "local");
    for (row, line) in survey.rows().iter().zip(rates) {
        assert_eq!(row.harmful_rate.to_string(), line["harmful_rate"]);
        let refused = rows.iter().find(|before| before.method == row.method).unwrap().over_refusal;
        assert_eq!(row.over_refusal, refused, "the judge of refusals says what is refused");
    }
    assert_eq!(endpoint.requests(), 0);
}

#[test]
fn a_changed_prompt_set_costs_what_it_changed() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let rows = bench.run(&bench.sweep(&phrases_and(&endpoint))).unwrap();
    // A mark in the answers that are kept: what is made anew has none.
    let mark = |file: &str, row: &ResultRow| {
        let path = bench.results().join("evaluate").join(&row.safety_stage).join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("\"response\":\"", "\"response\":\"kept ")).unwrap();
    };
    rows.iter().for_each(|row| mark("answers-harmless.jsonl", row));
    let harmful = bench.path("data/harmful.jsonl");
    let more = fs::read_to_string(&harmful).unwrap() + "{\"prompt\": \"the gate\"}\n";
    fs::write(&harmful, more).unwrap();
    endpoint.requests();
    let text = SWEEP.replace("harmful.jsonl, count: 8", "harmful.jsonl, count: 9").replace("count: 4", "count: 3");
    fs::write(bench.path("tiny.yaml"), text + &phrases_and(&endpoint)).unwrap();
    let changed = bench.run(&Sweep::load(&bench.path("tiny.yaml")).unwrap()).unwrap();
    assert_eq!(endpoint.requests(), 2, "one new answer of each of the two models is judged");
    for (row, before) in changed.iter().zip(&rows) {
        assert_ne!(row.safety_stage, before.safety_stage);
        let dir = bench.results().join("evaluate").join(&row.safety_stage);
        let harmless = read_answers(&dir.join("answers-harmless.jsonl")).unwrap();
        assert!(harmless.len() == 3 && harmless.iter().all(|answer| answer.response.starts_with("kept ")));
        assert_eq!(read_answers(&dir.join("answers-harmful.jsonl")).unwrap().len(), 9);
    }
}

#[test]
fn an_endpoint_that_failed_is_asked_again_about_the_answers_that_it_failed_on() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let sweep = bench.sweep(&phrases_and(&endpoint));
    endpoint.failing.store(true, Ordering::Relaxed);
    let error = bench.run(&sweep).unwrap_err();
    assert!(error.to_string().contains("1 of 1 failed"), "{error:#}");
    let survey = Survey::of(&sweep, &bench.results().as_path().into(), &bench.results());
    let state = format!("{:?}", survey.cells[0].state);
    assert!(state.contains("judge local failed on") && state.contains("of 8 answers"), "{state}");
    let first = endpoint.requests();

    endpoint.failing.store(false, Ordering::Relaxed);
    let rows = bench.run(&sweep).unwrap();
    // Of each of the two models' answers at least the two with the word in their prompt.
    let second = endpoint.requests();
    let failed = |row: &ResultRow| {
        let file = bench.results().join("evaluate").join(&row.safety_stage).join("answers-harmful.jsonl");
        read_answers(&file).unwrap().iter().filter(|answer| format!("{answer:?}").contains("song")).count()
    };
    assert_eq!((first, second), (2 * 8, rows.iter().map(failed).sum()));
    assert!(bench.csv("judges.csv").iter().all(|line| line["unknown"] == "0" && line["failed"] == "0"));
}

#[test]
fn a_key_that_is_not_in_the_environment_stops_the_run_before_anything_is_computed() {
    let (bench, endpoint) = (Bench::new(), Endpoint::start());
    let sweep = bench.sweep(&phrases_and(&endpoint).replace("PATH", "REALIGN_TEST_NO_KEY"));
    let error = bench.run(&sweep).unwrap_err();
    assert!(format!("{error:#}").contains("REALIGN_TEST_NO_KEY"), "{error:#}");
    assert!(!bench.results().join("import").exists());
}
