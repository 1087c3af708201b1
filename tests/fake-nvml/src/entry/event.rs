//! Event sets: what devices report by themselves.
//!
//! It promises that a set gets the events that came after a device was registered in it, once and in order, and that a
//! wait ends with its time, when the library is shut down, and when a registered device is lost, as the driver's does.
//! The events themselves are in the state, so every process that waits for them gets them.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlEventData_t, nvmlEventSet_t, nvmlReturn_t};

use super::{put, readings};
use crate::code::Code;
use crate::device::Presence;
use crate::live::{LOOK_EVERY, answer, call, device_call, handle, initialized, lock, state};
use crate::state::{Event, State, XID};

/// The sets of this process, by the number that their handles carry.
static SETS: Mutex<Sets> = Mutex::new(Sets { last: 0, sets: BTreeMap::new() });
/// The most sets: a reader needs one.
const SETS_MAX: usize = 1_024;

struct Sets {
    last: usize,
    sets: BTreeMap<usize, Set>,
}

#[derive(Default)]
struct Set {
    registered: Vec<Registered>,
    /// Number of the newest event that it delivered.
    delivered: u64,
}

struct Registered {
    uuid: String,
    types: u64,
    /// Events of lower numbers came before.
    from: u64,
}

impl Registered {
    fn wants(&self, event: &Event) -> bool {
        event.number >= self.from && event.device == self.uuid && event.kind & self.types != 0
    }
}

impl Set {
    /// The next event it has to deliver.
    fn next(&mut self, state: &State) -> Option<nvmlEventData_t> {
        let wanted = |event: &&Event| self.registered.iter().any(|it| it.wants(event));
        let event =
            state.events.iter().filter(wanted).find(|event| event.number > self.delivered)?;
        let newest = state
            .events
            .iter()
            .filter(wanted)
            .rfind(|other| other.kind == XID && other.device == event.device);
        let told = newest.filter(|_| state.xids_coalesced && event.kind == XID).unwrap_or(event);
        self.delivered = event.number;
        Some(nvmlEventData_t {
            device: state.device(&event.device).map_or(std::ptr::null_mut(), handle),
            eventType: event.kind,
            eventData: told.data,
            gpuInstanceId: event.instances.0,
            computeInstanceId: event.instances.1,
        })
    }

    fn has_lost_one(&self, state: &State) -> bool {
        let is_lost = |it: &Registered| {
            state.device(&it.uuid).is_some_and(|device| device.presence == Presence::Lost)
        };
        self.registered.iter().any(is_lost)
    }
}

/// Works on the set that a handle points to.
fn with_set<T>(
    handle: nvmlEventSet_t,
    work: impl FnOnce(&mut Set) -> Result<T, Code>,
) -> Result<T, Code> {
    work(lock(&SETS).sets.get_mut(&handle.addr()).ok_or(Code::INVALID_ARGUMENT)?)
}

/// The caller passes a place for the handle, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(out: *mut nvmlEventSet_t) -> nvmlReturn_t {
    call("nvmlEventSetCreate", |_| {
        let mut sets = lock(&SETS);
        if sets.sets.len() == SETS_MAX {
            return Err(Code::UNKNOWN);
        }
        let number = sets.last + 1;
        // SAFETY: the header asks for a place for one handle.
        unsafe { put(out, std::ptr::without_provenance_mut(number))? };
        sets.last = number;
        sets.sets.insert(number, Set::default());
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    call("nvmlEventSetFree", |_| {
        lock(&SETS).sets.remove(&set.addr()).map(|_| ()).ok_or(Code::INVALID_ARGUMENT)
    })
}

readings! {
    nvmlDeviceGetSupportedEventTypes: c_ulonglong = |_, device| Some(device.event_types);
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    device_call("nvmlDeviceRegisterEvents", device, |state, device| {
        if types & !device.event_types != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        with_set(set, |set| {
            let newest = state.events.iter().map(|event| event.number + 1).max();
            let from = state.next_number.max(newest.unwrap_or(0));
            let uuid = device.uuid.clone();
            set.registered.push(Registered { uuid, types, from });
            Ok(())
        })
    })
}

/// The caller passes a place for the event, or null.
#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    out: *mut nvmlEventData_t,
    timeout_milliseconds: c_uint,
) -> nvmlReturn_t {
    let began = Instant::now();
    let timeout = Duration::from_millis(timeout_milliseconds.into());
    answer("nvmlEventSetWait_v2", None, || {
        loop {
            initialized()?;
            let state = state()?;
            let (event, has_lost_one) =
                with_set(set, |set| Ok((set.next(&state), set.has_lost_one(&state))))?;
            if let Some(event) = event {
                // SAFETY: the header asks for a place for one event.
                return unsafe { put(out, event) };
            }
            if has_lost_one {
                return Err(Code::GPU_IS_LOST);
            }
            if began.elapsed() >= timeout {
                return Err(Code::TIMEOUT);
            }
            thread::sleep(LOOK_EVERY.min(timeout));
        }
    })
}
