//! The functions of the driver's library, by its own names and layouts.
//!
//! Each is one call of `live::device_call` or `live::call`, which never unwinds, and writes through the caller's
//! pointers only what the header says. What the header calls an error is answered as one, null pointers included.
#![allow(
    unsafe_code,
    reason = "the C functions of a shared library: their names are exported, their arguments are the caller's pointers"
)]
#![allow(non_snake_case, reason = "the names are the driver's")]

mod device;
mod event;
mod field;
mod health;
mod mig;
mod process;
mod sensor;
mod system;

use std::ffi::{c_char, c_uint};

use crate::code::Code;

/// Defines functions that read one value of a device into one place. Such a function answers "not supported" where the
/// reading gives nothing.
///
/// The caller of each passes a place for the value, or null.
macro_rules! readings {
    ($($symbol:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(device: nvmlDevice_t, out: *mut $type) -> nvmlReturn_t {
            let read: fn(&$crate::state::State, &$crate::device::Device) -> Option<$type> = $read;
            $crate::live::device_call(stringify!($symbol), device, |state, device| {
                let value = read(state, device).ok_or($crate::code::Code::NOT_SUPPORTED)?;
                // SAFETY: the header asks for a place for one value of this type.
                unsafe { $crate::entry::put(out, value) }
            })
        }
    )*};
}
use readings;

/// The same for functions that are also told which of several values to read, as a number.
macro_rules! keyed_readings {
    ($($symbol:ident: $type:ty = $read:expr;)*) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $symbol(
            device: nvmlDevice_t,
            key: std::ffi::c_uint,
            out: *mut $type,
        ) -> nvmlReturn_t {
            let read: fn(&$crate::device::Device, u32) -> Option<$type> = $read;
            $crate::live::device_call(stringify!($symbol), device, |_, device| {
                let value = read(device, key).ok_or($crate::code::Code::NOT_SUPPORTED)?;
                // SAFETY: the header asks for a place for one value of this type.
                unsafe { $crate::entry::put(out, value) }
            })
        }
    )*};
}
use keyed_readings;

/// Writes a value where the caller wants it.
///
/// # Safety
/// `out` is null, or can be written to.
unsafe fn put<T>(out: *mut T, value: T) -> Result<(), Code> {
    if out.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: not null, so writable, as the caller of this function says.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes a text and a zero where the caller wants it.
///
/// # Safety
/// `out` is null, or `room` bytes there can be written to.
unsafe fn put_text(out: *mut c_char, room: c_uint, text: &[u8]) -> Result<(), Code> {
    if out.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    if text.len() >= room as usize {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    // SAFETY: text and zero fit into the room that the caller of this function says is there.
    unsafe {
        out.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

/// The `version` of a structure: its size, and its number in the highest byte.
const fn version<T>(number: c_uint) -> c_uint {
    assert!(size_of::<T>() < 1 << 24);
    #[allow(clippy::cast_possible_truncation, reason = "asserted right above")]
    let size = size_of::<T>() as c_uint;
    size | (number << 24)
}

/// Fills a fixed array of characters; what does not fit before the last zero is cut off.
fn put_characters(out: &mut [c_char], text: &str) {
    let room = out.len().saturating_sub(1);
    for (place, byte) in out.iter_mut().zip(text.bytes().take(room)) {
        *place = byte.cast_signed() as c_char;
    }
}
