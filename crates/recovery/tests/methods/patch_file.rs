//! A patch makes of the fine-tuned model what the recovery had after each step, takes it back, and fits no other model.

use model::{Decoder, Dtype, weights};
use recovery::{Error, Models, Patch, PatchFile, Path, Recover, Region, Rollback};
use serde_json::Value;

use crate::{Fixture, all};

fn models(fixture: &Fixture) -> Models<'_> {
    Models { aligned: &fixture.aligned, fine_tuned: &fixture.tuned, dtype: Dtype::F32 }
}

/// The path of a recovery with rollback, after which a step gives all weights of the first back and one flips nothing.
fn path(fixture: &Fixture) -> Path {
    let settings = Recover { steps: 3, rollback: Rollback::On, layer: "2/4".parse().unwrap(), ..Recover::default() };
    let mut path = fixture.apply(&settings).path.unwrap();
    let first = path.steps()[0].clone();
    path.push(first);
    path.push(Patch::default());
    path.choose(2);
    path
}

/// A model with one weight of a tensor changed.
fn with(decoder: &Decoder, name: &str, index: usize, value: f32) -> Decoder {
    let mut values = all(decoder).into_iter().find(|(info, _)| info.name == name).unwrap().1;
    values[index] = value;
    weights::replace(decoder.clone(), |info| {
        (info.name == name).then(|| burn::tensor::TensorData::new(values.clone(), info.shape.clone()))
    })
}

#[test]
fn every_step_is_made_known_and_taken_back() {
    let fixture = Fixture::read();
    let path = path(&fixture);
    let file = PatchFile::new(path.clone(), models(&fixture), Value::Null, Value::Null).unwrap();
    let mut region = Region::new(&fixture.aligned, &fixture.tuned, "2/4".parse().unwrap()).unwrap();
    for step in 0..=5 {
        region.apply(&path.at(step)).unwrap();
        let made = file.rewrite(fixture.tuned.clone(), 0, step).unwrap();
        assert_eq!(all(&made), all(region.decoder()), "step {step}");
        assert_eq!(file.steps_of(&made).unwrap(), if step < 4 { vec![step] } else { vec![4, 5] });
        assert_eq!(all(&file.rewrite(made, step, 0).unwrap()), all(&fixture.tuned), "back from step {step}");
    }
    assert_eq!(path.at(4).len() + path.at(1).len(), path.at(3).len());
    file.check_aligned(&fixture.aligned).unwrap();
    let beyond = file.rewrite(fixture.tuned.clone(), 0, 6).unwrap_err().to_string();
    assert!(beyond.contains("no step 6; the last one is 5"), "{beyond}");
    let other = file.rewrite(fixture.tuned.clone(), 3, 0).unwrap_err().to_string();
    assert!(other.contains("the model is the fine-tuned one and not the one after step 3"), "{other}");
}

#[test]
fn three_models_give_the_patch_of_one_step() {
    let fixture = Fixture::read();
    let answer = path(&fixture).at(3);
    let file = PatchFile::new(Path::once(answer), models(&fixture), Value::Null, Value::Null).unwrap();
    let repaired = file.rewrite(fixture.tuned.clone(), 0, 1).unwrap();
    assert_eq!(PatchFile::between(models(&fixture), &repaired).unwrap(), file);
    let name = "model.layers.1.mlp.up_proj.weight";
    let error = PatchFile::between(models(&fixture), &with(&repaired, name, 3, 9.0)).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains("holds 1 of ") && error.contains("of neither model"), "{error}");
}

#[test]
fn another_model_is_refused_by_the_name_of_its_tensor() {
    let fixture = Fixture::read();
    let path = path(&fixture);
    let file = PatchFile::new(path.clone(), models(&fixture), Value::Null, Value::Null).unwrap();
    let patch = path.at(3);
    let (name, indices) = patch.tensors().next().unwrap();
    let restored = indices[0] as usize;
    let other = (0..).find(|index| path.steps().iter().all(|flips| !flips.indices(name).contains(index))).unwrap();
    let changed = [
        (name, restored, "holds 9 at index"),
        (name, other as usize, "is not the fine-tuned model's"),
        ("model.norm.weight", 0, "is not the fine-tuned model's"),
    ];
    for (name, index, reason) in changed {
        let error = file.rewrite(with(&fixture.tuned, name, index, 9.0), 0, 1).unwrap_err();
        assert!(matches!(&error, Error::Patch { tensor, .. } if tensor == name), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert!(file.check_aligned(&with(&fixture.aligned, name, index, 9.0)).unwrap_err().to_string().contains(name));
    }
    // One weight restored alone is after no step.
    let values = all(&fixture.aligned).into_iter().find(|(info, _)| info.name == name).unwrap().1;
    let mixed = with(&fixture.tuned, name, restored, values[restored]);
    assert!(file.steps_of(&mixed).unwrap_err().to_string().contains("is after no step"));
    assert!(file.steps_of(&crate::load("tiny-qwen2")).is_err());
}
