//! What goes wrong in the fake, and what its devices report by themselves.
//!
//! Every method here is one change, and fails when the state cannot be written. A fault may name a function that
//! does not exist: it strikes nothing then.
#![allow(clippy::missing_errors_doc, reason = "the head says it for all of them")]

use std::io;
use std::time::Duration;

use super::FakeNvml;
use crate::code::Code;
use crate::state::{Act, Event, Fault, XID, no_instances};

/// The most events that a state keeps: a set that is away while as many come misses the oldest.
const EVENTS_MAX: usize = 4_096;

/// Which calls a fault strikes. `"nvmlDeviceGetName".into()`, `("nvmlDeviceGetName", "GPU-…").into()`,
/// [`Calls::about`] a device, or [`Calls::all`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    symbol: Option<String>,
    device: Option<String>,
}

impl Calls {
    /// Every call, those that initialize the library included.
    #[must_use]
    pub fn all() -> Calls {
        Calls { symbol: None, device: None }
    }

    /// Every call about a device, through a handle or for one.
    #[must_use]
    pub fn about(uuid: &str) -> Calls {
        Calls { symbol: None, device: Some(uuid.to_owned()) }
    }
}

impl From<&str> for Calls {
    fn from(symbol: &str) -> Calls {
        Calls { symbol: Some(symbol.to_owned()), device: None }
    }
}

impl From<(&str, &str)> for Calls {
    fn from((symbol, uuid): (&str, &str)) -> Calls {
        Calls { symbol: Some(symbol.to_owned()), device: Some(uuid.to_owned()) }
    }
}

/// A fault that can be lifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FaultNumber(u64);

impl FakeNvml {
    /// Makes calls answer with a code until the fault is lifted.
    pub fn fail(&self, calls: impl Into<Calls>, code: Code) -> io::Result<FaultNumber> {
        self.add_fault(calls.into(), Act::Fail { code, times: None })
    }

    /// Makes the next calls answer with a code: as many in each process that loaded the library.
    pub fn fail_times(
        &self,
        calls: impl Into<Calls>,
        code: Code,
        times: u32,
    ) -> io::Result<FaultNumber> {
        self.add_fault(calls.into(), Act::Fail { code, times: Some(times) })
    }

    /// Makes calls take this much longer, to the millisecond.
    pub fn delay(&self, calls: impl Into<Calls>, by: Duration) -> io::Result<FaultNumber> {
        let milliseconds = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.add_fault(calls.into(), Act::Delay { milliseconds })
    }

    /// Makes calls hang until the fault is lifted; then they are answered. Lift it before the library is unloaded: a
    /// thread that hangs is in its code.
    pub fn hang(&self, calls: impl Into<Calls>) -> io::Result<FaultNumber> {
        self.add_fault(calls.into(), Act::Hang)
    }

    /// Ends a fault.
    pub fn lift(&self, fault: FaultNumber) -> io::Result<()> {
        self.edit(|state| state.faults.retain(|known| known.number != fault.0))
    }

    /// Ends all faults.
    pub fn lift_all(&self) -> io::Result<()> {
        self.edit(|state| state.faults.clear())
    }

    fn add_fault(&self, calls: Calls, act: Act) -> io::Result<FaultNumber> {
        self.edit(|state| {
            let number = state.number();
            let Calls { symbol, device } = calls;
            state.faults.push(Fault { number, symbol, device, act });
            FaultNumber(number)
        })
    }

    /// Reports XIDs of a device, in this order, in one step.
    pub fn burst_xids(&self, uuid: &str, codes: &[u64]) -> io::Result<()> {
        self.report(uuid, XID, codes)
    }

    /// Reports events of one kind (its bit) of a device, one for each datum.
    pub fn report(&self, uuid: &str, kind: u64, data: &[u64]) -> io::Result<()> {
        self.edit(|state| {
            for &data in data {
                let number = state.number();
                let (device, instances) = (uuid.to_owned(), no_instances());
                state.events.push(Event { number, device, kind, data, instances });
            }
            let surplus = state.events.len().saturating_sub(EVENTS_MAX);
            state.events.drain(..surplus);
        })
    }

    /// Plays another version of the driver.
    pub fn set_driver_version(&self, version: &str) -> io::Result<()> {
        self.edit(|state| state.driver_version = version.to_owned())
    }

    /// Refuses the second version of the memory reading with code 25, or takes it again.
    pub fn refuse_memory_v2(&self, refused: bool) -> io::Result<()> {
        self.edit(|state| state.memory_v2 = !refused)
    }

    /// Lets a burst of XIDs be told as real drivers do: each event with the newest code.
    pub fn coalesce_xids(&self, coalesced: bool) -> io::Result<()> {
        self.edit(|state| state.xids_coalesced = coalesced)
    }
}
