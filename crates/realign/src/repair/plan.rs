//! What a repair will do, of what, and what it takes: known before anything is computed.

use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration};
use recovery::Reference;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::needs::{Machine, Needs};

/// What a repair will do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The prompts by kind.
    pub kinds: Vec<Kind>,
    /// The judges' names.
    pub judges: Vec<String>,
    /// Rounds at most.
    pub rounds: usize,
    /// Share of the blocks' weights that may be restored.
    pub cap: f64,
    /// The same where less leaves too much harm.
    #[serde(default)]
    pub max_cap: f64,
    /// Whose answers to harmless prompts are kept.
    pub reference: Reference,
    /// Precision of the result.
    pub dtype: String,
    /// What it takes.
    pub needs: Needs,
    /// What the machine has.
    pub machine: Machine,
}

/// Prompts of a kind and how they are divided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kind {
    /// The kind, as in tables.
    pub name: String,
    /// The file, or which packaged set.
    pub source: String,
    /// Hash of its content.
    pub hash: String,
    /// Prompts for the gradients.
    pub recover: usize,
    /// Prompts for the choice.
    pub choose: usize,
    /// Prompts that are measured.
    pub test: usize,
}

impl Plan {
    /// Refuses what cannot fit.
    ///
    /// # Errors
    /// As [`Needs::check`].
    pub fn check(&self) -> Result<()> {
        self.needs.check(&self.machine)
    }

    /// Lines for people.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { needs, machine, .. } = self;
        let mut text = format!(
            "to do: ask the fine-tuned and the aligned model the test prompts; restore up to {:.1} % of the weights in at most \
             {} rounds (where that leaves too much harm, twice as many in as many more, up to {:.1} %); ask the recovered model \
             the same\n",
            100.0 * self.cap,
            self.rounds,
            100.0 * self.max_cap
        );
        text += &format!("  {:<14} {:>8} {:>7} {:>5}  from\n", "prompts", "recover", "choose", "test");
        for Kind { name, source, recover, choose, test, .. } in &self.kinds {
            text += &format!("  {name:<14} {recover:>8} {choose:>7} {test:>5}  {source}\n");
        }
        let of = |bytes: Option<u64>| bytes.map_or(String::new(), |bytes| format!(" of {}", BinaryBytes(bytes)));
        text += &format!("judges: {}\n", self.judges.join(", "));
        text += &format!(
            "takes about {}, {} of memory{}, {} of disk{}, for {:.1} M parameters in {}",
            HumanDuration(Duration::from_secs_f64(needs.seconds)),
            BinaryBytes(needs.memory()),
            of(machine.memory),
            BinaryBytes(needs.disk),
            of(machine.free_disk),
            needs.parameters as f64 / 1e6,
            self.dtype
        );
        if machine.free_memory.is_some_and(|free| free < needs.memory()) {
            text += &format!("\nonly {} of memory are free now", BinaryBytes(machine.free_memory.unwrap_or(0)));
        }
        text
    }
}
