//! That the house is as ARCHITECTURE.md draws it: no crate uses one above it, and the modules of a crate form no circle.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate after those that it may use.
const ORDER: [&str; 10] =
    ["files", "page", "prompts", "model", "finetune", "direction", "recovery", "evaluation", "realign", "experiments"];

/// Crates that never see tensors.
const WITHOUT_BURN: [&str; 4] = ["files", "page", "prompts", "evaluation"];

/// Crates that never see text.
const WITHOUT_TEXT: [&str; 4] = ["page", "model", "direction", "recovery"];

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn dir_of(name: &str) -> PathBuf {
    if name == "experiments" { root().join(name) } else { root().join("crates").join(name) }
}

/// The names under `[dependencies]` of a crate.
fn dependencies(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(dir_of(name).join("Cargo.toml")).unwrap();
    let section = text.split("\n[dependencies]\n").nth(1).unwrap_or("");
    let section = section.split("\n[").next().unwrap();
    section.lines().filter_map(|line| Some(line.split(['.', ' ', '=']).next()?.to_owned())).collect()
}

#[test]
fn no_crate_uses_one_above_it() {
    for (place, name) in ORDER.iter().enumerate() {
        let used = dependencies(name);
        for above in &ORDER[place..] {
            assert!(!used.contains(*above), "{name} uses {above}");
        }
        assert!(!(WITHOUT_BURN.contains(name) && used.contains("burn")), "{name} uses burn");
        assert!(!(WITHOUT_TEXT.contains(name) && used.contains("prompts")), "{name} uses prompts");
        let drawn = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
        assert!(drawn.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name {name}");
    }
}

#[test]
fn the_modules_of_a_crate_form_no_circle() {
    for name in ORDER {
        let arrows = module_arrows(&dir_of(name).join("src"));
        assert!(arrows.len() > 1, "{name} has no modules");
        if let Some(circle) = circle(&arrows) {
            panic!("{name}: {}", circle.join(" -> "));
        }
    }
}

#[test]
fn a_circle_is_found() {
    let arrows = |pairs: &[(&str, &str)]| -> Arrows {
        let mut arrows = Arrows::new();
        for (from, to) in pairs {
            arrows.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        arrows
    };
    assert_eq!(circle(&arrows(&[("a", "b"), ("b", "c"), ("a", "c")])), None);
    assert!(circle(&arrows(&[("a", "b"), ("b", "c"), ("c", "a")])).is_some());
}

/// Which top-level module uses which; what is re-exported at the root counts as its module's. Tests do not count.
fn module_arrows(src: &Path) -> Arrows {
    let lib = fs::read_to_string(src.join("lib.rs")).unwrap();
    let mut modules = BTreeSet::new();
    let mut homes = BTreeMap::new();
    for line in statements(&lib) {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        if let Some(module) = line.strip_prefix("mod ") {
            modules.insert(module.trim().to_owned());
        } else if let Some((module, names)) = line.strip_prefix("use ").and_then(|path| path.split_once("::")) {
            for name in names.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|name| !name.is_empty()) {
                homes.insert(name.to_owned(), module.trim().to_owned());
            }
        }
    }
    let mut arrows = Arrows::new();
    for module in &modules {
        let mut texts = Vec::new();
        read_module(&src.join(format!("{module}.rs")), &mut texts);
        read_module(&src.join(module), &mut texts);
        let used = texts.iter().flat_map(|text| used_names(text));
        let homes =
            used.filter_map(|name| if modules.contains(&name) { Some(name) } else { homes.get(&name).cloned() });
        let others = homes.filter(|home| modules.contains(home) && home != module).collect();
        arrows.insert(module.clone(), others);
    }
    arrows
}

/// The text up to the tests of a file, or of every file of a directory.
fn read_module(path: &Path, texts: &mut Vec<String>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| read_module(&entry.unwrap().path(), texts));
    } else if path.is_file() && path.file_name().unwrap() != "tests.rs" {
        let text = fs::read_to_string(path).unwrap();
        texts.push(text.split("#[cfg(test)]").next().unwrap().to_owned());
    }
}

/// Statements without comments, on one line each.
fn statements(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join(" ");
    code.split(';').map(|statement| statement.trim().to_owned()).collect()
}

/// The names right behind `crate::`, in braces too.
fn used_names(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ if c.is_alphanumeric() || c == '_' => name.push(c),
                    _ => {
                        if depth == 1 && !name.is_empty() {
                            names.push(name.clone());
                        }
                        name.clear();
                        continue;
                    }
                }
                if depth == 0 {
                    break;
                }
            }
            names.extend(Some(name).filter(|name| !name.is_empty()));
        } else {
            names.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

/// A circle, if there is one.
fn circle(arrows: &Arrows) -> Option<Vec<String>> {
    fn visit<'a>(at: &'a str, arrows: &'a Arrows, path: &mut Vec<&'a str>, done: &mut BTreeSet<&'a str>) -> bool {
        if path.contains(&at) {
            path.push(at);
            return true;
        }
        if done.contains(at) {
            return false;
        }
        path.push(at);
        if arrows.get(at).into_iter().flatten().any(|next| visit(next, arrows, path, done)) {
            return true;
        }
        path.pop();
        done.insert(at);
        false
    }
    let mut done = BTreeSet::new();
    for start in arrows.keys() {
        let mut path = Vec::new();
        if visit(start, arrows, &mut path, &mut done) {
            return Some(path.into_iter().map(str::to_owned).collect());
        }
    }
    None
}
