//! What a repair takes of a machine, from the shapes of a model, and what the machine has. All of it is rough.

use std::fs;
use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use indicatif::BinaryBytes;
use model::{DecoderConfig, Dtype};
use recovery::Strong;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The number of a model's parameters but for norms outside its blocks.
#[must_use]
pub fn parameters(config: &DecoderConfig) -> u64 {
    let tied = if config.tie_word_embeddings { 1 } else { 2 };
    (config.hidden_parameters() + tied * config.vocab_size * config.hidden_size) as u64
}

/// Bytes of memory of strong recovery, which needs the most: those of weights and gradients, and those of the answers of two
/// teachers to prompts of so many positions. There are two decoders and a third one's blocks, in bf16 where the models are, else in
/// f32; in f32 what a flip of each of the blocks' weights costs, and their gradients of two rounds; the teachers' hidden states; and
/// five distributions over the vocabulary at each of the answers' positions of two packs, with a head in bf16 widened in
/// each. What is said of the blocks is so of the `outside` parameters that are restored outside them, which are widened, and of
/// which each of two packs has a gradient of its own beside the one that is being added.
/// Measured on SmolLM2-135M in f32: 3.3 to 3.4 GB; for its embedding and norms 0.6 to 0.7 GiB more, where this counts 0.7.
#[must_use]
pub fn memory(config: &DecoderConfig, positions: usize, dtype: Dtype, outside: usize) -> (u64, u64) {
    let kept_weight = if dtype == Dtype::Bf16 { 2 } else { 4 };
    let all = parameters(config);
    let changing = (config.hidden_parameters() + outside) as u64;
    let copies = if dtype == Dtype::Bf16 { 4 } else { 3 };
    let of_outside = 4 * copies * outside as u64;
    let kept = 2.0 * positions as f64 * config.hidden_size as f64;
    let of_pack = config.answers_at_once().min(config.positions_at_once() / 2);
    let at_once = 10.0 * of_pack as f64 * config.vocab_size as f64;
    let heads = if dtype == Dtype::Bf16 { 2.0 * config.vocab_size as f64 * config.hidden_size as f64 } else { 0.0 };
    (kept_weight * (2 * all + changing) + 4 * 3 * changing + of_outside, (4.0 * (kept + at_once + heads)) as u64)
}

/// What a whole repair reads, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Work {
    /// Prompts of the choosing part.
    pub choose: usize,
    /// Prompts of a round's gradient.
    pub gradient: usize,
    /// Prompts that the models answer for the method.
    pub own: usize,
    /// Prompts that the three models answer to be measured.
    pub test: usize,
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Tokens of an answer that the method learns from.
    pub own_tokens: usize,
    /// Tokens of a measured answer.
    pub test_tokens: usize,
    /// Rounds at most.
    pub rounds: usize,
}

/// The precisions of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// In the result's files.
    pub saved: Dtype,
    /// In memory.
    pub kept: Dtype,
}

/// What a whole repair takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Needs {
    /// Parameters of the model.
    pub parameters: u64,
    /// Bytes of memory for weights and gradients.
    pub weights: u64,
    /// Bytes of memory for next-token distributions and activations.
    pub answers: u64,
    /// Bytes of disk for model and patch.
    pub disk: u64,
    /// Seconds.
    pub seconds: f64,
}

/// What a machine has, where it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Bytes of memory that a process may have: the machine's, or fewer by the limit of its control group.
    pub memory: Option<u64>,
    /// Bytes of memory that are free now.
    pub free_memory: Option<u64>,
    /// Bytes of disk that are free where the result goes.
    pub free_disk: Option<u64>,
}

/// How much of the speed of a large product small and batched work reaches.
const EFFICIENCY: f64 = 0.3;

/// Trials of a round, on average.
const TRIALS: f64 = 3.0;

impl Needs {
    /// Those of strong recovery of two models that differ in tensors of so many parameters outside their blocks.
    #[must_use]
    pub fn strong(
        config: &DecoderConfig,
        outside: usize,
        work: Work,
        precision: Precision,
        method: &Strong,
        speed: f64,
    ) -> Self {
        let (all, hidden) = (parameters(config), config.hidden_parameters() as u64);
        let positions = work.choose.saturating_add(work.gradient).saturating_mul(work.own_tokens);
        let (weights, answers) = memory(config, positions, precision.kept, outside);
        let bytes_per_weight = if precision.saved == Dtype::F32 { 4 } else { 2 };
        let restored = (hidden as f64 * method.cap) as u64;
        let row = work.prompt_tokens as f64 + work.own_tokens as f64;
        let measured = 3.0 * work.test as f64 * (work.prompt_tokens as f64 + work.test_tokens as f64);
        let round = row * (6.0 * 4.0 * work.gradient as f64 + 2.0 * TRIALS * 3.0 * work.choose as f64);
        let tokens = 2.0 * (measured + row * work.own as f64) + round * work.rounds as f64;
        Self {
            parameters: all,
            weights,
            answers,
            disk: bytes_per_weight * all + (5 + 2 * bytes_per_weight) * restored,
            seconds: 5.0 + tokens * all as f64 / (speed * EFFICIENCY),
        }
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.weights.saturating_add(self.answers)
    }

    /// Refuses what cannot fit.
    ///
    /// # Errors
    /// Says how much is needed, how much there is, and what would help.
    pub fn check(&self, machine: &Machine) -> Result<()> {
        let too_large = |what: &'static str, needed: u64, there: u64, help: String| {
            let [needed, there] = [needed, there].map(|bytes| BinaryBytes(bytes).to_string());
            Err(Error::TooLarge { what, needed, there, help })
        };
        match (machine.memory, machine.free_disk) {
            (Some(there), _) if self.memory() > there => {
                let help = if self.answers > self.weights {
                    "lower own_tokens (--own-tokens) and parts.choose (--choose-prompts)".to_owned()
                } else {
                    let of = format!("copies of the weights take {}", BinaryBytes(self.weights));
                    format!("{of}: take a machine with more, a smaller model, or `realign recover`, which holds fewer")
                };
                too_large("memory", self.memory(), there, help)
            }
            (_, Some(there)) if self.disk > there => {
                let help = "name an --out on another disk, or a smaller precision with --dtype".to_owned();
                too_large("disk", self.disk, there, help)
            }
            _ => Ok(()),
        }
    }
}

impl Machine {
    /// This machine, with the disk that `place` is or will be on.
    #[must_use]
    pub fn here(place: &Path) -> Self {
        let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let (total, free) = (meminfo(&info, "MemTotal"), meminfo(&info, "MemAvailable"));
        let memory = total.into_iter().chain(group_limit(&groups, Path::new("/sys/fs/cgroup"))).min();
        Self {
            memory,
            free_memory: free.map(|free| memory.map_or(free, |most| free.min(most))),
            free_disk: disk(place),
        }
    }
}

/// A line of `/proc/meminfo` in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest memory limit of the control groups that `/proc/self/cgroup` names, versions 1 and 2, and of those above
/// them.
fn group_limit(groups: &str, root: &Path) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (home, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            names if names.split(',').any(|name| name == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        let own = home.join(path.trim_start_matches('/'));
        let up = own.ancestors().take_while(|dir| dir.starts_with(&home));
        up.filter_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()).collect()
    });
    limits.min()
}

/// Free bytes of the disk that the nearest directory of `place` is on.
fn disk(place: &Path) -> Option<u64> {
    let place = files::followed(place);
    let dir = place.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("."));
    let found = rustix::fs::statvfs(dir).ok()?;
    found.f_bavail.checked_mul(found.f_frsize)
}

/// Refuses to write more than the disk of a place has room for.
pub(crate) fn check_disk(place: &Path, needed: u64, help: &str) -> Result<()> {
    let Some(there) = disk(place).filter(|&there| there < needed) else { return Ok(()) };
    let [needed, there] = [needed, there].map(|bytes| BinaryBytes(bytes).to_string());
    Err(Error::TooLarge { what: "disk", needed, there, help: help.to_owned() })
}

/// Operations a second of a product of matrices on a device.
#[must_use]
pub fn speed(device: &Device) -> f64 {
    const SIZE: usize = 512;
    let one = Tensor::<2>::ones([SIZE, SIZE], device);
    let product = || {
        let started = Instant::now();
        drop(one.clone().matmul(one.clone()).into_data());
        started.elapsed().as_secs_f64()
    };
    let fastest = (0..4).map(|_| product()).fold(f64::INFINITY, f64::min);
    2.0 * (SIZE as f64).powi(3) / fastest.max(1e-6)
}

/// The largest memory that this process had so far, where the system says it.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    meminfo(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_with_what_would_help() {
        let needs = Needs { parameters: 10, weights: 4 << 30, answers: 2 << 30, disk: 1 << 30, seconds: 1.0 };
        let machine = |memory: u64, free_disk: u64| Machine {
            memory: Some(memory << 30),
            free_memory: None,
            free_disk: Some(free_disk << 30),
        };
        let message = |memory, disk| needs.check(&machine(memory, disk)).unwrap_err().to_string();
        assert!(needs.check(&machine(6, 1)).is_ok());
        assert!(needs.check(&Machine::default()).is_ok(), "what is not known refuses nothing");
        let few = message(5, 1);
        assert!(
            few.contains("6.00 GiB of memory") && few.contains("5.00 GiB") && few.contains("realign recover"),
            "{few}"
        );
        assert!(message(9, 0).contains("of disk") && message(9, 0).contains("--out"));
    }

    #[test]
    fn the_smallest_limit_of_the_groups_counts() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| files::write_whole(&dir.path().join(name), text.as_bytes()).unwrap();
        write("a/b/memory.max", "max\n");
        write("a/memory.max", "4096\n");
        write("memory/c/memory.limit_in_bytes", "8192\n");
        assert_eq!(group_limit("0::/a/b\n", dir.path()), Some(4096));
        assert_eq!(group_limit("5:cpu,memory:/c\n3:pids:/x\n", dir.path()), Some(8192));
        assert_eq!(group_limit("0::/none\n", dir.path()), None);
        assert_eq!(meminfo("MemTotal:       24 kB\nMemFree: 3 kB\n", "MemTotal"), Some(24 << 10));
    }

    #[test]
    fn this_machine_has_memory_and_disk() {
        let here = Machine::here(Path::new("not/there/yet"));
        if cfg!(target_os = "linux") {
            assert!(here.memory.unwrap() >= here.free_memory.unwrap() && here.free_disk.is_some());
            assert!(peak_memory().unwrap() > 0);
        }
    }
}
