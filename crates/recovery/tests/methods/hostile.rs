//! Patches and traces as anybody may have written them: refused or read, and no more.

use model::Dtype;
use mutate::Format;
use recovery::{Models, PatchFile, Path, Recover, Trace};
use serde_json::Value;

use crate::Fixture;

#[test]
fn patches_and_traces() {
    let fixture = Fixture::read();
    let done = fixture.apply(&Recover { steps: 2, layer: "2/4".parse().unwrap(), ..Recover::default() });
    let models = Models { aligned: &fixture.aligned, fine_tuned: &fixture.tuned, dtype: Dtype::F32 };
    let bytes = |path: Path| PatchFile::new(path, models, Value::Null, Value::Null).unwrap().to_bytes().unwrap();
    let steps = done.path.unwrap();
    let dir = mutate::scratch();
    let file = dir.path().join("a.patch");
    let sound = [bytes(steps.clone()), bytes(Path::once(steps.at(2)))];
    let patches = Format::of_file("patch", sound.to_vec(), file, |path| {
        PatchFile::load(path).map(drop).map_err(|error| error.to_string())
    });
    patches.survive(6000);
    let traces = Format::new("trace", vec![serde_json::to_vec(&done.trace.unwrap()).unwrap()], |bytes| {
        serde_json::from_slice::<Trace>(bytes).map(drop).map_err(|error| error.to_string())
    });
    traces.survive(8000);
}
