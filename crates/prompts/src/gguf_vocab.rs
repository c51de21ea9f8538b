//! A GGUF file's vocabulary, written as the tokenizer files of a Hugging Face directory.
//!
//! GGUF names the splitting rule of a byte-level vocabulary (`tokenizer.ggml.pre`) instead of giving it;
//! the rules here are those of the models' own `tokenizer.json`. A SentencePiece vocabulary has scores in place of merges,
//! which are found as transformers finds them. Does NOT read GGUF files (the model crate does).

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What the metadata keys `tokenizer.*` of a GGUF file say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `ggml.model`: "gpt2" (byte-level BPE) or "llama" (sentencepiece).
    pub model: String,
    /// `ggml.pre`: the name of the rule that splits text before merges apply.
    pub pre: Option<String>,
    /// `ggml.tokens`: the text of each id.
    pub tokens: Vec<String>,
    /// `ggml.token_type`: 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
    pub token_types: Vec<i32>,
    /// `ggml.merges`: pairs with a space between, the first merge first.
    pub merges: Vec<String>,
    /// `ggml.scores`: sentencepiece's log probabilities.
    pub scores: Vec<f32>,
    /// `ggml.bos_token_id`.
    pub bos_id: Option<u32>,
    /// `ggml.eos_token_id`.
    pub eos_id: Option<u32>,
    /// `ggml.unknown_token_id`.
    pub unk_id: Option<u32>,
    /// `ggml.padding_token_id`.
    pub pad_id: Option<u32>,
    /// `ggml.add_bos_token`: whether plain text gets the first token put before it.
    pub add_bos: Option<bool>,
    /// `ggml.add_space_prefix`: whether a SentencePiece text begins with a space; it does where the file is silent.
    pub add_space_prefix: Option<bool>,
    /// `chat_template`.
    pub chat_template: Option<String>,
}

impl GgufVocab {
    /// What the file does not say though a model needs it, and what comes of that.
    pub fn notes(&self) -> Vec<String> {
        let is_split_unsaid = self.model == "gpt2" && self.pre.is_none();
        let split = is_split_unsaid.then_some(
            "tokenizer.ggml.pre is missing, so text is split by GPT-2's rule; where the model has another, as Llama 3 and Qwen \
             have, it reads other tokens than it was trained on: convert it again with a newer llama.cpp, or put its original \
             tokenizer.json into the directory",
        );
        let template = self.chat_template.is_none().then_some(
            "tokenizer.chat_template is missing: put the model's chat_template.jinja into the directory, or it cannot be asked",
        );
        split.into_iter().chain(template).map(str::to_owned).collect()
    }
}

/// Sum of the squares of the lengths of SentencePiece tokens, to which the search for their parts is proportional; a quarter of
/// a million tokens of sixteen bytes have a fifteenth of it.
const MOST_SQUARED: usize = 1 << 30;

/// `ggml.token_type` of a token that is written out in text and is hidden when text is read out.
const CONTROL: i32 = 3;
/// `ggml.token_type` of a token that is written out in text and is shown.
const USER_DEFINED: i32 = 4;

/// How a family's own `tokenizer.json` splits text before merges apply.
enum Split {
    /// Each digit alone, then GPT-2's rule.
    SmolLm,
    /// GPT-2's rule.
    Gpt2,
    /// Llama 3's: digits by threes; a token that is a whole word needs no merges.
    Llama3,
    /// Qwen2's: each digit alone, text in normal form C.
    Qwen2,
    /// Mistral Nemo's: by case, each digit alone; a token that is a whole word needs no merges.
    Tekken,
}

const TEKKEN_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2_SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Split {
    fn named(pre: Option<&str>) -> Result<Self> {
        match pre {
            Some("smollm") => Ok(Self::SmolLm),
            None | Some("gpt-2" | "gpt2" | "default") => Ok(Self::Gpt2),
            Some("llama-bpe" | "llama3" | "llama-v3") => Ok(Self::Llama3),
            Some("qwen2" | "deepseek-r1-qwen") => Ok(Self::Qwen2),
            Some("tekken") => Ok(Self::Tekken),
            Some(other) => Err(vocab_error(format!(
                "tokenizer.ggml.pre is \"{other}\"; supported are smollm, gpt-2, default, llama-bpe, qwen2 and tekken"
            ))),
        }
    }

    fn normalizer(&self) -> Value {
        match self {
            Self::Qwen2 => json!({"type": "NFC"}),
            Self::SmolLm | Self::Gpt2 | Self::Llama3 | Self::Tekken => Value::Null,
        }
    }

    fn pre_tokenizer(&self) -> Value {
        let bytes = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let sequence = |first| json!({"type": "Sequence", "pretokenizers": [first, bytes(false)]});
        let regex =
            |regex| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        match self {
            Self::SmolLm => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, bytes(true)
            ]}),
            Self::Gpt2 => bytes(true),
            Self::Llama3 => sequence(regex(LLAMA3_SPLIT)),
            Self::Qwen2 => sequence(regex(QWEN2_SPLIT)),
            Self::Tekken => sequence(regex(TEKKEN_SPLIT)),
        }
    }
}

/// Writes `tokenizer.json`, `tokenizer_config.json` (with the chat template), `special_tokens_map.json` and
/// `generation_config.json` into `dir`, for this crate and for transformers' `AutoTokenizer`.
pub fn write_tokenizer(vocab: &GgufVocab, dir: &Path) -> Result<()> {
    let special = special_tokens(vocab)?;
    let tokenizer = serde_json::to_vec(&tokenizer_json(vocab)?).map_err(|error| vocab_error(error.to_string()))?;
    crate::tokenizer::of_bytes(tokenizer.clone())
        .map_err(|error| vocab_error(format!("tokens and merges do not make a tokenizer: {error}")))?;
    let ids = [("bos_token_id", vocab.bos_id), ("eos_token_id", vocab.eos_id), ("pad_token_id", vocab.pad_id)];
    let generation: Map<_, _> = ids.into_iter().filter_map(|(key, id)| Some((key.into(), id?.into()))).collect();
    files::write_whole(&dir.join("tokenizer.json"), &tokenizer)?;
    files::write_json(&dir.join("tokenizer_config.json"), &tokenizer_config(vocab, &special))?;
    files::write_json(&dir.join("special_tokens_map.json"), &special)?;
    Ok(files::write_json(&dir.join("generation_config.json"), &generation)?)
}

fn tokenizer_config(vocab: &GgufVocab, special: &Map<String, Value>) -> Value {
    let mut config = special.clone();
    // The class that takes tokenizer.json as it is; a family's own class would build its own splitting rule.
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("clean_up_tokenization_spaces".into(), false.into());
    if let Some(template) = &vocab.chat_template {
        config.insert("chat_template".into(), template.as_str().into());
    }
    config.into()
}

/// `bos_token` and its like with their texts.
fn special_tokens(vocab: &GgufVocab) -> Result<Map<String, Value>> {
    let named = [
        ("bos", "bos_token", vocab.bos_id),
        ("eos", "eos_token", vocab.eos_id),
        ("unknown", "unk_token", vocab.unk_id),
        ("padding", "pad_token", vocab.pad_id),
    ];
    let mut special = Map::new();
    for (key, name, id) in named {
        let Some(id) = id else { continue };
        let text = vocab.tokens.get(id as usize).ok_or_else(|| {
            vocab_error(format!("tokenizer.ggml.{key}_token_id is {id}, but there are {} tokens", vocab.tokens.len()))
        })?;
        special.insert(name.into(), text.as_str().into());
    }
    Ok(special)
}

fn tokenizer_json(vocab: &GgufVocab) -> Result<Value> {
    let mut ids = Map::with_capacity(vocab.tokens.len());
    for (id, token) in vocab.tokens.iter().enumerate() {
        if let Some(first) = ids.insert(token.clone(), id.into()) {
            return Err(vocab_error(format!("tokenizer.ggml.tokens has \"{token}\" twice, at {first} and {id}")));
        }
    }
    let (added_tokens, post_processor) = (added_tokens(vocab)?, post_processor(vocab));
    let rest = match vocab.model.as_str() {
        "gpt2" => byte_level(vocab, ids)?,
        "llama" => sentence_piece(vocab, ids)?,
        other => {
            return Err(vocab_error(format!(
                "tokenizer.ggml.model is \"{other}\"; \"gpt2\" and \"llama\" can be imported: take the model's \
                 safetensors directory, which has its tokenizer.json"
            )));
        }
    };
    let mut json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added_tokens,
        "post_processor": post_processor});
    for (key, value) in rest {
        json[key] = value;
    }
    Ok(json)
}

/// Byte-level BPE.
fn byte_level(vocab: &GgufVocab, ids: Map<String, Value>) -> Result<[(&'static str, Value); 4]> {
    let split = Split::named(vocab.pre.as_deref())?;
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": matches!(split, Split::Llama3 | Split::Tekken), "vocab": ids, "merges": vocab.merges});
    Ok([
        ("normalizer", split.normalizer()),
        ("pre_tokenizer", split.pre_tokenizer()),
        ("decoder", json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})),
        ("model", model),
    ])
}

/// SentencePiece's BPE with bytes for what has no token, as the files of Llama 2 have it.
fn sentence_piece(vocab: &GgufVocab, ids: Map<String, Value>) -> Result<[(&'static str, Value); 4]> {
    if vocab.scores.len() != vocab.tokens.len() {
        let (scores, tokens) = (vocab.scores.len(), vocab.tokens.len());
        return Err(vocab_error(format!("tokenizer.ggml.scores has {scores} entries for {tokens} tokens")));
    }
    let square = |token: &String| token.len().saturating_mul(token.len());
    let longest = vocab.tokens.iter().map(String::len).max().unwrap_or(0);
    if vocab.tokens.iter().map(square).fold(0, usize::saturating_add) > MOST_SQUARED {
        return Err(vocab_error(format!(
            "tokenizer.ggml.tokens are too long to look for their parts, the longest has {longest} bytes: take the model's \
             safetensors directory, which has its tokenizer.json"
        )));
    }
    let prefix = vocab.add_space_prefix.unwrap_or(true);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let unknown = vocab.unk_id.and_then(|id| vocab.tokens.get(id as usize));
    let model = json!({"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": ids,
        "merges": merges(vocab)});
    Ok([
        ("normalizer", json!({"type": "Sequence", "normalizers": normalizers})),
        ("pre_tokenizer", Value::Null),
        ("decoder", json!({"type": "Sequence", "decoders": decoders})),
        ("model", model),
    ])
}

/// All pairs of tokens that join to a token, those with the highest scores first; of equal ones the longest left part,
/// then the longest right part.
fn merges(vocab: &GgufVocab) -> Vec<[&str; 2]> {
    let ids: HashMap<&str, usize> = vocab.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (token, &score) in vocab.tokens.iter().zip(&vocab.scores) {
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut own: Vec<(&str, &str)> =
            splits.filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right)).collect();
        own.sort_by_key(|(left, right)| (ids[left], ids[right]));
        merges.extend(own.into_iter().map(|(left, right)| (score, left, right)));
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(length(b.1).cmp(&length(a.1))).then(length(b.2).cmp(&length(a.2))));
    merges.into_iter().map(|(_, left, right)| [left, right]).collect()
}

/// The tokens that are found in text by their own names: control and user-defined ones, and those with a role.
fn added_tokens(vocab: &GgufVocab) -> Result<Vec<Value>> {
    if !vocab.token_types.is_empty() && vocab.token_types.len() != vocab.tokens.len() {
        return Err(vocab_error(format!(
            "tokenizer.ggml.token_type has {} entries for {} tokens",
            vocab.token_types.len(),
            vocab.tokens.len()
        )));
    }
    let roles: BTreeSet<u32> = [vocab.bos_id, vocab.eos_id, vocab.unk_id, vocab.pad_id].into_iter().flatten().collect();
    let types = vocab.token_types.iter().copied().chain(std::iter::repeat(1));
    let added = (0u32..).zip(&vocab.tokens).zip(types).filter_map(|((id, content), token_type)| {
        let special = token_type == CONTROL || roles.contains(&id);
        (special || token_type == USER_DEFINED).then(|| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        })
    });
    Ok(added.collect())
}

/// Puts the first token before plain text where the file asks for it; chat templates write their own.
fn post_processor(vocab: &GgufVocab) -> Value {
    let bos = vocab.bos_id.filter(|_| vocab.add_bos == Some(true));
    let Some((id, bos)) = bos.and_then(|id| Some((id, vocab.tokens.get(id as usize)?))) else {
        return Value::Null;
    };
    let sequence = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let first = |type_id: u32| json!({"SpecialToken": {"id": bos, "type_id": type_id}});
    json!({
        "type": "TemplateProcessing",
        "single": [first(0), sequence("A", 0)],
        "pair": [first(0), sequence("A", 0), first(1), sequence("B", 1)],
        "special_tokens": {bos: {"id": bos, "ids": [id], "tokens": [bos]}},
    })
}

fn vocab_error(problem: String) -> Error {
    Error::Vocab { problem }
}
