//! What an NVML error means for a device and for the driver, as one table.
//!
//! | NVML says | it means |
//! |---|---|
//! | not supported, no such symbol or function, another version of a structure | the figure is off for this generation |
//! | no permission, blocked by the system | configuration: the figure is absent, the device is well |
//! | lost, reset required, power or interrupt missing, gone | the device is unavailable |
//! | uninitialized, driver not loaded, version mismatch | NVML must be opened anew |
//! | anything else | unclear: once is nothing, [`crate::UNCLEAR_MAX`] times in a row is unavailable |

use std::path::PathBuf;

use nvml_wrapper::error::NvmlError;

/// What to make of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The device or the library does not have this.
    Off,
    /// Somebody may, but not this process.
    NotPermitted,
    /// The device cannot be used.
    Unavailable,
    /// Nothing can be read before NVML was opened anew.
    Rebuild,
    /// It may be over at the next try.
    Unclear,
}

/// NVML's newer codes, which the wrapper has no names for.
mod code {
    pub(super) const FREQUENCY_NOT_SUPPORTED: u32 = 24;
    pub(super) const VERSION_MISMATCH_OF_ARGUMENT: u32 = 25;
    pub(super) const DEPRECATED: u32 = 26;
    pub(super) const GPU_NOT_FOUND: u32 = 28;
    pub(super) const RESET_TYPE_NOT_SUPPORTED: u32 = 30;
}

pub(crate) fn classify(error: &NvmlError) -> Class {
    use NvmlError as E;
    match error {
        E::NotSupported
        | E::FailedToLoadSymbol(_)
        | E::FunctionNotFound
        | E::UnexpectedVariant(
            code::FREQUENCY_NOT_SUPPORTED
            | code::VERSION_MISMATCH_OF_ARGUMENT
            | code::DEPRECATED
            | code::RESET_TYPE_NOT_SUPPORTED,
        ) => Class::Off,
        E::NoPermission | E::OperatingSystem => Class::NotPermitted,
        E::GpuLost
        | E::ResetRequired
        | E::InsufficientPower
        | E::IrqIssue
        | E::NotFound
        | E::UnexpectedVariant(code::GPU_NOT_FOUND) => Class::Unavailable,
        E::Uninitialized
        | E::DriverNotLoaded
        | E::LibRmVersionMismatch
        | E::LibraryNotFound
        | E::LibloadingError(_) => Class::Rebuild,
        _ => Class::Unclear,
    }
}

/// Why NVML cannot be used, told apart by what the operator does next.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// There is no such library.
    #[error("cannot load {}: install the NVIDIA driver, or name its libnvidia-ml.so in the configuration", path.display())]
    NoLibrary {
        /// Which library.
        path: PathBuf,
        /// The loader's error.
        source: NvmlError,
    },
    /// The library is there and the driver is not.
    #[error(
        "the NVIDIA driver is not loaded: load its kernel module (modprobe nvidia), and look at the kernel's log"
    )]
    NotLoaded {
        /// NVML's error.
        source: NvmlError,
    },
    /// Library and kernel module are of different versions: the driver was changed under running programs.
    #[error(
        "the NVIDIA driver was changed while it ran: restart this host, or unload the old kernel module; the devices are well"
    )]
    NeedsRestart {
        /// NVML's error.
        source: NvmlError,
    },
    /// The device files are closed to this user.
    #[error(
        "no permission to use the NVIDIA driver: give this user access to /dev/nvidiactl and /dev/nvidia*"
    )]
    NotPermitted {
        /// NVML's error.
        source: NvmlError,
    },
    /// Something else.
    #[error("the NVIDIA driver failed while {attempted}; it is tried again")]
    Failed {
        /// What was attempted.
        attempted: &'static str,
        /// NVML's error.
        source: NvmlError,
    },
    /// NVML was let go on purpose.
    #[error("the NVIDIA driver was let go for maintenance: resume it to measure devices again")]
    Quiesced,
}

impl DriverError {
    pub(crate) fn of(attempted: &'static str, source: NvmlError) -> Self {
        match source {
            NvmlError::DriverNotLoaded => Self::NotLoaded { source },
            NvmlError::LibRmVersionMismatch => Self::NeedsRestart { source },
            NvmlError::NoPermission => Self::NotPermitted { source },
            source => Self::Failed { attempted, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u32, expected: Class) {
        assert_eq!(classify(&NvmlError::from(code)), expected, "code {code}");
    }

    #[test]
    fn every_code_of_nvml_has_a_meaning() {
        use Class::{NotPermitted, Off, Rebuild, Unavailable, Unclear};
        let table = [
            (1, Rebuild),       // uninitialized
            (2, Unclear),       // invalid argument
            (3, Off),           // not supported
            (4, NotPermitted),  // no permission
            (6, Unavailable),   // not found
            (7, Unclear),       // insufficient size
            (8, Unavailable),   // power cable missing
            (9, Rebuild),       // driver not loaded
            (10, Unclear),      // timeout
            (11, Unavailable),  // interrupt issue
            (12, Rebuild),      // library not found
            (13, Off),          // function not found
            (14, Unclear),      // corrupted inforom
            (15, Unavailable),  // lost
            (16, Unavailable),  // reset required
            (17, NotPermitted), // blocked by the operating system
            (18, Rebuild),      // version mismatch
            (19, Unclear),      // in use
            (20, Unclear),      // memory
            (21, Unclear),      // no data
            (23, Unclear),      // insufficient resources
            (24, Off),          // frequency not supported
            (25, Off),          // version of an argument
            (26, Off),          // deprecated
            (27, Unclear),      // not ready
            (28, Unavailable),  // gpu not found
            (29, Unclear),      // invalid state
            (999, Unclear),     // unknown
            (4_711, Unclear),   // one that comes next year
        ];
        for (code, expected) in table {
            check(code, expected);
        }
    }

    #[test]
    fn a_missing_symbol_turns_a_figure_off() {
        assert_eq!(classify(&NvmlError::FailedToLoadSymbol("nvmlX".into())), Class::Off);
    }

    #[test]
    fn what_keeps_nvml_from_working_is_told_apart() {
        let of = |code: u32| DriverError::of("initializing", NvmlError::from(code));
        assert!(matches!(of(9), DriverError::NotLoaded { .. }));
        assert!(matches!(of(18), DriverError::NeedsRestart { .. }));
        assert!(matches!(of(4), DriverError::NotPermitted { .. }));
        assert!(matches!(of(999), DriverError::Failed { .. }));
    }
}
