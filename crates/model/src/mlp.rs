//! The gated feed-forward layer.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::Linear;
use crate::config::{Activation, DecoderConfig};
use crate::ops::Gated;

/// `down(act(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[intermediate, hidden]`.
    pub gate_proj: Linear,
    /// `[intermediate, hidden]`.
    pub up_proj: Linear,
    /// `[hidden, intermediate]`.
    pub down_proj: Linear,
    #[module(skip)]
    activation: Activation,
}

impl Mlp {
    /// Weights of zero, to be filled from a checkpoint.
    pub fn zeros(config: &DecoderConfig, device: &Device) -> Self {
        let (d, f) = (config.hidden_size, config.intermediate_size);
        Self {
            gate_proj: Linear::zeros(f, d, false, device),
            up_proj: Linear::zeros(f, d, false, device),
            down_proj: Linear::zeros(d, f, false, device),
            activation: config.hidden_act,
        }
    }

    /// What `down_proj` is to be applied to.
    ///
    /// # Shapes
    /// - input: `[rows, hidden]`
    /// - output: `[rows, intermediate]`
    pub fn gated(&self, x: Tensor<2>) -> Gated {
        let gate = self.gate_proj.forward(x.clone());
        Gated { gate, up: self.up_proj.forward(x), activation: self.activation }
    }
}
