//! The codes that NVML answers with, by name.
//!
//! It promises the numbers of the driver's own header. What they mean to a reader of devices is the reader's matter.

use nvml_wrapper_sys::bindings as raw;
/// A return code of NVML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u32);

impl Code {
    /// Done.
    pub const SUCCESS: Code = Code(raw::nvmlReturn_enum_NVML_SUCCESS);
    /// `nvmlInit` was not called, or `nvmlShutdown` was.
    pub const UNINITIALIZED: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_UNINITIALIZED);
    /// An argument is null, or names nothing.
    pub const INVALID_ARGUMENT: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
    /// The device cannot do this.
    pub const NOT_SUPPORTED: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
    /// The caller may not do this.
    pub const NO_PERMISSION: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_NO_PERMISSION);
    /// Nothing of that name is there.
    pub const NOT_FOUND: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_NOT_FOUND);
    /// The caller's buffer is too small.
    pub const INSUFFICIENT_SIZE: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
    /// The kernel's driver is not there.
    pub const DRIVER_NOT_LOADED: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED);
    /// The time to wait is over.
    pub const TIMEOUT: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_TIMEOUT);
    /// The device fell off the bus.
    pub const GPU_IS_LOST: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST);
    /// The device answers again only after a reset.
    pub const RESET_REQUIRED: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED);
    /// The library and the kernel's driver are of different versions.
    pub const VERSION_MISMATCH: Code =
        Code(raw::nvmlReturn_enum_NVML_ERROR_LIB_RM_VERSION_MISMATCH);
    /// The version of a structure is not known to the driver.
    pub const ARGUMENT_VERSION_MISMATCH: Code =
        Code(raw::nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    /// Anything else.
    pub const UNKNOWN: Code = Code(raw::nvmlReturn_enum_NVML_ERROR_UNKNOWN);
}
