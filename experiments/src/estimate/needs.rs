//! Operations and memory of a stage, counted from parameters and tokens.
//!
//! A forward pass takes 2 operations per parameter and token, a backward pass 4, or 2 where the weights themselves are
//! not trained. A token is taken for 4 bytes of text; a file that is not there for [`ABSENT`].

use std::path::Path;

use evaluation::Judge;

use super::Shape;
use crate::sweep::{Cell, Lora, ModelSpec, Source, Sweep};

/// Samples and tokens to a sample of a file that is not there.
const ABSENT: Text = Text { samples: 1000.0, tokens: 128.0 };

/// Positions that recovery puts through the decoder at once (crate `direction`).
const RECOVERY_POSITIONS: usize = 3072;

/// How much text there is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Text {
    samples: f64,
    /// To a sample.
    tokens: f64,
}

impl Text {
    fn of(path: &Path) -> Self {
        let Ok(bytes) = std::fs::read(path) else { return ABSENT };
        let samples = bytes.iter().filter(|&&byte| byte == b'\n').count().max(1) as f64;
        Self { samples, tokens: bytes.len() as f64 / 4.0 / samples }
    }

    fn up_to(self, tokens: usize) -> Self {
        Self { tokens: self.tokens.min(tokens as f64), ..self }
    }

    fn all(self) -> f64 {
        self.samples * self.tokens
    }
}

/// The text of a sweep's files, each read once.
#[derive(Debug, Clone)]
pub struct Work {
    /// By task: training and test samples.
    tasks: Vec<(Text, Text)>,
    inject: Text,
    recovery: Text,
    harmful: Text,
    harmless: Text,
    guards: Vec<Guard>,
}

/// A judge that is a model here. Another one computes nothing, and how long an endpoint takes is not known.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Guard {
    parameters: f64,
    /// Tokens of its template.
    template: f64,
    /// Whether it reads the answers to harmless prompts, too.
    harmless: bool,
}

impl Guard {
    fn of(judge: &Judge) -> Option<Self> {
        let Judge::Guard(settings, format) = judge else { return None };
        let parameters = Shape::of_dir(&settings.model)?.parameters as f64;
        Some(Self { parameters, template: format.template.len() as f64 / 4.0, harmless: judge.tells_refusals() })
    }
}

impl Work {
    /// Reads a sweep's files.
    #[must_use]
    pub fn of(sweep: &Sweep) -> Self {
        let text = |file: &Path| Text::of(&sweep.data_file(file));
        Self {
            tasks: sweep.tasks.iter().map(|task| (text(&task.train), text(&task.test))).collect(),
            inject: text(&sweep.inject),
            recovery: text(&sweep.recovery.prompts),
            harmful: text(&sweep.evaluation.harmful.file),
            harmless: text(&sweep.evaluation.harmless.file),
            guards: sweep.judged_by.iter().filter_map(Guard::of).collect(),
        }
    }

    /// Operations of a stage of this kind.
    #[must_use]
    pub fn operations(
        &self,
        sweep: &Sweep,
        spec: &ModelSpec,
        shape: &Shape,
        cell: Option<Cell<'_>>,
        kind: &str,
    ) -> f64 {
        let parameters = shape.parameters as f64;
        match (kind, cell) {
            ("import", _) => match &spec.source {
                Source::Pretrain(pretrain) => {
                    let corpus = Text::of(&sweep.data_file(&pretrain.training.corpus)).up_to(pretrain.training.max_len);
                    training(None) * parameters * corpus.all() * pretrain.training.epochs as f64
                }
                Source::Gguf(_) | Source::Dir(_) | Source::Hub(_) => 0.0,
            },
            ("align", _) => spec.align.as_ref().map_or(0.0, |align| {
                let sets = std::iter::once(&align.refusals).chain(&align.helpful);
                let tokens: f64 = sets
                    .map(|set| Text::of(&sweep.data_file(&set.file)).up_to(align.max_len).tokens * set.count as f64)
                    .sum();
                training(align.lora.as_ref()) * parameters * tokens * align.epochs as f64
            }),
            ("recover" | "control", Some(cell)) => {
                let (task, _) = self.task(sweep, cell);
                let below = shape.hidden as f64 * 4.0 / 6.0;
                let prompts = self.recovery.tokens * sweep.recovery.count as f64;
                if kind == "control" {
                    return 6.0 * below * prompts;
                }
                let validation = 2.0 * parameters * task.all() * cell.task.validation;
                let scored = 2 + sweep.recovery.steps / sweep.recovery.save_every;
                6.0 * below * prompts * sweep.recovery.steps as f64 + validation * scored as f64
            }
            ("evaluate", Some(cell)) => {
                let (_, test) = self.task(sweep, cell);
                let set = |text: Text, count: f64, new: usize| count * (text.tokens + new as f64);
                let evaluation = &sweep.evaluation;
                let tokens = set(self.harmful, evaluation.harmful.count as f64, evaluation.harmful.max_new_tokens)
                    + set(self.harmless, evaluation.harmless.count as f64, evaluation.harmless.max_new_tokens)
                    + set(test, test.samples, cell.task.max_new_tokens);
                // A model has two evaluations, one of the prompts and one of the task; this is their mean.
                2.0 * parameters * tokens / 2.0
            }
            // Most of the references are a task's.
            ("reference", Some(cell)) => {
                let (task, _) = self.task(sweep, cell);
                2.0 * parameters * task.up_to(sweep.finetune.max_len).all() * (1.0 - cell.task.validation)
            }
            ("unaligned", Some(_)) => {
                let tokens = self.inject.up_to(sweep.finetune.max_len).tokens * sweep.resta.samples as f64;
                training(sweep.finetune.lora.as_ref()) * parameters * tokens * sweep.resta.epochs as f64
            }
            // A sum of weights: reading and writing them is all of it.
            ("resta", _) => 0.0,
            ("judge", _) => self.judging(sweep),
            // Fine-tuning, and what is trained like it.
            (_, Some(cell)) => {
                let (task, _) = self.task(sweep, cell);
                let settings = &sweep.finetune;
                let tokens = task.up_to(settings.max_len).all() * (1.0 - cell.task.validation)
                    + self.inject.up_to(settings.max_len).tokens * cell.harmful_count as f64;
                training(settings.lora.as_ref()) * parameters * tokens * settings.epochs as f64
            }
            (_, None) => 0.0,
        }
    }

    /// Weights that a stage of this kind reads or writes.
    #[must_use]
    pub fn weights(&self, sweep: &Sweep, shape: &Shape, kind: &str) -> f64 {
        match kind {
            "judge" => self.of_a_judge(sweep, |guard| guard.parameters),
            _ => shape.parameters as f64,
        }
    }

    /// Operations of judging a model's answers.
    fn judging(&self, sweep: &Sweep) -> f64 {
        let evaluation = &sweep.evaluation;
        let sets = [(self.harmful, &evaluation.harmful), (self.harmless, &evaluation.harmless)];
        self.of_a_judge(sweep, |guard| {
            let read = sets.iter().take(1 + usize::from(guard.harmless));
            let to_a_prompt = |text: Text, new: usize| text.tokens + new as f64 + guard.template;
            let tokens = read.map(|(text, set)| set.count as f64 * to_a_prompt(*text, set.max_new_tokens));
            2.0 * guard.parameters * tokens.sum::<f64>()
        })
    }

    /// The mean of the judges, each of which has a stage of its own.
    fn of_a_judge(&self, sweep: &Sweep, figure: impl Fn(&Guard) -> f64) -> f64 {
        self.guards.iter().map(figure).sum::<f64>() / sweep.judged_by.len().max(1) as f64
    }

    fn task(&self, sweep: &Sweep, cell: Cell<'_>) -> (Text, Text) {
        let found = sweep.tasks.iter().position(|task| task.name == cell.task.name);
        found.map_or((ABSENT, ABSENT), |at| self.tasks[at])
    }
}

/// Operations per parameter and token of a training step.
fn training(lora: Option<&Lora>) -> f64 {
    if lora.is_some() { 4.0 } else { 6.0 }
}

/// What the stage that needs most has in memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The stage.
    pub stage: &'static str,
    /// Weights of all models that it holds, and the optimiser's copies.
    pub weights: u64,
    /// Gradients, and the optimiser's moments.
    pub gradients: u64,
    /// What the backward pass needs of the forward pass.
    pub activations: u64,
}

impl Memory {
    fn all(&self) -> u64 {
        self.weights + self.gradients + self.activations
    }
}

/// The memory of the stage that needs most: training on rows of the largest length, or recovery, which
/// holds the aligned, the fine-tuned and the recovered model. All numbers are f32.
#[must_use]
pub fn memory(sweep: &Sweep, spec: &ModelSpec, shape: &Shape) -> Memory {
    let floats = |count: usize| 4 * count as u64;
    let train = |stage, lora: Option<&Lora>, tokens: usize| {
        let trained = lora.map_or(shape.parameters, |lora| shape.adapter(lora.rank));
        Memory {
            stage,
            weights: floats(shape.parameters + trained),
            gradients: floats(3 * trained),
            activations: floats(tokens * (shape.blocks * per_block(shape) + 2 * shape.vocabulary)),
        }
    };
    let region = shape.hidden * 4 / 6;
    let recover = Memory {
        stage: "recover",
        weights: floats(3 * shape.parameters + 3 * region),
        gradients: floats(2 * region),
        activations: floats(RECOVERY_POSITIONS * (shape.blocks * 4).div_ceil(6) * per_block(shape)),
    };
    let finetune = &sweep.finetune;
    let mut stages = vec![recover, train("finetune", finetune.lora.as_ref(), finetune.batch * finetune.max_len)];
    if let Source::Pretrain(pretrain) = &spec.source {
        stages.push(train("import", None, pretrain.training.batch * pretrain.training.max_len));
    }
    if let Some(align) = &spec.align {
        stages.push(train("align", align.lora.as_ref(), align.batch * align.max_len));
    }
    stages.into_iter().max_by_key(Memory::all).unwrap_or(recover)
}

/// Numbers that a block keeps of a token: two normed inputs and two sums, the heads and their mixture, and the MLP's
/// gate, up, activated and multiplied values.
fn per_block(shape: &Shape) -> usize {
    4 * shape.width + 2 * shape.query + 2 * shape.key + 4 * shape.mlp
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SHAPE: Shape =
        Shape { parameters: 1000, hidden: 600, vocabulary: 50, width: 4, mlp: 6, blocks: 6, query: 4, key: 2 };

    fn sweep() -> Sweep {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("paper.yaml");
        let mut sweep = Sweep::parse(&std::fs::read_to_string(&path).unwrap(), &path).unwrap();
        sweep.root = "/nowhere".into();
        sweep
    }

    #[test]
    fn work_grows_with_the_injected_samples_and_needs_no_file() {
        let sweep = sweep();
        let (cells, work) = (sweep.cells(), Work::of(&sweep));
        let of = |cell: usize, kind| work.operations(&sweep, &sweep.models[0], &SHAPE, Some(cells[cell]), kind);
        let (none, some) = (of(0, "finetune"), of(1, "finetune"));
        // 100 samples of 128 tokens more, 4 operations each.
        assert!((some - none - 100.0 * 128.0 * 4.0 * 1000.0).abs() < 1.0);
        assert!(of(0, "recover") > of(0, "control"));
        assert_eq!(work.operations(&sweep, &sweep.models[0], &SHAPE, None, "import"), 0.0);
    }

    #[test]
    fn the_work_of_the_baselines_is_their_own() {
        let sweep = sweep();
        let (cells, work) = (sweep.cells(), Work::of(&sweep));
        let of = |cell: usize, kind| work.operations(&sweep, &sweep.models[0], &SHAPE, Some(cells[cell]), kind);
        assert_eq!(of(1, "softsft"), of(1, "finetune"));
        // A forward pass of 2 operations over what training passes take 4 of.
        assert!((2.0 * of(0, "reference") - of(0, "finetune")).abs() < 1.0);
        // 100 samples of 128 tokens, ten times, on every weight but the frozen ones.
        assert!((of(0, "unaligned") - 4.0 * 1000.0 * 100.0 * 128.0 * 10.0).abs() < 1.0);
        assert_eq!((of(0, "unaligned"), of(0, "resta")), (of(1, "unaligned"), 0.0));
    }

    #[test]
    fn a_guards_work_is_its_own_and_other_judges_have_none() {
        let mut sweep = sweep();
        let of = |sweep: &Sweep| {
            let (cells, work) = (sweep.cells(), Work::of(sweep));
            let operations = work.operations(sweep, &sweep.models[0], &SHAPE, Some(cells[0]), "judge");
            (operations, work.weights(sweep, &SHAPE, "judge"))
        };
        sweep.judged_by = vec![Judge::phrases()];
        assert_eq!(of(&sweep), (0.0, 0.0));
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({"model_type": "llama", "vocab_size": 8, "hidden_size": 4, "intermediate_size": 6,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": true});
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let format = serde_json::from_value(serde_json::json!({"name": "g", "source": "own", "licence": "own",
            "template": "12345678", "max_new_tokens": 1, "labels": {"words": {"safe": "safe", "unsafe": "unsafe"}}}));
        let settings = serde_json::json!({"name": "g", "model": folder.path(), "format": "g.yaml"});
        sweep.judged_by.push(Judge::Guard(serde_json::from_value(settings).unwrap(), format.unwrap()));
        // Table 32, block 16 + 16 for q and o, 8 + 8 for k and v, 72 for the MLP, 8 for its norms, last norm 4: half of it,
        // since the phrases are a judge, too.
        let (operations, weights) = of(&sweep);
        assert_eq!(weights, f64::from(32 + 48 + 72 + 8 + 4) / 2.0);
        let harmful = &sweep.evaluation.harmful;
        let tokens = harmful.count as f64 * (ABSENT.tokens + harmful.max_new_tokens as f64 + 2.0);
        assert!((operations - 2.0 * weights * tokens).abs() < 1e-6 * operations, "{operations}");
    }

    #[test]
    fn the_adapter_makes_gradients_small_and_training_every_weight_makes_them_large() {
        let mut sweep = sweep();
        let recovery = memory(&sweep, &sweep.models[0], &SHAPE);
        assert_eq!((recovery.stage, recovery.weights), ("finetune", 4 * (1000 + SHAPE.adapter(8) as u64)));
        sweep.finetune.lora = None;
        let full = memory(&sweep, &sweep.models[0], &SHAPE);
        assert_eq!((full.weights, full.gradients), (8000, 12000));
        let large = Shape { parameters: 1 << 32, hidden: 1 << 32, ..SHAPE };
        sweep.finetune.lora = Some(Lora::default());
        assert_eq!(memory(&sweep, &sweep.models[0], &large).stage, "recover");
    }

    #[test]
    fn text_is_counted_by_lines_and_cut_at_the_longest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345678901234567890123456789012345678\n\n").unwrap();
        let text = Text::of(file.path());
        assert_eq!((text.samples, text.tokens), (2.0, 5.0));
        assert_eq!(text.up_to(3).all(), 6.0);
        assert_eq!(Text::of(Path::new("/nowhere")), ABSENT);
    }
}
