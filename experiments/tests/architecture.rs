//! That the house is as ARCHITECTURE.md draws it: no crate uses one above it, and modules beside each other form no circle, at
//! any depth.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate after those that it may use; nothing uses the last two, but for tests.
const ORDER: [&str; 12] = [
    "files",
    "page",
    "prompts",
    "model",
    "finetune",
    "direction",
    "recovery",
    "evaluation",
    "realign",
    "experiments",
    "bench",
    "mutate",
];

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
fn modules_beside_each_other_form_no_circle() {
    for name in ORDER {
        for root in ["lib.rs", "main.rs"].map(|root| dir_of(name).join("src").join(root)) {
            if let Some(circle) = root.is_file().then(|| Modules::read(&root).circle()).flatten() {
                panic!("{name}: {}", circle.join(" -> "));
            }
        }
    }
}

#[test]
fn every_crate_is_in_the_order() {
    let entries = fs::read_dir(root().join("crates")).unwrap();
    for name in entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(ORDER.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn a_circle_is_found_at_any_depth_and_through_what_is_handed_on() {
    let circle = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            fs::write(dir.path().join(name), text).unwrap();
        }
        Modules::read(&dir.path().join("lib.rs")).circle().map(|circle| circle.join(" "))
    };
    let root = ("lib.rs", "mod a;\npub mod b;\n\npub use b::{Other, deep::Thing};");
    let (a, deep) = (("a.rs", "fn f() { crate::Thing::new() }"), ("b/deep.rs", "pub struct Thing;"));
    let b = |text: &'static str| ("b/mod.rs", text);
    assert_eq!(circle(&[root, a, b("mod deep;"), deep]), None);
    assert_eq!(circle(&[root, a, b("mod deep;\nuse crate::a::f;"), deep]).as_deref(), Some("a b a"));
    let all = ("lib.rs", "mod a;\npub mod b;\n\npub use b::*;");
    assert_eq!(circle(&[all, a, b("mod deep;\nuse crate::a::f;\nstruct Thing;"), deep]).as_deref(), Some("a b a"));
    let tests = "mod deep;\n#[cfg(test)]\nmod tests {\n    use crate::a::f;\n}";
    assert_eq!(circle(&[root, a, b(tests), deep]), None);
    // Nested: siblings, and a name that the parent hands on.
    let three = b("mod deep;\nmod one;\nmod two;\nuse one::{self, First};");
    let first = ("b/one.rs", "use super::{deep::Thing as Other, two};");
    let of = |two: &'static str| circle(&[root, a, three, deep, first, ("b/two.rs", two)]);
    assert_eq!(of("use super::deep;\n// crate::b::one"), None);
    assert_eq!(of("use super::First;").as_deref(), Some("b::one b::two b::one"));
    assert_eq!(of("fn f() { super::one::f() }").as_deref(), Some("b::one b::two b::one"));
}

/// A path of modules and names.
type Segments = Vec<String>;

/// The modules of a crate by their paths; the root's is empty. Tests do not count.
#[derive(Default)]
struct Modules {
    /// The code of each module.
    code: BTreeMap<Segments, String>,
    /// Of each module: the names that it brings in, with where they are from.
    names: BTreeMap<Segments, BTreeMap<String, Segments>>,
}

impl Modules {
    fn read(root: &Path) -> Self {
        let mut modules = Self::default();
        modules.add(root, root.parent().unwrap(), Vec::new());
        modules
    }

    /// Adds the module of a file, and those below it, whose files are in `dir`.
    fn add(&mut self, file: &Path, dir: &Path, path: Segments) {
        let code = without_tests(&fs::read_to_string(file).unwrap());
        let mut names = BTreeMap::new();
        for statement in code.split(';') {
            let statement = statement.rsplit(['}', '\n', ']']).next().unwrap().trim();
            let words = statement.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let Some(name) = words.trim_start_matches("pub(super) ").strip_prefix("mod ") else { continue };
            let below = [path.clone(), vec![name.to_owned()]].concat();
            let (leaf, branch) = (dir.join(format!("{name}.rs")), dir.join(name).join("mod.rs"));
            self.add(if leaf.is_file() { &leaf } else { &branch }, &dir.join(name), below);
        }
        for (at, _) in code.match_indices("use ") {
            if code[..at].chars().next_back().is_none_or(char::is_whitespace) {
                for mut tree in paths(&code[at + 4..]).0 {
                    let name = tree.pop().unwrap();
                    let whole = if name == "self" { tree } else { [tree, vec![name]].concat() };
                    names.insert(whole.last().cloned().unwrap_or_default(), whole);
                }
            }
        }
        self.names.insert(path.clone(), names);
        self.code.insert(path, code);
    }

    /// The module that a path in a module leads to; none if it leads out of the crate. What is handed on counts as its home's.
    fn home(&self, from: &Segments, path: &[String], depth: usize) -> Option<Segments> {
        let mut at = from.clone();
        for (place, name) in path.iter().enumerate() {
            let below = [at.clone(), vec![name.clone()]].concat();
            match name.as_str() {
                "crate" => at.clear(),
                "super" => drop(at.pop()),
                "self" => {}
                _ if self.code.contains_key(&below) => at = below,
                _ if place == 0 => return None,
                _ => {
                    let names = &self.names[&at];
                    // The name of `*` is empty.
                    let all_of =
                        || names.get("").map(|path| [&path[..path.len() - 1], std::slice::from_ref(name)].concat());
                    let handed_on = names.get(name).cloned().or_else(all_of).filter(|_| depth < 8);
                    return handed_on.and_then(|path| self.home(&at, &path, depth + 1)).or(Some(at));
                }
            }
        }
        Some(at)
    }

    /// Modules beside each other that use each other.
    fn circle(&self) -> Option<Vec<String>> {
        let mut levels: BTreeMap<Segments, Arrows> = BTreeMap::new();
        for (from, code) in &self.code {
            for to in used(code).iter().filter_map(|path| self.home(from, path, 0)) {
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if shared < from.len() && shared < to.len() {
                    let [from, to] = [from, &to].map(|path| path[..=shared].join("::"));
                    levels.entry(to_level(&from)).or_default().entry(from).or_default().insert(to);
                }
            }
        }
        levels.values().find_map(circle)
    }
}

/// The path of the module that a module is in.
fn to_level(path: &str) -> Segments {
    path.split("::").map(str::to_owned).collect::<Vec<_>>().split_last().unwrap().1.to_vec()
}

/// Code without comments and without what is compiled for tests alone.
fn without_tests(text: &str) -> String {
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut kept = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept.push(line);
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let is_last = |line: &&str| *line == end || (line.ends_with(';') && !line.starts_with(&format!("{end} ")));
        let item = lines.by_ref().find(|line| !line.trim_start().starts_with("#["));
        if item.is_some_and(|item| item.ends_with('{')) {
            lines.by_ref().find(|line| *line == end);
        } else if !item.as_ref().is_some_and(is_last) {
            lines.by_ref().find(is_last);
        }
    }
    kept.join("\n")
}

/// The paths in some code that begin with `crate`, `super` or `self`.
fn used(code: &str) -> Vec<Segments> {
    let is_inner = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "_:$".contains(c));
    let starts = ["crate::", "super::", "self::"].into_iter().flat_map(|start| code.match_indices(start));
    starts.filter(|(at, _)| !is_inner(&code[..*at])).flat_map(|(at, _)| paths(&code[at..]).0).collect()
}

/// The paths of a tree as in `use`, such as `a::{b, c::d as e}`, and what follows it.
fn paths(text: &str) -> (Vec<Segments>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut all = Vec::new();
        while !rest.trim_start().is_empty() && !rest.trim_start().starts_with('}') {
            let (found, after) = paths(rest);
            all.extend(found);
            let next = after.find([',', '}']).unwrap_or(after.len());
            rest = after[next..].strip_prefix(',').unwrap_or(&after[next..]);
        }
        return (all, rest.trim_start().strip_prefix('}').unwrap_or_default());
    }
    let (name, after) = text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()));
    match after.strip_prefix("::") {
        Some(below) if !name.is_empty() => {
            let (found, after) = paths(below);
            (found.into_iter().map(|path| [vec![name.to_owned()], path].concat()).collect(), after)
        }
        _ => (vec![vec![name.to_owned()]], after),
    }
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
