//! How a lease stands, as its holder sees it, and how that changes.
//!
//! | status | the devices | what to do |
//! |---|---|---|
//! | `Active` | yours | work |
//! | `Uncertain` | yours as far as anybody knows: renewals have no answer, validity still runs | work, be ready to stop |
//! | `Pausing` | yours until the notice's deadline | stop, save, acknowledge |
//! | `Paused` | not yours | wait for the resume; the lease is renewed meanwhile |
//! | `Lost`, `Ended` | not yours, and never again under this lease | stop, acquire again |
//!
//! A resume makes it `Active` with a new fencing token, and perhaps on other devices.

use std::{fmt, time::Duration};

use crate::{
    info::{EndReason, LeasedDevice},
    notice::Notice,
};

/// Why a holder can no longer prove that it holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// No renewal was answered for a whole TTL, counted from when the last good one was sent.
    ValidityOver,
    /// A notice was not acknowledged by its deadline.
    NoticeOver,
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

impl LostReason {
    /// Its holder gave it back.
    pub(crate) fn released() -> Self {
        Self::Ended { reason: Some(EndReason::Released), detail: String::new() }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::ValidityOver => "no renewal was answered for a whole TTL",
            Self::NoticeOver => "its notice was not acknowledged by the deadline",
            Self::Ended { reason, detail } => {
                let reason = reason.map_or("ENDED", EndReason::name);
                return write!(formatter, "the coordinator ended it: {reason} {detail}");
            }
            Self::StaleToken => "its fencing token is no longer the newest",
            Self::SessionReplaced => "a newer session of the same holder took over",
            Self::ClientClosed => "the client that renewed it was closed",
        })
    }
}

/// What a holder holds since its lease was last granted: token and devices of one and the same grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Grant {
    /// The fencing token: pass it on to whatever can refuse an older one.
    pub fencing_token: u64,
    /// The devices.
    pub devices: Vec<LeasedDevice>,
}

/// How a lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseStatus {
    /// It holds its devices.
    Active,
    /// It holds its devices, and no renewal was answered for half a TTL.
    Uncertain {
        /// What is left of its validity; zero where it is kept while the coordinator is away
        /// ([`WhileUnreachable::Keep`](crate::WhileUnreachable::Keep)).
        remaining: Duration,
    },
    /// It holds its devices until the notice's deadline.
    Pausing(Notice),
    /// It gave its devices back, or lost them, and gets devices again in its turn.
    Paused,
    /// The holder can no longer prove that it holds.
    Lost(LostReason),
    /// It is over, and the coordinator or the holder itself said so.
    Ended {
        /// Why, where that is known.
        reason: Option<EndReason>,
        /// The same in words.
        detail: String,
    },
}

impl LeaseStatus {
    /// Whether the devices may be used now.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self, Self::Active | Self::Uncertain { .. } | Self::Pausing(_))
    }

    /// Whether it is over for its holder.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Ended { .. })
    }
}

impl From<LostReason> for LeaseStatus {
    fn from(reason: LostReason) -> Self {
        match reason {
            LostReason::Ended { reason, detail } => Self::Ended { reason, detail },
            reason => Self::Lost(reason),
        }
    }
}

impl fmt::Display for LeaseStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => formatter.write_str("active"),
            Self::Uncertain { remaining } => {
                write!(formatter, "uncertain, {:.1} s left", remaining.as_secs_f64())
            }
            Self::Pausing(notice) => write!(formatter, "pausing: {notice}"),
            Self::Paused => formatter.write_str("paused"),
            Self::Lost(reason) => write!(formatter, "lost: {reason}"),
            Self::Ended { reason, detail } => {
                write!(formatter, "ended: {} {detail}", reason.map_or("", EndReason::name))
            }
        }
    }
}

/// One change of how a lease stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It was given notice: stop, save, acknowledge.
    Noticed(Notice),
    /// The notice has other causes or another deadline.
    NoticeChanged(Notice),
    /// The notice is withdrawn: go on.
    NoticeWithdrawn,
    /// The devices are given back, or were lost.
    Paused,
    /// It holds devices again, under a new token and perhaps others.
    Resumed(Grant),
    /// No renewal was answered for half a TTL.
    Uncertain {
        /// What is left of its validity.
        remaining: Duration,
    },
    /// Renewals are answered again.
    Certain,
    /// The holder can no longer prove that it holds. The last change.
    Lost(LostReason),
    /// It is over. The last change.
    Ended {
        /// Why, where that is known.
        reason: Option<EndReason>,
        /// The same in words.
        detail: String,
    },
}

impl From<LostReason> for Change {
    fn from(reason: LostReason) -> Self {
        match reason {
            LostReason::Ended { reason, detail } => Self::Ended { reason, detail },
            reason => Self::Lost(reason),
        }
    }
}
