//! The grid of a sweep: its cells, and which of them, of the models and of the tasks a run goes through.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result, bail};
use evaluation::TaskSpec;
use glob::{MatchOptions, Pattern};

use crate::config::{ModelSpec, Sweep};

/// A `*` stays within a model, a task or a count.
const WITHIN_PARTS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// One fine-tuned model of the grid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell<'a> {
    /// The aligned model.
    pub model: &'a ModelSpec,
    /// The task.
    pub task: &'a TaskSpec,
    /// Number of injected harmful samples.
    pub harmful_count: usize,
}

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.model.name, self.task.name, self.harmful_count)
    }
}

impl Cell<'_> {
    /// The cell's name in patterns: `model/task/count`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.model.name, self.task.name, self.harmful_count)
    }
}

impl Sweep {
    /// The seeds of the cells.
    #[must_use]
    pub fn cell_seeds(&self) -> Vec<u64> {
        if self.seeds.is_empty() { vec![self.seed] } else { self.seeds.clone() }
    }

    /// The seed of the aligned models of the cells with a seed.
    #[must_use]
    pub fn model_seed(&self, seed: u64) -> u64 {
        if self.redraw_models { seed } else { self.seed }
    }

    /// The seeds of the aligned models, each once.
    #[must_use]
    pub fn model_seeds(&self) -> Vec<u64> {
        if self.redraw_models { self.cell_seeds() } else { vec![self.seed] }
    }

    /// Every cell, model by model and task by task, counts in their order.
    #[must_use]
    pub fn cells(&self) -> Vec<Cell<'_>> {
        let mut cells = Vec::new();
        for model in &self.models {
            for task in &self.tasks {
                cells.extend(self.harmful_counts.iter().map(|&harmful_count| Cell { model, task, harmful_count }));
            }
        }
        cells
    }

    /// The cell with a number in [`cells`](Self::cells).
    ///
    /// # Panics
    /// When there is none: an error of the caller.
    #[must_use]
    pub fn cell(&self, index: usize) -> Cell<'_> {
        let (tasks, counts) = (self.tasks.len(), self.harmful_counts.len());
        let (model, task) = (&self.models[index / (tasks * counts)], &self.tasks[index / counts % tasks]);
        Cell { model, task, harmful_count: self.harmful_counts[index % counts] }
    }

    /// The numbers in [`cells`](Self::cells) of those whose paths fit one of some patterns; without a pattern those of the
    /// sweep's own `cells`, else all.
    ///
    /// # Errors
    /// When a pattern is malformed, or fits no cell.
    pub fn choose(&self, patterns: &[String]) -> Result<BTreeSet<usize>> {
        let paths: Vec<String> = self.cells().iter().map(Cell::path).collect();
        let own: Vec<String> = self.cells.iter().cloned().collect();
        let (patterns, key) = if patterns.is_empty() { (&own[..], "cells:") } else { (patterns, "--cells") };
        let mut chosen = BTreeSet::new();
        for text in patterns {
            let pattern = Pattern::new(text).with_context(|| format!("{key} {text:?} is not a pattern"))?;
            let fits = |&at: &usize| pattern.matches_with(&paths[at], WITHIN_PARTS);
            let fitting: Vec<usize> = (0..paths.len()).filter(fits).collect();
            if fitting.is_empty() {
                let some = paths[..paths.len().min(3)].join(", ");
                bail!("no cell fits {key} {text:?}; cells are model/task/count, as {some}");
            }
            chosen.extend(fitting);
        }
        if patterns.is_empty() { Ok((0..paths.len()).collect()) } else { Ok(chosen) }
    }

    /// The models of some cells, with their places in `models`.
    #[must_use]
    pub fn models_of(&self, chosen: &BTreeSet<usize>) -> Vec<(usize, &ModelSpec)> {
        let of_model = self.tasks.len() * self.harmful_counts.len();
        let used = |i: usize| chosen.range(i * of_model..(i + 1) * of_model).next().is_some();
        self.models.iter().enumerate().filter(|(i, _)| used(*i)).collect()
    }

    /// The tasks of some cells, with their places in `tasks`.
    #[must_use]
    pub fn tasks_of(&self, chosen: &BTreeSet<usize>) -> Vec<(usize, &TaskSpec)> {
        let used: BTreeSet<usize> =
            chosen.iter().map(|cell| cell / self.harmful_counts.len() % self.tasks.len()).collect();
        used.into_iter().map(|i| (i, &self.tasks[i])).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{SWEEP, parse};

    #[test]
    fn cells_are_models_by_tasks_by_counts_and_patterns_choose_among_them() {
        let sweep = parse(SWEEP).unwrap();
        let cells: Vec<String> = sweep.cells().iter().map(ToString::to_string).collect();
        assert_eq!(cells, ["small sql 0", "small sql 300", "tiny sql 0", "tiny sql 300"]);
        assert!(sweep.cells().iter().enumerate().all(|(index, cell)| sweep.cell(index) == *cell));
        let choose = |patterns: &[&str]| {
            sweep.choose(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).map(Vec::from_iter)
        };
        assert_eq!(choose(&[]).unwrap(), [0, 1, 2, 3]);
        assert_eq!(choose(&["*/sql/300"]).unwrap(), [1, 3]);
        assert_eq!(choose(&["tiny/*/0", "small/s?l/300"]).unwrap(), [1, 2]);
        for wrong in ["*", "large/*/*", "small/sql", "["] {
            assert!(choose(&[wrong]).unwrap_err().to_string().contains(wrong));
        }
        let own = parse(&format!("{SWEEP}cells: '*/*/0'\n")).unwrap();
        assert_eq!(Vec::from_iter(own.choose(&[]).unwrap()), [0, 2]);
        assert_eq!(own.models_of(&[2].into()).iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1]);
    }
}
