//! A GPU or the CPU, as a value: the work runs either way, and can ask where.

use std::{fmt, time::Duration};

use crate::{
    error::{Error, ErrorKind},
    info::LeaseInfo,
    lease::Lease,
};

/// Where work runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceKind {
    /// On the devices of a lease.
    Gpu,
    /// On the CPU.
    Cpu,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Gpu => "GPU",
            Self::Cpu => "CPU",
        })
    }
}

/// Why work runs on the CPU.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CpuReason {
    /// GPUs are disabled.
    Disabled,
    /// The coordinator cannot be reached, does not answer in time, or cannot serve.
    Unreachable(Error),
    /// It failed so often that it is left alone for a while.
    CircuitOpen(Error),
    /// It has no GPU for this request: no capacity, the wait was over, a quota is full, or none could ever do.
    NoGpu(Error),
}

impl CpuReason {
    /// The failure behind it, where there is one.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Disabled => None,
            Self::Unreachable(error) | Self::CircuitOpen(error) | Self::NoGpu(error) => Some(error),
        }
    }

    /// The reason for which a failure means the CPU; the error itself where it means that the request is at fault.
    pub(crate) fn of(error: Error) -> Result<Self, Error> {
        match error.kind() {
            ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Ok(Self::Unreachable(error)),
            ErrorKind::CircuitOpen => Ok(Self::CircuitOpen(error)),
            ErrorKind::NoCapacity
            | ErrorKind::WaitOver
            | ErrorKind::QuotaExceeded
            | ErrorKind::Unsatisfiable => Ok(Self::NoGpu(error)),
            _ => Err(error),
        }
    }
}

impl fmt::Display for CpuReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => formatter.write_str("GPUs are disabled"),
            Self::Unreachable(error) | Self::CircuitOpen(error) | Self::NoGpu(error) => {
                error.fmt(formatter)
            }
        }
    }
}

/// A lease on GPUs, or the word that the work is to run on the CPU.
///
/// ```no_run
/// use gpulease::{Acquired, Client, LeaseRequest};
///
/// # fn train(_: Vec<String>) {}
/// # async fn example(client: Client) -> Result<(), gpulease::Error> {
/// let acquired = client.acquire_or_cpu(LeaseRequest::memory(4 << 30)).await?;
/// println!("on the {}", acquired.device_kind());
/// match &acquired {
///     Acquired::Gpu(lease) => train(lease.devices().into_iter().map(|device| device.uuid).collect()),
///     Acquired::Cpu(reason) => {
///         println!("because {reason}");
///         train(vec![]);
///     }
///     _ => {}
/// }
/// acquired.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropping the guard releases the lease"]
pub enum Acquired {
    /// A lease.
    Gpu(Lease),
    /// None, and why.
    Cpu(CpuReason),
}

impl Acquired {
    /// Where the work is to run. A lease that is paused or lost later does not change it: see [`Lease::check`].
    #[must_use]
    pub fn device_kind(&self) -> DeviceKind {
        match self {
            Self::Gpu(_) => DeviceKind::Gpu,
            Self::Cpu(_) => DeviceKind::Cpu,
        }
    }

    /// The lease, where there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Gpu(lease) => Some(lease),
            Self::Cpu(_) => None,
        }
    }

    /// As [`Lease::check`]; the CPU is always there.
    ///
    /// # Errors
    /// As [`Lease::check`].
    pub fn check(&self) -> Result<(), Error> {
        self.lease().map_or(Ok(()), Lease::check)
    }

    /// As [`Lease::record_operation`]; what runs on the CPU is nobody's business.
    pub fn record_operation(&self, count: u64, busy: Duration) {
        if let Some(lease) = self.lease() {
            lease.record_operation(count, busy);
        }
    }

    /// Gives the lease back, if there is one.
    ///
    /// # Errors
    /// As [`Lease::release`].
    pub async fn release(self) -> Result<Option<LeaseInfo>, Error> {
        match self {
            Self::Gpu(lease) => lease.release().await.map(Some),
            Self::Cpu(_) => Ok(None),
        }
    }
}
