//! Models of the hub, fetched from a server of this file that has its paths: a hub, and the host that it redirects to.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "hub/server.rs"]
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::Bench;
use server::{COMMIT, Fault, Server, TOKEN};

/// A working directory, and a hub that has the model `m` of it as `org/name`.
struct Place {
    bench: Bench,
    server: Server,
}

impl Place {
    fn new() -> Self {
        let bench = Bench::new();
        bench.model("m", 16);
        bench.prompts("p.jsonl", 3);
        let server = Server::new(&bench.path("m"));
        Self { bench, server }
    }

    /// A command with an environment of the hub alone.
    fn command(&self, command: &str, variables: &[(&str, &str)]) -> Command {
        let mut process = Command::new(env!("CARGO_BIN_EXE_realign"));
        process.args(command.split_whitespace()).current_dir(self.bench.path("."));
        for name in ["HF_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_HOME", "http_proxy", "HTTP_PROXY", "ALL_PROXY"] {
            process.env_remove(name);
        }
        process.env("HF_HOME", self.bench.path("home")).env("HF_ENDPOINT", &self.server.url);
        process.envs(variables.iter().copied());
        process
    }

    fn run_with(&self, command: &str, variables: &[(&str, &str)]) -> Output {
        self.command(command, variables).output().unwrap()
    }

    /// Runs, expects an exit status, and gives back what it said; the token is never in it.
    fn run(&self, command: &str, variables: &[(&str, &str)], status: i32) -> String {
        let output = self.run_with(command, variables);
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
        assert_eq!(output.status.code(), Some(status), "{command}: {said}");
        assert!(!said.contains(TOKEN) && !said.contains("Signature"), "{said}");
        said
    }

    /// Lets the hub's model answer, and checks that it answers as the one that it was made of.
    fn answers(&self, model: &str, variables: &[(&str, &str)]) -> String {
        let said = self.run(
            &format!("generate --model {model} --prompts p.jsonl --max-new-tokens 4 --out a.jsonl"),
            variables,
            0,
        );
        self.run("generate --model m --prompts p.jsonl --max-new-tokens 4 --out b.jsonl", &[], 0);
        let read = |name: &str| -> Vec<String> {
            let text = fs::read_to_string(self.bench.path(name)).unwrap();
            let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["response"].to_string();
            text.lines().map(line).collect()
        };
        assert_eq!(read("a.jsonl"), read("b.jsonl"));
        said
    }

    fn fails(&self, model: &str, variables: &[(&str, &str)], parts: &[&str]) {
        let said = self.run(&format!("generate --model {model} --prompts p.jsonl --out c.jsonl -q"), variables, 1);
        for part in parts {
            assert!(said.contains(part), "does not say {part:?}: {said}");
        }
        assert!(!self.bench.path("c.jsonl").exists());
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.bench.path("home/hub/models--org--name").join(name)
    }

    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache("blobs")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn what_is_read_of_a_model_is_fetched_once_and_the_token_stays_with_the_hub() {
    let place = Place::new();
    place.answers("org/name", &[("HF_TOKEN", TOKEN)]);
    let seen = place.server.seen();
    let (hub, other): (Vec<_>, Vec<_>) = seen.iter().partition(|request| request.at_hub);
    let has_token = |head: &str| head.to_lowercase().contains("authorization");
    assert!(hub.iter().all(|request| has_token(&request.head)), "{hub:#?}");
    assert!(other.len() == 1 && !has_token(&other[0].head), "{other:#?}");
    for unread in ["pytorch_model.bin", "README.md", "evil"] {
        assert!(!seen.iter().any(|request| request.head.contains(unread)), "{unread}");
    }
    // As the Python library has it.
    assert_eq!(fs::read_to_string(place.cache("refs/main")).unwrap(), COMMIT);
    let weights = fs::read_link(place.cache(&format!("snapshots/{COMMIT}/model.safetensors"))).unwrap();
    assert_eq!(weights.parent().unwrap(), Path::new("../../blobs"));
    assert_eq!(weights.file_name().unwrap().len(), 64);

    let bodies = |place: &Place| place.server.seen().iter().filter(|one| one.head.starts_with("GET /org")).count();
    let before = bodies(&place);
    place.answers("org/name", &[("HF_TOKEN", TOKEN)]);
    assert_eq!(bodies(&place), before, "nothing is fetched twice");
    let before = place.server.seen().len();
    place.answers("hf://org/name@main", &[("HF_HUB_OFFLINE", "1")]);
    place.answers(&format!("org/name@{COMMIT}"), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(place.server.seen().len(), before, "offline means that nothing is sent");
    place.fails("org/name@v2", &[("HF_HUB_OFFLINE", "1")], &["org/name@v2", "HF_HUB_OFFLINE"]);
    let unreached = place.answers("org/name", &[("HF_ENDPOINT", "http://127.0.0.1:1")]);
    assert!(unreached.contains("127.0.0.1 cannot be reached") && unreached.contains("is used"), "{unreached}");
}

#[test]
fn shards_and_every_file_that_transformers_reads_are_fetched() {
    let place = Place::new();
    place.server.split_weights();
    place.server.put("additional_chat_templates/tools.jinja", b"tools");
    place.answers("org/name@refs/pr/1", &[]);
    let snapshot = place.cache(&format!("snapshots/{COMMIT}"));
    assert_eq!(fs::read_to_string(snapshot.join("additional_chat_templates/tools.jinja")).unwrap(), "tools");
    assert!(snapshot.join("model-00002-of-00002.safetensors").exists());
    assert_eq!(fs::read_to_string(place.cache("refs/refs/pr/1")).unwrap(), COMMIT);
}

#[test]
fn a_transfer_that_breaks_off_is_gone_on_with() {
    let place = Place::new();
    place.server.fault(&[Fault::Break(1000), Fault::Break(500), Fault::Busy]);
    place.answers("org/name", &[]);
    assert_eq!(place.server.ranges(), ["", "bytes=1000-", "bytes=1500-"]);

    // Of an earlier process; and by a server that always begins at the start.
    let whole = fs::read(place.bench.path("m/model.safetensors")).unwrap();
    let blob = place.cache("blobs").join(files::hash_bytes(&whole));
    for (fault, left) in [(None, &whole[..700]), (Some(Fault::Whole), &whole[..700]), (None, &vec![7; 900][..])] {
        fs::remove_file(&blob).unwrap();
        fs::write(blob.with_extension("incomplete"), left).unwrap();
        place.server.fault(fault.as_slice());
        place.answers("org/name", &[]);
        assert!(fs::read(&blob).unwrap() == whole);
        assert!(place.server.ranges().contains(&format!("bytes={}-", left.len())));
    }
    assert_eq!(place.server.ranges().last().unwrap(), "", "what was damaged before is fetched from its start");
}

#[cfg(unix)]
#[test]
fn a_transfer_that_stands_still_is_stopped_by_ctrl_c() {
    let place = Place::new();
    place.server.fault(&[Fault::Hang(1000)]);
    let mut process = place.command("generate --model org/name --prompts p.jsonl --out c.jsonl", &[]);
    let child = process.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while place.server.ranges().is_empty() && began.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_secs(1));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let asked = Instant::now();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(130) && said.contains("stopped"), "{said}");
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    place.answers("org/name", &[]);
    assert_eq!(place.server.ranges().last().unwrap(), "bytes=1000-", "what came is kept");
}

#[test]
fn what_is_not_what_the_hub_announced_is_refused() {
    let place = Place::new();
    place.server.fault(&[Fault::Damage]);
    place.fails("org/name", &[], &["org/name", "model.safetensors came with SHA-256", "announced"]);
    assert!(!place.cache("snapshots").exists(), "no model is left");
    let whole = files::hash_path(&place.bench.path("m/model.safetensors")).unwrap();
    assert!(!place.blobs().iter().any(|name| name.starts_with(&whole)), "{:?}", place.blobs());
    place.server.fault(&[Fault::TooLong]);
    let size = fs::metadata(place.bench.path("m/model.safetensors")).unwrap().len();
    let said = format!("came with {} bytes, and the hub announced {size}", size + 1);
    place.fails("org/name", &[], &["model.safetensors", &said]);
    assert!(!place.blobs().iter().any(|name| name.starts_with(&whole)), "{:?}", place.blobs());
    place.answers("org/name", &[]);
    let place = Place::new();
    place.server.fault(&[Fault::DamageSmall]);
    place.fails("org/name", &[], &["came with the git hash", "announced"]);
    place.answers("org/name", &[]);
}

#[test]
fn a_refusal_says_what_to_do() {
    let place = Place::new();
    place.server.fault(&[Fault::Busy, Fault::Busy]);
    let began = std::time::Instant::now();
    place.server.make_private();
    place.answers("org/name", &[("HF_TOKEN", TOKEN)]);
    assert!(began.elapsed().as_secs_f64() >= 2.0, "Retry-After is kept");
    place.fails("org/name", &[], &["taken for a model of the hub", "private or gated: set HF_TOKEN", "401"]);
    place.fails("org/name", &[("HF_TOKEN", "hf_wrong")], &["token", "401", "Invalid (hidden)"]);
    place.fails("org/name", &[("HF_TOKEN", "two words")], &["HF_TOKEN", "is no token"]);
    place.fails("org/other", &[("HF_TOKEN", TOKEN)], &["org/other", "is not on", "404"]);
    place.fails("hf://name", &[], &["hf://org/name@revision"]);
    place.fails("org/name", &[("HF_ENDPOINT", "hub.co")], &["HF_ENDPOINT", "\"hub.co\""]);
    let with_password = place.server.url.replace("http://", "http://user:secret@");
    let command = "generate --model org/other --prompts p.jsonl --out c.jsonl -q";
    let said = place.run(command, &[("HF_ENDPOINT", &with_password)], 1);
    assert!(said.contains("http://127.0.0.1") && !said.contains("secret"), "{said}");
    fs::create_dir(place.bench.path("org")).unwrap();
    let before = place.server.seen().len();
    place.fails("org/name", &[], &["org/name"]);
    assert_eq!(place.server.seen().len(), before, "with a directory `org` it is a path");
    fs::write(place.bench.path("home/token"), TOKEN).unwrap();
    place.answers("hf://org/name", &[]);
}

#[test]
fn a_hub_cannot_write_outside_its_cache() {
    let place = Place::new();
    place.server.fault(&[Fault::Etag("../../../../evil")]);
    place.fails("org/name", &[], &["ETag"]);
    place.server.split_weights();
    place.server.put("model.safetensors.index.json", br#"{"weight_map": {"a": "../../evil"}}"#);
    place.fails("org/name", &[], &["../../evil"]);
    assert!(!place.bench.path("evil").exists() && !place.bench.path("home/evil").exists());
    place.server.remove("model.safetensors.index.json");
    place.fails("org/name", &[], &["neither safetensors nor an adapter", "own format"]);
    place.server.put("q4.gguf", b"no gguf");
    place.fails("org/name", &[], &["hf://org/name/q4.gguf"]);
    let said = place.run("import --from hf://org/name/q4.gguf --out imported -q", &[], 1);
    assert!(said.contains("q4.gguf") && said.contains("snapshots"), "{said}");
}

#[test]
fn a_repair_plans_with_models_of_the_hub() {
    let place = Place::new();
    let line = |i: usize| format!("{{\"prompt\": \"where is box {i}\"}}\n");
    place.bench.file("h.jsonl", &(0..12).map(line).collect::<String>());
    let said = place.run(
        "repair --aligned org/name --finetuned hf://org/name@v1 --harmful h.jsonl --harmless h.jsonl --dry-run",
        &[],
        0,
    );
    assert!(said.contains("org/name"), "{said}");
}
