//! Two models whose vocabularies differ, as where a pad token was added: what only one has decides nothing.

use burn::tensor::{Device, TensorData};
use model::{Decoder, DecoderConfig, weights};
use recovery::{
    Antidote, Distill, Error, Evidence, Inputs, Interpolation, Irr, Parts, Repair, Repaired, Resta, SafeDelta,
    SafeLora, Strong, Trace, damage,
};
use serde_json::json;

use crate::go_on;
use crate::resta::{all, models};
use crate::strong::Golden;

/// Losses and weights that extra rows move by the rounding of a product alone.
const TOLERANCE: f64 = 1e-5;
const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// Values of the three tokens that are added.
const ADDED: [f32; 96] = [0.3; 96];

/// The same model with another shape around its blocks.
fn reshaped(decoder: &Decoder, config: &DecoderConfig) -> Decoder {
    let values = all(decoder);
    weights::replace(Decoder::zeros(config, &Device::flex()), |info| {
        let mut own = values.get(&info.name).unwrap_or(&values[EMBEDDING]).clone();
        own.extend(ADDED);
        own.truncate(info.len());
        Some(TensorData::new(own, info.shape.clone()))
    })
}

fn with_more_tokens(decoder: &Decoder) -> Decoder {
    let config = decoder.config();
    reshaped(decoder, &DecoderConfig { vocab_size: config.vocab_size + 3, ..config.clone() })
}

fn with_own_head(decoder: &Decoder) -> Decoder {
    reshaped(decoder, &DecoderConfig { tie_word_embeddings: false, ..decoder.config().clone() })
}

fn evidence() -> Evidence {
    Golden::read().evidence(&json!({"reference": "aligned", "mu": 1.0}))
}

/// The fine-tuned model is its own teacher on the task's samples, all its tokens included.
fn without_task() -> Evidence {
    Evidence { task: Parts::default(), ..evidence() }
}

fn run(method: &dyn Repair, aligned: &Decoder, tuned: &Decoder, evidence: &Evidence) -> Repaired {
    let unaligned = &models()[2];
    let inputs = Inputs::new(aligned, tuned, go_on());
    let inputs = Inputs { base: Some(unaligned), unaligned: Some(unaligned), ..inputs };
    method.apply(Inputs { evidence: Some(evidence), ..inputs }).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * b.abs().max(0.1)
}

fn same_blocks(one: &Decoder, other: &Decoder) {
    let (one, other) = (all(one), all(other));
    for (name, values) in one.iter().filter(|(name, _)| name.starts_with("model.layers.")) {
        let near = |(a, b): (&f32, &f32)| close(f64::from(*a), f64::from(*b));
        assert!(values.iter().zip(&other[name]).all(near), "{name}");
    }
}

#[test]
fn strong_flips_the_same_weights_whatever_tokens_one_model_has_more() {
    let [tuned, aligned, _] = models();
    let found = |aligned: &Decoder, tuned: &Decoder, evidence: &Evidence| {
        let repaired = run(&Strong { rounds: 3, drawn: 4, ..Strong::default() }, aligned, tuned, evidence);
        let Some(Trace::Strong(trace)) = repaired.trace else { panic!("another trace") };
        (repaired.path.unwrap(), trace)
    };
    let compare = |aligned: &Decoder, tuned: &Decoder, plain: &Evidence| {
        let [one, other, _] = models();
        let ((path, trace), (of_plain, plain)) = (found(aligned, tuned, plain), found(&other, &one, plain));
        assert!(!of_plain.answer().is_empty());
        assert_eq!(path, of_plain);
        assert_eq!(trace.rounds.len(), plain.rounds.len());
        let after = |trace: &recovery::StrongTrace| trace.rounds.iter().map(|round| round.standing).collect::<Vec<_>>();
        for (found, plain) in after(&trace).into_iter().zip(after(&plain)).chain([(trace.base, plain.base)]) {
            assert!(close(found.harmful, plain.harmful) && close(found.harmless, plain.harmless));
            assert!(close(found.task, plain.task) && close(found.merit, plain.merit));
        }
    };
    compare(&aligned, &with_more_tokens(&tuned), &without_task());
    compare(&with_more_tokens(&aligned), &tuned, &evidence());
    // On the task the fine-tuned model's own tokens count too.
    let (_, trace) = found(&aligned, &with_more_tokens(&tuned), &evidence());
    let (_, plain) = found(&aligned, &tuned, &evidence());
    assert!(close(trace.base.harmful, plain.base.harmful) && close(trace.base.task, 0.0));
}

#[test]
fn distillation_learns_the_same_whatever_tokens_one_model_has_more() {
    let [tuned, aligned, _] = models();
    let found = |aligned: &Decoder, tuned: &Decoder, evidence: &Evidence| {
        let repaired = run(&Distill { steps: 3, drawn: 4, ..Distill::default() }, aligned, tuned, evidence);
        let Some(Trace::Distill(trace)) = &repaired.trace else { panic!("another trace") };
        (trace.losses.clone(), repaired.decoder)
    };
    let pairs = [
        (aligned.clone(), with_more_tokens(&tuned), without_task()),
        (with_more_tokens(&aligned), tuned.clone(), evidence()),
    ];
    for (other_aligned, other_tuned, evidence) in pairs {
        let (losses, decoder) = found(&other_aligned, &other_tuned, &evidence);
        let (of_plain, plain) = found(&aligned, &tuned, &evidence);
        for (found, plain) in losses.iter().zip(&of_plain) {
            assert!(close(found.harmful, plain.harmful) && close(found.harmless, plain.harmless), "{found:?}");
            assert!(close(found.task, plain.task) && close(found.loss, plain.loss), "{found:?}");
        }
        same_blocks(&decoder, &plain);
    }
}

#[test]
fn safe_delta_keeps_the_fine_tuned_models_shape() {
    let [tuned, aligned, _] = models();
    let (method, evidence) = (SafeDelta { scale: 1.0, ..SafeDelta::default() }, evidence());
    let plain = run(&method, &aligned, &tuned, &evidence).decoder;
    for other in [with_more_tokens(&tuned), with_own_head(&tuned), with_own_head(&with_more_tokens(&tuned))] {
        let found = run(&method, &aligned, &other, &evidence).decoder;
        assert_eq!(found.config(), other.config());
        same_blocks(&found, &plain);
        let mut embedding = all(&aligned)[EMBEDDING].clone();
        if other.config().vocab_size > aligned.config().vocab_size {
            embedding.extend(ADDED);
        }
        let found_tensors = all(&found);
        assert_eq!(found_tensors[EMBEDDING], embedding);
        assert!(found_tensors.get(HEAD).is_none_or(|head| *head == embedding), "the aligned model's head");
        assert!(damage(&other, &found, &evidence.harmless.held_out).unwrap().divergence.unwrap().is_finite());
    }
    let fewer = run(&method, &with_more_tokens(&aligned), &tuned, &evidence).decoder;
    assert_eq!(all(&fewer), all(&plain));
}

#[test]
fn a_head_that_the_fine_tuned_model_has_no_place_for_is_named() {
    let [tuned, aligned, _] = models();
    let evidence = evidence();
    let aligned = with_own_head(&aligned);
    let inputs = Inputs { evidence: Some(&evidence), ..Inputs::new(&aligned, &tuned, go_on()) };
    let error = SafeDelta::default().apply(inputs).unwrap_err();
    assert!(matches!(error, Error::ShapesDiffer { .. }), "{error}");
    assert!(error.to_string().contains("only the aligned one has a head of its own"), "{error}");
}

#[test]
fn what_moves_the_blocks_alone_moves_them_the_same() {
    let ([tuned, aligned, _], evidence) = (models(), evidence());
    let methods: [&dyn Repair; 3] = [&SafeLora::default(), &Antidote::default(), &Irr::default()];
    for method in methods {
        let plain = run(method, &aligned, &tuned, &evidence).decoder;
        for other in [with_more_tokens(&tuned), with_own_head(&tuned)] {
            same_blocks(&run(method, &aligned, &other, &evidence).decoder, &plain);
        }
    }
}

#[test]
fn what_moves_all_weights_leaves_tokens_alone_that_one_model_lacks() {
    let ([tuned, aligned, _], evidence) = (models(), evidence());
    let methods: [&dyn Repair; 2] = [&Interpolation { lambda: 0.3 }, &Resta { gamma: 0.5, ..Resta::default() }];
    for method in methods {
        let plain = all(&run(method, &aligned, &tuned, &evidence).decoder);
        let mut found = all(&run(method, &aligned, &with_more_tokens(&tuned), &evidence).decoder);
        let rows = found.get_mut(EMBEDDING).unwrap();
        assert_eq!(rows.split_off(plain[EMBEDDING].len()), ADDED);
        assert_eq!(found, plain);
        let own_head = all(&run(method, &aligned, &with_own_head(&tuned), &evidence).decoder);
        assert_eq!((&own_head[EMBEDDING], &own_head[HEAD]), (&plain[EMBEDDING], &plain[EMBEDDING]));
    }
}
