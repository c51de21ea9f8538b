//! Sweep files as anybody may have written them: refused or read, and no more. `fuzz/` has the same reader.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;

use experiments::config::Sweep;
use mutate::Format;

pub fn sweeps() -> Format {
    let root = mutate::repository();
    let dir = mutate::scratch();
    let place = dir.path().join("experiments");
    fs::create_dir(&place).unwrap();
    fs::create_dir_all(dir.path().join("data")).unwrap();
    fs::write(dir.path().join("Cargo.lock"), "").unwrap(); // what marks a repository
    let copy_all = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    for name in ["data/tasks", "data/judges"] {
        copy_all(&root.join(name), &dir.path().join(name));
    }
    copy_all(&root.join("experiments"), &place);
    let names = ["sweep", "lab-models", "from-nothing", "ablation-rate", "smollm2"];
    let sound = names.map(|name| fs::read(place.join(format!("{name}.yaml"))).unwrap());
    Format::of_file("sweep YAML", sound.to_vec(), place.join("hostile.yaml"), move |path| {
        let _dir = &dir;
        let sweep = Sweep::load(path).map_err(|error| format!("{error:#}"))?;
        drop(sweep.resolved(1));
        sweep.choose(&[]).map(drop).map_err(|error| error.to_string())
    })
}

#[test]
fn sweeps_survive() {
    sweeps().survive(10_000);
}
