//! The report of a repair as data: `report.json`. Its pages are made of it and of nothing else.

use evaluation::Verdict as Said;
use recovery::{MeritSettings, PatchFile, Standing, StrongTrace, Trial};
use serde::{Deserialize, Serialize};

use super::bounds::BoundCheck;
use super::comparison::Comparison;
use super::measures::Measure;
use super::plan::Plan;
use super::settings::Settings;

/// All there is to say of a repair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Raised when a key changes its meaning.
    pub format: u32,
    /// What came of it.
    pub verdict: Verdict,
    /// The models.
    pub models: Models,
    /// How the two models that were given differ.
    pub comparison: Comparison,
    /// What was measured on the test part.
    pub measures: Vec<Measure>,
    /// The way to the recovered model.
    pub path: Path,
    /// Where weights were restored.
    pub restored: Restored,
    /// How near the models' hidden states on harmful prompts are to the aligned model's.
    pub direction: Direction,
    /// What looked suspicious.
    pub warnings: Vec<String>,
    /// What was to be done, and what it was to take.
    pub plan: Plan,
    /// Seconds by step of the work.
    pub seconds: Vec<(String, f64)>,
    /// The largest memory in bytes, where the system says it.
    pub peak_memory: Option<u64>,
    /// What was asked, with its words if they are to be shown.
    pub asked: Vec<Asked>,
    /// The settings.
    pub settings: Settings,
    /// How it can be done again.
    pub origin: Origin,
}

/// What came of a repair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether all bounds hold on the test part.
    pub passed: bool,
    /// One sentence.
    pub text: String,
    /// What the method says of itself, on the choosing part.
    pub method: String,
    /// The bounds.
    pub checks: Vec<BoundCheck>,
}

/// The models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// The aligned one.
    pub aligned: ModelInfo,
    /// The fine-tuned one.
    pub fine_tuned: ModelInfo,
    /// The recovered one.
    pub recovered: ModelInfo,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Where it is.
    pub path: String,
    /// Its name: the one in its configuration, or the directory's.
    pub name: String,
    /// Hash of its files.
    pub hash: String,
}

/// The way to the recovered model, on the choosing part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Parameters of all blocks, of which restored weights are a share.
    pub parameters: usize,
    /// The fine-tuned model.
    pub base: Standing,
    /// How divergences were weighed, with the bounds on them.
    pub merit: MeritSettings,
    /// After each round.
    pub points: Vec<Point>,
    /// The round whose model was taken; 0 is the fine-tuned model.
    pub chosen: usize,
}

/// A model on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The round, from 1.
    pub round: usize,
    /// Weights that the round flipped.
    pub flipped: usize,
    /// Weights that are restored after it.
    pub restored: usize,
    /// As a share of the parameters of all blocks.
    pub share: f64,
    /// The held-out divergences and the merit.
    pub standing: Standing,
    /// The numbers of weights that were tried.
    pub trials: Vec<Trial>,
    /// Seconds.
    pub seconds: f64,
}

/// Where weights were restored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// Restored weights in all.
    pub weights: usize,
    /// The columns: modules of a block, such as `mlp.up_proj`.
    pub modules: Vec<String>,
    /// By block and module: weights.
    pub of: Vec<Vec<usize>>,
    /// By block and module: restored weights.
    pub restored: Vec<Vec<usize>>,
}

/// Cosines of the mean hidden state on the harmful test prompts with the aligned model's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// The layer, counted from 1.
    pub layer: usize,
    /// The fine-tuned model's cosine.
    pub before: f64,
    /// The recovered model's.
    pub after: f64,
}

/// A prompt of the test part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The prompt set or task.
    pub set: String,
    /// Its name there, or its number.
    pub id: String,
    /// Its category, if it has one.
    pub category: Option<String>,
    /// The verdicts on the answers.
    pub told: Told,
    /// The words, if they are to be shown.
    pub text: Option<Text>,
}

/// The verdicts on the answers of the aligned, the fine-tuned and the recovered model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// By the first judge that has verdicts.
    Verdicts([Said; 3]),
    /// By the task's metric.
    Scores([f64; 3]),
    /// Nothing.
    Nothing,
}

/// A prompt and what the models answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The prompt.
    pub prompt: String,
    /// The aligned model's answer.
    pub aligned: String,
    /// The fine-tuned model's.
    pub before: String,
    /// The recovered model's.
    pub after: String,
}

/// How a repair can be done again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The command line, where there was one.
    pub command: Vec<String>,
    /// When it ended.
    pub date: String,
    /// Version of this program.
    pub version: String,
    /// Its git revision, where it is known.
    pub git_revision: Option<String>,
    /// Operating system and processor.
    pub platform: String,
    /// Where tensors were computed.
    pub device: String,
    /// Hash of the patch.
    pub patch_hash: String,
}

impl Path {
    pub(super) fn new(trace: StrongTrace, chosen: usize, merit: MeritSettings) -> Self {
        let parameters = trace.params;
        let points = (1..).zip(trace.rounds).map(|(round, one)| Point {
            round,
            flipped: one.flipped,
            restored: one.restored,
            share: one.restored as f64 / parameters.max(1) as f64,
            standing: one.standing,
            trials: one.trials,
            seconds: one.grad_s + one.trial_s,
        });
        Self { parameters, base: trace.base, merit, points: points.collect(), chosen }
    }
}

impl Restored {
    /// Of a patch's answer.
    pub(super) fn new(patch: &PatchFile) -> Self {
        let answer = patch.path.answer();
        let mut found = Self { weights: answer.len(), ..Self::default() };
        for info in patch.infos().into_iter().filter(|info| !info.is_norm) {
            let Some(block) = info.layer else { continue };
            let module = info.name.split('.').skip(3).collect::<Vec<_>>().join(".");
            let column = found.column(module.trim_end_matches(".weight"));
            let width = found.modules.len();
            for table in [&mut found.of, &mut found.restored] {
                table.resize(table.len().max(block + 1), Vec::new());
                table.iter_mut().for_each(|row| row.resize(width, 0));
            }
            found.of[block][column] = info.len();
            found.restored[block][column] = answer.indices(&info.name).len();
        }
        found
    }

    fn column(&mut self, module: &str) -> usize {
        self.modules.iter().position(|known| known == module).unwrap_or_else(|| {
            self.modules.push(module.to_owned());
            self.modules.len() - 1
        })
    }
}
