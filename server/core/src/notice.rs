//! A notice: a numbered promise to take a lease's devices at a deadline, unless the holder gives them first or it is
//! withdrawn.
//!
//! It has a set of causes, is withdrawn when that is empty, and its deadline is the earliest of theirs. Who is given
//! notice is decided in `preemption` and `scheduler/drain`; this is what a notice is.

use serde::{Deserialize, Serialize};

use crate::{
    id::{DeviceId, LeaseId, NodeId, NoticeId},
    time::{Span, Time},
};

/// The most causes of one notice; further ones change nothing, for the lease gives its devices back anyway.
pub const CAUSES_MAX: usize = 16;

/// Why a notice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// This request needs the devices (P14).
    Preemption(LeaseId),
    /// An operator drains this device or node.
    Drain(Target),
}

/// A device or a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Target {
    /// One device.
    Device(DeviceId),
    /// A node with all its devices.
    Node(NodeId),
}

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Its number.
    pub id: NoticeId,
    /// Why, in order; never empty while it stands.
    pub causes: Vec<Cause>,
    /// When it was given.
    pub given_at: Time,
    /// When the devices are taken.
    pub deadline: Time,
    /// The holder has had its extension.
    pub extended: bool,
}

impl Notice {
    /// Up to when the holder may extend it, if it is `over` then: once, at most doubling it, never past `notice_max` from
    /// its start.
    #[must_use]
    pub fn extends_to(&self, over: Time, notice_max: Span) -> Option<Time> {
        let doubled = over.after(self.deadline.since(self.given_at));
        let bound = doubled.min(self.given_at.after(notice_max));
        (!self.extended && bound > over).then_some(bound)
    }

    /// Another request, rather than an operator, is among the causes.
    #[must_use]
    pub fn preempts(&self) -> bool {
        self.causes.iter().any(|cause| matches!(cause, Cause::Preemption(_)))
    }
}
