#![no_main]
#[allow(dead_code)]
#[path = "../../experiments/tests/hostile.rs"]
mod hostile;
fuzz::target!(hostile::sweeps());
