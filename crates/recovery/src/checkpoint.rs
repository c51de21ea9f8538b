//! The checkpoint of a running method, from which an interrupted one goes on as if it had not been interrupted: a
//! safetensors file with a checksum behind it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use model::weights::WeightInfo;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::path::Flips;
use crate::tensors::{Numbers, floats, indices, steps};
use crate::{Error, Path, Result};

/// How far a method is; what its checkpoint holds besides tensors.
pub(crate) trait Progress: Clone + Serialize + DeserializeOwned {
    /// Number of steps of the path.
    fn steps(&self) -> usize;
}

/// What a recovery goes on from.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct State<P> {
    pub progress: P,
    /// The steps so far, back to the start or the second start.
    pub path: Path,
    /// Accumulated gradients by tensor.
    pub gradients: HashMap<String, Vec<f32>>,
}

/// What a checkpoint is of: a run goes on from one of the same origin alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Origin<S> {
    pub settings: S,
    /// Hash of what is recovered and with which prompts.
    pub inputs: String,
    /// What decides rollback and the answer.
    pub decided_by: String,
}

#[derive(Serialize, Deserialize)]
struct Header<S, P> {
    origin: Origin<S>,
    progress: P,
}

const HEADER: &str = "realign";

/// A checkpoint's file, and what it is of.
#[derive(Debug)]
pub(crate) struct Checkpoint<S> {
    pub path: PathBuf,
    pub origin: Origin<S>,
}

impl<S: Clone + PartialEq + Serialize + DeserializeOwned> Checkpoint<S> {
    /// Writes the checkpoint. The gradients are only read, since they are as large as the region.
    pub fn save<P: Progress>(&self, progress: &P, path: &Path, gradients: &HashMap<String, Vec<f32>>) -> Result<()> {
        Ok(files::write_sealed(&self.path, &self.content(progress, path, gradients)?)?)
    }

    /// What is in the file before the checksum.
    pub fn content<P: Progress>(
        &self,
        progress: &P,
        path: &Path,
        gradients: &HashMap<String, Vec<f32>>,
    ) -> Result<Vec<u8>> {
        let header = Header { origin: self.origin.clone(), progress: progress.clone() };
        let header = serde_json::to_string(&header).map_err(|error| self.error(error))?;
        let mut tensors = Vec::new();
        let flips = path.flips()?;
        for (name, flips) in &flips {
            tensors.push((format!("flips/{name}"), Numbers::from(flips.indices.as_slice())));
            tensors.push((format!("steps/{name}"), flips.steps.as_slice().into()));
        }
        tensors.extend(gradients.iter().map(|(name, values)| (format!("gradient/{name}"), values.as_slice().into())));
        let metadata = HashMap::from([(HEADER.to_owned(), header)]);
        safetensors::serialize(tensors, Some(metadata)).map_err(|error| self.error(error))
    }

    /// Reads the checkpoint, if there is a whole one; it must be of the same origin and of these tensors.
    pub fn load<P: Progress>(&self, infos: &[WeightInfo]) -> Result<Option<State<P>>> {
        match files::read_sealed(&self.path) {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => self.read(&bytes, infos).map(Some),
            Err(files::Error::Damaged { reason, .. }) => {
                tracing::warn!("{}: {reason}; this recovery starts from the beginning", self.path.display());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what is in the file before the checksum.
    pub fn read<P: Progress>(&self, bytes: &[u8], infos: &[WeightInfo]) -> Result<State<P>> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| self.error(error))?;
        let header = metadata.metadata().as_ref().and_then(|map| map.get(HEADER));
        let header = header.ok_or_else(|| self.error("not the checkpoint of a recovery"))?;
        let Header::<S, P> { origin, progress } = serde_json::from_str(header)
            .map_err(|error| self.error(format!("a checkpoint of another version of this program ({error})")))?;
        self.check_origin(&origin)?;
        let (mut flips, mut gradients): (BTreeMap<String, Flips>, _) = (BTreeMap::new(), HashMap::new());
        for (name, view) in SafeTensors::deserialize(bytes).map_err(|error| self.error(error))?.tensors() {
            let wrong = || self.error(format!("tensor `{name}` has no place in the checkpoint of this recovery"));
            let (kind, own) = name.split_once('/').ok_or_else(wrong)?;
            let info = infos.iter().find(|info| info.name == own).ok_or_else(wrong)?;
            match kind {
                "flips" => flips.entry(own.to_owned()).or_default().indices = indices(&view).ok_or_else(wrong)?,
                "steps" => flips.entry(own.to_owned()).or_default().steps = steps(&view).ok_or_else(wrong)?,
                "gradient" => {
                    let values = floats(&view).filter(|values| values.len() == info.len()).ok_or_else(wrong)?;
                    gradients.insert(own.to_owned(), values);
                }
                _ => return Err(wrong()),
            }
        }
        let path = Path::of_flips(progress.steps(), progress.steps(), &flips);
        let path = path.and_then(|path| path.check(infos).map(|()| path)).map_err(|error| self.error(error))?;
        Ok(State { progress, path, gradients })
    }

    fn check_origin(&self, found: &Origin<S>) -> Result<()> {
        if found.settings != self.origin.settings {
            return Err(self.error("the checkpoint is of other settings"));
        }
        if found.decided_by != self.origin.decided_by {
            let (then, now) = (&found.decided_by, &self.origin.decided_by);
            return Err(self.error(format!("the checkpoint was decided by {then}, and this run is by {now}")));
        }
        if found.inputs != self.origin.inputs {
            return Err(self.error("the checkpoint is of other models or prompts"));
        }
        Ok(())
    }

    fn error(&self, reason: impl std::fmt::Display) -> Error {
        Error::Checkpoint { path: self.path.clone(), reason: reason.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::Progress as Steps;
    use crate::{Patch, Recover};

    fn infos() -> Vec<WeightInfo> {
        let info =
            |name: &str, length| WeightInfo { name: name.into(), shape: vec![length], layer: Some(0), is_norm: false };
        vec![info("a", 8), info("b", 4)]
    }

    fn checkpoint(dir: &tempfile::TempDir) -> Checkpoint<Recover> {
        let origin = Origin { settings: Recover::default(), inputs: "inputs".into(), decided_by: "nothing".into() };
        Checkpoint { path: dir.path().join("checkpoint"), origin }
    }

    /// A path of a tensor and its flips in each step.
    fn path(steps: &[(&str, &[u32])]) -> Path {
        let mut path = Path::default();
        steps.iter().for_each(|(name, flips)| path.push(Patch::new([((*name).to_owned(), flips.to_vec())])));
        path
    }

    fn state() -> State<Steps> {
        let gradients = HashMap::from([("a".to_owned(), vec![0.5; 8]), ("b".to_owned(), vec![-0.0; 4])]);
        let progress = Steps { step: 3, base_score: Some(0.1), ..Steps::default() };
        State { progress, path: path(&[("a", &[0, 7]), ("b", &[3]), ("a", &[7])]), gradients }
    }

    fn save(checkpoint: &Checkpoint<Recover>, state: &State<Steps>) {
        checkpoint.save(&state.progress, &state.path, &state.gradients).unwrap();
    }

    #[test]
    fn a_checkpoint_reads_back_and_one_of_other_tensors_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = checkpoint(&dir);
        assert_eq!(checkpoint.load::<Steps>(&infos()).unwrap(), None);
        save(&checkpoint, &state());
        assert_eq!(checkpoint.load(&infos()).unwrap(), Some(state()));
        let whole = std::fs::read(&checkpoint.path).unwrap();
        std::fs::write(&checkpoint.path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(
            checkpoint.load::<Steps>(&infos()).unwrap(),
            None,
            "after a damaged one it starts from the beginning"
        );
        let gradient = |name: &str, length| HashMap::from([(name.to_owned(), vec![0.5; length])]);
        let wrong = [
            (State { path: path(&[("a", &[0]), ("b", &[1]), ("a", &[8])]), ..state() }, "index 8"),
            (State { path: path(&[("a", &[0]), ("b", &[1, 1]), ("a", &[7])]), ..state() }, "do not ascend"),
            (State { path: path(&[("a", &[0]), ("c", &[1]), ("a", &[7])]), ..state() }, "s/c` has no place"),
            (State { progress: Steps { step: 2, ..state().progress }, ..state() }, "step 3, and there are 2"),
            (State { gradients: gradient("a", 7), ..state() }, "`gradient/a` has no place"),
            (State { gradients: gradient("c", 8), ..state() }, "`gradient/c` has no place"),
        ];
        for (state, reason) in wrong {
            save(&checkpoint, &state);
            let error = checkpoint.load::<Steps>(&infos()).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("delete the file to start again"), "{error}");
        }
    }

    #[test]
    fn content_that_is_wrong_under_a_right_checksum_is_mostly_refused() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = checkpoint(&dir);
        save(&checkpoint, &state());
        let whole = files::read_sealed(&checkpoint.path).unwrap().unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            refused += usize::from(checkpoint.read::<Steps>(&bytes, &infos()).is_err());
        }
        assert!(refused > whole.len() / 2, "{refused} of {}", whole.len());
    }
}
