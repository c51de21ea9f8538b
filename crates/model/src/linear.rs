//! A linear layer in the checkpoint's layout, with an optional low-rank adapter beside it.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use crate::ops::{self, Gated, Sum};

/// `y = x W^T + b`, plus `scale * dropout(x) A^T B^T` when an adapter is attached.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`, as in Hugging Face checkpoints.
    pub weight: Param<Tensor<2>>,
    /// `[out]`, where the family has one.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter; none unless fine-tuning attached one.
    pub lora: Option<Lora>,
    /// Where the weight's gradients are added, instead of being handed out.
    #[module(skip)]
    pub(crate) sum: Option<Sum>,
}

/// A LoRA adapter (Hu et al. 2021), named as peft names its tensors.
#[derive(Module, Debug)]
pub struct Lora {
    /// `lora_A`: `[rank, in]`.
    pub a: Param<Tensor<2>>,
    /// `lora_B`: `[out, rank]`.
    pub b: Param<Tensor<2>>,
    /// alpha / rank.
    pub scale: f64,
    /// Probability with which an input of the adapter is dropped while gradients are on.
    pub dropout: f64,
    /// Decides which inputs are dropped; a trainer sets it for each step.
    pub seed: u64,
}

impl Linear {
    /// A layer with the given weight and no adapter.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self { weight: Param::from_tensor(weight), bias: bias.map(Param::from_tensor), lora: None, sum: None }
    }

    /// A layer of zeros, to be filled from a checkpoint.
    pub fn zeros(out_features: usize, in_features: usize, bias: bool, device: &Device) -> Self {
        let bias = bias.then(|| Tensor::zeros([out_features], device));
        Self::new(ops::zero_matrix([out_features, in_features], device), bias)
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[rows, in]`
    /// - output: `[rows, out]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        let Some(lora) = &self.lora else { return ops::summed_linear(x, weight, bias, self.sum.as_ref()) };
        let (a, b, mask) = (lora.a.val(), lora.b.val(), lora.mask(&x));
        ops::adapted_linear(x, weight, bias, ops::LowRank { a, b, scale: lora.scale, mask })
    }

    /// As [`forward`](Self::forward), of gated activations, which are not kept for the backward but made again there.
    pub fn forward_gated(&self, x: Gated) -> Tensor<2> {
        if self.lora.is_some() {
            return self.forward(x.values());
        }
        ops::gated_linear(x, self.weight.val(), self.bias.as_ref().map(Param::val), self.sum.as_ref())
    }

    /// `W + scale B A`, shape `[out, in]`: the dense weight with the adapter folded in.
    pub fn merged_weight(&self) -> Tensor<2> {
        let weight = ops::wide(self.weight.val());
        match &self.lora {
            None => weight,
            Some(lora) => weight + lora.b.val().matmul(lora.a.val()).mul_scalar(lora.scale),
        }
    }
}

impl Lora {
    /// Factors on the inputs `x` that drop some and scale the others up; none if nothing is
    /// dropped. They are a function of the seed alone, so that they are the same on every device and
    /// in a resumed run.
    fn mask(&self, x: &Tensor<2>) -> Option<Tensor<2>> {
        let device = x.device();
        if self.dropout == 0.0 || !device.is_autodiff() {
            return None;
        }
        let [rows, width] = x.dims();
        let below = (self.dropout * f64::from(u32::MAX)) as u32;
        let kept = (1.0 / (1.0 - self.dropout)) as f32;
        let weight = |index: u64| if hash(self.seed, index) < below { 0.0 } else { kept };
        let mask: Vec<f32> = (0..rows * width).into_par_iter().map(|index| weight(index as u64)).collect();
        Some(Tensor::from_data(TensorData::new(mask, [rows, width]), &device))
    }
}

/// 32 well-mixed bits for the `index`-th use of `seed`: the finaliser of SplitMix64.
fn hash(seed: u64, index: u64) -> u32 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z >> 32) as u32
}
