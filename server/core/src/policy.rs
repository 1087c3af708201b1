//! The figures that rule decisions and may differ from one installation to the next.
//!
//! Applying events never reads them, so that a journal replays the same under other settings.

use std::collections::BTreeMap;

use crate::{
    fairness::HALF_LIFE_DEFAULT,
    id::Name,
    inventory::{DeviceFacts, NodeFacts},
    request::PlacementPolicy,
    time::Span,
};

/// How the scheduler decides. The default is the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long an unclean end closes its part of a device (P6).
    pub lock_delay: Span,
    /// How long a place in the queue outlives its caller (P11).
    pub session_grace: Span,
    /// How long a holder has to answer a notice.
    pub notice: Span,
    /// The longest a notice may become by extension.
    pub notice_max: Span,
    /// How long a part that was given back stays closed at the most, while no pass shows it free (P7).
    pub release_check_max: Span,
    /// Who of those that may be preempted goes first (P14).
    pub victims: VictimRule,
    /// How devices are chosen where a request does not say.
    pub placement: PlacementPolicy,
    /// Who owns which devices; the first that matches a device owns it.
    pub owners: Vec<Owner>,
    /// Weights and quotas of services, by name.
    pub services: BTreeMap<Name, ServicePolicy>,
    /// Those of every service that is not named.
    pub services_default: ServicePolicy,
    /// Whether shares count in the order; without, arrival alone decides within a class (P10).
    pub fairness: bool,
    /// In how long the use of a service halves in its share (P10).
    pub half_life: Span,
    /// Whether requests that are sure to be gone in time are let in where devices are kept for an earlier one.
    pub backfill: bool,
    /// How long devices are kept for a request with no forecast end, and then not (P10).
    pub keep_max: Span,
    /// Waiting so long raises the order by one class (P10).
    pub aging_step: Span,
    /// Foreign memory up to which a device may be granted whole, in bytes (P1).
    pub exclusive_foreign_max_bytes: u64,
    /// Whether a device whose memory is unknown may be granted (P7).
    pub grant_unmeasured: bool,
    /// A device with no sample for so long is stale: no new grants.
    pub sample_age_max: Span,
    /// A node silent for so long is unreachable: no new grants (P13).
    pub node_unreachable_after: Span,
    /// A node silent for so long is lost (P13).
    pub node_silent_max: Span,
    /// A node not heard of for so long is no longer known (P13).
    pub node_known_for: Span,
    /// How long requests wait for the first inventory ever (P13).
    pub first_inventory_max: Span,
    /// A gap between two steps longer than this, while leases live, extends every deadline by itself (P4).
    pub gap_max: Span,
    /// The longest time between two steps while leases live (P4).
    pub heartbeat: Span,
    /// How often the time is made durable while leases live (P5).
    pub checkpoint: Span,
    /// A batch with so many events takes no more work that can wait: 8,192 of at most some 300 bytes are 2.5 MB of the
    /// journal's 8 MiB, and at some 20 µs each nobody waits longer than a fifth of a second for them.
    pub batch_events_max: usize,
    /// The most waiting requests: a million of about 500 bytes are half a gigabyte.
    pub queued_max: usize,
    /// The most leases that have not ended: two million of about 500 bytes are a gigabyte.
    pub live_max: usize,
}

/// Who goes first among borrowers, or among leases of one class that are none (P14). Minimum holds and shields hold in
/// all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VictimRule {
    /// Those that lose least work in all; then the fewest, then the youngest.
    #[default]
    LeastLost,
    /// As few as will do; then those that lose least, then the youngest.
    Fewest,
    /// Those that were granted last; then the fewest, then those that lose least.
    Youngest,
}

impl VictimRule {
    /// As in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LeastLost => "least-lost",
            Self::Fewest => "fewest",
            Self::Youngest => "youngest",
        }
    }
}

/// A service and the devices that it owns: it gets them back from whoever borrows them (P14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The service.
    pub service: Name,
    /// These devices, by UUID; none given: any.
    pub devices: Vec<Name>,
    /// Those of these models, without regard to case; none given: any.
    pub models: Vec<Name>,
    /// Those of these nodes; none given: any.
    pub nodes: Vec<Name>,
}

/// What a service may have, and what its use weighs. The default: a weight of 1, and no bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePolicy {
    /// With twice the weight it gets twice as much before its turn is over: 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// The most leases that hold devices at once.
    pub leases_max: Option<u64>,
    /// The most devices they hold; one that two of them share counts twice.
    pub devices_max: Option<u64>,
    /// The most bytes of device memory they count, all devices together.
    pub memory_max_bytes: Option<u64>,
    /// The most requests that wait at once.
    pub waiting_max: Option<u64>,
    /// The least that a lease counts of each of its devices, in bytes.
    pub lease_memory_min_bytes: Option<u64>,
    /// The most that a lease counts of each of its devices, in bytes.
    pub lease_memory_max_bytes: Option<u64>,
    /// Preferred by requests that name none, by UUID.
    pub preferred_device: Option<Name>,
}

/// The largest weight of a service: shares stay a thousandth as fine as use, which is far finer than any grant.
pub const WEIGHT_MAX: u32 = 1_000;

impl Default for ServicePolicy {
    fn default() -> Self {
        Self {
            weight: 1,
            leases_max: None,
            devices_max: None,
            memory_max_bytes: None,
            waiting_max: None,
            lease_memory_min_bytes: None,
            lease_memory_max_bytes: None,
            preferred_device: None,
        }
    }
}

impl Owner {
    fn owns(&self, device: &DeviceFacts, node: &NodeFacts) -> bool {
        let is_model = |model: &Name| model.as_str().eq_ignore_ascii_case(device.model.as_str());
        (self.devices.is_empty() || self.devices.contains(&device.uuid))
            && (self.models.is_empty() || self.models.iter().any(is_model))
            && (self.nodes.is_empty() || self.nodes.contains(&node.name))
    }
}

impl Policy {
    /// What a service may have.
    #[must_use]
    pub fn service(&self, service: &Name) -> &ServicePolicy {
        self.services.get(service).unwrap_or(&self.services_default)
    }

    /// The service that owns a device.
    #[must_use]
    pub fn owner_of(&self, device: &DeviceFacts, node: &NodeFacts) -> Option<&Name> {
        self.owners.iter().find(|owner| owner.owns(device, node)).map(|owner| &owner.service)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lock_delay: Span::from_secs(15),
            session_grace: Span::from_secs(10),
            notice: Span::from_secs(30),
            notice_max: Span::from_secs(120),
            release_check_max: Span::from_secs(2),
            victims: VictimRule::default(),
            placement: PlacementPolicy::default(),
            owners: Vec::new(),
            services: BTreeMap::new(),
            services_default: ServicePolicy::default(),
            fairness: true,
            half_life: HALF_LIFE_DEFAULT,
            backfill: true,
            keep_max: Span::from_minutes(10),
            aging_step: Span::from_minutes(10),
            exclusive_foreign_max_bytes: 1 << 30,
            grant_unmeasured: false,
            sample_age_max: Span::from_secs(3),
            node_unreachable_after: Span::from_secs(5),
            node_silent_max: Span::from_secs(60),
            node_known_for: Span::from_secs(3_600),
            first_inventory_max: Span::from_secs(30),
            gap_max: Span::from_secs(1),
            heartbeat: Span::from_millis(250),
            checkpoint: Span::from_secs(60),
            batch_events_max: 8_192,
            queued_max: 1 << 20,
            live_max: 1 << 21,
        }
    }
}
