//! Field values: kinds, margins, and the numbers that changed with driver 580.82.

use gpulease_fake_nvml::{Code, FieldValue, uuid};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper_sys::bindings::{nvmlFieldValue_t, nvmlMarginTemperature_t};

use crate::Loaded;

/// What a device says about fields, read through the raw functions: code, kind of value, and its lowest 32 bits.
fn read_raw(loaded: &Loaded, fields: &[u32]) -> Vec<(Code, u32, i32)> {
    let device = loaded.device(0);
    // SAFETY: all zeros is a value of this structure, which is made of numbers.
    #[allow(unsafe_code, reason = "the wrapper cannot read numbers with a sign")]
    let empty: nvmlFieldValue_t = unsafe { std::mem::zeroed() };
    let mut values: Vec<_> =
        fields.iter().map(|&field| nvmlFieldValue_t { fieldId: field, ..empty }).collect();
    let count = i32::try_from(values.len()).unwrap();
    // SAFETY: there are as many structures as are said to be, and each value has 64 bits that were all written.
    #[allow(unsafe_code, reason = "the wrapper cannot read numbers with a sign")]
    unsafe {
        let library = loaded.nvml.lib();
        let code = library.nvmlDeviceGetFieldValues(device.handle(), count, values.as_mut_ptr());
        assert_eq!(Code(code), Code::SUCCESS);
        values.iter().map(|it| (Code(it.nvmlReturn), it.valueType, it.value.siVal)).collect()
    }
}

#[test]
fn margins_have_a_sign_and_the_wrapper_cannot_read_them() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.set_field(&uuid(0), 194, FieldValue::Signed(-2)).unwrap();
    let through_wrapper = loaded.device(0).field_values_for(&[FieldId(194)]).unwrap();
    assert!(matches!(through_wrapper[0], Err(NvmlError::UnexpectedVariant(5))));
    assert_eq!(read_raw(&loaded, &[194]), [(Code::SUCCESS, 5, -2)]);
}

#[test]
fn the_recovery_action_follows_from_the_health_of_the_device() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.edit_device(&uuid(0), |it| it.health.recovery_action = Some(4)).unwrap();
    let values = loaded.device(0).field_values_for(&[FieldId(230)]).unwrap();
    let sample = values[0].as_ref().unwrap();
    assert!(matches!(sample.value, Ok(SampleValue::U32(4))));
}

#[test]
fn a_field_fails_alone() {
    let loaded = Loaded::with_devices(1);
    loaded.fake.set_field(&uuid(0), 195, FieldValue::Fails(Code::NO_PERMISSION)).unwrap();
    let values = loaded.device(0).field_values_for(&[195, 999, 94].map(FieldId)).unwrap();
    let values: Vec<_> = values.iter().map(|it| &it.as_ref().unwrap().value).collect();
    assert!(matches!(values[0], Err(NvmlError::NoPermission)));
    assert!(matches!(values[1], Err(NvmlError::NotSupported)));
    assert!(matches!(values[2], Ok(SampleValue::U32(0))));
}

#[test]
fn fields_251_to_273_have_other_numbers_from_driver_580_82_on() {
    let told = |driver: &str, asked: u32| {
        let loaded = Loaded::after(1, |fake| {
            fake.set_driver_version(driver).unwrap();
            fake.set_field(&uuid(0), 252, FieldValue::UnsignedLong(77)).unwrap();
        });
        let (code, _, value) = read_raw(&loaded, &[asked])[0];
        let sample = loaded.device(0).field_values_for(&[FieldId(252)]).unwrap().remove(0).unwrap();
        // The wrapper translates the number it asks for, and returns the translated one.
        assert!(matches!(sample.value, Ok(SampleValue::U64(77))));
        (code, value, sample.field.0)
    };
    assert_eq!(told("580.65.06", 252), (Code::SUCCESS, 77, 252));
    assert_eq!(told("580.65.06", 270).0, Code::NOT_SUPPORTED);
    assert_eq!(told("580.82.07", 270), (Code::SUCCESS, 77, 270));
    assert_eq!(told("580.82.07", 252).0, Code::NOT_SUPPORTED);
}

#[test]
fn the_margin_of_the_temperature_is_told_where_the_device_has_one() {
    let loaded = Loaded::with_devices(1);
    let read = || {
        let size = u32::try_from(size_of::<nvmlMarginTemperature_t>()).unwrap();
        let mut margin = nvmlMarginTemperature_t { version: size | 1 << 24, marginTemperature: 0 };
        let device = loaded.device(0);
        // SAFETY: the structure is there to be written to, and says its version.
        #[allow(unsafe_code, reason = "the wrapper has no method for it")]
        let code = unsafe {
            loaded.nvml.lib().nvmlDeviceGetMarginTemperature(device.handle(), &mut margin)
        };
        (Code(code), margin.marginTemperature)
    };
    assert_eq!(read().0, Code::NOT_SUPPORTED);
    loaded.fake.edit_device(&uuid(0), |it| it.temperature_margin_celsius = Some(-3)).unwrap();
    assert_eq!(read(), (Code::SUCCESS, -3));
}
