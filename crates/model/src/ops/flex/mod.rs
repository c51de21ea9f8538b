//! Fused operations for the CPU: one node in the autodiff graph each, with a hand-written backward.
//!
//! A plain composition spends most of its time in passes over memory (masks, copies of heads,
//! intermediate results kept for the backward). Each operation here reads its inputs once, keeps
//! only what its backward needs, and computes the gradients of tracked inputs alone. The weights of linear layers may be in
//! bf16; all arithmetic is in f32.

mod adapted;
mod attention;
mod elementwise;
mod fold;
mod halves;
mod kept;
mod linear;
mod matmul;
mod nll;
mod product;
mod rows;
mod shared;

pub use adapted::Adapted;
pub use attention::Attention;
pub use elementwise::{Gated, RmsNorm, Rotate};
use halves::wide;
pub use linear::{GatedLinear, Linear};
pub use nll::NegativeLogLikelihood;
pub use product::product;
pub use rows::{RowCache, attend_pack};
pub use shared::{Shared, Writable, change};

use std::fmt::Debug;
use std::marker::PhantomData;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, DispatchDevice, Flex};
use burn::tensor::{DType, Device, Tensor, TensorData};
use pulp::{Simd, WithSimd};

/// An operation with `N` float inputs, its own forward and its own backward.
pub trait Fused<const N: usize>: Clone + Debug + Send + 'static {
    /// What the backward needs.
    type Saved: Clone + Debug + Send + 'static;

    /// The output, and what the backward needs.
    fn forward(&self, inputs: [FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// The gradient of each input that is `wanted`.
    fn backward(&self, saved: Self::Saved, grad: FlexTensor, wanted: [bool; N]) -> [Option<FlexTensor>; N];
}

#[cfg(test)]
thread_local! {
    /// Whether this thread takes the operations of other devices.
    pub static IS_OTHER: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Whether fused operations serve this device and type: the CPU backend in f32.
pub fn serves(device: &Device, dtype: DType) -> bool {
    #[cfg(test)]
    if IS_OTHER.get() {
        return false;
    }
    let is_flex = matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_));
    is_flex && dtype == DType::F32
}

/// An input, whatever its rank.
pub enum Input {
    /// Without gradients.
    Plain(FlexTensor),
    /// On a device with gradients.
    Autodiff(<Autodiff<Flex> as burn::backend::BackendTypes>::FloatTensorPrimitive),
}

impl Input {
    /// Takes a tensor apart; `autodiff` says whether any input is on a device with gradients.
    pub fn new<const D: usize>(tensor: Tensor<D>, autodiff: bool) -> Self {
        let convert = |error| -> Self { unreachable!("checked by `serves`: {error:?}") };
        if !autodiff {
            return tensor.try_into_primitive::<Flex>().map_or_else(convert, Self::Plain);
        }
        let tensor = if tensor.device().is_autodiff() { tensor } else { Tensor::from_inner(tensor) };
        tensor.try_into_primitive::<Autodiff<Flex>>().map_or_else(convert, Self::Autodiff)
    }
}

/// The values of a tensor that needs no gradient.
pub fn constant<const D: usize>(tensor: &Tensor<D>) -> FlexTensor {
    match Input::new(tensor.clone().without_autodiff(), false) {
        Input::Plain(tensor) => contiguous(tensor),
        Input::Autodiff(_) => unreachable!("asked for without gradients"),
    }
}

/// Runs an operation, recorded for the backward where an input is tracked.
pub fn run<const N: usize, const D: usize, O: Fused<N>>(op: O, inputs: [Input; N]) -> Tensor<D> {
    let mut plain = Vec::with_capacity(N);
    let mut nodes = Vec::with_capacity(N);
    for input in inputs {
        match input {
            Input::Plain(tensor) => plain.push(tensor),
            Input::Autodiff(tensor) => {
                let (tensor, node) = tensor.into_parts();
                plain.push(tensor);
                nodes.push(node);
            }
        }
    }
    let Ok(plain) = <[FlexTensor; N]>::try_from(plain) else { unreachable!("N inputs make N tensors") };
    match <[_; N]>::try_from(nodes) {
        Err(_) => Tensor::from_primitive::<Flex>(op.forward(plain).0),
        Ok(nodes) => {
            let step = BackwardStep::<O>(PhantomData);
            let output = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
                OpsKind::Tracked(prep) => {
                    let (output, saved) = op.forward(plain);
                    prep.finish((op, saved), output)
                }
                OpsKind::UnTracked(prep) => prep.finish(op.forward(plain).0),
            };
            Tensor::from_primitive::<Autodiff<Flex>>(output)
        }
    }
}

#[derive(Debug)]
struct BackwardStep<O>(PhantomData<O>);

impl<const N: usize, O: Fused<N>> Backward<Flex, N> for BackwardStep<O> {
    type State = (O, O::Saved);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let (op, saved) = ops.state;
        let found = op.backward(saved, contiguous(grad), wanted);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// The same values, row-major without gaps.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() { tensor } else { tensor.to_contiguous() }
}

/// The values of a contiguous f32 tensor.
fn values(tensor: &FlexTensor) -> &[f32] {
    match tensor.as_slice() {
        Some(values) => values,
        None => unreachable!("inputs are made contiguous and are f32"),
    }
}

/// The dimensions of a tensor of known rank.
fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    let shape = tensor.layout().shape();
    std::array::from_fn(|axis| shape[axis])
}

/// A tensor of `values`, without a copy.
fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// So many zeros, in memory that is there already.
///
/// `vec![0.0; len]` asks the allocator for cleared pages; jemalloc gets new ones from the system, and reading and
/// then writing each costs two page faults and a flush of the other processors' tables: half of a decoding step.
fn zeros(len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    values.resize(len, 0.0);
    values
}

/// Runs `op` with the widest instructions that the processor has.
fn vectorized<O: WithSimd>(op: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = pulp::x86::V4::try_new() {
            return Simd::vectorize(simd, op);
        }
        if let Some(simd) = pulp::x86::V3::try_new() {
            return Simd::vectorize(simd, op);
        }
    }
    pulp::Arch::new().dispatch(op)
}

/// Runs `op`, if all of its code is inlined, with the widest instructions that the processor has.
fn widely<R>(op: impl FnOnce() -> R) -> R {
    struct Plain<O>(O);
    impl<R, O: FnOnce() -> R> WithSimd for Plain<O> {
        type Output = R;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> R {
            (self.0)()
        }
    }
    vectorized(Plain(op))
}

/// Rows per parallel piece of work of `width` values.
fn rows_per_task(width: usize) -> usize {
    (1usize << 14).div_ceil(width.max(1))
}
