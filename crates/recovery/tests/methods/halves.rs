//! Models that are kept in bf16 are repaired as the same weights in f32 are.

use burn::tensor::TensorData;
use model::weights::Part;
use model::{Decoder, Dtype, weights};
use recovery::{FullRevert, Layer, Recover, Repair, Repaired, Rollback};

use crate::{Fixture, all};

fn wide(decoder: &Decoder) -> Decoder {
    let mut values = all(decoder).into_iter();
    weights::replace(decoder.clone(), |info| Some(TensorData::new(values.next()?.1, info.shape.clone())))
}

fn halves(decoder: &Decoder) -> usize {
    let views = weights::views(decoder, |_| true).unwrap();
    views.iter().filter(|(_, values)| matches!(values.part(), Part::Bf16(_))).count()
}

#[test]
fn a_repair_is_the_same_in_bf16_and_in_f32_and_stays_in_bf16() {
    let read = Fixture::read();
    let [aligned, tuned] = [&read.aligned, &read.tuned].map(|one| weights::round(one.clone(), Dtype::Bf16).unwrap());
    let kept = halves(&tuned);
    assert!(kept > 0);
    let sides = [(&aligned, &tuned), (&wide(&aligned), &wide(&tuned))].map(|(aligned, tuned)| Fixture {
        aligned: aligned.clone(),
        tuned: tuned.clone(),
        rows: read.rows.clone(),
    });
    let layer: Layer = "1".parse().unwrap();
    let recover = Recover { rate: 0.02, steps: 4, batch: 2, layer, ..Recover::default() };
    let on = Recover { rollback: Rollback::On, ..recover.clone() };
    let methods: [&dyn Repair; 3] = [&recover, &on, &FullRevert { layer }];
    for method in methods {
        let [ours, theirs]: [Repaired; 2] = sides.each_ref().map(|side| side.apply(method));
        assert_eq!(all(&ours.decoder), all(&theirs.decoder));
        assert_eq!((ours.patch(), ours.restored), (theirs.patch(), theirs.restored));
        assert!(ours.restored.unwrap() > 0);
        assert_eq!((halves(&ours.decoder), halves(&theirs.decoder)), (kept, 0));
    }
}
