//! What a hostile directory or settings file cannot do through the command.
#![allow(clippy::unwrap_used)]
#![cfg(unix)]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Bench;
use serde_json::json;

fn bench() -> Bench {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.prompts("p.jsonl", 2);
    bench
}

const GENERATE: &str = "generate --model m --prompts p.jsonl --out o.jsonl --max-new-tokens 2";

#[test]
fn devices_and_pipes_in_a_models_directory_are_refused() {
    let bench = bench();
    let file = bench.path("m/notes.txt");
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    bench.fails(GENERATE, &["m/notes.txt", "not a regular file"]);
    fs::remove_file(&file).unwrap();
    for name in ["notes.json", "config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"] {
        let (path, kept) = (bench.path("m").join(name), bench.path("kept"));
        let was_there = fs::rename(&path, &kept).is_ok();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        bench.fails(GENERATE, &[name, "not a regular file"]);
        fs::remove_file(&path).unwrap();
        if was_there {
            fs::rename(&kept, &path).unwrap();
        }
    }
    bench.works(GENERATE);
}

#[test]
fn text_of_files_cannot_steer_the_terminal() {
    let bench = bench();
    bench.file("m/chat_template.jinja", "{{ raise_exception('\u{1b}[2Jgone') }}");
    bench.fails(GENERATE, &["\\u{1b}[2Jgone"]);
}

#[test]
fn numbers_that_cannot_be_are_errors() {
    let bench = bench();
    bench.fails(
        "generate --model m --prompts p.jsonl --out o --max-new-tokens 18446744073709551615",
        &["p.jsonl, line 1"],
    );
    let path = bench.path("m/config.json");
    let whole = fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&whole).unwrap();
    for key in ["rms_norm_eps", "rope_theta"] {
        let old = config[key].clone();
        config[key] = json!(1e300);
        fs::write(&path, config.to_string()).unwrap();
        bench.fails(GENERATE, &[key, "f32"]);
        config[key] = old;
    }
}

/// A server that gives every request the same head of an answer; gives back its address.
fn server(head: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The whole request, whose body is an object: a connection that is closed before may take the reply with it.
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"}") {
                let Ok(count @ 1..) = stream.read(&mut part) else { break };
                request.extend_from_slice(&part[..count]);
            }
            let reply = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(reply.as_bytes());
        }
    });
    address
}

#[test]
fn a_key_is_in_no_log_whatever_is_asked_for() {
    let bench = bench();
    bench.works(GENERATE);
    let guards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges/guards").canonicalize().unwrap();
    let judge = format!(
        "judges: [{{kind: http, name: a, base_url: '{}', model: m, format: '{}/wildguard.yaml', api_key_env: JUDGE_KEY}}]",
        server("401 Unauthorized"),
        guards.display()
    );
    bench.file("judges.yaml", &judge);
    for filter in ["trace", "ureq_proto=trace", "ureq_proto::client=trace,ureq::run=trace"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_realign"));
        let arguments = "evaluate --model m --harmful p.jsonl --judges judges.yaml --out e --max-new-tokens 2";
        command
            .args(arguments.split(' '))
            .current_dir(bench.path(""))
            .env("RUST_LOG", filter)
            .env("JUDGE_KEY", "sk-a-b-c");
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("401"), "the endpoint was asked: {said}");
        assert!(!said.contains("sk-a-b-c"), "{filter}: {said}");
        // A hex dump breaks it up, and has it in hexadecimal.
        assert!(!said.contains("73 6b 2d 61") && !said.contains("736b2d61"), "{filter}: {said}");
    }
}

#[test]
fn a_judge_that_is_kept_waiting_says_so_once_and_hears_ctrl_c() {
    let bench = bench();
    let format = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges/http/one_word.yaml");
    let judge = format!(
        "judges: [{{kind: http, name: a, base_url: '{}', model: m, format: '{}'}}]",
        server("429 Too Many\r\nRetry-After: 300"),
        format.canonicalize().unwrap().display()
    );
    bench.file("judges.yaml", &judge);
    let mut command = Command::new(env!("CARGO_BIN_EXE_realign"));
    let arguments = "evaluate --model m --harmful p.jsonl --judges judges.yaml --out e --max-new-tokens 2";
    let command = command.args(arguments.split(' ')).current_dir(bench.path(""));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let warning = lines.find(|line| line.contains("asked again in")).unwrap();
    assert!(warning.contains("judge a: status 429; asked again in 300 s"), "{warning}");
    std::thread::sleep(Duration::from_millis(1500)); // the report comes again
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    assert!(!rest.iter().any(|line| line.contains("asked again")), "{rest:?}");
    assert!(rest.iter().filter(|line| line.contains("verdicts")).count() <= 1, "{rest:?}");
}

#[test]
fn answers_of_other_weights_are_made_again_whatever_their_size_and_time() {
    let bench = bench();
    let weights = bench.path("m/model.safetensors");
    let ask = |out: &str| {
        bench.works(&format!("evaluate --model m --task p.jsonl --out {out} --max-new-tokens 4"));
        fs::read_to_string(bench.path(out).join("answers-task.jsonl")).unwrap()
    };
    let (first, before) = (ask("kept"), fs::metadata(&weights).unwrap());
    let mut bytes = fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[header..].reverse();
    bytes[header..].chunks_exact_mut(4).for_each(<[u8]>::reverse);
    fs::write(&weights, &bytes).unwrap();
    fs::File::options().write(true).open(&weights).unwrap().set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(&weights).unwrap();
    assert_eq!((after.len(), after.modified().unwrap()), (before.len(), before.modified().unwrap()));
    let second = ask("kept");
    assert_ne!(second, first);
    assert_eq!(second, ask("fresh"), "no answer of the earlier weights is left");
}

#[test]
fn a_password_in_a_judges_address_is_in_no_message_and_no_file() {
    let bench = bench();
    let judge =
        "judges: [{kind: http, name: a, base_url: 'http://me:sk-a-b-c@127.0.0.1:9/v1', model: m, format: f.yaml}]";
    bench.file("judges.yaml", judge);
    let mut command = Command::new(env!("CARGO_BIN_EXE_realign"));
    let arguments = "evaluate --model m --harmful p.jsonl --judges judges.yaml --out e --max-new-tokens 2";
    command.args(arguments.split(' ')).current_dir(bench.path("")).env("RUST_LOG", "trace");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!output.status.success() && said.contains("base_url holds one of @"), "{said}");
    assert!(!said.contains("sk-a-b-c") && !bench.path("e").exists(), "{said}");
}
