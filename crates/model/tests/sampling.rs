//! Drawn answers against transformers' distribution (`scripts/goldens/attacks.py`), and that a draw does not depend on the batch.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use model::generate::{Prompt, answer_each};
use model::{Decoder, Draw, Packed, Sampling, checkpoint};
use serde_json::Value;

const DRAWS: u64 = 12_000;
/// Of the normal distribution, exceeded by 0.1 %.
const QUANTILE: f64 = 3.09;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn decoder() -> Decoder {
    checkpoint::load(&fixtures().join("tiny-llama"), &Device::flex()).unwrap()
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(fixtures().join("sampling.json")).unwrap()).unwrap()
}

fn numbers(json: &Value) -> Vec<f64> {
    serde_json::from_value(json.clone()).unwrap()
}

fn sampling(case: &Value) -> Sampling {
    Sampling { temperature: case["temperature"].as_f64().unwrap(), top_p: case["top_p"].as_f64().unwrap() }
}

fn answers(decoder: &Decoder, prompts: &[Prompt], batch: usize) -> Vec<Vec<u32>> {
    let mut found = vec![Vec::new(); prompts.len()];
    let mut answered = |prompt: usize, ids: Vec<u32>| -> model::Result<()> {
        found[prompt] = ids;
        Ok(())
    };
    answer_each(decoder, prompts, batch, &[], &mut answered).unwrap();
    found
}

/// The chi-square statistic of counts, and its 99.9 % quantile (Wilson and Hilferty); ids that are expected less than five
/// times are one bin.
fn chi_square(counts: &[u64], probabilities: &[f64]) -> (f64, f64) {
    let n = counts.iter().sum::<u64>() as f64;
    let (mut rest, mut bins) = ((0.0, 0.0), Vec::new());
    for (&count, &p) in counts.iter().zip(probabilities) {
        assert!(p > 0.0 || count == 0, "an id was drawn that cannot come");
        if p * n < 5.0 {
            rest = (rest.0 + count as f64, rest.1 + p * n);
        } else {
            bins.push((count as f64, p * n));
        }
    }
    bins.extend(Some(rest).filter(|rest| rest.1 > 0.0));
    let free = (bins.len() - 1) as f64;
    let part = 2.0 / (9.0 * free);
    (
        bins.iter().map(|(found, wanted)| (found - wanted).powi(2) / wanted).sum(),
        free * (1.0 - part + QUANTILE * part.sqrt()).powi(3),
    )
}

#[test]
fn the_probabilities_of_the_next_id_are_those_of_transformers() {
    let (decoder, golden) = (decoder(), golden());
    let ids: Vec<u32> = serde_json::from_value(golden["ids"].clone()).unwrap();
    let last = ids.len() - 1;
    let logits = decoder.logits(&Packed::new(&[ids]).unwrap(), &[last]).unwrap();
    let logits: Vec<f32> = logits.try_into_vec_as().unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let wanted = numbers(&case["first"]);
        let mut found = vec![0.0; wanted.len()];
        sampling(case).probabilities(&logits).into_iter().for_each(|(id, p)| found[id as usize] = p);
        for (id, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert!((found - wanted).abs() < 1e-5, "{case}: id {id}: {found} is not {wanted}");
        }
    }
}

#[test]
fn drawn_answers_are_distributed_as_those_of_transformers() {
    let (decoder, golden) = (decoder(), golden());
    let ids: Vec<u32> = serde_json::from_value(golden["ids"].clone()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let draw = |row| Some(Draw { sampling: sampling(case), seed: files::derived_seed(1, row) });
        let prompts: Vec<Prompt> =
            (0..DRAWS).map(|row| Prompt { ids: ids.clone(), max_new_tokens: 2, draw: draw(row) }).collect();
        let found = answers(&decoder, &prompts, 500);
        let mut other = None;
        for (place, key) in ["first", "second"].into_iter().enumerate() {
            let probabilities = numbers(&case[key]);
            let mut counts = vec![0; probabilities.len()];
            found.iter().for_each(|answer| counts[answer[place] as usize] += 1);
            let (found, most) = chi_square(&counts, &probabilities);
            assert!(found < most, "{key} ids at {:?}: chi-square {found} is above {most}", sampling(case));
            if let Some(counts) = other.replace(counts) {
                let close = probabilities.iter().map(|p| p + 1e-9).collect::<Vec<_>>();
                let (found, most) = chi_square(&counts, &close);
                assert!(found > most, "the test would not see another distribution");
            }
        }
    }
}

#[test]
fn a_draw_depends_on_its_seed_and_index_alone() {
    let decoder = decoder();
    let prompt = |row: u64| Prompt {
        ids: (0..2 + row as u32 % 5).map(|id| 2 + (7 * id + row as u32) % 60).collect(),
        max_new_tokens: 3 + row as usize % 9,
        draw: (!row.is_multiple_of(4))
            .then(|| Draw { sampling: Sampling { temperature: 1.0, top_p: 0.9 }, seed: files::derived_seed(5, row) }),
    };
    let prompts: Vec<Prompt> = (0..23).map(prompt).collect();
    let alone: Vec<Vec<u32>> =
        prompts.iter().map(|one| answers(&decoder, std::slice::from_ref(one), 1).remove(0)).collect();
    for batch in [2, 5, 23] {
        assert_eq!(answers(&decoder, &prompts, batch), alone, "batches of {batch}");
    }
    let greedy: Vec<Prompt> = prompts.iter().map(|one| Prompt { draw: None, ..one.clone() }).collect();
    let greedy = answers(&decoder, &greedy, 23);
    let same: Vec<bool> = alone.iter().zip(greedy).map(|(drawn, greedy)| *drawn == greedy).collect();
    assert!(same.iter().step_by(4).all(|same| *same), "rows without a draw are greedy beside those with one");
    assert!(same.iter().filter(|same| !**same).count() > 10, "{same:?}");
}
