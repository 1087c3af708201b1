//! What a device measures: memory, utilization, temperature, power.

use std::ffi::{c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlMarginTemperature_t, nvmlMemory_t, nvmlMemory_v2_t, nvmlPstates_t,
    nvmlReturn_t, nvmlTemperature_t, nvmlTemperatureSensors_t, nvmlUtilization_t,
};

use super::{keyed_readings, put, readings, version};
use crate::code::Code;
use crate::device::Memory;
use crate::live::device_call;

/// Every bit that says why clocks are low.
const CLOCK_EVENTS: c_ulonglong = 0x1ff;

readings! {
    nvmlDeviceGetMemoryInfo: nvmlMemory_t = |_, device| {
        let memory = device.memory.as_ref()?;
        let free = memory.free_bytes();
        let used = memory.total_bytes.saturating_sub(free);
        Some(nvmlMemory_t { total: memory.total_bytes, free, used })
    };
    nvmlDeviceGetUtilizationRates: nvmlUtilization_t = |_, device| {
        device.utilization_percent.map(|(gpu, memory)| nvmlUtilization_t { gpu, memory })
    };
    nvmlDeviceGetPowerUsage: c_uint = |_, device| Some(device.power.as_ref()?.draw_milliwatts);
    nvmlDeviceGetPowerManagementLimit: c_uint = |_, device| {
        Some(device.power.as_ref()?.limit_milliwatts)
    };
    nvmlDeviceGetEnforcedPowerLimit: c_uint = |_, device| {
        Some(device.power.as_ref()?.limit_milliwatts)
    };
    nvmlDeviceGetPowerManagementDefaultLimit: c_uint = |_, device| {
        Some(device.power.as_ref()?.limit_bounds_milliwatts.1)
    };
    nvmlDeviceGetTotalEnergyConsumption: c_ulonglong = |_, device| {
        device.power.as_ref()?.energy_millijoules
    };
    nvmlDeviceGetCurrentClocksEventReasons: c_ulonglong = |_, device| device.clock_event_bits;
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = |_, device| device.clock_event_bits;
    nvmlDeviceGetSupportedClocksEventReasons: c_ulonglong = |_, device| {
        device.clock_event_bits.map(|_| CLOCK_EVENTS)
    };
    nvmlDeviceGetSupportedClocksThrottleReasons: c_ulonglong = |_, device| {
        device.clock_event_bits.map(|_| CLOCK_EVENTS)
    };
    nvmlDeviceGetPerformanceState: nvmlPstates_t = |_, device| device.performance_state;
}

keyed_readings! {
    nvmlDeviceGetTemperatureThreshold: c_uint = |device, threshold| {
        device.temperature_thresholds_celsius.get(&threshold).copied()
    };
    nvmlDeviceGetClockInfo: c_uint = |device, clock| {
        device.clocks_megahertz.get(&clock).map(|clock| clock.0)
    };
    nvmlDeviceGetMaxClockInfo: c_uint = |device, clock| {
        device.clocks_megahertz.get(&clock).map(|clock| clock.1)
    };
}

/// The caller passes a structure whose version is set, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: nvmlDevice_t,
    out: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetMemoryInfo_v2", device, |state, device| {
        // SAFETY: the header asks for a structure whose version is set.
        let asked = unsafe { out.as_ref() }.ok_or(Code::INVALID_ARGUMENT)?.version;
        if !state.memory_v2 || asked != version::<nvmlMemory_v2_t>(2) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        let memory = device.memory.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        let &Memory { total_bytes: total, reserved_bytes: reserved, used_bytes: used } = memory;
        let free = memory.free_bytes();
        // SAFETY: it can be written to, as the header asks.
        unsafe { put(out, nvmlMemory_v2_t { version: asked, total, reserved, free, used }) }
    })
}

/// The caller passes a place for the temperature, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    sensor: nvmlTemperatureSensors_t,
    out: *mut c_uint,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetTemperature", device, |_, device| {
        if sensor != 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        let celsius: c_int = device.temperature_celsius.ok_or(Code::NOT_SUPPORTED)?;
        // SAFETY: the header asks for a place for one number.
        unsafe { put(out, celsius.cast_unsigned()) }
    })
}

/// The caller passes a structure whose version and sensor are set, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperatureV(
    device: nvmlDevice_t,
    out: *mut nvmlTemperature_t,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetTemperatureV", device, |_, device| {
        // SAFETY: the header asks for a structure that is set so far.
        let out = unsafe { out.as_mut() }.ok_or(Code::INVALID_ARGUMENT)?;
        if out.version != version::<nvmlTemperature_t>(1) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        if out.sensorType != 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        out.temperature = device.temperature_celsius.ok_or(Code::NOT_SUPPORTED)?;
        Ok(())
    })
}

/// The caller passes a structure whose version is set, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMarginTemperature(
    device: nvmlDevice_t,
    out: *mut nvmlMarginTemperature_t,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetMarginTemperature", device, |_, device| {
        // SAFETY: the header asks for a structure whose version is set.
        let out = unsafe { out.as_mut() }.ok_or(Code::INVALID_ARGUMENT)?;
        if out.version != version::<nvmlMarginTemperature_t>(1) {
            return Err(Code::ARGUMENT_VERSION_MISMATCH);
        }
        out.marginTemperature = device.temperature_margin_celsius.ok_or(Code::NOT_SUPPORTED)?;
        Ok(())
    })
}

/// The caller passes places for both limits, or nulls.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPowerManagementLimitConstraints(
    device: nvmlDevice_t,
    least: *mut c_uint,
    most: *mut c_uint,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetPowerManagementLimitConstraints", device, |_, device| {
        let power = device.power.as_ref().ok_or(Code::NOT_SUPPORTED)?;
        // SAFETY: the header asks for places for both numbers.
        unsafe {
            put(least, power.limit_bounds_milliwatts.0)?;
            put(most, power.limit_bounds_milliwatts.1)
        }
    })
}
