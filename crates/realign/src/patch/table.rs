//! A patch as text and as JSON: steps, and the share of the weights restored by block and module.

use std::collections::{BTreeMap, BTreeSet};

use model::weights::WeightInfo;
use page::columns;
use recovery::{Patch, PatchFile};
use serde_json::{Value, json};

/// What is in a patch.
pub fn show(file: &PatchFile) -> String {
    let (path, [aligned, fine_tuned], answer) = (&file.path, file.model_hashes(), file.path.answer());
    let method = if file.method.is_null() { "not known".to_owned() } else { file.method.to_string() };
    let mut text = format!(
        "method      {method}\nprecision   {}\naligned     {aligned}\nfine-tuned  {fine_tuned}\n\n",
        file.dtype.name()
    );
    let mut steps = vec![["step", "flips", "restored"].map(str::to_owned).to_vec()];
    for ((step, flips), restored) in (1..).zip(path.steps()).zip(path.counts().into_iter().skip(1)) {
        let mark = if step == path.chosen() { " (the answer)" } else { "" };
        steps.push(vec![step.to_string(), flips.len().to_string(), format!("{restored}{mark}")]);
    }
    text += &columns(&steps);
    text += &format!("\nafter step {}, {} weights are the aligned model's", path.chosen(), answer.len());
    if !answer.is_empty() {
        text += "; in percent:\n\n";
        text += &columns(&shares(file, &answer));
    }
    text
}

/// The same for programs.
pub fn json(file: &PatchFile) -> Value {
    let ([aligned, fine_tuned], path, answer) = (file.model_hashes(), &file.path, file.path.answer());
    let steps = (1..).zip(path.steps()).zip(path.counts().into_iter().skip(1));
    let steps: Vec<Value> = steps
        .map(|((step, flips), restored)| json!({"step": step, "flips": flips.len(), "restored": restored}))
        .collect();
    let tensors: BTreeMap<String, Value> = file
        .infos()
        .into_iter()
        .map(|info| {
            let bound = &file.tensors[&info.name];
            let restored = answer.indices(&info.name).len();
            let json = json!({"weights": info.len(), "restored": restored, "aligned": bound.aligned,
                "fine_tuned": bound.fine_tuned});
            (info.name, json)
        })
        .collect();
    json!({"method": file.method, "dtype": file.dtype, "aligned": aligned, "fine_tuned": fine_tuned,
        "chosen": path.chosen(), "restored": answer.len(), "steps": steps, "tensors": tensors, "notes": file.notes})
}

/// What the answers of two patches have in common.
pub fn diff(first: &PatchFile, second: &PatchFile) -> String {
    let mut text = String::new();
    let [ours, theirs] = [first, second].map(PatchFile::model_hashes);
    for (name, (own, other)) in ["aligned", "fine-tuned"].into_iter().zip(ours.iter().zip(&theirs)) {
        text += &format!("{name} models  {}\n", if own == other { "the same" } else { "different" });
    }
    let [a, b] = [first, second].map(|file| file.path.answer());
    let mut blocks: BTreeMap<Option<usize>, [usize; 3]> = BTreeMap::new();
    let infos: BTreeMap<String, WeightInfo> =
        first.infos().into_iter().chain(second.infos()).map(|info| (info.name.clone(), info)).collect();
    for (name, info) in &infos {
        let common = a.common(&b, name);
        let counts = [common, a.indices(name).len() - common, b.indices(name).len() - common];
        let sum = blocks.entry(info.layer).or_default();
        sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }
    let mut rows = vec![["block", "both", "first", "second"].map(str::to_owned).to_vec()];
    let row =
        |name: String, counts: [usize; 3]| [name].into_iter().chain(counts.map(|count| count.to_string())).collect();
    let touched = blocks.iter().filter(|(_, counts)| **counts != [0; 3]);
    rows.extend(touched.map(|(block, &counts)| row(block_name(*block), counts)));
    let all = blocks.values().fold([0; 3], |all, counts| [0, 1, 2].map(|side| all[side] + counts[side]));
    rows.push(row("all".to_owned(), all));
    format!("{text}\nrestored weights:\n{}", columns(&rows))
}

/// The percentage of restored weights in each block and module that has any.
fn shares(file: &PatchFile, answer: &Patch) -> Vec<Vec<String>> {
    let module = |info: &WeightInfo| info.name.rsplit('.').nth(1).unwrap_or(&info.name).to_owned();
    let tensors: Vec<(Option<usize>, String, usize, usize)> = file
        .infos()
        .iter()
        .map(|info| (info.layer, module(info), answer.indices(&info.name).len(), info.len()))
        .collect();
    let touched = || tensors.iter().filter(|(.., restored, _)| *restored > 0);
    let blocks: BTreeSet<Option<usize>> = touched().map(|tensor| tensor.0).collect();
    let modules: BTreeSet<&str> = touched().map(|tensor| tensor.1.as_str()).collect();
    // The share in a block and a module, or in all of them.
    let share = |block: Option<Option<usize>>, module: Option<&str>| {
        let is_in = |(own, name, ..): &&(Option<usize>, String, usize, usize)| {
            block.is_none_or(|block| block == *own) && module.is_none_or(|module| module == name)
        };
        let sums = tensors.iter().filter(is_in).fold((0, 0), |sums, tensor| (sums.0 + tensor.2, sums.1 + tensor.3));
        if sums.1 == 0 { "-".to_owned() } else { format!("{:.3}", 100.0 * sums.0 as f64 / sums.1 as f64) }
    };
    let cells = |name: String, block| {
        let shares = modules.iter().copied().map(Some).chain([None]).map(|module| share(block, module));
        [name].into_iter().chain(shares).collect()
    };
    let head = ["block"].into_iter().chain(modules.iter().copied()).chain(["all"]).map(str::to_owned).collect();
    let rows = blocks.iter().map(|&block| cells(block_name(block), Some(block)));
    [head].into_iter().chain(rows).chain([cells("all".to_owned(), None)]).collect()
}

fn block_name(block: Option<usize>) -> String {
    block.map_or("outside".to_owned(), |block| block.to_string())
}
