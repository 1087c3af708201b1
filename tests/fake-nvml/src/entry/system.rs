//! Beginning and end, versions, and the text of a code.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::atomic::Ordering;

use nvml_wrapper_sys::bindings::nvmlReturn_t;

use super::{put, put_text};
use crate::code::Code;
use crate::live::{INITIALIZED, answer, call};

fn begin(symbol: &str) -> nvmlReturn_t {
    answer(symbol, None, || {
        INITIALIZED.fetch_add(1, Ordering::SeqCst);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    begin("nvmlInit_v2")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    begin("nvmlInitWithFlags")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    answer("nvmlShutdown", None, || {
        let one_less = |count: u32| count.checked_sub(1);
        INITIALIZED
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
            .map(|_| ())
            .map_err(|_| Code::UNINITIALIZED)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    text(Code(code)).as_ptr()
}

fn text(code: Code) -> &'static CStr {
    match code {
        Code::SUCCESS => c"Success",
        Code::UNINITIALIZED => c"Uninitialized",
        Code::INVALID_ARGUMENT => c"Invalid Argument",
        Code::NOT_SUPPORTED => c"Not Supported",
        Code::NO_PERMISSION => c"Insufficient Permissions",
        Code::NOT_FOUND => c"Not Found",
        Code::INSUFFICIENT_SIZE => c"Insufficient Size",
        Code::DRIVER_NOT_LOADED => c"Driver Not Loaded",
        Code::TIMEOUT => c"Timeout",
        Code::GPU_IS_LOST => c"GPU is lost",
        Code::RESET_REQUIRED => c"GPU requires reset",
        Code::VERSION_MISMATCH => c"Driver/library version mismatch",
        Code::ARGUMENT_VERSION_MISMATCH => c"Argument version mismatch",
        _ => c"Unknown Error",
    }
}

/// The caller passes room for `length` characters, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    call("nvmlSystemGetDriverVersion", |state| {
        // SAFETY: the header asks for room for `length` characters.
        unsafe { put_text(version, length, state.driver_version.as_bytes()) }
    })
}

/// The caller passes room for `length` characters, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetNVMLVersion(
    version: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    call("nvmlSystemGetNVMLVersion", |state| {
        // SAFETY: the header asks for room for `length` characters.
        unsafe { put_text(version, length, state.nvml_version.as_bytes()) }
    })
}

/// The caller passes a place for the version, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    call("nvmlSystemGetCudaDriverVersion_v2", |state| {
        // SAFETY: the header asks for a place for one number.
        unsafe { put(version, state.cuda_driver_version) }
    })
}
