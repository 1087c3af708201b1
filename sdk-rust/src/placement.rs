//! Where a lease goes, as plain Rust values: how devices are chosen, and what leases with one key share.

use std::{fmt, str::FromStr};

use gpulease_proto::v1;

use crate::info::{ParseNameError, named_enum};

named_enum! {
    /// How devices are chosen among those that would do. A preferred device goes first in all of them.
    ///
    /// ```
    /// use gpulease::PlacementPolicy;
    /// assert_eq!("best_fit".parse(), Ok(PlacementPolicy::BestFit));
    /// ```
    PlacementPolicy {
        /// Where least is left afterwards.
        BestFit = "BEST_FIT",
        /// Where most device memory is free: spreads.
        MostFreeMemory = "MOST_FREE_MEMORY",
        /// Where the smallest share of slots and bytes is in use.
        LeastLoaded = "LEAST_LOADED",
        /// The next device after the one granted last.
        RoundRobin = "ROUND_ROBIN",
        /// Where the free capacity stays most useful for the requests seen so far.
        Fragmentation = "FRAGMENTATION",
        /// On devices and nodes that are in use already.
        Pack = "PACK",
    }
}

named_enum! {
    /// What leases with one affinity key share.
    AffinityScope {
        /// Their devices.
        Device = "DEVICE",
        /// Their nodes.
        Node = "NODE",
    }
}

/// A lease goes where others of its service with the same key hold devices, while any of them does; it waits for room
/// there rather than go elsewhere. The first of them goes anywhere.
///
/// ```
/// use gpulease::{Affinity, AffinityScope};
/// let step = Affinity::on_device("pipeline-7");
/// assert_eq!(step.scope, AffinityScope::Device);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// What they have in common, such as the name of a pipeline: 1 to 128 bytes.
    pub key: String,
    /// What they share.
    pub scope: AffinityScope,
}

impl Affinity {
    /// On the device of the others.
    #[must_use]
    pub fn on_device(key: impl Into<String>) -> Self {
        Self { key: key.into(), scope: AffinityScope::Device }
    }

    /// On the node of the others.
    #[must_use]
    pub fn on_node(key: impl Into<String>) -> Self {
        Self { key: key.into(), scope: AffinityScope::Node }
    }
}

impl From<v1::Affinity> for Affinity {
    fn from(wire: v1::Affinity) -> Self {
        let scope = AffinityScope::from_wire(wire.scope).unwrap_or(AffinityScope::Device);
        Self { key: wire.key, scope }
    }
}

impl From<Affinity> for v1::Affinity {
    fn from(affinity: Affinity) -> Self {
        Self { key: affinity.key, scope: affinity.scope.to_wire() }
    }
}
