//! Where tensors are computed.

use burn::tensor::Device;
use clap::ValueEnum;

use crate::Result;
use crate::error::invalid;

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
            other => invalid(format!("this build has no {0} device; build it with `--features {0}`", other.name())),
        }
    }
}
