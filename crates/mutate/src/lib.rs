//! For tests alone: hostile inputs made of sound ones, the same at every run, and what a reader must do with them.
//!
//! A reader may refuse an input or take it; it may not panic, take long, or take much memory.

mod change;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use change::change;

/// How long a reader may take for one input.
const LONGEST: Duration = Duration::from_secs(5);
/// Bytes of memory that the test's process may have had at its largest.
const MEMORY: u64 = 2 << 30;

/// Reads as many inputs as asked for: the sound ones, those of the corpus, and changed ones made of both; `read` gives back
/// what it refused one for. Prints a line with the counts.
///
/// # Panics
/// When a sound input is refused, the reader panics or takes too long, or the process took too much memory: the input is
/// kept in a file that the message names.
pub fn survive(format: &str, sound: &[Vec<u8>], inputs: usize, mut read: impl FnMut(&[u8]) -> Result<(), String>) {
    for input in sound {
        if let Err(refused) = read(input) {
            panic!("{format}: a sound input is refused: {refused}");
        }
    }
    let corpus = corpus(format);
    let all = [sound, &corpus].concat();
    let mut random = ChaCha8Rng::seed_from_u64(20);
    let (mut accepted, mut slowest, started) = (0, Duration::ZERO, Instant::now());
    for number in 0..inputs {
        let input = corpus.get(number).cloned().unwrap_or_else(|| {
            // Sound ones half of the time: what was refused once is often refused again for the same.
            let from = if random.random_bool(0.5) { sound } else { &all };
            let mut input = from[random.random_range(0..from.len())].clone();
            for _ in 0..random.random_range(1..=4) {
                change(&mut input, &all[random.random_range(0..all.len())], &mut random);
            }
            input
        });
        let mut timed = || {
            let begun = Instant::now();
            (catch_unwind(AssertUnwindSafe(|| read(&input))), begun.elapsed())
        };
        let (mut outcome, mut took) = timed();
        if outcome.is_ok() && took > LONGEST {
            (outcome, took) = timed(); // the machine may have been busy
        }
        slowest = slowest.max(took);
        let fault = match outcome {
            Err(_) => Some("panicked"),
            Ok(_) if took > LONGEST => Some("took too long"),
            Ok(outcome) => {
                accepted += usize::from(outcome.is_ok());
                None
            }
        };
        if let Some(fault) = fault {
            panic!("{format}: the reader {fault} on input {number}, kept in {}", kept(format, &input).display());
        }
    }
    let memory = largest_memory();
    println!(
        "{format}: {inputs} inputs, {} of them kept, {accepted} accepted, slowest {} ms, all {:.1} s, memory {} MB",
        corpus.len(),
        slowest.as_millis(),
        started.elapsed().as_secs_f64(),
        memory >> 20
    );
    assert!(memory < MEMORY, "{format}: the process took {memory} bytes at its largest");
}

/// What reads inputs of a format, for tests and for fuzzing (`fuzz/`) alike.
pub struct Format {
    name: &'static str,
    sound: Vec<Vec<u8>>,
    read: Box<Reader>,
}

type Reader = dyn FnMut(&[u8]) -> Result<(), String>;

impl Format {
    /// A reader of bytes, with inputs that it must take.
    pub fn new(
        name: &'static str,
        sound: Vec<Vec<u8>>,
        read: impl FnMut(&[u8]) -> Result<(), String> + 'static,
    ) -> Self {
        Self { name, sound, read: Box::new(read) }
    }

    /// A reader of a file in a directory, which it may keep: each input is written there first.
    pub fn of_file(
        name: &'static str,
        sound: Vec<Vec<u8>>,
        path: PathBuf,
        mut read: impl FnMut(&Path) -> Result<(), String> + 'static,
    ) -> Self {
        Self::new(name, sound, move |input| {
            std::fs::write(&path, input).map_err(|error| error.to_string())?;
            read(&path)
        })
    }

    /// See [`survive`].
    ///
    /// # Panics
    /// As [`survive`].
    pub fn survive(self, inputs: usize) {
        survive(self.name, &self.sound, inputs, self.read);
    }

    /// Inputs that failed once or lead where the sound ones do not.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        corpus(self.name)
    }

    /// Inputs that are taken.
    #[must_use]
    pub fn sound(&self) -> &[Vec<u8>] {
        &self.sound
    }

    /// Reads an input once.
    ///
    /// # Errors
    /// What it was refused for.
    pub fn read(&mut self, input: &[u8]) -> Result<(), String> {
        (self.read)(input)
    }
}

/// The directory of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A directory in memory, where there is one: thousands of small files are slow on a disk.
///
/// # Panics
/// When none can be made.
#[must_use]
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory for the inputs")
}

/// The inputs that are kept for a format: `corpus/FORMAT`, in the order of their names.
fn corpus(format: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(file_name(format));
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.iter().filter_map(|path| std::fs::read(path).ok()).collect()
}

fn file_name(format: &str) -> String {
    format.replace([' ', '/'], "-")
}

/// Writes an input that a reader failed on.
fn kept(format: &str, input: &[u8]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("hostile-{}", file_name(format)));
    let _ = std::fs::write(&path, input); // the panic's message matters more
    path
}

/// The most memory that this process has had, where the system tells it.
fn largest_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_panics_is_found_and_one_that_refuses_is_not() {
        let number = |input: &[u8]| {
            let text = std::str::from_utf8(input).map_err(|error| error.to_string())?;
            text.trim().parse::<u64>().map_err(|error| error.to_string())
        };
        let sound = [b"17".to_vec(), b" 4 ".to_vec()];
        survive("numbers", &sound, 2000, |input| number(input).map(drop));
        let careless = |input: &[u8]| {
            assert!(number(input)? < 1 << 40);
            Ok(())
        };
        assert!(catch_unwind(|| survive("careless", &sound, 2000, careless)).is_err());
        assert!(catch_unwind(|| survive("refused", &[b"x".to_vec()], 1, |input| number(input).map(drop))).is_err());
    }

    #[test]
    fn inputs_are_the_same_at_every_run() {
        let all = || {
            let mut all = Vec::new();
            survive("any", &[br#"{"a": [1, "b"]}"#.to_vec()], 200, |input| {
                all.push(input.to_vec());
                Ok(())
            });
            all
        };
        let (first, second) = (all(), all());
        assert_eq!(first, second);
        let mut different = first;
        different.sort();
        different.dedup();
        assert!(different.len() > 150, "{}", different.len());
    }
}
