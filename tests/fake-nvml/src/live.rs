//! The library's side: which state holds now, and how every call goes.
//!
//! It promises that no lock is held while a call is delayed or hangs, and that nothing unwinds into the caller. A call
//! is noted first, then struck by faults, then answered from one state: the one that held when it was answered.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::code::Code;
use crate::device::{Device, Presence};
use crate::files::{self, Stamp};
use crate::state::{Act, Fault, State};

/// How often a call that hangs or waits looks whether the state is another.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(2);
/// The most bytes of calls that are noted: at 64 bytes a call, half a million of them.
const CALLS_BYTES_MAX: u64 = 32 << 20;

/// How often the library was initialized and not shut down.
pub(crate) static INITIALIZED: AtomicU32 = AtomicU32::new(0);
/// Where the library was loaded from; none if that cannot be told.
static LIBRARY: OnceLock<Option<PathBuf>> = OnceLock::new();
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);
/// How often the fault of a number struck in this process.
static STRUCK: Mutex<BTreeMap<u64, u32>> = Mutex::new(BTreeMap::new());
static CALLS: OnceLock<Option<File>> = OnceLock::new();
static CALLS_BYTES: AtomicU64 = AtomicU64::new(0);

struct Loaded {
    stamp: Option<Stamp>,
    /// An error is kept too, so that it is told once.
    state: Result<Arc<State>, Code>,
}

/// Takes a lock, whatever became of its last owner.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where this library was loaded from, as the kernel says: the mapping that this function is in.
fn library() -> Option<&'static PathBuf> {
    LIBRARY
        .get_or_init(|| {
            let here = library as fn() -> _ as usize;
            let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
            let line = maps.lines().find(|line| {
                let bounds = line.split(' ').next().and_then(|bounds| bounds.split_once('-'));
                bounds.is_some_and(|(from, to)| {
                    let bound = |text| usize::from_str_radix(text, 16);
                    bound(from).is_ok_and(|from| from <= here)
                        && bound(to).is_ok_and(|to| here < to)
                })
            })?;
            let path = &line[line.find('/')?..];
            // A copy with other symbols may have taken its place on disk; the state's name stays.
            Some(PathBuf::from(path.strip_suffix(" (deleted)").unwrap_or(path)))
        })
        .as_ref()
}

/// The state that holds now. A file that cannot be read is no reason to answer from the last one.
pub(crate) fn state() -> Result<Arc<State>, Code> {
    let Some(library) = library() else { return Ok(Arc::default()) };
    let path = files::state_path(library);
    let mut loaded = lock(&LOADED);
    let stamp = Stamp::of(&path);
    if let Some(loaded) = &*loaded
        && loaded.stamp == stamp
    {
        return loaded.state.clone();
    }
    let state = match stamp {
        None => Ok(Arc::default()),
        Some(_) => files::read(&path).map(Arc::new).map_err(|error| complain(&error)),
    };
    *loaded = Some(Loaded { stamp, state: state.clone() });
    state
}

/// Tells why a state cannot be read: the caller only gets a number, but who wrote the file must learn it.
fn complain(error: &std::io::Error) -> Code {
    // Without a place to tell it to, the number has to do.
    let _ = writeln!(std::io::stderr(), "{error}");
    Code::UNKNOWN
}

/// Notes a call, for tests to count.
fn note(state: &State, symbol: &str, device: Option<&str>) {
    if !state.calls_recorded || CALLS_BYTES.load(Ordering::Relaxed) > CALLS_BYTES_MAX {
        return;
    }
    let file = CALLS.get_or_init(|| {
        OpenOptions::new().append(true).create(true).open(files::calls_path(library()?)).ok()
    });
    if let Some(mut file) = file.as_ref() {
        let line = format!("{symbol} {} {}\n", device.unwrap_or("-"), std::process::id());
        CALLS_BYTES.fetch_add(line.len() as u64, Ordering::Relaxed);
        // A call is not answered in another way because its note could not be written.
        let _ = file.write_all(line.as_bytes());
    }
}

/// The device that a handle points to.
pub(crate) fn behind(state: &State, handle: nvmlDevice_t) -> Result<&Device, Code> {
    let number = handle.addr() as u64;
    let device = state.devices.iter().find(|device| device.handle == number && number != 0);
    device.ok_or(Code::INVALID_ARGUMENT)
}

/// The handle of a device.
pub(crate) fn handle(device: &Device) -> nvmlDevice_t {
    std::ptr::without_provenance_mut(usize::try_from(device.handle).unwrap_or(0))
}

/// The device, if it answers.
pub(crate) fn present(device: &Device) -> Result<&Device, Code> {
    match device.presence {
        Presence::Present => Ok(device),
        Presence::Lost => Err(Code::GPU_IS_LOST),
        Presence::ResetRequired => Err(Code::RESET_REQUIRED),
    }
}

/// Lets the faults strike that concern this call: delays first, then hangs, then failures.
fn strike(symbol: &str, uuid: Option<&str>) -> Result<(), Code> {
    let began = Instant::now();
    loop {
        let state = state()?;
        let mut fails = None;
        let mut waits = false;
        for fault in state.faults.iter().filter(|fault| fault.concerns(symbol, uuid)) {
            match fault.act {
                Act::Hang => waits = true,
                Act::Delay { milliseconds } => {
                    waits |= began.elapsed() < Duration::from_millis(milliseconds);
                }
                Act::Fail { code, times } => fails = fails.or(Some((fault.number, code, times))),
            }
        }
        if waits {
            thread::sleep(LOOK_EVERY);
            continue;
        }
        return match fails {
            Some((number, code, times)) if strikes_again(number, times) => Err(code),
            _ => Ok(()),
        };
    }
}

/// Whether a failure has not yet struck as often as it should; counts this time.
fn strikes_again(number: u64, times: Option<u32>) -> bool {
    let Some(times) = times else { return true };
    let mut struck = lock(&STRUCK);
    let count = struck.entry(number).or_default();
    *count += 1;
    *count <= times
}

impl Fault {
    fn concerns(&self, symbol: &str, uuid: Option<&str>) -> bool {
        self.symbol.as_ref().is_none_or(|wanted| wanted == symbol)
            && self.device.as_ref().is_none_or(|wanted| Some(wanted.as_str()) == uuid)
    }
}

/// Answers a call about no device, which the library must be initialized for.
pub(crate) fn call(symbol: &str, work: impl FnOnce(&State) -> Result<(), Code>) -> nvmlReturn_t {
    answer(symbol, None, || {
        initialized()?;
        work(&*state()?)
    })
}

/// Answers a call about a device.
pub(crate) fn device_call(
    symbol: &str,
    device: nvmlDevice_t,
    work: impl FnOnce(&State, &Device) -> Result<(), Code>,
) -> nvmlReturn_t {
    answer(symbol, Some(device), || {
        initialized()?;
        let state = state()?;
        work(&state, present(behind(&state, device)?)?)
    })
}

/// Notes a call, lets faults strike, and answers with what `work` gives.
pub(crate) fn answer(
    symbol: &str,
    device: Option<nvmlDevice_t>,
    work: impl FnOnce() -> Result<(), Code>,
) -> nvmlReturn_t {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let state = state()?;
        let uuid = device.and_then(|device| behind(&state, device).ok()).map(|it| it.uuid.clone());
        note(&state, symbol, uuid.as_deref());
        strike(symbol, uuid.as_deref())?;
        work()
    }));
    match result {
        Ok(Ok(())) => Code::SUCCESS.0,
        Ok(Err(code)) => code.0,
        Err(panic) => {
            forget(panic);
            Code::UNKNOWN.0
        }
    }
}

/// Drops what a panic carried; dropping it may panic again, which must not reach the caller.
fn forget(panic: Box<dyn Any + Send>) {
    let _ = catch_unwind(AssertUnwindSafe(move || drop(panic)));
}

/// An error unless the library is initialized.
pub(crate) fn initialized() -> Result<(), Code> {
    match INITIALIZED.load(Ordering::SeqCst) {
        0 => Err(Code::UNINITIALIZED),
        _ => Ok(()),
    }
}
