//! Named traversal of a decoder's parameters: the only such code.
//!
//! A parameter's path is its name in the checkpoint; the block it belongs to and whether it is a
//! norm are read off the path here and nowhere else.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};

pub use crate::ops::Part;
use crate::ops::serves;
use crate::{Decoder, Error, Result};

/// What a visitor or mapper with a [`Path`] named `path` does when it enters and leaves a module.
macro_rules! keeps_path {
    () => {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.0.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.0.pop();
        }
    };
}

mod round;
mod share;
mod sums;
mod values;

pub use round::{check, round};
pub use share::share;
pub use sums::Sums;
pub use values::{Change, Values, set, views};

/// A parameter's name and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightInfo {
    /// The tensor's name in the checkpoint, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// The block, counted from 0; none for embedding, final norm and head.
    pub layer: Option<usize>,
    /// Whether it is the weight of a norm.
    pub is_norm: bool,
}

impl WeightInfo {
    /// The tensor of this name and shape.
    #[must_use]
    pub fn new(name: String, shape: Vec<usize>) -> Self {
        let layer =
            name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()).and_then(|n| n.parse().ok());
        let is_norm = name.split('.').any(|part| part.contains("norm"));
        Self { name, shape, layer, is_norm }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Keeps the path of the parameter being visited.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn name(&self) -> String {
        self.0.join(".")
    }
}

/// Calls `f` for each parameter in the checkpoint's order.
struct Each<'a, F> {
    path: Path,
    f: &'a mut F,
}

/// What a visitor sees of one parameter.
pub struct Weight {
    /// Name and place.
    pub info: WeightInfo,
    /// burn's id of the parameter.
    pub id: ParamId,
    view: Box<dyn FnOnce() -> Result<Values>>,
}

impl Weight {
    /// The values in row-major order, as f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn values(self) -> Result<Vec<f32>> {
        Ok(self.view()?.into_vec())
    }

    /// The values as they are kept, without a copy on the CPU.
    ///
    /// # Errors
    /// When the device fails.
    pub fn view(self) -> Result<Values> {
        (self.view)()
    }
}

impl<F: FnMut(Weight)> ModuleVisitor for Each<'_, F> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        (self.f)(Weight {
            info: WeightInfo::new(self.path.name(), tensor.dims().to_vec()),
            id: param.id,
            view: Box::new(move || Values::of(&tensor)),
        });
    }
}

/// Calls `f` for each parameter, adapters included.
pub fn visit(decoder: &Decoder, mut f: impl FnMut(Weight)) {
    decoder.visit(&mut Each { path: Path::default(), f: &mut f });
}

/// Name and place of each parameter.
pub fn infos(decoder: &Decoder) -> Vec<WeightInfo> {
    let mut infos = Vec::new();
    visit(decoder, |weight| infos.push(weight.info));
    infos
}

/// The values of the parameters that `wanted` accepts, in order.
///
/// # Errors
/// When the device fails.
pub fn read(decoder: &Decoder, wanted: impl Fn(&WeightInfo) -> bool) -> Result<Vec<(WeightInfo, Vec<f32>)>> {
    Ok(views(decoder, wanted)?.into_iter().map(|(info, values)| (info, values.into_vec())).collect())
}

/// Replaces parameters by name; those without a new value stay.
struct Replace<'a> {
    path: Path,
    values: &'a mut dyn FnMut(&WeightInfo) -> Option<TensorData>,
}

impl ModuleMapper for Replace<'_> {
    keeps_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = WeightInfo::new(self.path.name(), param.dims().to_vec());
        match (self.values)(&info) {
            None => param,
            Some(data) => param.map(|old| {
                let tracked = old.is_require_grad();
                let dtype = if data.dtype() == DType::BF16 { DType::BF16 } else { DType::F32 };
                Tensor::from_data(data, (&old.device(), dtype)).set_require_grad(tracked)
            }),
        }
    }
}

/// Whether a parameter that was saved in bf16 is kept so in memory: the model's own matrices on the CPU, which linear layers widen
/// as they read them. It changes no result.
pub(crate) fn keeps_halves(info: &WeightInfo, device: &Device) -> bool {
    info.shape.len() == 2 && !info.name.contains(".lora.") && serves(device, DType::F32)
}

/// Gives each parameter the values that `values` returns for it (row-major, of its shape), kept in f32 or bf16 as they come.
///
/// # Panics
/// When values of another shape are returned: an error of the caller.
pub fn replace(decoder: Decoder, mut values: impl FnMut(&WeightInfo) -> Option<TensorData>) -> Decoder {
    decoder.map(&mut Replace { path: Path::default(), values: &mut values })
}

/// Turns gradients on for the parameters that `wanted` accepts and off for all others.
struct Track<'a> {
    path: Path,
    wanted: &'a dyn Fn(&WeightInfo) -> bool,
}

impl ModuleMapper for Track<'_> {
    keeps_path!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = WeightInfo::new(self.path.name(), param.dims().to_vec());
        param.set_require_grad((self.wanted)(&info))
    }
}

/// The decoder on its device with gradients on, tracking the parameters that `wanted` accepts;
/// the others are frozen and cost no gradient work.
pub fn track(decoder: Decoder, wanted: impl Fn(&WeightInfo) -> bool) -> Decoder {
    decoder.map(&mut Track { path: Path::default(), wanted: &wanted }).train()
}

struct TakeGradients<'a> {
    path: Path,
    gradients: &'a mut Gradients,
    found: HashMap<String, std::result::Result<TensorData, String>>,
}

impl ModuleVisitor for TakeGradients<'_> {
    keeps_path!();

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            let data = gradient.try_into_data_as::<f32>().map_err(|error| error.to_string());
            self.found.insert(self.path.name(), data);
        }
    }
}

/// Adds gradients to sums, by name.
fn add_gradients(sums: &mut HashMap<String, Vec<f32>>, gradients: HashMap<String, Vec<f32>>) {
    for (name, gradient) in gradients {
        match sums.get_mut(&name) {
            None => drop(sums.insert(name, gradient)),
            Some(sum) => sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value),
        }
    }
}

/// The gradients of all tracked parameters, by name, row-major.
///
/// # Errors
/// When the device fails.
pub fn gradients(decoder: &Decoder, mut gradients: Gradients) -> Result<HashMap<String, Vec<f32>>> {
    let mut visitor = TakeGradients { path: Path::default(), gradients: &mut gradients, found: HashMap::new() };
    decoder.visit(&mut visitor);
    let vector = |data: TensorData| data.try_into_vec::<f32>().map_err(|error| Error::Device(error.to_string()));
    visitor.found.into_iter().map(|(name, data)| Ok((name, vector(data.map_err(Error::Device)?)?))).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};

    use super::*;
    use crate::DecoderConfig;

    /// Two blocks of random weights.
    pub(super) fn tiny() -> Decoder {
        let json = serde_json::json!({"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true});
        let device = Device::flex();
        device.seed(5);
        let decoder = Decoder::zeros(&DecoderConfig::from_json(&json, std::path::Path::new("tiny")).unwrap(), &device);
        replace(decoder, |info| {
            let values = Tensor::<1>::random([info.len()], Distribution::Normal(0.0, 0.3), &device).into_data();
            Some(TensorData::new(values.try_into_vec::<f32>().unwrap(), info.shape.clone()))
        })
    }
}
