//! What is checked before a model is read and hours of answers are made.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::Bench;

/// Judges and references that cannot be used are named while `--out` is still empty.
#[test]
fn an_evaluation_that_cannot_end_does_not_begin() {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.prompts("p.jsonl", 4);
    bench.file(
        "guard-format.yaml",
        "{name: g, source: own, licence: own, template: '{{ prompt }}', max_new_tokens: 2, \
         labels: {words: {map: unsafe, gate: safe}}, probability: {unsafe: [map], safe: [map]}}",
    );
    bench.file("guard.yaml", "judges: [{kind: guard, name: watch, model: g, format: guard-format.yaml}]");
    bench.file(
        "http.yaml",
        "judges: [{kind: http, name: far, base_url: 'http://localhost:1/v1', model: x, \
         format: guard-format.yaml, api_key_env: REALIGN_TEST_NO_SUCH_KEY}]",
    );
    let fails = |more: &str, parts: &[&str]| {
        bench.fails(&format!("evaluate --model m --harmful p.jsonl --max-new-tokens 2 --out s {more}"), parts);
        assert!(!bench.path("s").exists(), "{more}: answers were made");
    };
    fails("--judges guard.yaml", &["watch", "g"]);
    fs::create_dir(bench.path("g")).unwrap();
    fails("--judges guard.yaml", &["watch", "tokenizer of"]);
    bench.model("g", 20);
    fails("--judges guard.yaml", &["watch", "labels of both kinds"]);
    fails("--judges http.yaml", &["far", "REALIGN_TEST_NO_SUCH_KEY"]);
    bench.file("bare.jsonl", "{\"prompt\": \"a\", \"response\": \"b\"}\n{\"prompt\": \"a\"}\n");
    fails("--task bare.jsonl", &["bare.jsonl, line 2", "response"]);
    bench.file(
        "f1.yaml",
        "{name: toxic, source: own, licence: own, train: p.jsonl, test: p.jsonl, \
         fields: {prompt: prompt, response: response}, metric: rouge, also: [f1], max_new_tokens: 4}",
    );
    fails("--tasks f1.yaml", &["task toxic", "in the box", "0 or 1"]);
    bench.fails("evaluate --model m --harmful p.jsonl --out -", &["--out -", "directory"]);
    assert!(!bench.path("-").exists());
}

#[test]
fn a_gguf_file_in_place_of_a_model_names_import() {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.prompts("p.jsonl", 4);
    bench.file("m.gguf", "GGUF");
    bench.file("it's.gguf", "GGUF");
    bench.file("weights", "");
    for command in [
        "generate --prompts p.jsonl --out o --model",
        "evaluate --harmful p.jsonl --out o --model",
        "direction --prompts p.jsonl --out o --model",
        "finetune --task p.jsonl --out o --model",
        "recover --finetuned m --prompts p.jsonl --out o --aligned",
        "recover --aligned m --prompts p.jsonl --out o --finetuned",
    ] {
        bench.fails(&format!("{command} m.gguf"), &["m.gguf", "realign import --from m.gguf --out"]);
        bench.fails(&format!("{command} it's.gguf"), &[r"realign import --from 'it'\''s.gguf' --out"]);
        bench.fails(&format!("{command} weights"), &["weights is a file", "directory"]);
        assert!(!bench.path("o").exists(), "{command}");
    }
}

#[test]
fn a_directory_above_models_names_them() {
    let bench = pair();
    bench.model("runs/checkpoint-2", 16);
    fs::create_dir(bench.path("runs/adapter")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        bench.file(&format!("runs/adapter/{name}"), "{}");
    }
    for command in [
        "generate --prompts p.jsonl --out o --model runs",
        "generate --prompts p.jsonl --out o --base al --model runs",
        "import --out o --base al --from runs",
        "repair --dry-run --aligned al --finetuned runs",
        "repair --dry-run --finetuned tu --aligned runs",
    ] {
        bench.fails(command, &["runs holds no model itself", "runs/adapter, runs/checkpoint-2"]);
    }
    assert!(!bench.path("o").exists());
}

#[test]
fn prompts_of_another_format_and_files_that_git_did_not_fetch_are_told_what_to_do() {
    let bench = pair();
    bench.file("list.json", "[{\"prompt\": \"a\"}]");
    let generate = "generate --model al --out o --prompts";
    bench.fails(&format!("{generate} list.json"), &["jq -c '.[]' list.json > list.lines.jsonl"]);
    for name in ["al/model.safetensors", "al/tokenizer.json"] {
        bench.file(name, "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n");
        bench.fails(&format!("{generate} p.jsonl"), &[name, "git lfs pull"]);
    }
}

#[test]
fn a_count_of_none_is_wrong_usage() {
    let bench = Bench::new();
    for (command, flag) in [
        ("generate --model m --prompts p --out o", "--batch"),
        ("generate --model m --prompts p --out o", "--max-new-tokens"),
        ("evaluate --out o", "--batch"),
        ("evaluate --out o", "--max-new-tokens"),
        ("align --model m --refusals r --helpful h --out o", "--max-new-tokens"),
        ("recover --aligned a --finetuned f --out o --task t --validation v", "--max-new-tokens"),
    ] {
        bench.says(&format!("{command} {flag} 0"), 2, &[flag, "at least 1"]);
    }
}

#[test]
fn the_help_of_each_flag_says_what_it_counts() {
    let help = Bench::new().works("recover --help");
    let of = |flag: &str| help.split(flag).nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    assert!(of("--limit <LIMIT>").contains("prompts are used"), "{help}");
    assert!(of("--probe <PROBE>").contains("Ask both models"), "{help}");
}

#[test]
fn scores_say_who_judged_and_nothing_that_is_not_known() {
    let bench = Bench::new();
    bench.model("m", 16);
    bench.prompts("p.jsonl", 4);
    bench.works("evaluate --model m --harmful p.jsonl --max-new-tokens 2 --out s");
    let text = fs::read_to_string(bench.path("s/scores.json")).unwrap();
    let scores: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(scores["provenance"].get("git_revision").is_some(), option_env!("GIT_REVISION").is_some(), "{text}");
    for (kind, name) in [("judges", "refusal"), ("answers", "harmful")] {
        assert_eq!(scores["provenance"]["settings"][kind][name].as_str().unwrap().len(), 64, "{text}");
    }
}

/// Two models and prompts.
fn pair() -> Bench {
    let bench = Bench::new();
    bench.model("al", 16);
    bench.model("tu", 16);
    bench.prompts("p.jsonl", 8);
    bench
}

#[test]
fn no_output_lies_where_an_input_or_another_output_lies() {
    let bench = pair();
    let before = |name: &str| fs::read(bench.path(name)).unwrap();
    let whole =
        ["p.jsonl", "tu/model.safetensors", "tu/config.json", "al/tokenizer.json"].map(|name| (name, before(name)));
    let recover = "recover --aligned al --finetuned tu --prompts p.jsonl --rollback off --out";
    for (command, said) in [
        ("generate --model al --prompts p.jsonl --out new/../p.jsonl".to_owned(), "written over p.jsonl"),
        (format!("{recover} new/../tu"), "written over tu"),
        (format!("{recover} o --patch tu/model.safetensors"), "written over tu"),
        (format!("{recover} o --trace al/tokenizer.json"), "written over al"),
        ("direction --model tu --prompts p.jsonl --out tu/config.json".to_owned(), "written over tu"),
        ("repair --dry-run --aligned al --finetuned tu --json tu/config.json".to_owned(), "written over tu"),
        (format!("{recover} o --patch o/model.safetensors"), "a file of the model in o"),
        (format!("{recover} o --trace o/tokenizer.json"), "a file of the model in o"),
        (format!("{recover} o --trace o"), "to one place"),
        (format!("{recover} o --patch x --trace x"), "to one place"),
        (format!("{recover} o --patch - --trace -"), "two outputs are standard output"),
        (format!("{recover} o --patch /dev/stdout --trace -"), "two outputs are standard output"),
        ("repair --aligned al --finetuned tu --out o --json o.report".to_owned(), "to one place"),
    ] {
        bench.fails(&command, &[said]);
    }
    for (name, content) in whole {
        assert_eq!(before(name), content, "{name}");
    }
    assert!(["new", "o", "o.partial", "x"].iter().all(|name| !bench.path(name).exists()));
}

#[test]
fn a_models_directory_is_read_at_its_top_and_left_as_it_is() {
    let bench = pair();
    bench.file("tu/.writing-notes.txt", "mine");
    #[cfg(unix)]
    {
        fs::create_dir(bench.path("tu/checkpoint-1")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", bench.path("tu/checkpoint-1/latest")).unwrap();
        std::os::unix::fs::symlink(".", bench.path("tu/self")).unwrap();
    }
    bench.works("recover --aligned al --finetuned tu --prompts p.jsonl --probe 0 --steps 1 --rollback off --out o");
    assert_eq!(fs::read_to_string(bench.path("tu/.writing-notes.txt")).unwrap(), "mine");
}

#[test]
fn a_second_command_with_the_same_out_is_refused_while_the_first_works() {
    let bench = pair();
    let recover = "recover --aligned al --finetuned tu --prompts p.jsonl --probe 0 --steps 1 --rollback off --out o";
    fs::create_dir(bench.path("o.partial")).unwrap();
    let held = fs::File::open(bench.path("o.partial")).unwrap();
    held.lock().unwrap();
    bench.fails(recover, &["another command works in o.partial"]);
    drop(held);
    bench.works(recover);
    assert!(!bench.path("o.partial").exists());
    let generate = "generate --model al --prompts p.jsonl --max-new-tokens 2 --out new/a.jsonl";
    let evaluate = "evaluate --model al --harmful p.jsonl --max-new-tokens 2 --out e";
    let judge = "evaluate --out e";
    for (command, place, shown) in [
        (generate, "new/a.jsonl.partial", "another command works in new/a.jsonl"),
        (evaluate, "e", "another command works in e"),
        (judge, "e", "another command works in e"),
    ] {
        let place = bench.path(place);
        match place.extension() {
            Some(_) => files::write_whole(&place, b"").unwrap(),
            None => fs::create_dir_all(&place).unwrap(),
        }
        let held = fs::File::open(&place).unwrap();
        held.lock().unwrap();
        bench.fails(command, &[shown]);
        drop(held);
        bench.works(command);
    }
    assert!(!bench.path("new/a.jsonl.partial").exists());
    fs::remove_file(bench.path("al/model.safetensors")).unwrap();
    for out in ["none/a.jsonl", "b.jsonl"] {
        bench.fails(&format!("generate --model al --prompts p.jsonl --max-new-tokens 2 --out {out}"), &["al"]);
        assert!(
            !bench.path("none").exists() && !bench.path("b.jsonl.partial").exists(),
            "a failed command leaves nothing"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_under_standard_output_is_an_error() {
    let bench = pair();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_realign"));
    let words = ["repair", "--dry-run", "--aligned", "al", "--finetuned", "tu"];
    let output = command.args(words).current_dir(bench.path("")).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("cannot write to standard output"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_under_standard_error_ends_no_command() {
    let bench = pair();
    bench.file("al/generation_config.json", "{\"eos_token_id\": 2, \"repetition_penalty\": 1.5}");
    let generate = "generate --model al --prompts p.jsonl --max-new-tokens 2 --out a.jsonl";
    bench.says(generate, 0, &["repetition_penalty = 1.5 is not applied"]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_realign"));
    command.args(generate.replace("a.jsonl", "b.jsonl").split(' ')).current_dir(bench.path(""));
    let status = command.stdout(std::process::Stdio::null()).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(0), "a warning that cannot be written is lost");
    assert!(bench.path("b.jsonl").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_no_utf_8_and_huge_numbers_are_no_panic() {
    use std::os::unix::ffi::OsStrExt as _;
    let bench = pair();
    let name = std::ffi::OsStr::from_bytes(b"m\xff");
    let run = |words: &[&std::ffi::OsStr], status: i32| {
        let program = env!("CARGO_BIN_EXE_realign");
        let output = std::process::Command::new(program).args(words).current_dir(bench.path("")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
        said
    };
    let words = |text: &'static str| text.split(' ').map(std::ffi::OsStr::new);
    let of = |text| words(text).map(|word| if word == "M" { name } else { word }).collect::<Vec<_>>();
    for flag in ["--max-new-tokens", "--own-tokens"] {
        let command = "repair --dry-run --aligned al --finetuned tu FLAG 9223372036854775807 -q";
        let words: Vec<_> =
            of(command).into_iter().map(|word| if word == "FLAG" { flag.as_ref() } else { word }).collect();
        let said = run(&words, 1);
        assert!(said.contains("9223372036854775807 new ones") && said.contains("max_position_embeddings"), "{said}");
    }
    // The report of a repair names its places, which is known before the work.
    for command in [
        "--aligned al --finetuned tu --out M",
        "--aligned al --finetuned tu --out o --report M",
        "--aligned M --finetuned tu",
    ] {
        let words: Vec<_> = words("repair").chain(of(command)).collect();
        assert!(run(&words, 1).contains("is not UTF-8"), "{command}");
        assert!(!bench.path("o").exists() && !bench.path("o.partial").exists());
    }
    fs::rename(bench.path("al"), bench.path("").join(name)).unwrap();
    run(&of("evaluate --model M --harmful p.jsonl --max-new-tokens 2 --out s -q"), 0);
}
