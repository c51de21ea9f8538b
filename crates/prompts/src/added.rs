//! Tokens that the files beside tokenizer.json add to it, as transformers adds them: those of `added_tokens_decoder` in
//! `tokenizer_config.json`, else of `added_tokens.json`, and the special tokens, which are special whatever else is said.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;
use tokenizers::{AddedToken, Tokenizer};

use crate::config::Places;
use crate::error::{Error, Result};

/// A token that a file adds.
#[derive(Debug)]
pub(crate) struct Added {
    pub token: AddedToken,
    /// The id that the file states, and the file.
    stated: Option<(u32, PathBuf)>,
}

impl Added {
    /// Checks that the tokenizer, which has the token now, gave it the id that is stated.
    ///
    /// # Errors
    /// Names both ids.
    pub fn check(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (content, found) = (&self.token.content, tokenizer.token_to_id(&self.token.content));
        match &self.stated {
            Some((id, path)) if found != Some(*id) => {
                let found = found.map_or("none".to_owned(), |id| id.to_string());
                let problem = format!(
                    "the token `{content}` has the id {id} here, and {found} by tokenizer.json: take both files from one model"
                );
                Err(Error::Config { path: path.clone(), problem })
            }
            _ => Ok(()),
        }
    }
}

/// The tokens that are not in tokenizer.json yet, or otherwise.
///
/// # Errors
/// When a file does not hold what it should.
pub(crate) fn added(tokenizer: &Tokenizer, places: &Places<'_>) -> Result<Vec<Added>> {
    let own: HashMap<String, AddedToken> =
        tokenizer.get_added_tokens_decoder().into_values().map(|token| (token.content.clone(), token)).collect();
    // A padding token that has no id yet is in no text, and an end without one is refused where it is looked for.
    let has_id = |name: &String| tokenizer.token_to_id(name).is_some();
    let (named, more) = places.special_tokens();
    let names: HashSet<&String> = named.iter().chain(&more).collect();
    let mut added = stated(places)?;
    for one in &mut added {
        one.token.special |= names.contains(&one.token.content);
    }
    let mut known: HashSet<String> = added.iter().map(|one| one.token.content.clone()).collect();
    for name in named.iter().filter(|name| has_id(name)).chain(&more) {
        if known.insert(name.clone()) {
            let token = own.get(name).cloned().unwrap_or_else(|| AddedToken::from(name, true)).special(true);
            added.push(Added { token, stated: None });
        }
    }
    added.retain(|one| !one.token.content.is_empty() && own.get(&one.token.content) != Some(&one.token));
    Ok(added)
}

/// The tokens with an id, by their ids.
fn stated(places: &Places<'_>) -> Result<Vec<Added>> {
    let (path, config) = places.config();
    let wrong = |path: &PathBuf, reason: String| Error::Config { path: path.clone(), problem: reason };
    let mut added = BTreeMap::new();
    if let Some(decoder) = config["added_tokens_decoder"].as_object() {
        for (id, token) in decoder {
            let problem = |reason: String| wrong(&path, format!("added_tokens_decoder, `{id}`: {reason}"));
            let id: u32 = id.parse().map_err(|_| problem("is not a token id".into()))?;
            let token = AddedToken::deserialize(token).map_err(|error| problem(error.to_string()))?;
            added.insert(id, (token, path.clone()));
        }
    } else {
        let (path, json) = places.json("added_tokens.json")?;
        for (content, id) in json.as_object().into_iter().flatten() {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| wrong(&path, format!("`{content}` has no token id")))?;
            added.insert(id, (AddedToken::from(content, false).normalized(false), path.clone()));
        }
    }
    Ok(added.into_iter().map(|(id, (token, path))| Added { token, stated: Some((id, path)) }).collect())
}
