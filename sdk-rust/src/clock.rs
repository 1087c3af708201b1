//! The clock that validity is counted on.
//!
//! Promises: it never goes backwards and, on Linux, runs on while the machine is suspended (`CLOCK_BOOTTIME`), so
//! that a lease that ended during the suspend is lost on waking. Timers are tokio's and do stop in a suspend,
//! which is why the keep-alive looks at this clock at least every second while anything is held.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

#[cfg(target_os = "linux")]
const SOURCE: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const SOURCE: ClockId = ClockId::Monotonic;

/// Where "now" comes from.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    /// The machine's.
    #[default]
    Boot,
    /// One that a test moves.
    #[cfg(test)]
    Manual(std::sync::Arc<std::sync::Mutex<Duration>>),
}

impl Clock {
    /// The time since an arbitrary fixed point, such as the last boot.
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Boot => since_boot(),
            #[cfg(test)]
            Self::Manual(now) => *now.lock().expect("no test panics while it moves the clock"),
        }
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(SOURCE);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}
