#![no_main]
#[allow(dead_code)]
#[path = "../../crates/model/tests/hostile.rs"]
mod hostile;
fuzz::target!(hostile::configurations_of_adapters());
