//! One opened NVML: the wrapper's safe calls, and the few that it has not, or not as needed.
//!
//! Promises: a handle never leaves the session that gave it, so that none outlives its library; and no process list
//! is asked for twice where once is enough, for that call is the expensive one.
//! It leaves the meaning of errors to `error`.

#![allow(unsafe_code, reason = "the functions of a C library are called here, and only here")]

use std::{ffi::CStr, path::Path};

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    NVML_DEVICE_NAME_V2_BUFFER_SIZE, nvmlDevice_t, nvmlMemory_t, nvmlProcessInfo_t,
    nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE,
};

use crate::process::{PROCESSES_MAX, ProcessKind};

/// What the wrapper loads when nothing is named.
pub(crate) const LIBRARY: &str = "libnvidia-ml.so.1";

/// How often a process list is asked for again because it grew meanwhile.
const GROWTHS_MAX: usize = 8;
/// Room for this many processes more than there were, so that a list that grows meanwhile still fits.
const HEADROOM: usize = 16;

/// An opened NVML and the devices that it was asked for. Dropping it closes both.
pub(crate) struct Session {
    nvml: Nvml,
    handles: Vec<Handle>,
    /// Kept between calls, so that a list is mostly there after one.
    processes: Vec<nvmlProcessInfo_t>,
}

/// Which device of the session: a position in its handles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached(usize);

struct Handle(nvmlDevice_t);

// SAFETY: NVML is documented to be thread safe, and a handle is an opaque number for it, bound to no thread. The
// wrapper's own `Device`, which is the same pointer, is `Send` and `Sync` for the same reason.
unsafe impl Send for Handle {}

impl Session {
    pub(crate) fn open(library: Option<&Path>) -> Result<Self, NvmlError> {
        let nvml = match library {
            Some(path) => Nvml::builder().lib_path(path.as_os_str()).init()?,
            None => Nvml::init()?,
        };
        Ok(Self { nvml, handles: Vec::new(), processes: Vec::new() })
    }

    pub(crate) fn nvml(&self) -> &Nvml {
        &self.nvml
    }

    /// Forgets all devices.
    pub(crate) fn detach_all(&mut self) {
        self.handles.clear();
    }

    pub(crate) fn attach(&mut self, index: u32) -> Result<Attached, NvmlError> {
        let device = self.nvml.device_by_index(index)?;
        // SAFETY: the handle is only used through `self.nvml`, which it comes from.
        let handle = Handle(unsafe { device.handle() });
        self.handles.push(handle);
        Ok(Attached(self.handles.len() - 1))
    }

    fn handle(&self, device: Attached) -> Result<nvmlDevice_t, NvmlError> {
        self.handles.get(device.0).map(|handle| handle.0).ok_or(NvmlError::NotFound)
    }

    pub(crate) fn device(&self, device: Attached) -> Result<Device<'_>, NvmlError> {
        let handle = self.handle(device)?;
        // SAFETY: `attach` got the handle from this NVML, which is open as long as `self` lives.
        Ok(unsafe { Device::new(handle, &self.nvml) })
    }

    /// The wrapper's call refuses names that are not UTF-8.
    pub(crate) fn name(&self, device: Attached) -> Result<String, NvmlError> {
        const LENGTH: u32 = NVML_DEVICE_NAME_V2_BUFFER_SIZE;
        let handle = self.handle(device)?;
        let call = nvml_sym(self.nvml.lib().nvmlDeviceGetName.as_ref())?;
        let mut text = [0u8; LENGTH as usize];
        // SAFETY: the handle is this NVML's, and NVML writes at most the length that is given.
        nvml_try(unsafe { call(handle, text.as_mut_ptr().cast(), LENGTH) })?;
        // Without an end, all of it is the name.
        let name =
            CStr::from_bytes_until_nul(&text).map_or(&text[..], |text: &CStr| text.to_bytes());
        Ok(String::from_utf8_lossy(name).trim().to_owned())
    }

    /// Memory as version 1 has it, the driver's own counted as used: total and used, in bytes.
    pub(crate) fn memory_v1(&self, device: Attached) -> Result<(u64, u64), NvmlError> {
        let handle = self.handle(device)?;
        let call = nvml_sym(self.nvml.lib().nvmlDeviceGetMemoryInfo.as_ref())?;
        let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
        // SAFETY: the handle is this NVML's, and the structure is the one that this function fills.
        nvml_try(unsafe { call(handle, &raw mut memory) })?;
        Ok((memory.total, memory.used))
    }

    /// The bits of the clocks' event reasons as they are: the wrapper drops those it does not know.
    pub(crate) fn clock_events(&self, device: Attached) -> Result<u64, NvmlError> {
        let handle = self.handle(device)?;
        let library = self.nvml.lib();
        // Older libraries have the same function under its first name.
        let call = library
            .nvmlDeviceGetCurrentClocksEventReasons
            .as_ref()
            .or(library.nvmlDeviceGetCurrentClocksThrottleReasons.as_ref());
        let call = nvml_sym(call)?;
        let mut bits = 0;
        // SAFETY: the handle is this NVML's, and the function writes one such number.
        nvml_try(unsafe { call(handle, &raw mut bits) })?;
        Ok(bits)
    }

    /// The processes of one kind, with one call where the list did not outgrow the last one.
    pub(crate) fn processes(
        &mut self,
        device: Attached,
        kind: ProcessKind,
    ) -> Result<&[nvmlProcessInfo_t], NvmlError> {
        let handle = self.handle(device)?;
        let library = self.nvml.lib();
        let call = nvml_sym(match kind {
            ProcessKind::Compute => library.nvmlDeviceGetComputeRunningProcesses_v3.as_ref(),
            ProcessKind::Graphics => library.nvmlDeviceGetGraphicsRunningProcesses_v3.as_ref(),
            ProcessKind::Mps => library.nvmlDeviceGetMPSComputeRunningProcesses_v3.as_ref(),
        })?;
        let mut wanted = HEADROOM;
        for _ in 0..GROWTHS_MAX {
            let room = wanted.max(self.processes.len()).min(PROCESSES_MAX);
            self.processes.resize(room, EMPTY);
            let mut count = u32::try_from(room).unwrap_or(u32::MAX);
            // SAFETY: the handle is this NVML's, and there is room for as many entries as `count` says.
            let code = unsafe { call(handle, &raw mut count, self.processes.as_mut_ptr()) };
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if code != nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE {
                nvml_try(code)?;
                return Ok(&self.processes[..count.min(room)]);
            }
            wanted = count.max(room).saturating_add(HEADROOM);
        }
        Err(NvmlError::InsufficientSize(Some(wanted)))
    }
}

const EMPTY: nvmlProcessInfo_t =
    nvmlProcessInfo_t { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 };
