//! The checkpoint of a running recovery: one safetensors file, written beside and renamed, from
//! which an interrupted recovery goes on as if it had not been interrupted.

use std::collections::HashMap;
use std::path::Path;

use direction::Objective;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Patch, RecoverySettings, Region, Result, TraceStep};

/// Where a recovery stands; what a checkpoint holds besides tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The next step.
    pub step: usize,
    /// Whether this is the second start, with rollback in every step.
    pub rollback: bool,
    /// Score of the fine-tuned model.
    pub base_score: Option<f64>,
    /// Score after the warm-up of the first start.
    pub warmup_score: Option<f64>,
    /// The step after which the last checkpoint at or above the floor was taken.
    pub kept_step: Option<usize>,
    /// The steps so far.
    pub steps: Vec<TraceStep>,
}

/// A whole checkpoint.
#[derive(Debug)]
pub(crate) struct State {
    pub progress: Progress,
    /// The weights restored now.
    pub current: Patch,
    /// The weights restored in the last checkpoint at or above the floor.
    pub kept: Patch,
    /// Accumulated gradients by tensor.
    pub gradients: HashMap<String, Vec<f32>>,
}

/// What a checkpoint is of: a run goes on from one of the same origin alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub settings: RecoverySettings,
    /// Hash of what is recovered and with which prompts.
    pub inputs: String,
    /// What decides rollback and the answer.
    pub decided_by: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    origin: Origin,
    progress: Progress,
}

/// Hash of the region's aligned and fine-tuned values and of the objectives (prompts and directions).
pub(crate) fn fingerprint(region: &Region, objectives: &[&Objective]) -> String {
    let mut hash = Sha256::new();
    let values = region.aligned.iter().chain(&region.fine_tuned);
    for values in values.chain(objectives.iter().map(|objective| &objective.direction)) {
        hash.update((values.len() as u64).to_le_bytes());
        values.chunks(1 << 12).for_each(|chunk| {
            hash.update(chunk.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
        });
    }
    for row in objectives.iter().flat_map(|objective| &objective.rows) {
        hash.update((row.len() as u64).to_le_bytes());
        hash.update(row.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<u8>>());
    }
    format!("{:x}", hash.finalize())
}

const HEADER: &str = "realign";

impl State {
    /// Writes the checkpoint.
    pub fn save(&self, path: &Path, origin: &Origin) -> Result<()> {
        let fail = |reason: String| Error::State { path: path.to_path_buf(), reason };
        let header = Header { origin: origin.clone(), progress: self.progress.clone() };
        let header = serde_json::to_string(&header).map_err(|error| fail(error.to_string()))?;
        let mut tensors = Vec::new();
        for (kind, patch) in [("current", &self.current), ("kept", &self.kept)] {
            for (name, indices) in patch.tensors() {
                let indices = Bytes::new(Dtype::U32, indices.iter().map(|index| index.to_le_bytes()));
                tensors.push((format!("{kind}/{name}"), indices));
            }
        }
        for (name, gradient) in &self.gradients {
            let gradient = Bytes::new(Dtype::F32, gradient.iter().map(|value| value.to_le_bytes()));
            tensors.push((format!("gradient/{name}"), gradient));
        }
        let part = path.with_extension("part");
        let metadata = HashMap::from([(HEADER.to_owned(), header)]);
        safetensors::serialize_to_file(tensors, Some(metadata), &part).map_err(|error| fail(error.to_string()))?;
        std::fs::rename(&part, path).map_err(|error| fail(error.to_string()))
    }

    /// Reads the checkpoint, if there is one; it must be of the same origin.
    pub fn load(path: &Path, origin: &Origin) -> Result<Option<Self>> {
        let fail = |reason: String| {
            let reason = format!("{reason}; delete the file to start again");
            Error::State { path: path.to_path_buf(), reason }
        };
        if !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| fail(error.to_string()))?;
        let header = metadata.metadata().as_ref().and_then(|map| map.get(HEADER));
        let header = header.ok_or_else(|| fail("not the checkpoint of a recovery".into()))?;
        let header: Header = serde_json::from_str(header)
            .map_err(|error| fail(format!("a checkpoint of another version of this program ({error})")))?;
        let Header { origin: found, progress } = header;
        if found.settings != origin.settings {
            return Err(fail("the checkpoint is of other settings".into()));
        }
        if found.inputs != origin.inputs {
            return Err(fail("the checkpoint is of other models or prompts".into()));
        }
        if found.decided_by != origin.decided_by {
            let (then, now) = (&found.decided_by, &origin.decided_by);
            return Err(fail(format!("the checkpoint was decided by {then}, and this run is by {now}")));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| fail(error.to_string()))?;
        let mut state = Self { progress, current: Patch::default(), kept: Patch::default(), gradients: HashMap::new() };
        let (mut current, mut kept) = (Vec::new(), Vec::new());
        for (name, view) in tensors.iter() {
            match name.split_once('/') {
                Some(("current", name)) => {
                    current.push((name.to_owned(), words(&view).map(u32::from_le_bytes).collect()))
                }
                Some(("kept", name)) => kept.push((name.to_owned(), words(&view).map(u32::from_le_bytes).collect())),
                Some(("gradient", name)) => {
                    state.gradients.insert(name.to_owned(), words(&view).map(f32::from_le_bytes).collect());
                }
                _ => return Err(fail(format!("unknown tensor `{name}`"))),
            }
        }
        state.current = Patch::new(current);
        state.kept = Patch::new(kept);
        Ok(Some(state))
    }
}

fn words<'a>(view: &'a TensorView<'_>) -> impl Iterator<Item = [u8; 4]> + 'a {
    view.data().chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]])
}

/// Four-byte values to be written.
struct Bytes {
    dtype: Dtype,
    shape: [usize; 1],
    bytes: Vec<u8>,
}

impl Bytes {
    fn new(dtype: Dtype, words: impl Iterator<Item = [u8; 4]>) -> Self {
        let bytes: Vec<u8> = words.flatten().collect();
        Self { dtype, shape: [bytes.len() / 4], bytes }
    }
}

impl safetensors::View for Bytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        (&self.bytes).into()
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
