//! A method of [`recovery`]'s registry on model directories.

use std::cell::RefCell;
use std::path::Path;

use burn::tensor::Device;
use evaluation::{Judge, Metric, Verdict};
use model::{Decoder, DecoderConfig, Dtype};
use prompts::Sample;
use recovery::{Damage, Knob, Method, Outcome, Trace};
use serde::{Deserialize, Serialize};

use super::{MODEL, Stage};
use crate::answers::{answers, named};
use crate::error::{Within as _, invalid};
use crate::evidence::Pair;
use crate::model::{Model, Source, save};
use crate::{Artifact, Error, Evidence, Job, Progress, Result, Samples};

/// Applies a method to a fine-tuned model. Both models are rounded to the precision of the result, so that a restored
/// weight is exactly the aligned model's.
#[derive(Debug, Clone, Serialize)]
pub struct Repair {
    /// The method and its settings.
    pub method: Method,
    /// The aligned model.
    pub aligned: Artifact,
    /// The fine-tuned model, or a peft adapter on the aligned one.
    pub fine_tuned: Artifact,
    /// The aligned model after fine-tuning on harmful samples alone, or an adapter, where the method needs it.
    pub unaligned: Option<Artifact>,
    /// The model before alignment, where the method needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<Artifact>,
    /// The aligned model after fine-tuning on safe samples, where the method needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe: Option<Artifact>,
    /// The directory of the [`Repair`] whose number of restored weights the method takes, where it needs it.
    pub recovery: Option<Artifact>,
    /// Recovery prompts, where the method needs them.
    pub prompts: Option<Samples>,
    /// The task's training prompts, where the method uses them.
    pub task: Option<Samples>,
    /// Answered prompts, where the method needs them or is chosen by them.
    pub evidence: Option<Evidence>,
    /// The directory of [`OwnAnswers`](super::OwnAnswers) that may hold answers of the aligned model.
    #[serde(skip)]
    pub answers: Option<Artifact>,
    /// The method's knob, where its value is chosen by merit on the held-out part of the evidence.
    pub choose: Option<Knob>,
    /// What decides rollback and the answer.
    pub gate: Option<Gate>,
    /// Decides what is random in the method.
    pub seed: u64,
    /// The precision of the result; that of the fine-tuned model where it is none.
    pub dtype: Option<Dtype>,
    /// What the templates see as `enable_thinking`; without it they decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking: Option<bool>,
    /// How many recovery prompts both models are asked before, for a warning where they answer as if recovery were out of
    /// place.
    #[serde(skip)]
    pub probe: usize,
}

/// The task's score on samples that are not reported.
#[derive(Debug, Clone, Serialize)]
pub struct Gate {
    /// Samples with the right answers.
    pub samples: Samples,
    /// How they are scored.
    pub metric: Metric,
    /// Length of an answer.
    pub max_new_tokens: usize,
}

/// What came of a method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairSummary {
    /// Weights set to the aligned value; none if all weights are moved.
    pub restored: Option<usize>,
    /// Whether the result is what the method is to make; else it is the fine-tuned model.
    pub recovered: bool,
    /// One sentence for people.
    pub note: String,
    /// What it changed of the fine-tuned model.
    pub damage: Damage,
}

impl RepairSummary {
    /// The file of a summary in a stage's directory, for a stage that reads the number of restored weights.
    pub const FILE: &str = "repair.json";
    /// The file beside a model that says what came of the method, and how the model was made.
    pub const OUTCOME: &str = "outcome.json";
}

impl Stage for Repair {
    type Summary = RepairSummary;

    fn kind(&self) -> &'static str {
        self.method.word()
    }

    fn version(&self) -> u32 {
        3 + self.method.repair().version()
    }

    fn run(&self, out: &Path, job: &mut Job<'_>) -> Result<RepairSummary> {
        let method = self.method.repair();
        method.check()?;
        let gate = self.gate.as_ref().map(Gate::open).transpose()?;
        let (base, tuned) = (self.aligned.path.as_path(), self.fine_tuned.path.as_path());
        let source = Source::new(tuned, Some(base))?;
        let of_aligned = Source::new(base, None)?;
        let config = |source: &Source<'_>| DecoderConfig::from_dir(source.home());
        if let Some(warning) = compare(&config(&of_aligned)?, &config(&source)?)? {
            tracing::warn!("{warning}");
        }
        let dtype = source.dtype(self.dtype)?;
        // A vector of differences is made in f32 whatever is written: what an adapter adds is small, and its difference
        // rounded is mostly rounding.
        let needs = method.needs();
        let in_memory = if needs.unaligned || needs.base { Dtype::F32 } else { dtype };
        job.step(0, 1, "reading the models")?;
        let open = Open { base, in_memory, thinking: self.thinking, device: job.device };
        let (fine_tuned, aligned) = (open.model(source.clone())?, open.model(of_aligned)?);
        let unaligned =
            self.unaligned.as_ref().map(|one| open.model(Source::new(&one.path, Some(base))?)).transpose()?;
        let (before, safe) = (open.weights(&self.base)?, open.weights(&self.safe)?);
        let (prompts, task_prompts) = (rows(&fine_tuned, &self.prompts)?, rows(&fine_tuned, &self.task)?);
        let mut aligned_prompts = rows(&aligned, &self.prompts)?;
        if let (Some(open), Some(given)) = (&gate, &self.gate) {
            let fits = fine_tuned.reader().check_prompts(&open.samples, open.max_new_tokens);
            fits.map_err(|error| error.located(&[&given.samples.file]))?;
        }
        if aligned_prompts == prompts {
            aligned_prompts.clear();
        } else {
            tracing::warn!(
                "{} and {} have different chat templates or tokenizers: each model reads the prompts in its own",
                base.display(),
                tuned.display()
            );
        }
        self.probe([&aligned, &fine_tuned], job)?;
        let evidence = self.evidence([&aligned, &fine_tuned], out, job)?;
        job.step(0, 1, "directions")?;
        let checkpoint = out.join("recovery.checkpoint");
        let (batch, max_shard, device) = (job.batch, job.max_shard, job.device);
        // The method and the gate take turns to report, and either can be stopped.
        let report = RefCell::new(&mut *job.report);
        let mut score = |decoder: &Decoder| -> Result<f64, Box<dyn std::error::Error + Send + Sync>> {
            let Some(gate) = &gate else { return Ok(f64::NAN) };
            let model = Model { decoder: decoder.clone(), tokenizer: fine_tuned.tokenizer.clone() };
            let mut own = |progress: Progress<'_>| (report.borrow_mut())(progress);
            let mut job = Job { device, batch, max_shard, earlier: Vec::new(), report: &mut own };
            let found = match answers(&model, &gate.samples, gate.max_new_tokens, &mut job) {
                Err(Error::Stopped) => return Err(recovery::Error::Stopped.into()),
                found => found?,
            };
            Ok(gate.metric.score(&found)?.value)
        };
        let mut inputs = recovery::Inputs {
            aligned: &aligned.decoder,
            fine_tuned: &fine_tuned.decoder,
            unaligned: unaligned.as_ref().map(|model| &model.decoder),
            base: before.as_ref(),
            safe: safe.as_ref(),
            prompts,
            aligned_prompts,
            task_prompts,
            recovered: self.recovery.as_ref().map(restored_by).transpose()?,
            evidence: evidence.as_ref(),
            seed: self.seed,
            gate: None,
            checkpoint: Some(checkpoint.clone()),
            report: &mut |done, all, word| (report.borrow_mut())(Progress { done, all, word }),
        };
        if let Some(gate) = &gate {
            inputs.gate = Some(recovery::Gate { measure: &mut score, by: gate.name.clone() });
        }
        let _named = tracing::warn_span!("recover", fine_tuned = %tuned.display()).entered();
        let what = || format!("{} of {}", self.method.label(), tuned.display());
        let repaired = if self.choose.is_some() {
            let (repaired, points) = recovery::choose(&self.method, inputs).within(what)?;
            files::write_json(&out.join("points.json"), &points)?;
            repaired
        } else {
            method.apply(inputs).within(what)?
        };
        // What is written, and what is said of it, is of one precision.
        let repaired = recovery::Repaired { decoder: model::weights::round(repaired.decoder, dtype)?, ..repaired };
        if let Some(trace) = &repaired.trace {
            files::write_json(&out.join("trace.json"), trace)?;
        }
        save(&repaired.decoder, dtype, &source, max_shard, &out.join(MODEL))?;
        let models = recovery::Models { aligned: &aligned.decoder, fine_tuned: &fine_tuned.decoder, dtype };
        super::patch::write(&out.join(super::PATCH), &repaired, models, &self.method)?;
        let by = gate.as_ref().map_or("nothing", |gate| gate.name.as_str());
        let harmless = evidence.as_ref().map_or(&[][..], |evidence| &evidence.harmless.held_out);
        let damage = recovery::damage(&fine_tuned.decoder, &repaired.decoder, harmless)?;
        let summary = summary(&repaired, by, damage);
        let made =
            serde_json::json!({"outcome": repaired.outcome, "summary": &summary, "stage": self.kind(), "value": self});
        files::write_json(&out.join(MODEL).join(RepairSummary::OUTCOME), &made)?;
        if repaired.outcome == Outcome::Nothing {
            tracing::warn!("{}", summary.note);
        }
        files::write_json(&out.join(RepairSummary::FILE), &summary)?;
        files::remove(&checkpoint)?;
        Ok(summary)
    }
}

/// How the models of a repair are opened.
struct Open<'a> {
    base: &'a Path,
    in_memory: Dtype,
    thinking: Option<bool>,
    device: &'a Device,
}

impl Open<'_> {
    fn model(&self, source: Source<'_>) -> Result<Model> {
        let model = source.open(Some(self.in_memory), self.device)?;
        Ok(Model { tokenizer: model.tokenizer.with_thinking(self.thinking), ..model })
    }

    fn weights(&self, artifact: &Option<Artifact>) -> Result<Option<Decoder>> {
        let Some(artifact) = artifact else { return Ok(None) };
        Ok(Some(Source::new(&artifact.path, Some(self.base))?.decoder(Some(self.in_memory), self.device)?))
    }
}

/// The ids of prompts; none of none.
fn rows(model: &Model, samples: &Option<Samples>) -> Result<Vec<Vec<u32>>> {
    let Some(samples) = samples else { return Ok(Vec::new()) };
    model.encode_prompts(&samples.read()?).map_err(|error| error.located(&[&samples.file]))
}

impl Repair {
    /// What came of it, where it has been run to its end in a directory.
    pub(crate) fn finished(&self, out: &Path) -> Result<Option<RepairSummary>> {
        let file = out.join(RepairSummary::FILE); // which is written last
        if file.is_file() { Ok(Some(files::read_json(&file)?)) } else { Ok(None) }
    }

    /// The evidence, where it is read.
    fn evidence(
        &self,
        [aligned, fine_tuned]: [&Model; 2],
        out: &Path,
        job: &mut Job<'_>,
    ) -> Result<Option<recovery::Evidence>> {
        if !self.method.repair().needs().evidence && self.choose.is_none() {
            return Ok(None);
        }
        let Some(evidence) = &self.evidence else {
            return invalid(format!("{} needs harmful, harmless and task prompts with answers", self.method.word()));
        };
        let models = Pair { aligned: (aligned, &self.aligned), fine_tuned: (fine_tuned, &self.fine_tuned) };
        let earlier = self.answers.iter().map(|artifact| artifact.path.clone()).collect();
        let mut own =
            Job { device: job.device, batch: job.batch, max_shard: job.max_shard, earlier, report: &mut *job.report };
        evidence.read(&models, out, &mut own).map(Some)
    }

    /// Asks the aligned and the fine-tuned model some recovery prompts, and warns where the first does not refuse or the
    /// second does.
    fn probe(&self, models: [&Model; 2], job: &mut Job<'_>) -> Result<()> {
        let Some(samples) = self.prompts.as_ref().filter(|_| self.probe > 0) else { return Ok(()) };
        let mut asked = samples.read()?;
        asked.truncate(self.probe);
        job.step(0, 1, "asking both models")?;
        let phrases = Judge::phrases();
        let limit = models.map(|model| model.decoder.config().max_position_embeddings).into_iter().min().unwrap_or(0);
        let mut refused = [0; 2];
        for (model, refused) in models.into_iter().zip(&mut refused) {
            let longest = model.encode_prompts(&asked)?.iter().map(Vec::len).max().unwrap_or(0);
            let found = answers(model, &asked, PROBE_TOKENS.min(limit.saturating_sub(longest)), job)?;
            *refused = found.iter().filter(|answer| phrases.by_rule(answer) == Some(Verdict::Refused)).count();
        }
        let ([by_aligned, by_tuned], all, file) = (refused, asked.len(), samples.file.display());
        if by_tuned > by_aligned {
            tracing::warn!(
                "the fine-tuned model refuses {by_tuned} of {all} prompts of {file} and the aligned one {by_aligned}: are \
                 the two models swapped?"
            );
        } else if 2 * by_aligned < all {
            tracing::warn!(
                "the aligned model refuses {by_aligned} of {all} prompts of {file}: recovery needs prompts that it refuses"
            );
        } else if by_tuned == by_aligned {
            tracing::warn!(
                "the fine-tuned model refuses {by_tuned} of {all} prompts of {file}, as the aligned one does"
            );
        }
        Ok(())
    }
}

/// Length of an answer that shows whether a prompt is refused.
const PROBE_TOKENS: usize = 32;

/// An error where two models cannot be one before and after fine-tuning, and a warning where they may not be. Their
/// vocabularies may differ, which recovery does not touch.
pub(crate) fn compare(aligned: &DecoderConfig, fine_tuned: &DecoderConfig) -> Result<Option<String>> {
    if aligned.model_type != fine_tuned.model_type {
        let [aligned, tuned] = [aligned, fine_tuned].map(|config| config.model_type.name());
        return invalid(format!(
            "the aligned model is of type {aligned} and the fine-tuned one of type {tuned}; name the model that was \
             fine-tuned as --aligned"
        ));
    }
    let sizes = |config: &DecoderConfig| {
        [
            ("num_hidden_layers", config.num_hidden_layers),
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("num_attention_heads", config.num_attention_heads),
            ("num_key_value_heads", config.num_key_value_heads),
            ("head_dim", config.head_dim),
            ("attention_bias", usize::from(config.qkv_bias) + usize::from(config.o_bias)),
        ]
    };
    let differing = sizes(aligned).into_iter().zip(sizes(fine_tuned)).find(|(one, other)| one != other);
    if let Some(((key, one), (_, other))) = differing {
        return invalid(format!(
            "the aligned and the fine-tuned model differ: {key} is {one} and {other}; both must be of one shape: name the model \
             that was fine-tuned as --aligned"
        ));
    }
    let same = DecoderConfig {
        vocab_size: fine_tuned.vocab_size,
        max_position_embeddings: fine_tuned.max_position_embeddings,
        tie_word_embeddings: fine_tuned.tie_word_embeddings,
        ..aligned.clone()
    };
    let text = "config.json of the two models asks for different arithmetic (rotary base, norms or attention)";
    Ok((same != *fine_tuned).then(|| text.to_owned()))
}

/// How many weights a finished stage restored.
fn restored_by(stage: &Artifact) -> Result<usize> {
    let path = stage.path.join(RepairSummary::FILE);
    let summary: RepairSummary = files::read_json(&path)?;
    summary
        .restored
        .ok_or_else(|| Error::Invalid(format!("{}: this method counts no restored weights", path.display())))
}

/// A gate with its samples read.
struct OpenGate {
    /// What the gate decides by, for people and for a checkpoint, beside which the samples are the same: they are in the stage's key.
    name: String,
    samples: Vec<Sample>,
    metric: Metric,
    max_new_tokens: usize,
}

impl Gate {
    fn open(&self) -> Result<OpenGate> {
        let samples = self.samples.read()?;
        let name = format!("{} on {} samples", self.metric.name(), samples.len());
        if samples.is_empty() {
            return invalid(format!("{}: no sample is held out to decide by", self.samples.file.display()));
        }
        let responses = samples.iter().map(|sample| sample.response.clone().unwrap_or_default()).collect();
        self.metric
            .score(&named(&samples, responses))
            .within(|| format!("the gate cannot score the right answers themselves by {name}"))?;
        Ok(OpenGate { name, samples, metric: self.metric, max_new_tokens: self.max_new_tokens })
    }
}

fn summary(repaired: &recovery::Repaired, by: &str, damage: Damage) -> RepairSummary {
    let restored = repaired.restored;
    let count = match (restored, &repaired.trace) {
        (Some(count), _) => format!("{count} weights restored"),
        (None, Some(Trace::Modules(trace))) => {
            let changed = trace.modules.iter().filter(|module| module.changed).count();
            format!("{changed} of {} weight matrices changed", trace.modules.len())
        }
        (None, _) => "all weights moved".to_owned(),
    };
    let (recovered, note) = match repaired.outcome {
        Outcome::Changed => (true, count),
        Outcome::Nothing => {
            (true, "nothing to recover: the two models do not differ in the blocks that recovery changes".to_owned())
        }
        Outcome::Recovered { steps, rollback } => {
            (true, format!("recovered after {steps} steps, rollback {}", if rollback { "on" } else { "off" }))
        }
        Outcome::Decided { ref at, ref broken, .. } => {
            let bounds: Vec<String> =
                broken.iter().map(|(name, share)| format!("{name} by {:.0} %", 100.0 * share)).collect();
            let kept = match bounds.is_empty() {
                true => "all bounds kept".to_owned(),
                false => format!("no point keeps all bounds on held-out prompts; exceeded: {}", bounds.join(", ")),
            };
            (broken.is_empty(), format!("{at}, {kept}; {count}"))
        }
        Outcome::NotRecovered { base, score, floor } => {
            (false, format!("not recovered: {by} fell from {base:.3} to {score:.3}, and {floor:.3} is allowed"))
        }
    };
    RepairSummary { restored, recovered, note, damage }
}
