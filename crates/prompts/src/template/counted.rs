//! Counting of what the engine does not count: plain text, comparisons, searches, keys and unpacked lists.
//!
//! minijinja charges one unit of fuel for an instruction, however much it works. Here a filter that counts goes before each
//! instruction whose work has no bound, and jumps are led to the new places. Does NOT count what filters make of texts: see
//! [`super`].

use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::machinery::{Instruction, Instructions};
use minijinja::value::{Object, ObjectRepr, Rest, Value, ValueKind};
use minijinja::{Environment, State};

use super::{ENTRY, Result, count, refused};

/// What one rendering may look through: bytes of texts, and [`ENTRY`] for each value.
const WORK: usize = 64 << 20;
/// How deep values may lie within each other.
const DEPTH: usize = 1000;
/// Entries of a list whose length is not known that are looked for.
const MOST_ENTRIES: usize = 1 << 20;

/// Looks through the values before a comparison.
const COMPARED: &str = "==";
/// Looks through the text or list and the value before a search.
const SEARCHED: &str = "in";
/// Looks through a key.
const ITEM: &str = "[]";
/// Looks through the keys of a map that is made.
const MAP: &str = "{}";
/// Counts the entries of lists and maps that are put together as arguments.
const UNPACKED: &str = "**";
/// Looks through what a namespace is to hold.
const SET: &str = "=";

/// The instructions with those that count.
pub(super) fn counted<'a>(old: &Instructions<'a>) -> Result<Instructions<'a>> {
    let mut new = Instructions::new(old.name(), old.source());
    let mut places = Vec::with_capacity(old.len());
    for at in 0..old.len() as u32 {
        places.push(new.len() as u32);
        let Some(instruction) = old.get(at) else { continue };
        let line = old.get_line(at).and_then(|line| u16::try_from(line).ok());
        for one in with_count(instruction)? {
            match line {
                Some(line) => new.add_with_line(one, line),
                None => new.add(one),
            };
        }
    }
    let end = new.len() as u32;
    for at in 0..end {
        if let Some(target) = new.get_mut(at).and_then(target) {
            *target = places.get(*target as usize).copied().unwrap_or(end);
        }
    }
    Ok(new)
}

/// The place that an instruction leads to.
fn target<'i>(instruction: &'i mut Instruction<'_>) -> Option<&'i mut u32> {
    match instruction {
        Instruction::Iterate(target)
        | Instruction::Jump(target)
        | Instruction::JumpIfFalse(target)
        | Instruction::JumpIfFalseOrPop(target)
        | Instruction::JumpIfTrueOrPop(target)
        | Instruction::BuildMacro(_, target, _) => Some(target),
        _ => None,
    }
}

/// An instruction, after one that counts, or in the form of a filter that does.
fn with_count<'a>(instruction: &Instruction<'a>) -> Result<Vec<Instruction<'a>>> {
    use Instruction as I;
    let filter = |name, values: usize| -> Result<I<'a>> {
        let values = u16::try_from(values).map_err(|_| refused("a tag has too many values"))?;
        Ok(I::ApplyFilter(name, Some(values), u8::MAX))
    };
    // The filter gives its values back as a list, which is laid out again.
    let after = |name, values: usize| Ok(vec![filter(name, values)?, I::UnpackList(values), instruction.clone()]);
    match instruction {
        I::EmitRaw(text) => Ok(vec![I::LoadConst(Value::from(*text)), I::Emit]),
        I::StringConcat => Ok(vec![filter("~", 2)?]),
        I::Add => Ok(vec![filter("+", 2)?]),
        I::Mul => Ok(vec![filter("*", 2)?]),
        I::Slice => Ok(vec![filter("[:]", 4)?]),
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte => after(COMPARED, 2),
        I::In | I::CompareAndPreserve(_) => after(SEARCHED, 2),
        I::GetItem => after(ITEM, 2),
        I::SetAttr(_) => after(SET, 2),
        I::BuildMap(pairs) if *pairs > 0 => after(MAP, pairs.saturating_mul(2)),
        I::UnpackLists(lists) if *lists > 0 => after(UNPACKED, *lists),
        I::MergeKwargs(maps) if *maps > 0 => after(UNPACKED, *maps),
        I::PerformTest(_, Some(values), _) => after(SEARCHED, usize::from(*values)),
        I::PerformTest(_, None, _) => Err(refused("a test takes no list of arguments with `*`")),
        // What it keeps can hold the loop itself, and is then never freed.
        I::CallMethod("changed", _) => Err(refused("loop.changed is not supported")),
        other => Ok(vec![other.clone()]),
    }
}

/// Adds the filters that [`counted`] puts in.
pub(super) fn add_filters(environment: &mut Environment<'static>) {
    environment.add_filter(COMPARED, |state: &State<'_, '_>, Rest(values): Rest<Value>| {
        // Of two texts no more is compared than the shorter one has.
        match values.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
            Some(texts) => spend(state, texts.iter().map(|text| text.len()).min().unwrap_or(0))?,
            None => look(state, &values, 1)?,
        }
        given_back(values)
    });
    environment.add_filter(SEARCHED, |state: &State<'_, '_>, Rest(values): Rest<Value>| {
        look(state, &values, 1)?;
        given_back(values)
    });
    environment.add_filter(ITEM, |state: &State<'_, '_>, Rest(values): Rest<Value>| {
        if let [of, key] = &values[..] {
            look(state, std::slice::from_ref(key), 1)?;
            walk(state, of)?;
        }
        given_back(values)
    });
    environment.add_filter(MAP, |state: &State<'_, '_>, Rest(values): Rest<Value>| {
        let keys: Vec<Value> = values.iter().step_by(2).cloned().collect();
        look(state, &keys, 1)?;
        given_back(values)
    });
    environment.add_filter(UNPACKED, |state: &State<'_, '_>, Rest(values): Rest<Value>| {
        let all = values.iter().map(entries).fold(0, usize::saturating_add);
        count(state, all.saturating_mul(ENTRY))?;
        given_back(values)
    });
    environment.add_filter(SET, |state: &State<'_, '_>, Rest(values): Rest<Value>| {
        let set = values.get(..1).unwrap_or_default();
        if weigh(state, set, 1, true)? {
            return Err(refused("a namespace cannot hold a namespace"));
        }
        given_back(values)
    });
}

/// Values as a list from which the engine lays them out in their order.
fn given_back(mut values: Vec<Value>) -> Result<Value> {
    values.reverse();
    Ok(Value::from(values))
}

/// The number of entries of a list or map.
pub(super) fn entries(value: &Value) -> usize {
    let walked = || value.try_iter().map_or(0, |entries| entries.take(MOST_ENTRIES).count());
    value.len().unwrap_or_else(walked)
}

/// What a rendering has looked through so far.
#[derive(Debug, Default)]
struct Looked(AtomicUsize);

impl Object for Looked {}

/// Counts work.
///
/// # Errors
/// When it is too much.
pub(super) fn spend(state: &State<'_, '_>, work: usize) -> Result<()> {
    let looked = state.get_or_set_temp_object("looked through", Looked::default);
    let before = looked.0.fetch_add(work.min(WORK + 1), Ordering::Relaxed);
    match before.saturating_add(work) > WORK {
        true => Err(refused("compares or searches too much")),
        false => Ok(()),
    }
}

/// Counts the work of going through a text, or through entries that are made one by one.
///
/// # Errors
/// When it is too much.
pub(super) fn walk(state: &State<'_, '_>, value: &Value) -> Result<()> {
    match value.kind() {
        ValueKind::String => spend(state, value.as_str().map_or(0, str::len)),
        ValueKind::Iterable => spend(state, entries(value).saturating_mul(ENTRY)),
        _ => Ok(()),
    }
}

/// Counts the work of looking through values so many times, all that lies within them included.
///
/// # Errors
/// When it is too much, or they lie too deep within each other.
pub(crate) fn look(state: &State<'_, '_>, values: &[Value], times: usize) -> Result<()> {
    weigh(state, values, times, false).map(drop)
}

/// As [`look`]; gives back whether a namespace is among them, and stops at it where it is `wanted`.
fn weigh(state: &State<'_, '_>, values: &[Value], times: usize, wanted: bool) -> Result<bool> {
    let times = times.max(1);
    let left =
        WORK.saturating_sub(state.get_or_set_temp_object("looked through", Looked::default).0.load(Ordering::Relaxed));
    let (mut weight, mut open) = (0usize, Vec::new());
    open.extend(values.iter().map(|value| (value.clone(), 1)));
    while let Some((value, depth)) = open.pop() {
        weight = weight.saturating_add(ENTRY).saturating_add(value.as_str().map_or(0, str::len));
        if weight.saturating_mul(times) > left {
            break;
        }
        let Some(object) = value.as_object() else { continue };
        if wanted && object.type_name().ends_with("Namespace") {
            return Ok(true);
        }
        if depth > DEPTH {
            return Err(refused(format!("values lie more than {DEPTH} deep within each other")));
        }
        let room = (left - weight) / ENTRY + 1;
        let mut add = |value: Value| open.push((value, depth + 1));
        match object.repr() {
            ObjectRepr::Map => {
                for (key, value) in object.try_iter_pairs().into_iter().flatten().take(room) {
                    add(key);
                    add(value);
                }
            }
            ObjectRepr::Seq | ObjectRepr::Iterable => {
                object.try_iter().into_iter().flatten().take(room).for_each(add);
            }
            _ => {}
        }
    }
    spend(state, weight.saturating_mul(times))?;
    Ok(false)
}
