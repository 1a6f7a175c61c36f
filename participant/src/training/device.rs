//! The devices that gradients are computed on. Nothing takes the place of one that cannot be used: an update that was
//! computed elsewhere than its environment says would be a false record.

use candle_core::Device;
pub use fedledger_proto::kit::ComputeDevice;

/// Why a device cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// This program knows nothing of the device.
    #[error(
        "this program was built without CUDA: use one that was built with `--features cuda`, or set device = \"cpu\" in \
         node.toml"
    )]
    NotBuilt,
    /// There is no such device, it is busy, or its driver does not work.
    #[error("the CUDA device cannot be used: free it or repair its driver, or set device = \"cpu\" in node.toml")]
    Unavailable(#[source] candle_core::Error),
}

/// Whether this program can train on a device if the machine has it.
///
/// # Errors
///
/// [`DeviceError::NotBuilt`] if it was built without what the device needs.
pub fn check_device(device: ComputeDevice) -> Result<(), DeviceError> {
    match device {
        ComputeDevice::Cuda if !cfg!(feature = "cuda") => Err(DeviceError::NotBuilt),
        ComputeDevice::Cpu | ComputeDevice::Cuda => Ok(()),
    }
}

/// The device beside the processor on which the numeric library computes; none for the processor, which our kernels use.
pub(super) fn accelerator(device: ComputeDevice) -> Result<Option<Device>, DeviceError> {
    check_device(device)?;
    match device {
        ComputeDevice::Cpu => Ok(None),
        ComputeDevice::Cuda => Device::new_cuda(0).map(Some).map_err(DeviceError::Unavailable),
    }
}
