#![no_main]
#[allow(dead_code)]
#[path = "../../crates/prompts/tests/hostile.rs"]
mod hostile;
fuzz::target!(hostile::tables());
