//! Who runs on a device.
//!
//! It promises the header's ways with room: too little of it gives "insufficient size" and the number of processes, and
//! a call with room for none only asks for that number. After such a call the list may grow, see `Device::growths`.

use std::collections::BTreeSet;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::Mutex;

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlProcessInfo_t, nvmlProcessUtilizationSample_t, nvmlReturn_t,
};

use super::health::now_microseconds;
use crate::code::Code;
use crate::device::{Device, Process, ProcessKind};
use crate::live::{device_call, lock};

/// Numbers of the growths that happened in this process.
static GROWN: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// The processes that a device shows now.
fn listed(device: &Device) -> Vec<&Process> {
    let grown = lock(&GROWN);
    let appeared = device.growths.iter().filter(|growth| grown.contains(&growth.number));
    device.processes.iter().chain(appeared.flat_map(|growth| &growth.processes)).collect()
}

/// Lets the next processes appear.
fn grow(device: &Device) {
    let mut grown = lock(&GROWN);
    if let Some(next) = device.growths.iter().find(|growth| !grown.contains(&growth.number)) {
        grown.insert(next.number);
    }
}

/// Answers a call for a list of processes.
///
/// # Safety
/// `count` is null or can be read and written to; `out` has room for as many processes as it says.
unsafe fn list(
    symbol: &str,
    device: nvmlDevice_t,
    kind: ProcessKind,
    count: *mut c_uint,
    out: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    device_call(symbol, device, |_, device| {
        // SAFETY: as the caller of this function says.
        let count = unsafe { count.as_mut() }.ok_or(Code::INVALID_ARGUMENT)?;
        let room = *count;
        if room > 0 && out.is_null() {
            return Err(Code::INVALID_ARGUMENT);
        }
        let processes: Vec<&Process> =
            listed(device).into_iter().filter(|process| process.kind == kind).collect();
        *count = c_uint::try_from(processes.len()).unwrap_or(c_uint::MAX);
        if room == 0 {
            grow(device);
        }
        if *count > room {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        for (place, process) in processes.into_iter().enumerate() {
            // SAFETY: there is room for `room` processes, and there are no more.
            unsafe { out.add(place).write(described(process)) };
        }
        Ok(())
    })
}

fn described(process: &Process) -> nvmlProcessInfo_t {
    nvmlProcessInfo_t {
        pid: process.pid,
        // All bits set is how the driver says that it cannot tell.
        usedGpuMemory: process.memory_used_bytes.unwrap_or(u64::MAX),
        gpuInstanceId: process.instances.0,
        computeInstanceId: process.instances.1,
    }
}

/// Defines the functions that list processes of a kind. The caller of each passes a count, and room for as many.
macro_rules! lists {
    ($($symbol:ident: $kind:ident;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(
            device: nvmlDevice_t,
            count: *mut c_uint,
            out: *mut nvmlProcessInfo_t,
        ) -> nvmlReturn_t {
            // SAFETY: the header asks for a count, and room for as many.
            unsafe { list(stringify!($symbol), device, ProcessKind::$kind, count, out) }
        }
    )*};
}

lists! {
    nvmlDeviceGetComputeRunningProcesses_v3: Compute;
    nvmlDeviceGetComputeRunningProcesses_v2: Compute;
    nvmlDeviceGetGraphicsRunningProcesses_v3: Graphics;
    nvmlDeviceGetGraphicsRunningProcesses_v2: Graphics;
    nvmlDeviceGetMPSComputeRunningProcesses_v3: Mps;
    nvmlDeviceGetMPSComputeRunningProcesses_v2: Mps;
}

/// Which processes were busy since a time. Nobody: "not found", as the driver says it.
///
/// The caller passes a count, and room for as many.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetProcessUtilization(
    device: nvmlDevice_t,
    out: *mut nvmlProcessUtilizationSample_t,
    count: *mut c_uint,
    _since_microseconds: c_ulonglong,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetProcessUtilization", device, |_, device| {
        // SAFETY: the header asks for a count.
        let count = unsafe { count.as_mut() }.ok_or(Code::INVALID_ARGUMENT)?;
        let busy: Vec<_> = device.processes.iter().filter_map(sample).collect();
        let room = std::mem::replace(count, c_uint::try_from(busy.len()).unwrap_or(c_uint::MAX));
        if busy.is_empty() {
            return Err(Code::NOT_FOUND);
        }
        if out.is_null() || *count > room {
            return Err(Code::INSUFFICIENT_SIZE);
        }
        for (place, sample) in busy.into_iter().enumerate() {
            // SAFETY: there is room for `room` samples, and there are no more.
            unsafe { out.add(place).write(sample) };
        }
        Ok(())
    })
}

fn sample(process: &Process) -> Option<nvmlProcessUtilizationSample_t> {
    Some(nvmlProcessUtilizationSample_t {
        pid: process.pid,
        timeStamp: now_microseconds(),
        smUtil: process.utilization_percent?,
        memUtil: 0,
        encUtil: 0,
        decUtil: 0,
    })
}
