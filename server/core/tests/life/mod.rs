//! What can happen in a random life.

mod calls;
pub(crate) mod free;
pub(crate) mod machine;
pub(crate) mod model;
pub(crate) mod preempting;

use gpulease_core::request::{Preemptible, Priority, Share};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Acquire(Wish),
    Repeat(usize),
    Renew(usize),
    /// With the token before the newest.
    RenewPrevious(usize),
    Release(usize),
    ReleaseStale(usize),
    Acknowledge(usize, Which),
    Extend(usize, Which, u64),
    Revoke(usize),
    Gone(usize),
    Session(u8),
    /// Of a device or node, with notices or without.
    Cordon(Place, bool),
    Uncordon(Place),
    Pass(u64),
    Stall(u64),
    Restart,
    Snapshot,
    Lose(u8),
    Find(u8),
    Foreign(u8, u64),
    Reboot(u8),
    Silent(u8),
    Heard(u8),
    Slots(u8, u32),
    /// On a node with a driver: what a process uses of a device, alone or in the tree of a declared one.
    Use(u8, u32, bool, u64),
    Exit(u32),
    Sums(bool),
    Unattributed(u8, bool),
    /// What callers do in one and the same batch.
    Batch(Vec<Op>),
}

/// Which notice, and which token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Newest,
    NoticeBefore,
    TokenBefore,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Device(u8),
    Node(u8),
}

#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) service: u8,
    pub(crate) holder: u8,
    pub(crate) devices: u32,
    pub(crate) share: Share,
    pub(crate) priority: Priority,
    pub(crate) wait: u64,
    pub(crate) ttl: u64,
    pub(crate) cpu: u64,
    pub(crate) expected: Option<u64>,
    pub(crate) same_node: bool,
    pub(crate) named: bool,
    pub(crate) session: bool,
    pub(crate) preemptible: Preemptible,
    pub(crate) hold: u64,
    pub(crate) pid: Option<u32>,
}

pub(crate) fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        4 => Just(Share::Exclusive),
        3 => (1u32..4).prop_map(|slots| Share::Part { slots: Some(slots), memory_bytes: None }),
        4 => (1u64..24).prop_map(|gib| Share::Part { slots: None, memory_bytes: Some(gib << 30) }),
        1 => (1u32..3, 1u64..12)
            .prop_map(|(slots, gib)| Share::Part { slots: Some(slots), memory_bytes: Some(gib << 30) }),
    ]
}

pub(crate) fn wish() -> impl Strategy<Value = Wish> {
    let priority =
        prop_oneof![Just(Priority::Background), Just(Priority::Normal), Just(Priority::Immediate)];
    let wait = prop_oneof![1 => Just(0u64), 1 => Just(5), 8 => Just(3_000)];
    let devices = prop_oneof![5 => Just(1u32), 2 => Just(2), 1 => Just(3)];
    let which = (0u8..3, 0u8..3, devices, share());
    let how = (
        priority,
        wait,
        prop_oneof![1 => 2u64..40, 3 => Just(600)],
        prop_oneof![6 => Just(0u64), 1 => Just(20_000), 1 => Just(60_000)],
    );
    let given_back = (
        prop_oneof![
            2 => Just(Preemptible::Never),
            6 => Just(Preemptible::Pause),
            1 => Just(Preemptible::End)
        ],
        prop_oneof![6 => Just(0u64), 1 => Just(10), 1 => Just(60)],
        prop::option::weighted(0.5, PIDS),
    );
    let expected = prop::option::weighted(0.2, 0u64..2_000);
    let flags = (any::<bool>(), prop::bool::weighted(0.1), any::<bool>());
    (which, how, given_back, expected, flags).prop_map(
        |(which, how, given_back, expected, flags)| {
            let (service, holder, devices, share) = which;
            let (priority, wait, ttl, cpu) = how;
            let (preemptible, hold, pid) = given_back;
            let (same_node, named, session) = flags;
            Wish {
                service,
                holder,
                devices,
                share,
                priority,
                wait,
                ttl,
                cpu,
                expected,
                same_node,
                named,
                session,
                preemptible,
                hold,
                pid,
            }
        },
    )
}

/// Processes that leases declare.
pub(crate) const PIDS: std::ops::Range<u32> = 100..104;

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        6 => Just(Which::Newest),
        1 => Just(Which::NoticeBefore),
        1 => Just(Which::TokenBefore)
    ]
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![(0u8..8).prop_map(Place::Device), (0u8..4).prop_map(Place::Node)]
}

/// What callers do, as opposed to time and devices.
fn call() -> impl Strategy<Value = Op> {
    prop_oneof![
        16 => wish().prop_map(Op::Acquire),
        2 => any::<usize>().prop_map(Op::Repeat),
        4 => any::<usize>().prop_map(Op::Renew),
        1 => any::<usize>().prop_map(Op::RenewPrevious),
        4 => any::<usize>().prop_map(Op::Release),
        1 => any::<usize>().prop_map(Op::ReleaseStale),
        7 => (any::<usize>(), which()).prop_map(|(pick, which)| Op::Acknowledge(pick, which)),
        2 => (any::<usize>(), which(), 0u64..90)
            .prop_map(|(pick, which, secs)| Op::Extend(pick, which, secs)),
        1 => any::<usize>().prop_map(Op::Revoke),
        1 => any::<usize>().prop_map(Op::Gone),
        3 => (0u8..6).prop_map(Op::Session),
        1 => (place(), any::<bool>()).prop_map(|(place, drain)| Op::Cordon(place, drain)),
        2 => place().prop_map(Op::Uncordon),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        36 => call(),
        3 => prop::collection::vec(call(), 2..7).prop_map(Op::Batch),
        6 => (1u64..4_000).prop_map(Op::Pass),
        3 => (4_000u64..40_000).prop_map(Op::Pass),
        1 => (600_000u64..1_300_000).prop_map(Op::Pass),
        1 => (1_000u64..90_000).prop_map(Op::Stall),
        2 => Just(Op::Restart),
        1 => Just(Op::Snapshot),
        1 => (0u8..8).prop_map(Op::Lose),
        3 => (0u8..8).prop_map(Op::Find),
        1 => (0u8..6, 0u64..4).prop_map(|(device, gib)| Op::Foreign(device, gib << 30)),
        1 => (0u8..4).prop_map(Op::Reboot),
        1 => (0u8..4).prop_map(Op::Silent),
        2 => (0u8..4).prop_map(Op::Heard),
        1 => (0u8..8, 1u32..6).prop_map(|(device, slots)| Op::Slots(device, slots)),
        4 => machine::op(),
    ]
}
