//! Errors, links and wear of a device: what is read every minute or so.

use std::ffi::{c_uint, c_ulonglong};
use std::time::{SystemTime, UNIX_EPOCH};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlEccCounterType_t, nvmlEnableState_t, nvmlMemoryErrorType_t, nvmlReturn_t,
    nvmlViolationTime_t,
};

use super::{keyed_readings, put, readings};
use crate::code::Code;
use crate::device::{Ecc, RemappedRows};
use crate::live::device_call;

/// Microseconds since 1970, the time that NVML puts beside its values.
pub(super) fn now_microseconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

readings! {
    nvmlDeviceGetCurrPcieLinkGeneration: c_uint = |_, device| {
        Some(device.health.pcie.as_ref()?.generation.0)
    };
    nvmlDeviceGetMaxPcieLinkGeneration: c_uint = |_, device| {
        Some(device.health.pcie.as_ref()?.generation.1)
    };
    nvmlDeviceGetCurrPcieLinkWidth: c_uint = |_, device| {
        Some(device.health.pcie.as_ref()?.width.0)
    };
    nvmlDeviceGetMaxPcieLinkWidth: c_uint = |_, device| {
        Some(device.health.pcie.as_ref()?.width.1)
    };
    nvmlDeviceGetPcieReplayCounter: c_uint = |_, device| Some(device.health.pcie.as_ref()?.replays);
}

keyed_readings! {
    nvmlDeviceGetPcieThroughput: c_uint = |device, counter| {
        let (sent, received) = device.health.pcie.as_ref()?.throughput_kilobytes;
        [sent, received].get(counter as usize).copied()
    };
    nvmlDeviceGetViolationStatus: nvmlViolationTime_t = |device, policy| {
        let nanoseconds = *device.health.violation_nanoseconds.get(&policy)?;
        Some(nvmlViolationTime_t { referenceTime: now_microseconds(), violationTime: nanoseconds })
    };
}

impl Ecc {
    /// One count, by the driver's numbers of the kind of error and of the time it is counted over.
    fn count(&self, kind: nvmlMemoryErrorType_t, over: nvmlEccCounterType_t) -> Option<u64> {
        match (kind, over) {
            (0, 0) => Some(self.corrected),
            (1, 0) => Some(self.uncorrected),
            (0, 1) => Some(self.corrected_ever),
            (1, 1) => Some(self.uncorrected_ever),
            _ => None,
        }
    }
}

/// The caller passes a place for the count, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    kind: nvmlMemoryErrorType_t,
    over: nvmlEccCounterType_t,
    out: *mut c_ulonglong,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetTotalEccErrors", device, |_, device| {
        let ecc = device.health.ecc.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        // SAFETY: the header asks for a place for one number.
        unsafe { put(out, ecc.count(kind, over).ok_or(Code::INVALID_ARGUMENT)?) }
    })
}

/// The caller passes places for both states, or nulls.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetEccMode(
    device: nvmlDevice_t,
    current: *mut nvmlEnableState_t,
    pending: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetEccMode", device, |_, device| {
        device.health.ecc.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        // SAFETY: the header asks for places for both states; 1 is on.
        unsafe {
            put(current, 1)?;
            put(pending, 1)
        }
    })
}

/// The caller passes places for all four numbers, or nulls.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    device: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetRemappedRows", device, |_, device| {
        let rows: &RemappedRows =
            device.health.remapped_rows.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        // SAFETY: the header asks for places for all four numbers.
        unsafe {
            put(correctable, rows.correctable)?;
            put(uncorrectable, rows.uncorrectable)?;
            put(pending, c_uint::from(rows.pending))?;
            put(failed, c_uint::from(rows.failed))
        }
    })
}
