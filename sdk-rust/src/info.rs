//! Leases as plain Rust values: snapshots, true at the moment they were read.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use gpulease_proto::v1;

use crate::{
    convert,
    notice::{Notice, Preemptible, Process},
    placement::PlacementPolicy,
    request::Constraints,
};

/// A text that names none of the values that were possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not one of {expected}")]
pub struct ParseNameError {
    text: String,
    expected: String,
}

/// An enum that reads and prints as on the wire, without the prefix, in UPPER_SNAKE.
macro_rules! named_enum {
    ($(#[$head:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$head])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in UPPER_SNAKE, as on the wire without its prefix.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            #[allow(dead_code, reason = "some enums are only ever written")]
            pub(crate) fn from_wire(wire: i32) -> Option<Self> {
                Some(match v1::$name::try_from(wire).ok()? {
                    $(v1::$name::$variant => Self::$variant,)+
                    _ => return None,
                })
            }

            #[allow(dead_code, reason = "some enums are only ever read")]
            pub(crate) const fn to_wire(self) -> i32 {
                match self { $(Self::$variant => v1::$name::$variant as i32),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = ParseNameError;

            /// Reads a name without regard to case.
            fn from_str(text: &str) -> Result<Self, ParseNameError> {
                Self::ALL.iter().copied().find(|value| value.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|value| value.name()).collect();
                    $crate::info::ParseNameError::new(text, &names)
                })
            }
        }
    };
}
pub(crate) use named_enum;

impl ParseNameError {
    pub(crate) fn new(text: &str, names: &[&str]) -> Self {
        Self { text: text.to_owned(), expected: names.join(", ") }
    }
}

named_enum! {
    /// How urgent a request is. Higher goes first; waiting raises the order, never this value.
    ///
    /// ```
    /// use gpulease::Priority;
    /// assert_eq!("background".parse(), Ok(Priority::Background));
    /// assert_eq!(Priority::Immediate.to_string(), "IMMEDIATE");
    /// ```
    Priority {
        /// Work that may wait for hours.
        Background = "BACKGROUND",
        /// The default.
        Normal = "NORMAL",
        /// Somebody is waiting for the answer.
        Immediate = "IMMEDIATE",
    }
}

named_enum! {
    /// Where a lease stands.
    LeaseState {
        /// Waits for its turn.
        Queued = "QUEUED",
        /// Holds its devices.
        Active = "ACTIVE",
        /// Holds its devices and was asked to give them back by a deadline.
        Pausing = "PAUSING",
        /// Gave its devices back and keeps the lease.
        Paused = "PAUSED",
        /// Ended uncleanly: its part of each device stays closed until it is safe.
        Reclaiming = "RECLAIMING",
        /// Over. Nothing revives a lease.
        Ended = "ENDED",
    }
}

named_enum! {
    /// Why a lease ended, or is about to.
    EndReason {
        /// Its holder released it.
        Released = "RELEASED",
        /// Its TTL, or its longest lifetime, was over.
        Expired = "EXPIRED",
        /// The coordinator ended it on an operator's word.
        Revoked = "REVOKED",
        /// It never got devices: its holder cancelled it or went away.
        Cancelled = "CANCELLED",
        /// It never got devices: the longest wait was over.
        WaitOver = "WAIT_OVER",
        /// It never got devices: no known node can satisfy it any more.
        Unsatisfiable = "UNSATISFIABLE",
        /// A device or node that it held was lost.
        DeviceLost = "DEVICE_LOST",
    }
}

impl LeaseState {
    /// Whether a lease in this state holds its devices.
    #[must_use]
    pub fn holds(self) -> bool {
        matches!(self, Self::Active | Self::Pausing)
    }

    /// Whether a lease in this state was granted and is not over: it is renewed, devices or not.
    #[must_use]
    pub fn is_kept(self) -> bool {
        self.holds() || self == Self::Paused
    }
}

/// What a lease takes of each of its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Ask {
    /// How many devices.
    pub devices: u32,
    /// Whole devices that nobody else may use.
    pub exclusive: bool,
    /// Slots on each device.
    pub slots: Option<u32>,
    /// Bytes of memory on each device.
    pub memory_bytes: Option<u64>,
}

impl From<v1::Ask> for Ask {
    fn from(wire: v1::Ask) -> Self {
        Self {
            devices: wire.devices.unwrap_or(1),
            exclusive: wire.exclusive,
            slots: wire.slots,
            memory_bytes: wire.memory_bytes,
        }
    }
}

/// What a lease holds of one device.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LeasedDevice {
    /// The node's name.
    pub node: String,
    /// The vendor's identifier of the device.
    pub uuid: String,
    /// Its position on the node, for display.
    pub index: u32,
    /// Its address on the PCI bus.
    pub pci_address: Option<String>,
    /// The vendor, such as `nvidia`.
    pub vendor: String,
    /// The model, such as `H100`.
    pub model: String,
    /// It is held whole.
    pub exclusive: bool,
    /// Slots held of it; `None` where none were asked for.
    pub slots: Option<u32>,
    /// Bytes held of it; `None` where none were asked for.
    pub memory_bytes: Option<u64>,
}

impl From<v1::LeasedDevice> for LeasedDevice {
    fn from(wire: v1::LeasedDevice) -> Self {
        Self {
            node: wire.node,
            uuid: wire.uuid,
            index: wire.index,
            pci_address: convert::text(wire.pci_address),
            vendor: wire.vendor,
            model: wire.model,
            exclusive: wire.exclusive,
            slots: Some(wire.slots).filter(|slots| *slots > 0),
            memory_bytes: Some(wire.memory_bytes).filter(|bytes| *bytes > 0),
        }
    }
}

/// A lease as it was when the coordinator answered. Times are for display; durations are to be obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// Its number, never used again.
    pub id: u64,
    /// The service it is for.
    pub service: String,
    /// The running client that holds it.
    pub holder: String,
    /// Its name, unique among its service's live leases.
    pub name: Option<String>,
    /// The request that made it.
    pub request_id: String,
    /// Where it stands.
    pub state: LeaseState,
    /// The fencing token of its newest grant; 0 before the first.
    pub fencing_token: u64,
    /// How urgent it was asked to be.
    pub priority: Priority,
    /// What it takes of each device.
    pub ask: Ask,
    /// Which devices will do.
    pub constraints: Constraints,
    /// What it holds; empty unless it holds devices.
    pub devices: Vec<LeasedDevice>,
    /// How long it lives without a renewal.
    pub ttl: Duration,
    /// How long it still lived, or still waited while queued; `None` when neither is bounded.
    pub remaining: Option<Duration>,
    /// When that will be over.
    pub expires_at: Option<SystemTime>,
    /// When it was asked for.
    pub requested_at: Option<SystemTime>,
    /// When it was granted.
    pub granted_at: Option<SystemTime>,
    /// When it ended.
    pub ended_at: Option<SystemTime>,
    /// How long it waited, up to its grant, its end or the answer.
    pub waited: Duration,
    /// Why it ended, or is about to.
    pub end_reason: Option<EndReason>,
    /// The same in the words of whoever ended it.
    pub end_detail: String,
    /// While queued: how many requests stand before it.
    pub queue_position: u64,
    /// While queued: devices kept for it, by UUID.
    pub kept_devices: Vec<String>,
    /// Devices that its unclean end still closes, by UUID.
    pub closed_devices: Vec<String>,
    /// How long its holder expected to hold it.
    pub expected_duration: Option<Duration>,
    /// The longest it may live after its grant.
    pub lifetime_max: Option<Duration>,
    /// How it may be preempted.
    pub preemptible: Preemptible,
    /// No notice before it has held its devices this long.
    pub minimum_hold: Duration,
    /// While pausing: what it was asked.
    pub notice: Option<Notice>,
    /// The process that uses its devices, where it was declared.
    pub process: Option<Process>,
    /// How often it was preempted.
    pub preemptions: u32,
    /// How long its holder took to answer the last notice it acknowledged.
    pub pause_took: Option<Duration>,
    /// How its devices are chosen, where the request said so.
    pub placement: Option<PlacementPolicy>,
    /// What a pause costs its holder, where it said so.
    pub pause_cost: Option<Duration>,
}

impl From<v1::Lease> for LeaseInfo {
    fn from(wire: v1::Lease) -> Self {
        Self {
            id: wire.id,
            service: wire.service,
            holder: wire.holder,
            name: convert::text(wire.name),
            request_id: wire.request_id,
            // A state that this release does not know is one in which nothing may be done with the lease.
            state: LeaseState::from_wire(wire.state).unwrap_or(LeaseState::Ended),
            fencing_token: wire.fencing_token,
            priority: Priority::from_wire(wire.priority).unwrap_or(Priority::Normal),
            ask: wire.ask.unwrap_or_default().into(),
            constraints: wire.constraints.map(Constraints::from).unwrap_or_default(),
            devices: wire.devices.into_iter().map(LeasedDevice::from).collect(),
            ttl: wire.ttl.and_then(convert::duration).unwrap_or_default(),
            remaining: wire.remaining.and_then(convert::duration),
            expires_at: wire.expire_time.and_then(convert::time),
            requested_at: wire.request_time.and_then(convert::time),
            granted_at: wire.grant_time.and_then(convert::time),
            ended_at: wire.end_time.and_then(convert::time),
            waited: wire.waited.and_then(convert::duration).unwrap_or_default(),
            end_reason: EndReason::from_wire(wire.end_reason),
            end_detail: wire.end_detail,
            queue_position: wire.queue_position,
            kept_devices: wire.kept_devices,
            closed_devices: wire.closed_devices,
            expected_duration: wire.expected_duration.and_then(convert::duration),
            lifetime_max: wire.lifetime_max.and_then(convert::duration),
            preemptible: Preemptible::from_wire(wire.preemptible).unwrap_or(Preemptible::Never),
            minimum_hold: wire.minimum_hold.and_then(convert::duration).unwrap_or_default(),
            notice: wire.notice.map(Notice::from),
            process: wire.process.map(Process::from),
            preemptions: wire.preemptions,
            pause_took: wire.pause_took.and_then(convert::duration),
            placement: PlacementPolicy::from_wire(wire.placement),
            pause_cost: wire.pause_cost.and_then(convert::duration),
        }
    }
}

/// One thing that happened to a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseFact {
    /// When, for display.
    pub time: Option<SystemTime>,
    /// The durable batch that made it so; `None` where the history was cut short.
    pub revision: Option<u64>,
    /// The state it came to.
    pub state: LeaseState,
    /// What happened and why, in words.
    pub description: String,
}

impl From<v1::LeaseFact> for LeaseFact {
    fn from(wire: v1::LeaseFact) -> Self {
        Self {
            time: wire.time.and_then(convert::time),
            revision: Some(wire.revision).filter(|revision| *revision > 0),
            state: LeaseState::from_wire(wire.state).unwrap_or(LeaseState::Ended),
            description: wire.description,
        }
    }
}

/// A lease with its history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseDetail {
    /// The lease.
    pub lease: LeaseInfo,
    /// What happened to it, oldest first; the newest 64 facts.
    pub history: Vec<LeaseFact>,
    /// The revision at which this was true.
    pub revision: u64,
}

/// A lease after a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Renewed {
    /// Which lease.
    pub lease_id: u64,
    /// Its token, to be used from now on.
    pub fencing_token: u64,
    /// How long it now lives, counted from when the renewal was sent: a lower bound.
    pub remaining: Duration,
    /// Where it stands; `None`: the coordinator did not say.
    pub state: Option<LeaseState>,
    /// While pausing: the notice to answer.
    pub notice: Option<Notice>,
    /// The lease as it is, where the token given was not its newest: it was resumed, perhaps on other devices.
    pub resumed: Option<Box<LeaseInfo>>,
}

impl From<v1::RenewResponse> for Renewed {
    fn from(wire: v1::RenewResponse) -> Self {
        Self {
            lease_id: wire.lease_id,
            fencing_token: wire.fencing_token,
            remaining: wire.remaining.and_then(convert::duration).unwrap_or_default(),
            state: LeaseState::from_wire(wire.state),
            notice: wire.notice.map(Notice::from),
            resumed: wire.resumed.map(|lease| Box::new((*lease).into())),
        }
    }
}
