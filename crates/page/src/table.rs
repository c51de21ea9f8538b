//! A table for people, and how it is written for a terminal, in Markdown and, by `parts.html.jinja`, in HTML.

use std::fmt::Write as _;

use serde::Serialize;

/// A column's head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// The name.
    pub name: String,
    /// Whether it holds numbers, which are aligned to the right.
    pub is_number: bool,
}

impl Column {
    /// A column of words.
    #[must_use]
    pub fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_number: false }
    }

    /// A column of numbers.
    #[must_use]
    pub fn number(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_number: true }
    }
}

/// A table; the first column says what a row is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// The heads of the columns.
    pub columns: Vec<Column>,
    /// The rows, each with a cell for every column.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    #[must_use]
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: Vec::new() }
    }

    /// The table with these rows.
    #[must_use]
    pub fn with_rows<const N: usize>(mut self, rows: impl IntoIterator<Item = [String; N]>) -> Self {
        rows.into_iter().for_each(|row| self.push(row));
        self
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When it has not a cell for every column.
    pub fn push(&mut self, row: impl Into<Vec<String>>) {
        let row = row.into();
        assert_eq!(row.len(), self.columns.len(), "a row has a cell for every column");
        self.rows.push(row);
    }

    /// The table without the columns that are empty in every row.
    #[must_use]
    pub fn without_empty_columns(&self) -> Self {
        let is_used = |&at: &usize| self.rows.iter().any(|row| !row[at].is_empty());
        let used: Vec<usize> = (0..self.columns.len()).filter(is_used).collect();
        Self {
            columns: used.iter().map(|&at| self.columns[at].clone()).collect(),
            rows: self.rows.iter().map(|row| used.iter().map(|&at| row[at].clone()).collect()).collect(),
        }
    }

    /// For a terminal.
    #[must_use]
    pub fn plain(&self) -> String {
        let head: Vec<String> = self.columns.iter().map(|column| column.name.clone()).collect();
        let rows: Vec<&[String]> = std::iter::once(&head).chain(&self.rows).map(Vec::as_slice).collect();
        columns(&rows).lines().map(|line| format!("  {line}\n")).collect()
    }

    /// For Markdown: a cell is one line, and its bars are escaped.
    #[must_use]
    pub fn markdown(&self) -> String {
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let cell = |text: &String| text.replace('|', "\\|").replace(['\n', '\r'], " ");
        let rules = self.columns.iter().map(|column| if column.is_number { "--:" } else { "---" });
        let mut text = line(self.columns.iter().map(|column| cell(&column.name)).collect());
        let _ = writeln!(text, "|{}|", rules.collect::<Vec<_>>().join("|"));
        self.rows.iter().for_each(|row| text += &line(row.iter().map(cell).collect()));
        text
    }
}

/// Rows of cells in columns as wide as they need, for a terminal.
#[must_use]
pub fn columns(rows: &[impl AsRef<[String]>]) -> String {
    let length = |cell: &String| cell.chars().count();
    let width = |at: usize| rows.iter().filter_map(|row| row.as_ref().get(at)).map(length).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0)).map(width).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(|row| line(row.as_ref())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns = [Column::text("name"), Column::text("variant"), Column::number("n")];
        Table::new(columns).with_rows([["a|b", "", "1"].map(str::to_owned), ["c\nd", "", "20"].map(str::to_owned)])
    }

    #[test]
    fn markdown_keeps_a_row_on_its_line_and_a_cell_in_its_column() {
        let lines = "| name | variant | n |\n|---|---|--:|\n| a\\|b |  | 1 |\n| c d |  | 20 |\n";
        assert_eq!(table().markdown(), lines);
    }

    #[test]
    fn plain_columns_are_as_wide_as_their_cells() {
        let table = table().without_empty_columns();
        assert_eq!(table.columns.len(), 2);
        assert_eq!(table.plain().lines().next(), Some("  name  n"));
        assert_eq!(table.plain().lines().nth(1), Some("  a|b   1"));
    }
}
