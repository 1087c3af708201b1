//! What can happen in a random life.

pub(crate) mod free;

use gpulease_core::request::{Priority, Share};
use proptest::prelude::*;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Acquire(Wish),
    Repeat(usize),
    Renew(usize),
    Release(usize),
    ReleaseStale(usize),
    Revoke(usize),
    Gone(usize),
    Session(u8),
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
    /// What callers do in one and the same batch.
    Batch(Vec<Op>),
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
}

pub(crate) fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        2 => Just(Share::Exclusive),
        3 => (1u32..4).prop_map(|slots| Share::Part { slots: Some(slots), memory_bytes: None }),
        3 => (1u64..20).prop_map(|gib| Share::Part { slots: None, memory_bytes: Some(gib << 30) }),
        1 => (1u32..3, 1u64..12)
            .prop_map(|(slots, gib)| Share::Part { slots: Some(slots), memory_bytes: Some(gib << 30) }),
    ]
}

pub(crate) fn wish() -> impl Strategy<Value = Wish> {
    let priority =
        prop_oneof![Just(Priority::Background), Just(Priority::Normal), Just(Priority::Immediate)];
    let wait = prop_oneof![1 => Just(0u64), 2 => Just(5), 4 => Just(3_000)];
    let which = (0u8..2, 0u8..3, 1u32..4, share());
    let how = (
        priority,
        wait,
        2u64..40,
        prop_oneof![3 => Just(0u64), 1 => Just(20_000), 1 => Just(60_000)],
    );
    let expected = prop::option::weighted(0.2, 0u64..2_000);
    (which, how, expected, any::<bool>(), prop::bool::weighted(0.1), any::<bool>()).prop_map(
        |(
            (service, holder, devices, share),
            (priority, wait, ttl, cpu),
            expected,
            same_node,
            named,
            session,
        )| Wish {
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
        },
    )
}

/// What callers do, as opposed to time and devices.
fn call() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => wish().prop_map(Op::Acquire),
        2 => any::<usize>().prop_map(Op::Repeat),
        4 => any::<usize>().prop_map(Op::Renew),
        6 => any::<usize>().prop_map(Op::Release),
        1 => any::<usize>().prop_map(Op::ReleaseStale),
        1 => any::<usize>().prop_map(Op::Revoke),
        2 => any::<usize>().prop_map(Op::Gone),
        1 => (0u8..3).prop_map(Op::Session),
    ]
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        29 => call(),
        3 => prop::collection::vec(call(), 2..7).prop_map(Op::Batch),
        4 => (1u64..4_000).prop_map(Op::Pass),
        2 => (4_000u64..40_000).prop_map(Op::Pass),
        1 => (600_000u64..1_300_000).prop_map(Op::Pass),
        1 => (1_000u64..90_000).prop_map(Op::Stall),
        2 => Just(Op::Restart),
        1 => Just(Op::Snapshot),
        1 => (0u8..6).prop_map(Op::Lose),
        2 => (0u8..6).prop_map(Op::Find),
        1 => (0u8..6, 0u64..4).prop_map(|(device, gib)| Op::Foreign(device, gib << 30)),
        1 => (0u8..3).prop_map(Op::Reboot),
        1 => (0u8..3).prop_map(Op::Silent),
        2 => (0u8..3).prop_map(Op::Heard),
        1 => (0u8..6, 1u32..6).prop_map(|(device, slots)| Op::Slots(device, slots)),
    ]
}
