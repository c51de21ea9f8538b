//! What `adapter_config.json` says: of which projections an adapter is, with which ranks and alphas.

use std::path::{Path, PathBuf};

use regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::CONFIG;
use crate::checkpoint::safetensors::inside;
use crate::{Error, Result, weights};

/// `adapter_config.json` may have this many bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// Entries that `alpha_pattern` and `rank_pattern` may have each; one for each projection of the largest models is 900.
pub(super) const MAX_PATTERNS: usize = 1024;
/// Bytes that one of them may take once it is compiled; the path of a projection takes a tenth.
const MAX_PATTERN: usize = 64 << 10;
/// The same of the pattern of a key that has one.
const MAX_MODULES: usize = 1 << 20;

/// Keys of `adapter_config.json` that must be absent, null, false or empty.
pub const UNSUPPORTED: [&str; 11] = [
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "velora_config",
    "alora_invocation_tokens",
];

/// Kinds of peft that teach a prompt or add layers, which cannot become weights of the model.
const UNMERGEABLE: [&str; 7] =
    ["PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT", "CARTRIDGE"];

/// Ways to begin a training (`init_lora_weights`) that leave the base's weights as they are, as do true and false.
pub const STARTS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The keys of `adapter_config.json` that matter here, under peft's names.
#[derive(Debug, Deserialize)]
pub(super) struct Keys {
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    pub lora_dropout: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    pub use_dora: bool,
    /// The first pattern that fits a projection decides its alpha.
    #[serde(default)]
    alpha_pattern: Option<Map<String, Value>>,
    /// The same of its rank.
    #[serde(default)]
    rank_pattern: Option<Map<String, Value>>,
    /// Which projections it is of: ends of their paths, or a pattern.
    #[serde(default)]
    target_modules: Value,
    /// Which of these it is not of, named the same way.
    #[serde(default)]
    exclude_modules: Value,
    /// Blocks that it is of, where not of all.
    #[serde(default)]
    layers_to_transform: Value,
    #[serde(default)]
    pub modules_to_save: Option<Vec<String>>,
}

impl Keys {
    fn read(path: &Path) -> Result<Self> {
        let bytes = files::read_regular(path, MAX_CONFIG)?;
        let wrong = |reason: String| Error::checkpoint(path, format!("not an adapter that can be used: {reason}"));
        let json = files::json_value(&bytes).map_err(|error| wrong(error.to_string()))?;
        // Before the keys of LoRA, which other kinds do not have.
        match json["peft_type"].as_str() {
            Some("LORA") => {}
            Some(other) if UNMERGEABLE.contains(&other) => {
                let reason = "it changes no weight of the model, so that there is nothing to merge or to repair";
                return Err(wrong(format!("peft_type is `{other}`; supported: LORA; {reason}")));
            }
            Some(other) => return Err(wrong(format!("peft_type is `{other}`; supported: LORA; {}", way_out(path)))),
            None => return Err(wrong("key `peft_type` is missing or not text; peft writes LORA there".into())),
        }
        let keys = Self::deserialize(&json).map_err(|error| {
            let key = wrong_key(&json).map_or(String::new(), |key| format!("key `{key}`: "));
            wrong(format!("{key}{error}"))
        })?;
        if let Some((key, value)) = unsupported(&json) {
            return Err(wrong(format!("key `{key}` = {value} is not supported; {}", way_out(path))));
        }
        if keys.r == 0 || !keys.lora_alpha.is_finite() || !(0.0..1.0).contains(&keys.lora_dropout) {
            let Self { r, lora_alpha, lora_dropout, .. } = keys;
            let reason = "r must be above 0, lora_alpha finite, lora_dropout at least 0 and below 1";
            return Err(wrong(format!("r = {r}, lora_alpha = {lora_alpha}, lora_dropout = {lora_dropout}: {reason}")));
        }
        Ok(keys)
    }

    /// Whether a projection is in a block that the adapter is of.
    fn has_block(&self, path: &str) -> bool {
        let block = weights::WeightInfo::new(path.to_owned(), Vec::new()).layer.map(|block| block as u64);
        match &self.layers_to_transform {
            Value::Array(blocks) if !blocks.is_empty() => blocks.iter().any(|one| one.as_u64() == block),
            one @ Value::Number(_) => one.as_u64() == block,
            _ => true,
        }
    }
}

/// An adapter's settings, with their patterns compiled.
pub(super) struct Settings {
    pub keys: Keys,
    /// The file that they are from.
    pub file: PathBuf,
    alphas: Patterns,
    ranks: Patterns,
    targets: Modules,
    excluded: Modules,
}

impl Settings {
    /// Those in an adapter's directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let file = dir.join(CONFIG);
        inside(dir, CONFIG).map_err(|reason| Error::checkpoint(&file, reason))?;
        let keys = Keys::read(&file)?;
        Ok(Self {
            alphas: Patterns::new("alpha_pattern", keys.alpha_pattern.as_ref(), &file)?,
            ranks: Patterns::new("rank_pattern", keys.rank_pattern.as_ref(), &file)?,
            targets: match &keys.target_modules {
                Value::String(word) if word == "all-linear" => Modules::All,
                value => Modules::new("target_modules", value, Modules::All, &file)?,
            },
            excluded: Modules::new("exclude_modules", &keys.exclude_modules, Modules::Ends(Vec::new()), &file)?,
            keys,
            file,
        })
    }

    /// What the product of an adapter's two tensors is multiplied by.
    pub fn scale(&self, path: &str, rank: usize) -> f64 {
        let alpha = self.alphas.of(path).unwrap_or(self.keys.lora_alpha);
        alpha / if self.keys.use_rslora { (rank as f64).sqrt() } else { rank as f64 }
    }

    /// The rank of the adapter of a projection; where its tensor has another, or peft would leave it out, the reason.
    pub fn rank_of(&self, path: &str, tensor: &str, found: Option<usize>) -> std::result::Result<usize, String> {
        let (rank, file) = (self.ranks.of(path).map_or(self.keys.r, |rank| rank as usize), self.file.display());
        if let Some(found) = found.filter(|found| *found != rank) {
            return Err(format!("`{tensor}` has rank {found}, and {file} says {rank}; correct r or rank_pattern"));
        }
        if !(self.targets.has(path) && self.keys.has_block(path)) {
            return Err(format!(
                "`{tensor}` is of no projection that target_modules and layers_to_transform of {file} name, so peft would \
                 leave it out; correct them, or take the tensor away"
            ));
        }
        if self.excluded.has(path) {
            return Err(format!(
                "`{tensor}` is of a projection that exclude_modules of {file} names, so peft would leave it out; correct \
                 the key, or take the tensor away"
            ));
        }
        Ok(rank)
    }
}

/// Numbers by patterns of paths; a pattern fits a projection by the end of its path, and the first that does counts.
struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    fn new(key: &str, patterns: Option<&Map<String, Value>>, path: &Path) -> Result<Self> {
        let pattern = |(pattern, number): (&String, &Value)| {
            let wrong = |reason: String| {
                Error::checkpoint(path, format!("key `{key}`, `{pattern}`: {reason}; {}", way_out(path)))
            };
            let number =
                number.as_f64().filter(|number| number.is_finite()).ok_or_else(|| wrong(format!("{number}")))?;
            let fits = compiled(&format!(r"^(.*\.)?(?:{pattern})$"), MAX_PATTERN).map_err(&wrong)?;
            Ok((fits, number))
        };
        let count = patterns.map_or(0, Map::len);
        if count > MAX_PATTERNS {
            let reason =
                format!("key `{key}` has {count} patterns, and at most {MAX_PATTERNS} are read; {}", way_out(path));
            return Err(Error::checkpoint(path, reason));
        }
        Ok(Self(patterns.into_iter().flatten().map(pattern).collect::<Result<_>>()?))
    }

    fn of(&self, path: &str) -> Option<f64> {
        self.0.iter().find(|(pattern, _)| pattern.is_match(path)).map(|(_, number)| *number)
    }
}

/// A pattern that takes so much memory at most.
fn compiled(pattern: &str, most: usize) -> std::result::Result<Regex, String> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(most).dfa_size_limit(most).build().map_err(|error| error.to_string())
}

/// The first key whose value is of another type than peft's.
fn wrong_key(json: &Value) -> Option<&String> {
    let sound = json!({"r": 1, "lora_alpha": 1.0});
    json.as_object()?.iter().find_map(|(key, value)| {
        let mut one = sound.clone();
        one[key] = value.clone();
        Keys::deserialize(&one).is_err().then_some(key)
    })
}

/// Projections that a key names: all, those whose paths end so, or those whose paths a pattern fits whole.
enum Modules {
    All,
    Ends(Vec<String>),
    Pattern(Regex),
}

impl Modules {
    /// Those of a key's value, or `without` one.
    fn new(key: &str, value: &Value, without: Self, path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::checkpoint(path, format!("key `{key}`: {reason}"));
        match value {
            Value::Null => Ok(without),
            Value::String(pattern) => match compiled(&format!("^(?:{pattern})$"), MAX_MODULES) {
                Ok(pattern) => Ok(Self::Pattern(pattern)),
                Err(error) => Err(wrong(format!("{error}; {}", way_out(path)))),
            },
            Value::Array(ends) if ends.iter().all(Value::is_string) => {
                Ok(Self::Ends(ends.iter().filter_map(Value::as_str).map(str::to_owned).collect()))
            }
            other => Err(wrong(format!("{other} is neither a list of names nor a pattern"))),
        }
    }

    fn has(&self, path: &str) -> bool {
        let ends_with =
            |end: &String| path.strip_suffix(end.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        match self {
            Self::All => true,
            Self::Ends(ends) => ends.iter().any(ends_with),
            Self::Pattern(pattern) => pattern.is_match(path),
        }
    }
}

/// What to do with an adapter that is not supported.
pub(super) fn way_out(path: &Path) -> String {
    let dir = path.parent().unwrap_or(path);
    let has_tokenizer = ["tokenizer_config.json", "tokenizer.json"].iter().any(|name| dir.join(name).exists());
    let home = if has_tokenizer { "d" } else { "m.peft_config['default'].base_model_name_or_path" };
    format!(
        "merge it first: python -c \"import sys; from peft import AutoPeftModelForCausalLM as M; \
         from transformers import AutoTokenizer as T; d = sys.argv[1]; m = M.from_pretrained(d); \
         m.merge_and_unload().save_pretrained('merged'); T.from_pretrained({home}).save_pretrained('merged')\" {}",
        files::shell_word(dir)
    )
}

/// The first key that asks for something this crate does not compute.
fn unsupported(json: &Value) -> Option<(&str, &Value)> {
    let neutral = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(values) => values.is_empty(),
        _ => false,
    };
    let asked = UNSUPPORTED.into_iter().find(|&key| json.get(key).is_some_and(|value| !neutral(value)));
    let start = json.get("init_lora_weights").filter(|value| match value {
        Value::String(start) => !STARTS.contains(&start.as_str()),
        _ => false,
    });
    asked.or(start.map(|_| "init_lora_weights")).and_then(|key| Some((key, json.get(key)?)))
}
