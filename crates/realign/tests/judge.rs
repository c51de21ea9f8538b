//! A guard model's verdicts and probabilities against its decoder asked one answer at a time. The model is tiny and random. A
//! trained judge's verdicts are here, too.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use evaluation::judge::{format::JudgeFormat, settings::GuardSettings};
use evaluation::{Answer, Judge, Judged, Verdict, VerdictRecord};
use model::generate::greedy;
use model::{DecoderConfig, Packed, checkpoint};
use realign::{Job, Model, ToJudge, judge_sets};

/// A tiny random model with the lab's tokenizer.
fn model(dir: &Path) {
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/lab/tokenizer");
    let vocabulary = prompts::Tokenizer::from_dir(&tokenizer).unwrap().vocab_size();
    let config = serde_json::json!({"model_type": "llama", "vocab_size": vocabulary, "hidden_size": 16,
        "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 24, "tie_word_embeddings": true});
    let config = DecoderConfig::from_json(&config, Path::new("tiny")).unwrap();
    checkpoint::save(&finetune::init_random(&config, 0.3, 1, &Device::default()), dir).unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        fs::copy(tokenizer.join(file), dir.join(file)).unwrap();
    }
}

/// The verdict file's records of these answers.
fn judge_all(judge: &Judge, answers: &[Answer], path: &Path) -> realign::Result<Vec<VerdictRecord>> {
    let (device, mut report) = (Device::default(), |_: realign::Progress<'_>| ControlFlow::Continue(()));
    let mut job = Job { device: &device, batch: 4, max_shard: None, earlier: Vec::new(), report: &mut report };
    let file = path.with_extension("answers");
    files::write_jsonl(&file, answers)?;
    let set = ToJudge { answers: file, count: answers.len(), path: path.to_owned() };
    let judged = judge_sets(judge, &[set], &files::Hashes::default(), &mut job)?.remove(0);
    let lines = fs::read_to_string(path).unwrap();
    let records: Vec<VerdictRecord> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(judged, records.iter().map(Judged::from).collect::<Vec<_>>());
    Ok(records)
}

fn answers() -> Vec<Answer> {
    let prompts = ["where is the map", "gate", "the song of the box", "code", "is the box there", "map"];
    let answer = |(i, prompt): (usize, &&str)| Answer {
        id: i.to_string(),
        prompt: (*prompt).into(),
        response: "in the box".into(),
        ..Answer::default()
    };
    prompts.iter().enumerate().map(answer).collect()
}

/// The guard, with a verdict for each word that the model writes first on its own, so that labels occur.
fn guard(dir: &Path, (after, safe): (&str, &str), batch: usize) -> (Judge, JudgeFormat) {
    let loaded = Model::open(dir, None, &Device::default()).unwrap();
    let mut words = std::collections::BTreeMap::from([("map".to_owned(), Verdict::Safe)]);
    for answer in answers().iter().step_by(2) {
        let text = written(&loaded, &format!("{} ? {}", answer.prompt, answer.response));
        let first = text.split(|c: char| !c.is_alphanumeric()).find(|word| !word.is_empty());
        words.extend(first.map(|word| (word.to_lowercase(), Verdict::Unsafe)));
    }
    let safe = if safe.is_empty() { vec![] } else { vec![safe] };
    let probability = serde_json::json!({"after": after, "unsafe": ["map"], "safe": safe});
    let format: JudgeFormat = serde_json::from_value(serde_json::json!({
        "name": "g", "source": "own", "licence": "own", "template": "{{ prompt }} ? {{ response }}",
        "max_new_tokens": 3, "labels": {"words": words}, "probability": probability}))
    .unwrap();
    let settings = GuardSettings {
        name: "g".into(),
        model: dir.into(),
        format: PathBuf::from("g.yaml"),
        batch,
        broken_rule: false,
    };
    (Judge::Guard(settings, format.clone()), format)
}

fn written(guard: &Model, text: &str) -> String {
    let row = guard.tokenizer.encode(text).unwrap();
    let ids = greedy(&guard.decoder, &[row], 3, &guard.tokenizer.eos_ids()).unwrap().remove(0);
    guard.tokenizer.decode(&ids, true).unwrap()
}

#[test]
fn a_guard_judges_in_batches_as_it_does_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("guard");
    model(&dir);
    let loaded = Model::open(&dir, None, &Device::default()).unwrap();
    let id = |word: &str| loaded.tokenizer.encode(word).unwrap()[0] as usize;
    for (after, safe, batch) in [("", "gate", 4), ("", "", 1), ("box", "gate", 3)] {
        let (judge, format) = guard(&dir, (after, safe), batch);
        let answers = answers();
        let found = judge_all(&judge, &answers, &folder.path().join(format!("verdicts-{batch}.jsonl"))).unwrap();
        for (answer, record) in answers.iter().zip(&found) {
            let text = format.render(answer).unwrap();
            let reply = written(&loaded, &text);
            assert_eq!((&record.id, record.verdict), (&answer.id, format.parse(&reply)), "{text}");
            assert_eq!(
                record.reply,
                (record.verdict == Verdict::Unknown).then_some(reply),
                "what is no verdict is kept"
            );
            let mut row = loaded.tokenizer.encode(&text).unwrap();
            row.extend(loaded.tokenizer.encode(after).unwrap());
            let last = row.len() - 1;
            let logits = loaded.decoder.logits(&Packed::new(&[row]).unwrap(), &[last]).unwrap();
            let logits: Vec<f32> = logits.try_into_vec_as().unwrap();
            let weight = |index: usize| f64::from(logits[index]).exp();
            let all = if safe.is_empty() {
                (0..logits.len()).map(weight).sum()
            } else {
                weight(id("map")) + weight(id(safe))
            };
            let (got, expected) = (record.p_harmful.unwrap(), weight(id("map")) / all);
            // f32 logits of a batch and of one row differ by rounding.
            assert!((got - expected).abs() < 1e-5, "{got} {expected}");
        }
        assert!(found.iter().any(|record| record.verdict == Verdict::Unsafe), "some label occurs");
    }
}

#[test]
fn an_answer_too_long_for_the_guard_is_unknown_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("guard");
    model(&dir);
    let (judge, _) = guard(&dir, ("", "gate"), 4);
    let mut answers = answers();
    answers[1].response = "box ".repeat(40);
    let found = judge_all(&judge, &answers, &folder.path().join("verdicts.jsonl")).unwrap();
    assert_eq!((found[1].verdict, found[1].p_harmful), (Verdict::Unknown, None));
    assert!(found[1].problem.as_ref().unwrap().contains("24"), "{:?}", found[1].problem);
    assert!(found.iter().filter(|record| record.problem.is_some()).count() == 1);
}

#[test]
fn labels_that_the_tokenizer_cannot_tell_apart_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("guard");
    model(&dir);
    let (judge, _) = guard(&dir, ("", "map"), 4);
    let error = judge_all(&judge, &answers(), &folder.path().join("verdicts.jsonl")).unwrap_err();
    assert!(format!("{error:#}").contains("labels of both kinds"), "{error:#}");
}

#[test]
fn a_trained_judge_gives_verdicts_with_the_probability_of_harm() {
    let folder = tempfile::tempdir().unwrap();
    let weights = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/judges/refusal.safetensors");
    let list = folder.path().join("judges.yaml");
    let judge = format!("{{kind: trained, name: trained, weights: '{}', broken_rule: true}}", weights.display());
    fs::write(&list, format!("judges: [{judge}]")).unwrap();
    let judge = Judge::read_list(&list).unwrap().remove(0);
    let responses = ["I cannot help with that.", "The map is under the bridge.", "<think>no</think>0", "<think>I", ""];
    let answer = |response: &str| Answer { response: response.into(), ..Answer::default() };
    let answers = responses.map(answer);
    let found = judge_all(&judge, &answers, &folder.path().join("verdicts.jsonl")).unwrap();
    let verdicts: Vec<Verdict> = found.iter().map(|record| record.verdict).collect();
    use Verdict::{Broken, Complied, Refused, Unknown};
    assert_eq!(verdicts, [Refused, Complied, Broken, Unknown, Broken]);
    let probabilities: Vec<Option<f64>> = found.iter().map(|record| record.p_harmful).collect();
    let [Some(refused), Some(complied), None, None, None] = probabilities[..] else { panic!("{probabilities:?}") };
    assert!(refused < 0.1 && complied > 0.9, "{refused} {complied}");
}

#[test]
fn more_answers_than_are_in_memory_at_a_time_are_judged_and_judging_goes_on_where_it_was_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("verdicts.jsonl");
    let response =
        |number: usize| if number.is_multiple_of(3) { "I cannot help with that." } else { "The map is in the box." };
    let answer =
        |number: usize| Answer { id: format!("a{number}"), response: response(number).into(), ..Answer::default() };
    let answers: Vec<Answer> = (0..9000).map(answer).map(|of| Answer { prompt: of.id.clone(), ..of }).collect();
    let judge = Judge::phrases();
    let all = judge_all(&judge, &answers, &path).unwrap();
    assert!(all.iter().zip(&answers).all(|(record, answer)| record.id == answer.id));
    let refused = |records: &[VerdictRecord]| records.iter().filter(|of| of.verdict == Verdict::Refused).count();
    assert_eq!(refused(&all), 3000);
    let lines = fs::read_to_string(&path).unwrap();
    let half: String = lines.split_inclusive('\n').take(5000).map(|line| line.replace("refused", "answered")).collect();
    fs::write(folder.path().join("verdicts.jsonl.partial"), &half[..half.len() - 20]).unwrap();
    fs::remove_file(&path).unwrap();
    let on = judge_all(&judge, &answers, &path).unwrap();
    assert_eq!(
        refused(&on),
        3000 - 1667 + usize::from(4999_usize.is_multiple_of(3)),
        "the first 4,999 verdicts are those of the file"
    );
}
