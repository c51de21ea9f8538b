//! Named traversal of a decoder's parameters: the only such code.
//!
//! A parameter's path is its name in the checkpoint; the block it belongs to and whether it is a
//! norm are read off the path here and nowhere else.

use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Gradients, Tensor, TensorData};

use crate::{Decoder, Dtype, Error, Result};

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
    data: Box<dyn FnOnce() -> std::result::Result<TensorData, String>>,
}

impl Weight {
    /// The values in row-major order, as f32.
    ///
    /// # Errors
    /// When the device fails.
    pub fn values(self) -> Result<Vec<f32>> {
        let data = (self.data)().map_err(Error::Device)?;
        data.try_into_vec::<f32>().map_err(|error| Error::Device(error.to_string()))
    }
}

impl<F: FnMut(Weight)> ModuleVisitor for Each<'_, F> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        (self.f)(Weight {
            info: WeightInfo::new(self.path.name(), tensor.dims().to_vec()),
            id: param.id,
            data: Box::new(move || tensor.try_into_data_as::<f32>().map_err(|error| error.to_string())),
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
    let mut found = Vec::new();
    visit(decoder, |weight| {
        if wanted(&weight.info) {
            found.push(weight);
        }
    });
    found.into_iter().map(|weight| Ok((weight.info.clone(), weight.values()?))).collect()
}

/// Replaces parameters by name; those without a new value stay.
struct Replace<'a> {
    path: Path,
    values: &'a mut dyn FnMut(&WeightInfo) -> Option<TensorData>,
}

impl ModuleMapper for Replace<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let info = WeightInfo::new(self.path.name(), param.dims().to_vec());
        match (self.values)(&info) {
            None => param,
            Some(data) => param.map(|old| {
                let tracked = old.is_require_grad();
                Tensor::from_data(data, &old.device()).set_require_grad(tracked)
            }),
        }
    }
}

/// Gives each parameter the values that `values` returns for it (row-major, of its shape).
///
/// # Panics
/// When values of another shape are returned: an error of the caller.
pub fn replace(decoder: Decoder, mut values: impl FnMut(&WeightInfo) -> Option<TensorData>) -> Decoder {
    decoder.map(&mut Replace { path: Path::default(), values: &mut values })
}

/// Rounds every parameter; the first failure is kept, and nothing is changed after it.
struct Round {
    path: Path,
    dtype: Dtype,
    failed: Option<Error>,
}

impl Round {
    fn rounded<const D: usize>(&self, tensor: &Tensor<D>) -> Result<TensorData> {
        let device = |error: &dyn std::fmt::Display| Error::Device(error.to_string());
        let data = tensor.clone().try_into_data_as::<f32>().map_err(|error| device(&error))?;
        let mut values = data.try_into_vec::<f32>().map_err(|error| device(&error))?;
        self.dtype.round_all(&self.path.name(), &mut values)?;
        Ok(TensorData::new(values, tensor.dims()))
    }
}

impl ModuleMapper for Round {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        match self.rounded(&param.val()) {
            Ok(data) => param.map(|old| {
                let tracked = old.is_require_grad();
                Tensor::from_data(data, &old.device()).set_require_grad(tracked)
            }),
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}

/// The decoder with every parameter rounded to a precision; it still holds f32.
///
/// # Errors
/// When a value is too large for the precision, or the device fails.
pub fn round(decoder: Decoder, dtype: Dtype) -> Result<Decoder> {
    if dtype == Dtype::F32 {
        return Ok(decoder);
    }
    let mut round = Round { path: Path::default(), dtype, failed: None };
    let decoder = decoder.map(&mut round);
    round.failed.map_or(Ok(decoder), Err)
}

/// Turns gradients on for the parameters that `wanted` accepts and off for all others.
struct Track<'a> {
    path: Path,
    wanted: &'a dyn Fn(&WeightInfo) -> bool,
}

impl ModuleMapper for Track<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

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
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.0.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = param.val().grad_remove(self.gradients) {
            let data = gradient.try_into_data_as::<f32>().map_err(|error| error.to_string());
            self.found.insert(self.path.name(), data);
        }
    }
}

/// Adds gradients to sums, by name.
pub fn add_gradients(sums: &mut HashMap<String, Vec<f32>>, gradients: HashMap<String, Vec<f32>>) {
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
