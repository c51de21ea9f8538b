//! A user's working directory: tiny models, prompts, and the command run in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use burn::tensor::Device;
use model::{DecoderConfig, checkpoint};
use serde_json::json;
use tempfile::TempDir;

/// A working directory with models and prompts.
pub struct Bench {
    dir: TempDir,
}

#[allow(dead_code)] // not every test file uses all of it
impl Bench {
    /// An empty one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A tiny model with random weights and the lab's tokenizer.
    pub fn model(&self, name: &str, width: usize) -> PathBuf {
        let dir = self.path(name);
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab/tokenizer");
        let vocabulary = prompts::Tokenizer::from_dir(&tokenizer).unwrap().vocab_size();
        let config = json!({"model_type": "llama", "vocab_size": vocabulary, "hidden_size": width,
            "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2,
            "num_key_value_heads": 1, "max_position_embeddings": 128, "tie_word_embeddings": true});
        let config = DecoderConfig::from_json(&config, Path::new("tiny")).unwrap();
        checkpoint::save(&finetune::init_random(&config, 0.3, 2, &Device::default()), &dir).unwrap();
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            fs::copy(tokenizer.join(file), dir.join(file)).unwrap();
        }
        dir
    }

    /// Writes a file.
    pub fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// `count` prompts, with answers.
    pub fn prompts(&self, name: &str, count: usize) {
        let words = ["map", "gate", "song", "code"];
        let line = |i: usize| json!({"prompt": format!("where is the {}", words[i % 4]), "response": "in the box"});
        self.file(name, &(0..count).map(|i| format!("{}\n", line(i))).collect::<String>());
    }

    /// Runs `command`, split at blanks.
    pub fn realign(&self, command: &str) -> Output {
        let arguments = command.split_whitespace();
        Command::new(env!("CARGO_BIN_EXE_realign")).args(arguments).current_dir(self.dir.path()).output().unwrap()
    }

    /// Runs and gives back what it printed; `-q` takes progress and warnings away, and nothing else is on standard error.
    pub fn works(&self, command: &str) -> String {
        let output = self.realign(&format!("{command} -q"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command} failed: {errors}");
        assert!(errors.is_empty(), "{command}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs, expects an exit status, and checks that standard error says each of `parts`.
    pub fn says(&self, command: &str, status: i32, parts: &[&str]) -> String {
        let output = self.realign(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{command}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{command} does not say {part:?}: {errors}");
        }
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs, expects an error without a panic, and checks that it says each of `parts`.
    pub fn fails(&self, command: &str, parts: &[&str]) {
        let output = self.realign(&format!("{command} -q"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command}: {errors}");
        assert!(errors.starts_with("error: ") && !errors.contains("panicked"), "{command}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{command} does not say {part:?}: {errors}");
        }
    }
}
