//! What training must keep: frozen weights, the order of things, and a resumed run.

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use model::{DecoderConfig, Packed};

use super::*;
use crate::*;

/// A sample whose response begins at `response`.
pub(crate) fn sample(ids: &[u32], response: usize) -> Encoded {
    Encoded { ids: ids.to_vec(), loss_mask: (0..ids.len()).map(|at| at >= response).collect() }
}

pub(crate) fn samples() -> Vec<Encoded> {
    let row = |i: u32| [1, 2, 3, 4 + i, 5, 20 + (i * 7) % 11, 31 - i, 6];
    (0..10).map(|i| sample(&row(i)[..6 + i as usize % 3], 5)).collect()
}

pub(crate) fn decoder() -> Decoder {
    let config = serde_json::json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true});
    init_random(&DecoderConfig::from_json(&config, Path::new("tiny")).unwrap(), 0.02, 1, &Device::default())
}

/// The same with weights of deviation 0.5: small ones give logits that no adapter can spread.
pub(crate) fn wide_decoder() -> Decoder {
    weights::replace(decoder(), |info| {
        let (_, small) = values(&decoder(), |other| other.name == info.name).remove(0);
        let wide: Vec<f32> = small.iter().map(|x| x * 25.0).collect();
        (!info.is_norm).then(|| TensorData::new(wide, info.shape.clone()))
    })
}

fn lora(dropout: f64) -> LoraSettings {
    LoraSettings { rank: 4, alpha: 8.0, dropout, ..LoraSettings::default() }
}

fn full() -> LoraSettings {
    LoraSettings { rank: 0, ..LoraSettings::default() }
}

fn settings(lora: LoraSettings) -> TrainSettings {
    TrainSettings { batch: 3, learning_rate: 1e-2, save_every: 4, lora, ..TrainSettings::default() }
}

fn go(_: &StepReport) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn trained(settings: &TrainSettings, checkpoint: Option<&Path>) -> Result<Trained> {
    train(decoder(), &samples(), settings, Run { seed: 0, checkpoint, report: &mut go })
}

/// SFT of `decoder` on all samples, without a checkpoint.
fn tuned(decoder: Decoder, settings: &TrainSettings) -> Trained {
    train(decoder, &samples(), settings, Run { seed: 0, checkpoint: None, report: &mut go }).unwrap()
}

fn values(decoder: &Decoder, wanted: impl Fn(&WeightInfo) -> bool) -> Vec<(WeightInfo, Vec<f32>)> {
    weights::read(decoder, wanted).unwrap()
}

fn logits(decoder: &Decoder) -> Vec<f32> {
    let packed = Packed::new(&[[1u32, 2, 3, 4, 5]]).unwrap();
    decoder.logits(&packed, &[0, 2, 4]).unwrap().try_into_vec_as().unwrap()
}

#[test]
fn an_attached_adapter_has_no_effect_at_first_and_a_seeded_start() {
    let [one, same, other] = [7, 7, 8].map(|seed| lora::attach(decoder(), &lora(0.0), seed));
    // The adapted layer sums in another order than one without gradients.
    let off = logits(&one).iter().zip(logits(&decoder())).map(|(one, plain)| (one - plain).abs()).fold(0.0, f32::max);
    assert!(off < 1e-6, "{off}");
    let adapters = |decoder: &Decoder| values(decoder, |info| info.name.contains(".lora."));
    assert_eq!(adapters(&one).len(), 2 * 7 * 2);
    assert_eq!(adapters(&one), adapters(&same));
    assert_ne!(adapters(&one), adapters(&other));
    let bound = 1.0 / 16f32.sqrt();
    let (_, a) = &adapters(&one)[0];
    assert!(a.iter().all(|x| x.abs() <= bound) && a.iter().any(|x| x.abs() > 0.8 * bound));
}

#[test]
fn only_the_targets_get_an_adapter() {
    let targets = vec![Target::QProj, Target::UpProj];
    let attached = lora::attach(decoder(), &LoraSettings { targets, ..lora(0.0) }, 0);
    let with: Vec<String> =
        attached.linears().filter(|(_, linear)| linear.lora.is_some()).map(|(path, _)| path).collect();
    let expected = ["layers.0.self_attn.q", "layers.0.mlp.up", "layers.1.self_attn.q", "layers.1.mlp.up"];
    assert_eq!(with, expected.map(|path| format!("model.{path}_proj")));
}

#[test]
fn frozen_weights_cost_no_gradient_and_stay() {
    let settings = settings(lora(0.0));
    let mut attached = lora::attach(decoder(), &lora(0.0), 0);
    for (_, linear) in attached.linears_mut().filter(|(path, _)| path.contains("layers.0")) {
        linear.lora = None;
    }
    let frozen = |info: &WeightInfo| !info.name.contains(".lora.");
    let before = values(&attached, frozen);
    let mut trainer = Trainer::new(attached, &settings, 0).unwrap();
    let batch = TrainBatch::new(&samples(), &[0, 1]).unwrap();
    // Block 0 has nothing to learn, so autodiff does not even record it.
    let packed = &batch.packed;
    assert!(!trainer.decoder().hidden(packed, 1, &batch.positions).unwrap().is_tracked());
    assert!(trainer.decoder().hidden(packed, 2, &batch.positions).unwrap().is_tracked());
    let loss = Objective::Sft.loss(trainer.decoder(), &batch).unwrap();
    let gradients = weights::gradients(trainer.decoder(), loss.backward()).unwrap();
    assert_eq!(gradients.len(), 2 * 7);
    assert!(gradients.keys().all(|name| name.contains("layers.1.") && name.contains(".lora.")));
    trainer.step(&batch, &Objective::Sft).unwrap();
    assert_eq!(values(trainer.decoder(), frozen), before);
}

#[test]
fn merged_equals_attached() {
    let settings = settings(lora(0.0));
    let mut trainer = Trainer::new(lora::attach(decoder(), &lora(0.0), 0), &settings, 0).unwrap();
    for step in 0..5 {
        trainer.step(&TrainBatch::new(&samples(), &[step, step + 3]).unwrap(), &Objective::Sft).unwrap();
    }
    let attached = logits(&trainer.decoder().valid());
    let merged = trainer.finish();
    assert!(merged.linears().all(|(_, linear)| linear.lora.is_none()));
    assert!(!merged.device().is_autodiff());
    let largest = attached.iter().zip(logits(&merged)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-4, "{largest}");
    assert_ne!(attached, logits(&decoder()));
}

#[test]
fn a_batch_loss_is_the_mean_over_all_its_response_tokens() {
    let (decoder, samples) = (decoder(), samples());
    let loss = |indices: &[usize]| {
        let batch = TrainBatch::new(&samples, indices).unwrap();
        let loss: f32 = Objective::Sft.loss(&decoder, &batch).unwrap().into_scalar();
        (f64::from(loss), batch.targets.len() as f64, batch.packed.segments.prefix)
    };
    let (together, tokens, prefix) = loss(&[0, 1, 2]);
    assert_eq!((tokens, prefix), (6.0, 3));
    let alone: f64 = [0, 1, 2].map(|index| loss(&[index])).iter().map(|(loss, tokens, _)| loss * tokens).sum();
    assert!((together - alone / tokens).abs() < 1e-5, "{together} is not {}", alone / tokens);
}

#[test]
fn training_learns_a_few_samples_by_heart() {
    let ends = |decoder: Decoder, settings: &TrainSettings| {
        let losses = tuned(decoder, settings).losses;
        // A single step may jump at this learning rate.
        let mut last = losses[losses.len() - 12..].to_vec();
        last.sort_by(f64::total_cmp);
        (losses[0], last[6])
    };
    let all = TrainSettings { epochs: 60, warmup_steps: 5, ..settings(full()) };
    let (first, last) = ends(decoder(), &all);
    assert!((first - 32f64.ln()).abs() < 0.2, "random weights know nothing: {first}");
    assert!(last < 0.3, "{last}");
    let adapters = TrainSettings { lora: lora(0.0), ..all };
    let (first, last) = ends(wide_decoder(), &adapters);
    assert!(last < 0.25 * first, "{first} -> {last}");
}

#[test]
fn a_stopped_run_that_goes_on_equals_an_uninterrupted_one_bit_for_bit() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let settings = TrainSettings { epochs: 3, ..settings(lora(0.2)) };
    let mut reports = Vec::new();
    let run = |checkpoint, report: &mut dyn FnMut(&StepReport) -> ControlFlow<()>| {
        train(decoder(), &samples(), &settings, Run { seed: 3, checkpoint, report })
    };
    let whole = run(None, &mut |report| {
        reports.push(report.clone());
        ControlFlow::Continue(())
    });
    let whole = whole.unwrap();
    assert_eq!((reports.len(), reports[11].steps), (12, 12));
    // Stopped behind steps 6, 7 and 12; saved beside that at steps 4 and 8.
    let mut steps = Vec::new();
    let stopped = [6, 7, 12].map(|last| {
        run(Some(&path), &mut |report| {
            steps.push(report.step);
            if report.step == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    });
    assert!(stopped.iter().all(|run| matches!(run, Err(Error::Stopped))));
    assert_eq!(steps, (1..=12).collect::<Vec<_>>());
    let resumed = run(Some(&path), &mut |_| panic!("all steps are done")).unwrap();
    assert_eq!(resumed.losses, whole.losses);
    assert_eq!(values(&resumed.decoder, |_| true), values(&whole.decoder, |_| true));
    let without = TrainSettings { lora: lora(0.0), ..settings };
    assert_ne!(trained(&without, None).unwrap().losses, whole.losses, "dropout has an effect");
}

#[test]
fn a_checkpoint_of_another_run_is_refused_and_a_damaged_one_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state");
    let settings = settings(lora(0.0));
    let whole = trained(&settings, Some(&path)).unwrap().losses;
    let rarer = TrainSettings { save_every: 3, ..settings.clone() };
    assert!(trained(&rarer, Some(&path)).is_ok(), "how often it is saved does not matter");
    let other = TrainSettings { learning_rate: 2e-2, ..settings.clone() };
    let message = trained(&other, Some(&path)).unwrap_err().to_string();
    assert!(["/state: ", "delete", "other settings"].iter().all(|part| message.contains(part)), "{message}");
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert_eq!(trained(&settings, Some(&path)).unwrap().losses, whole);
    }
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(trained(&settings, Some(&path)).unwrap().losses, whole, "byte {at}");
    }
}

#[test]
fn long_samples_are_dropped_and_counted() {
    let short = TrainSettings { max_len: 6, ..settings(full()) };
    assert_eq!(trained(&short, None).unwrap().dropped, 6);
    let error = trained(&TrainSettings { max_len: 5, ..short }, None).unwrap_err().to_string();
    assert!(error.contains("10 of 10 are longer than max_len = 5"), "{error}");
}

#[test]
fn divergence_is_an_error_that_names_the_step() {
    let wild = TrainSettings { learning_rate: 1e15, ..settings(full()) };
    let error = trained(&wild, None).unwrap_err().to_string();
    assert!(error.contains("at step 2"), "{error}");
}

#[test]
fn a_kl_term_keeps_the_own_answers_and_starts_at_zero() {
    let samples = samples();
    let (refusals, own_answers) = samples.split_at(5);
    let original = wide_decoder();
    let objective = Objective::Align { original: &original, kl: 30.0, own_from: 5 };
    let batch = TrainBatch::new(&samples, &[4, 5, 9]).unwrap();
    let [with, without] = [objective, Objective::Sft]
        .map(|objective| -> f32 { objective.loss(&original, &batch).unwrap().into_scalar() });
    assert!((with - without).abs() < 1e-4, "{with} is not {without}");
    let moved = |kl: f64| {
        let train = TrainSettings { epochs: 10, ..settings(lora(0.0)) };
        let data = AlignData { refusals, own_answers };
        let run = Run { seed: 0, checkpoint: None, report: &mut go };
        let run = align(wide_decoder(), data, &AlignSettings { train, kl }, run).unwrap();
        let batch = TrainBatch::new(&samples, &[5, 6, 7, 8, 9]).unwrap();
        let logits = |decoder: &Decoder| decoder.logits(&batch.packed, &batch.positions).unwrap();
        let distance: Tensor<1> = (logits(&run.decoder) - logits(&original)).powi_scalar(2).mean();
        distance.into_scalar::<f32>()
    };
    let (free, held) = (moved(0.0), moved(30.0));
    assert!(held < 0.5 * free, "{held} of {free}");
}

/// SoftSFT of `wide_decoder` on all samples, stopped behind a step.
fn held_until(
    settings: &TrainSettings,
    soft: &SoftSftSettings,
    checkpoint: Option<&Path>,
    last: usize,
) -> Result<Trained> {
    let report = &mut |_, _| ControlFlow::Continue(());
    let references = &ReferenceLogProbs::new(&wide_decoder(), &samples(), settings.max_len, report)?;
    let report = &mut |report: &StepReport| match report.step == last {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    let run = Run { seed: 0, checkpoint, report };
    soft_sft(wide_decoder(), &samples(), settings, SoftSft { settings: soft, references }, run)
}

fn held(settings: &TrainSettings, soft: &SoftSftSettings, checkpoint: Option<&Path>) -> Result<Trained> {
    held_until(settings, soft, checkpoint, usize::MAX)
}

#[test]
fn without_any_hold_soft_sft_is_plain_fine_tuning() {
    let settings = TrainSettings { epochs: 2, ..settings(lora(0.0)) };
    let free = SoftSftSettings { beta_first: 0.0, beta_early: 0.0, beta_later: 0.0, ..SoftSftSettings::default() };
    let plain = tuned(wide_decoder(), &settings);
    assert_eq!(held(&settings, &free, None).unwrap().losses, plain.losses);
}

#[test]
fn a_held_model_stays_nearer_to_the_aligned_one_and_starts_at_its_loss() {
    let settings = TrainSettings { epochs: 20, ..settings(lora(0.0)) };
    let plain = tuned(wide_decoder(), &settings);
    let soft = held(&settings, &SoftSftSettings::default(), None).unwrap();
    // At the start both models are the same, so every weight is 1.
    assert!((soft.losses[0] / plain.losses[0] - 1.0).abs() < 1e-5, "{} {}", soft.losses[0], plain.losses[0]);
    let batch = TrainBatch::new(&samples(), &[0, 3, 6, 9]).unwrap();
    let loss = |decoder: &Decoder| -> f32 { Objective::Sft.loss(decoder, &batch).unwrap().into_scalar() };
    let (start, soft, plain) = (loss(&wide_decoder()), loss(&soft.decoder), loss(&plain.decoder));
    assert!(plain < soft && soft < start, "{plain} {soft} {start}");
}

#[test]
fn a_resumed_soft_sft_equals_an_uninterrupted_one_and_other_settings_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run");
    let settings = TrainSettings { epochs: 3, ..settings(lora(0.2)) };
    let soft = SoftSftSettings::default();
    let whole = held(&settings, &soft, None).unwrap();
    assert!(matches!(held_until(&settings, &soft, Some(&path), 5), Err(Error::Stopped)));
    let resumed = held(&settings, &soft, Some(&path)).unwrap();
    assert_eq!(resumed.losses, whole.losses);
    assert_eq!(values(&resumed.decoder, |_| true), values(&whole.decoder, |_| true));
    let other = SoftSftSettings { beta_later: 0.2, ..soft };
    let error = held(&settings, &other, Some(&path)).unwrap_err().to_string();
    assert!(error.contains("other settings"), "{error}");
}

#[test]
fn a_training_that_is_looked_at_is_the_same_training() {
    let settings = TrainSettings { epochs: 3, ..settings(lora(0.2)) };
    let whole = tuned(decoder(), &settings);
    let mut seen = Vec::new();
    let mut shown = |step: usize, decoder: &Decoder| -> Result<()> {
        seen.push((step, values(decoder, |_| true)));
        Ok(())
    };
    // Ten samples in batches of three are four steps a pass.
    train_shown(decoder(), &samples(), (&settings, 0), &[1, 12, 14], &mut shown).unwrap();
    assert_eq!(seen.iter().map(|one| one.0).collect::<Vec<_>>(), [1, 12, 14]);
    assert_eq!(seen[1].1, values(&whole.decoder, |_| true));
    assert_ne!(seen[2].1, seen[1].1);
}

#[test]
fn only_the_named_weights_move() {
    for (lora, moved) in [(full(), "layers.1."), (lora(0.0), "layers.1.")] {
        let settings = TrainSettings { only: vec![moved.into()], ..settings(lora) };
        let (before, after) = (values(&decoder(), |_| true), values(&tuned(decoder(), &settings).decoder, |_| true));
        for ((name, before), (_, after)) in before.iter().zip(&after) {
            let (name, may) = (&name.name, name.name.contains(moved));
            assert!(before == after || may, "{name} moved");
            assert!(before != after || !may || name.contains("norm"), "{name} stayed");
        }
    }
    let settings = TrainSettings { only: vec!["layers.7.".into()], ..settings(full()) };
    assert!(trained(&settings, None).unwrap_err().to_string().contains("layers.7."));
}
