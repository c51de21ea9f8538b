//! The program measures its stages in a work directory that is empty, and in one that it left behind.

use std::path::{Path, PathBuf};
use std::process::Command;

fn data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data").join(path)
}

#[test]
fn stages_are_measured_from_an_empty_work_directory_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let (source, work) = (dir.path().join("source"), dir.path().join("work"));
    std::fs::create_dir(&source).unwrap();
    for from in [data("lab/models/llama-small"), data("lab/tokenizer")] {
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), source.join(entry.file_name())).unwrap();
        }
    }
    for stages in [&["recovery", "selection", "direction", "lora", "answer64"][..], &["direction"]] {
        let run = Command::new(env!("CARGO_BIN_EXE_bench"))
            .args(stages)
            .args(["--turns", "1"])
            .arg("--gguf")
            .arg(&source)
            .arg("--work")
            .arg(&work)
            .arg("--prompts")
            .arg(data("prompt_sets/packaged/harmful.jsonl"))
            .arg("--samples")
            .arg(data("lab/sql_train.jsonl"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
        for stage in stages {
            assert!(said.contains(stage), "no `{stage}` in {said}");
        }
    }
}
