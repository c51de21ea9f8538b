//! How results are shown: tables as text, Markdown or HTML, charts as SVG, and the self-contained page that holds them.
//!
//! A page needs no network and no other file; its templates escape whatever they are given. This crate knows nothing of what
//! the figures mean.

pub mod chart;
mod shell;
mod table;

pub use chart::Svg;
pub use shell::{Error, Result, render};
pub use table::{Column, Table, columns};
