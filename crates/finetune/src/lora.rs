//! LoRA adapters (Hu et al. 2021): attached, and merged into dense weights.
//!
//! Paper section IV-A: rank 8, alpha 16, dropout 0.05 on all seven projections. The forward pass is
//! [`model::Linear`]'s; reading and writing adapters in peft's format is not done here.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, TensorData};
use model::{Decoder, Linear, Lora};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::error::require;

/// Settings of the adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct LoraSettings {
    /// Rank of an adapter; 0 trains every weight instead. Paper: 8.
    #[arg(long, default_value_t = Self::default().rank)]
    pub rank: usize,
    /// An adapter's output is scaled by alpha / rank. Paper: 16.
    #[arg(long, default_value_t = Self::default().alpha)]
    pub alpha: f64,
    /// Probability with which an input of an adapter is dropped in training. Paper: 0.05.
    #[arg(long, default_value_t = Self::default().dropout)]
    pub dropout: f64,
    /// The projections that get an adapter, with commas between. Paper: all seven.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Target::ALL)]
    pub targets: Vec<Target>,
}

/// A projection of a decoder block, named as in peft's `target_modules`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[clap(rename_all = "snake_case")]
#[allow(missing_docs)] // the names say it
pub enum Target {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl Target {
    /// All seven, in the checkpoint's order.
    pub const ALL: [Self; 7] =
        [Self::QProj, Self::KProj, Self::VProj, Self::OProj, Self::GateProj, Self::UpProj, Self::DownProj];

    /// The name in a checkpoint.
    pub fn name(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self { rank: 8, alpha: 16.0, dropout: 0.05, targets: Target::ALL.to_vec() }
    }
}

/// The largest rank: beyond it an adapter is no smaller than the projections of the largest models.
const MOST_RANK: usize = 8192;

impl LoraSettings {
    /// Checks that every value makes sense.
    ///
    /// # Errors
    /// Names the first setting that does not.
    pub fn check(&self) -> Result<()> {
        require(self.rank <= MOST_RANK, "rank", self.rank, "must be at most 8192")?;
        require(self.alpha > 0.0 && self.alpha.is_finite(), "alpha", self.alpha, "must be above 0")?;
        require((0.0..1.0).contains(&self.dropout), "dropout", self.dropout, "must be at least 0 and below 1")?;
        require(!self.targets.is_empty(), "targets", "[]", "must name a projection, such as q_proj")
    }
}

/// Attaches an adapter without effect to each target: A is uniform in ±1/√in (peft's Kaiming start
/// with a = √5), B is zero. The same `seed` gives the same start on every device. Nothing is attached
/// at rank 0.
pub fn attach(mut decoder: Decoder, settings: &LoraSettings, seed: u64) -> Decoder {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let is_target =
        |path: &str| settings.rank > 0 && settings.targets.iter().any(|target| path.ends_with(target.name()));
    for (_, linear) in decoder.linears_mut().filter(|(path, _)| is_target(path)) {
        linear.lora = Some(adapter(linear, settings, &mut rng));
    }
    decoder
}

fn adapter(linear: &Linear, settings: &LoraSettings, rng: &mut ChaCha8Rng) -> Lora {
    let [out_features, in_features] = linear.weight.dims();
    let device = linear.weight.device();
    let bound = 1.0 / (in_features as f32).sqrt();
    let a: Vec<f32> = (0..settings.rank * in_features).map(|_| rng.random_range(-bound..bound)).collect();
    let a = Tensor::from_data(TensorData::new(a, [settings.rank, in_features]), &device);
    Lora {
        a: Param::from_tensor(a),
        b: Param::from_tensor(Tensor::zeros([out_features, settings.rank], &device)),
        scale: settings.alpha / settings.rank as f64,
        dropout: settings.dropout,
        seed: 0,
    }
}

/// The decoder with each adapter folded into its dense weight and removed, gradients off.
pub fn merge(decoder: Decoder) -> Decoder {
    let mut decoder = decoder.valid();
    for (_, linear) in decoder.linears_mut().filter(|(_, linear)| linear.lora.is_some()) {
        linear.weight = Param::from_tensor(linear.merged_weight());
        linear.lora = None;
    }
    decoder
}
