//! What all targets share: the readers are those of the `hostile.rs` of the crates.

pub use libfuzzer_sys;
pub use mutate::Format;

/// Writes the sound inputs and those of the corpus into the directory that `SOUND` names, where the fuzzer begins.
pub fn write_sound(format: &Format) {
    let Some(dir) = std::env::var_os("SOUND") else { return };
    for (kind, inputs) in [("sound", format.sound()), ("kept", &format.corpus())] {
        for (number, input) in inputs.iter().enumerate() {
            let path = std::path::Path::new(&dir).join(format!("{kind}-{number}"));
            std::fs::write(&path, input).expect("the inputs are written");
        }
    }
}

/// A target that reads inputs of a format: what it panics on, or takes too long or too much memory for, is a fault.
#[macro_export]
macro_rules! target {
    ($format:expr) => {
        thread_local!(static FORMAT: std::cell::RefCell<$crate::Format> = std::cell::RefCell::new($format));
        $crate::libfuzzer_sys::fuzz_target!(
            init: FORMAT.with_borrow(|format| $crate::write_sound(format)),
            |input: &[u8]| FORMAT.with_borrow_mut(|format| drop(format.read(input)))
        );
    };
}
