//! Which devices there are, and what identifies them.

use std::ffi::{CStr, c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    nvmlBrandType_t, nvmlDevice_t, nvmlDeviceArchitecture_t, nvmlPciInfo_t, nvmlReturn_t,
};

use super::{mig, put, put_characters, put_text, readings};
use crate::code::Code;
use crate::device::{Device, Pci};
use crate::live::{self, call, device_call};
use crate::state::State;

/// The devices that are counted: MIG instances are not.
fn counted(state: &State) -> impl Iterator<Item = &Device> {
    state.devices.iter().filter(|device| device.mig.is_none())
}

/// The index of a device that is counted.
fn index_of(state: &State, device: &Device) -> Option<c_uint> {
    let index = counted(state).position(|other| other.handle == device.handle)?;
    c_uint::try_from(index).ok()
}

/// The caller passes a place for the count, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    call("nvmlDeviceGetCount_v2", |state| {
        let number = c_uint::try_from(counted(state).count()).unwrap_or(c_uint::MAX);
        // SAFETY: the header asks for a place for one number.
        unsafe { put(count, number) }
    })
}

/// Answers a call that looks for a device, as one about it if it is there.
///
/// # Safety
/// `out` is null, or a handle can be written there.
unsafe fn look_for(
    symbol: &str,
    out: *mut nvmlDevice_t,
    otherwise: Code,
    fits: impl Fn(&State, &Device) -> bool,
) -> nvmlReturn_t {
    let find = |state: &State| {
        let device = state.devices.iter().find(|device| fits(state, device))?;
        Some((live::handle(device), live::present(device).map(|_| ())))
    };
    let found = live::state().ok().and_then(|state| find(&state)).map(|(handle, _)| handle);
    live::answer(symbol, found, || {
        live::initialized()?;
        let (handle, present) = find(&*live::state()?).ok_or(otherwise)?;
        present?;
        // SAFETY: as the caller of this function says.
        unsafe { put(out, handle) }
    })
}

/// The bytes of a text of the caller; none if it is null.
///
/// # Safety
/// `text` is null, or a zero ends it.
unsafe fn taken(text: *const c_char) -> Result<Vec<u8>, Code> {
    if text.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so a zero ends it, as the caller of this function says.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes().to_vec())
}

/// The caller passes a place for the handle, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    let fits = |state: &State, device: &Device| index_of(state, device) == Some(index);
    // SAFETY: the header asks for a place for one handle.
    unsafe { look_for("nvmlDeviceGetHandleByIndex_v2", device, Code::INVALID_ARGUMENT, fits) }
}

/// The caller passes a text that a zero ends, and a place for the handle, or nulls.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(
    uuid: *const c_char,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    // SAFETY: the header asks for a text that a zero ends.
    let wanted = unsafe { taken(uuid) };
    let otherwise = *wanted.as_ref().err().unwrap_or(&Code::NOT_FOUND);
    let fits = |_: &State, device: &Device| Ok(device.uuid.as_bytes()) == wanted.as_deref();
    // SAFETY: the header asks for a place for one handle.
    unsafe { look_for("nvmlDeviceGetHandleByUUID", device, otherwise, fits) }
}

/// The caller passes a text that a zero ends, and a place for the handle, or nulls.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(
    bus_id: *const c_char,
    device: *mut nvmlDevice_t,
) -> nvmlReturn_t {
    // SAFETY: the header asks for a text that a zero ends.
    let wanted = unsafe { taken(bus_id) };
    let otherwise = *wanted.as_ref().err().unwrap_or(&Code::NOT_FOUND);
    let fits = |_: &State, device: &Device| {
        let is_wanted = |address: String| {
            wanted.as_ref().is_ok_and(|wanted| address.as_bytes().eq_ignore_ascii_case(wanted))
        };
        device.mig.is_none()
            && (is_wanted(device.pci.address()) || is_wanted(device.pci.address_short()))
    };
    // SAFETY: the header asks for a place for one handle.
    unsafe { look_for("nvmlDeviceGetHandleByPciBusId_v2", device, otherwise, fits) }
}

/// The caller passes room for `length` characters, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(
    device: nvmlDevice_t,
    name: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetName", device, |_, device| {
        let text = device.name_bytes.as_deref().unwrap_or(device.name.as_bytes());
        // SAFETY: the header asks for room for `length` characters.
        unsafe { put_text(name, length, text) }
    })
}

/// The caller passes room for `length` characters, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(
    device: nvmlDevice_t,
    uuid: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetUUID", device, |_, device| {
        // SAFETY: the header asks for room for `length` characters.
        unsafe { put_text(uuid, length, device.uuid.as_bytes()) }
    })
}

readings! {
    nvmlDeviceGetIndex: c_uint = |state, device| {
        index_of(state, device).or_else(|| mig::index_of(state, device))
    };
    nvmlDeviceGetMinorNumber: c_uint = |_, device| device.minor_number;
    nvmlDeviceGetArchitecture: nvmlDeviceArchitecture_t = |_, device| device.architecture;
    nvmlDeviceGetBrand: nvmlBrandType_t = |_, device| device.brand;
    nvmlDeviceGetPciInfo_v3: nvmlPciInfo_t = |_, device| Some(device.pci.described());
}

/// The caller passes places for both numbers, or nulls.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    device: nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetCudaComputeCapability", device, |_, device| {
        let capability = device.compute_capability.ok_or(Code::NOT_SUPPORTED)?;
        // SAFETY: the header asks for places for both numbers.
        unsafe {
            put(major, capability.0)?;
            put(minor, capability.1)
        }
    })
}

impl Pci {
    /// As the driver writes it since 2017.
    fn address(&self) -> String {
        format!("{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    /// As the kernel and older drivers write it.
    fn address_short(&self) -> String {
        format!("{:04X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }

    fn described(&self) -> nvmlPciInfo_t {
        let mut info = nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: self.domain,
            bus: self.bus,
            device: self.device,
            pciDeviceId: self.id,
            pciSubSystemId: self.subsystem_id,
            busId: [0; 32],
        };
        put_characters(&mut info.busIdLegacy, &self.address_short());
        put_characters(&mut info.busId, &self.address());
        info
    }
}
