//! Where tensors are computed, and in which precision weights are kept. Arithmetic is in f32 whatever they are kept in.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use burn::tensor::Device;
use clap::ValueEnum;
use model::{Dtype, checkpoint};

/// A device, and the precision to which weights are rounded when a model is read and in which they are written.
#[derive(Debug, Clone, Copy)]
pub struct Compute<'a> {
    /// Where tensors are computed.
    pub device: &'a Device,
    /// The precision; none is the one that the model which is changed has on disk.
    pub dtype: Option<Dtype>,
}

impl<'a> From<&'a Device> for Compute<'a> {
    fn from(device: &'a Device) -> Self {
        Self { device, dtype: None }
    }
}

impl Compute<'_> {
    /// The precision of a stage that changes the model in the directory `dir`.
    ///
    /// # Errors
    /// When none is asked for and the model's files are missing or damaged.
    pub fn dtype_for(&self, dir: &Path) -> Result<Dtype> {
        match self.dtype {
            Some(dtype) => Ok(dtype),
            None => checkpoint::stored_dtype(dir).with_context(|| format!("weights of {}", dir.display())),
        }
    }
}

/// A device that tensors are computed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// The processor, with burn's flex backend.
    #[default]
    Flex,
    /// A graphics processor, through Vulkan (feature `vulkan`).
    Vulkan,
    /// An NVIDIA graphics processor (feature `cuda`).
    Cuda,
}

impl DeviceName {
    /// The name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Vulkan => "vulkan",
            Self::Cuda => "cuda",
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// When this build does not have it.
    pub fn open(self) -> Result<Device> {
        match self {
            Self::Flex => Ok(Device::flex()),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Ok(Device::vulkan(burn::tensor::DeviceKind::DefaultDevice)),
            #[cfg(feature = "cuda")]
            Self::Cuda => Ok(Device::cuda(0usize)),
            #[allow(unreachable_patterns)]
            other => bail!("this build has no {0} device; build it with `--features {0}`", other.name()),
        }
    }
}
