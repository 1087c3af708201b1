//! Field values: many readings in one call, by number.
//!
//! It promises the driver's two ways of numbering. NVIDIA gave fields 251 to 273 other numbers within CUDA 13.0: up to
//! driver 580.81, 251 to 255 tell about clocks and 256 to 273 about smoothing of power; from 580.82 on, 251 to 268 are
//! the latter and 269 to 273 the former. A value comes back under the number it was asked for.

use std::ffi::{c_int, c_uint};

use nvml_wrapper_sys::bindings::{
    field_id, nvmlDevice_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_t,
    nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE as DOUBLE,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT as SIGNED,
    nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG as SIGNED_LONG,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT as UNSIGNED,
    nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG as UNSIGNED_LONG, nvmlValueType_t,
};

use super::health::now_microseconds;
use crate::code::Code;
use crate::device::Device;
use crate::live::device_call;
use crate::state::{FieldValue, State};

/// The number that a field had before driver 580.82, if the driver played has that field.
fn number_before(state: &State, asked: c_uint) -> c_uint {
    match asked {
        251..=268 if state.fields_renumbered() => asked + 5,
        269..=273 if state.fields_renumbered() => asked - 18,
        _ => asked,
    }
}

/// What a device says about a field: what the test set, or else what follows from its other readings.
fn value(device: &Device, field: c_uint) -> FieldValue {
    let known = device.fields.get(&field).copied().or_else(|| derived(device, field));
    known.unwrap_or(FieldValue::Fails(Code::NOT_SUPPORTED))
}

fn derived(device: &Device, field: c_uint) -> Option<FieldValue> {
    let health = &device.health;
    let rows = health.remapped_rows.as_ref();
    Some(match field {
        field_id::NVML_FI_DEV_ECC_CURRENT | field_id::NVML_FI_DEV_ECC_PENDING => {
            FieldValue::Unsigned(u32::from(health.ecc.is_some()))
        }
        field_id::NVML_FI_DEV_ECC_SBE_VOL_TOTAL => {
            FieldValue::UnsignedLong(health.ecc.as_ref()?.corrected)
        }
        field_id::NVML_FI_DEV_ECC_DBE_VOL_TOTAL => {
            FieldValue::UnsignedLong(health.ecc.as_ref()?.uncorrected)
        }
        field_id::NVML_FI_DEV_ECC_SBE_AGG_TOTAL => {
            FieldValue::UnsignedLong(health.ecc.as_ref()?.corrected_ever)
        }
        field_id::NVML_FI_DEV_ECC_DBE_AGG_TOTAL => {
            FieldValue::UnsignedLong(health.ecc.as_ref()?.uncorrected_ever)
        }
        field_id::NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION => {
            FieldValue::UnsignedLong(device.power.as_ref()?.energy_millijoules?)
        }
        field_id::NVML_FI_DEV_PCIE_REPLAY_COUNTER => {
            FieldValue::Unsigned(health.pcie.as_ref()?.replays)
        }
        field_id::NVML_FI_DEV_REMAPPED_COR => FieldValue::Unsigned(rows?.correctable),
        field_id::NVML_FI_DEV_REMAPPED_UNC => FieldValue::Unsigned(rows?.uncorrectable),
        field_id::NVML_FI_DEV_REMAPPED_PENDING => FieldValue::Unsigned(rows?.pending.into()),
        field_id::NVML_FI_DEV_REMAPPED_FAILURE => FieldValue::Unsigned(rows?.failed.into()),
        field_id::NVML_FI_DEV_POWER_AVERAGE | field_id::NVML_FI_DEV_POWER_INSTANT => {
            FieldValue::Unsigned(device.power.as_ref()?.draw_milliwatts)
        }
        field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => {
            FieldValue::Unsigned(health.recovery_action?)
        }
        _ => return None,
    })
}

/// The tag and the value as the driver lays them out; the unused bytes are 0.
fn laid_out(value: FieldValue) -> Result<(nvmlValueType_t, nvmlValue_t), Code> {
    let mut raw = nvmlValue_t { ullVal: 0 };
    let kind = match value {
        FieldValue::Double(number) => {
            raw.dVal = number;
            DOUBLE
        }
        FieldValue::Unsigned(number) => {
            raw.uiVal = number;
            UNSIGNED
        }
        FieldValue::UnsignedLong(number) => {
            raw.ullVal = number;
            UNSIGNED_LONG
        }
        FieldValue::SignedLong(number) => {
            raw.sllVal = number;
            SIGNED_LONG
        }
        FieldValue::Signed(number) => {
            raw.siVal = number;
            SIGNED
        }
        FieldValue::Fails(code) => return Err(code),
    };
    Ok((kind, raw))
}

/// The caller passes as many structures as it says, their field numbers set, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetFieldValues(
    device: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    device_call("nvmlDeviceGetFieldValues", device, |state, device| {
        let count = usize::try_from(count).map_err(|_| Code::INVALID_ARGUMENT)?;
        if values.is_null() || count == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: the header asks for that many structures.
        let values = unsafe { std::slice::from_raw_parts_mut(values, count) };
        for place in values {
            place.timestamp = now_microseconds().cast_signed();
            place.latencyUsec = 0;
            match laid_out(value(device, number_before(state, place.fieldId))) {
                Ok((kind, raw)) => {
                    (place.valueType, place.value) = (kind, raw);
                    place.nvmlReturn = Code::SUCCESS.0;
                }
                Err(code) => place.nvmlReturn = code.0,
            }
        }
        Ok(())
    })
}
