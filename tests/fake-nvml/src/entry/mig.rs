//! MIG: devices that are instances of others.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use super::{put, readings};
use crate::code::Code;
use crate::device::Device;
use crate::live::{self, device_call};
use crate::state::State;

/// The most instances that any device has.
const INSTANCES_MAX: c_uint = 7;

fn instances<'a>(state: &'a State, parent: &str) -> impl Iterator<Item = &'a Device> {
    state.devices.iter().filter(move |it| it.mig.as_ref().is_some_and(|mig| mig.parent == parent))
}

/// The index of an instance within its device.
pub(super) fn index_of(state: &State, device: &Device) -> Option<c_uint> {
    let parent = &device.mig.as_ref()?.parent;
    let index = instances(state, parent).position(|other| other.handle == device.handle)?;
    c_uint::try_from(index).ok()
}

readings! {
    nvmlDeviceIsMigDeviceHandle: c_uint = |_, device| Some(c_uint::from(device.mig.is_some()));
    nvmlDeviceGetMaxMigDeviceCount: c_uint = |_, device| {
        Some(if device.mig_mode.is_some() { INSTANCES_MAX } else { 0 })
    };
    nvmlDeviceGetGpuInstanceId: c_uint = |_, device| Some(device.mig.as_ref()?.instances.0);
    nvmlDeviceGetComputeInstanceId: c_uint = |_, device| Some(device.mig.as_ref()?.instances.1);
    nvmlDeviceGetDeviceHandleFromMigDeviceHandle: nvmlDevice_t = |state, device| {
        state.device(&device.mig.as_ref()?.parent).map(live::handle)
    };
}

/// The caller passes places for both modes, or nulls.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetMigMode", device, |_, device| {
        let mode = device.mig_mode.ok_or(Code::NOT_SUPPORTED)?;
        // SAFETY: the header asks for places for both numbers.
        unsafe {
            put(current, mode.0)?;
            put(pending, mode.1)
        }
    })
}

/// The caller passes a place for the handle, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: nvmlDevice_t,
    index: c_uint,
    out: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetMigDeviceHandleByIndex", device, |state, device| {
        if index >= INSTANCES_MAX {
            return Err(Code::INVALID_ARGUMENT);
        }
        let found = instances(state, &device.uuid).nth(index as usize).ok_or(Code::NOT_FOUND)?;
        // SAFETY: the header asks for a place for one handle.
        unsafe { put(out, live::handle(found)) }
    })
}
