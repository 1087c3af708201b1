//! What the guard and the session share about one held lease: its token, until when it is provably held, and
//! whether it is lost. Losing is final, and the first reason stands.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    error::{Error, ErrorKind},
    info::{EndReason, LeaseInfo},
};

/// Why a holder can no longer prove that it holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// No renewal was answered for a whole TTL, counted from when the last good one was sent.
    ValidityOver,
    /// The coordinator ended it.
    Ended {
        /// Why, where the coordinator said so.
        reason: Option<EndReason>,
        /// The same in words.
        detail: String,
    },
    /// Its fencing token is no longer the newest.
    StaleToken,
    /// A newer session of the same holder took over; the lease is that session's now.
    SessionReplaced,
    /// The client that renewed it was closed.
    ClientClosed,
}

impl fmt::Display for LostReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ValidityOver => formatter.write_str("no renewal was answered for a whole TTL"),
            Self::Ended { reason, detail } => {
                let reason = reason.map_or("ENDED", EndReason::name);
                write!(formatter, "the coordinator ended it: {reason} {detail}")
            }
            Self::StaleToken => formatter.write_str("its fencing token is no longer the newest"),
            Self::SessionReplaced => {
                formatter.write_str("a newer session of the same holder took over")
            }
            Self::ClientClosed => formatter.write_str("the client that renewed it was closed"),
        }
    }
}

/// One held lease.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: u64,
    info: Mutex<LeaseInfo>,
    fencing_token: AtomicU64,
    /// On the client's clock, in nanoseconds: 2⁶⁴ of them are 584 years.
    valid_until_nanos: AtomicU64,
    lost: OnceLock<LostReason>,
    lost_notice: Notify,
}

impl Held {
    pub(crate) fn new(info: LeaseInfo, valid_until: Duration) -> Self {
        Self {
            id: info.id,
            fencing_token: AtomicU64::new(info.fencing_token),
            valid_until_nanos: AtomicU64::new(nanos(valid_until)),
            info: Mutex::new(info),
            lost: OnceLock::new(),
            lost_notice: Notify::new(),
        }
    }

    pub(crate) fn info(&self) -> MutexGuard<'_, LeaseInfo> {
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fencing_token(&self) -> u64 {
        self.fencing_token.load(Ordering::Acquire)
    }

    pub(crate) fn valid_until(&self) -> Duration {
        Duration::from_nanos(self.valid_until_nanos.load(Ordering::Acquire))
    }

    /// A renewal was answered. Answers may overtake each other, so validity only ever grows.
    pub(crate) fn renewed(&self, fencing_token: u64, valid_until: Duration) {
        self.valid_until_nanos.fetch_max(nanos(valid_until), Ordering::AcqRel);
        if self.fencing_token.fetch_max(fencing_token, Ordering::AcqRel) < fencing_token {
            self.info().fencing_token = fencing_token;
        }
    }

    pub(crate) fn lose(&self, reason: LostReason) {
        tracing::warn!(lease_id = self.id, %reason, "lease lost");
        if self.lost.set(reason).is_ok() {
            self.lost_notice.notify_waiters();
        }
    }

    /// Why it is lost, if it is: said, or by the clock alone.
    pub(crate) fn lost_at(&self, now: Duration) -> Option<LostReason> {
        let by_time = || (now >= self.valid_until()).then_some(LostReason::ValidityOver);
        self.lost.get().cloned().or_else(by_time)
    }

    pub(crate) fn is_lost_at(&self, now: Duration) -> bool {
        self.lost.get().is_some() || now >= self.valid_until()
    }

    /// Waits until it is lost.
    pub(crate) async fn lost(&self) -> LostReason {
        loop {
            let notice = self.lost_notice.notified();
            if let Some(reason) = self.lost.get() {
                return reason.clone();
            }
            notice.await;
        }
    }

    pub(crate) fn lost_error(&self, reason: &LostReason) -> Error {
        let message = format!(
            "lease {} is lost: {reason}; stop the work that needs it, then acquire again",
            self.id
        );
        Error::new(ErrorKind::LeaseLost, "LEASE_LOST", message)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
