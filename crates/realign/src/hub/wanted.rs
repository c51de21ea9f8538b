//! Which files of a model on the hub are read.

use std::collections::BTreeSet;

use model::checkpoint;

use super::client::Failure;
use super::id::is_place;

/// Which files of a model are read, but for the shards of an index.
pub(super) fn wanted(there: &BTreeSet<&str>) -> Result<Vec<String>, Failure> {
    let has = |name: &str| there.contains(name);
    let weights = match [checkpoint::SINGLE, checkpoint::INDEX].into_iter().find(|name| has(name)) {
        Some(_) if has("adapter_config.json") && has("adapter_model.safetensors") => {
            tracing::warn!("the repository holds an adapter beside a whole model; the adapter alone is fetched");
            None
        }
        Some(weights) => Some(weights),
        None if has("adapter_model.safetensors") => None,
        None => {
            let gguf = there.iter().find(|name| name.ends_with(".gguf"));
            let help = match gguf {
                Some(file) => format!("; one GGUF file is named as hf://org/name/{file}, for `realign import --from`"),
                None if there.iter().any(|name| name.ends_with(".bin")) => {
                    "; it holds weights in PyTorch's own format, which can run code when it is read: convert them in a \
                     place that you trust, with AutoModelForCausalLM.from_pretrained(..).save_pretrained(dir)"
                        .to_owned()
                }
                None => String::new(),
            };
            return Err(Failure::Refused(format!("holds neither safetensors nor an adapter{help}")));
        }
    };
    let more =
        |name: &&&str| name.starts_with("additional_chat_templates/") && name.ends_with(".jinja") && is_place(name);
    let templates = there.iter().filter(more).copied();
    let companions = checkpoint::COMPANIONS.into_iter().filter(|name| has(name));
    let adapter = ["adapter_model.safetensors", "adapter_config.json"].into_iter().filter(|name| has(name));
    // The configuration last: with it a directory is a model, so that what a kill leaves is none.
    let config = Some("config.json").filter(|name| has(name));
    Ok(templates.chain(companions).chain(weights).chain(adapter).chain(config).map(str::to_owned).collect())
}
