#![no_main]
#[allow(dead_code)]
#[path = "../../crates/recovery/tests/methods/hostile.rs"]
mod hostile;
fuzz::target!(hostile::patches());
