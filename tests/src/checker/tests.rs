//! Planted faults: the checker must find each of them, and nothing in a clean run.

use gpulease::EventBatch;
use gpulease_proto::v1::{self, event::Body};

use super::*;

const DEVICE: &str = "SIM-a-0";

fn capacity() -> Capacity {
    let mut capacity = Capacity::alike("a", 2, 1_000, 1 << 34);
    capacity.nodes.insert("a".to_owned(), HostShare { cpu_millis: 4_000, memory_bytes: 100 });
    capacity
}

fn lease_event(lease_id: u64, kind: v1::LeaseEventKind) -> v1::LeaseEvent {
    let request_id = format!("r{lease_id}");
    v1::LeaseEvent { kind: kind.into(), lease_id, request_id, ..Default::default() }
}

fn requested(lease_id: u64, slots: u32) -> v1::LeaseEvent {
    let whole = slots == 0;
    let ask = v1::Ask {
        devices: Some(1),
        exclusive: whole,
        slots: Some(slots).filter(|_| !whole),
        ..Default::default()
    };
    v1::LeaseEvent { ask: Some(ask), ..lease_event(lease_id, v1::LeaseEventKind::Requested) }
}

fn granted(lease_id: u64, fencing_token: u64, slots: u32) -> v1::LeaseEvent {
    let device = v1::LeasedDevice {
        node: "a".to_owned(),
        uuid: DEVICE.to_owned(),
        exclusive: slots == 0,
        slots,
        ..Default::default()
    };
    let event = lease_event(lease_id, v1::LeaseEventKind::Granted);
    v1::LeaseEvent { fencing_token, devices: vec![device], ..event }
}

fn ended(lease_id: u64, reason: v1::EndReason) -> v1::LeaseEvent {
    let event = lease_event(lease_id, v1::LeaseEventKind::Ended);
    v1::LeaseEvent { end_reason: reason.into(), ..event }
}

fn reclaiming(lease_id: u64) -> v1::LeaseEvent {
    let event = lease_event(lease_id, v1::LeaseEventKind::Reclaiming);
    v1::LeaseEvent { end_reason: v1::EndReason::Expired.into(), ..event }
}

fn batch(revision: u64, event: v1::LeaseEvent) -> EventBatch {
    let event = v1::Event { body: Some(Body::Lease(event)) };
    v1::WatchResponse { revision, time: None, events: vec![event] }.into()
}

/// Plays the events, each a revision; every lease of `told` was told to a client as granted and released.
fn play(told: &[(u64, u64, u32)], events: Vec<v1::LeaseEvent>) -> Verdict {
    let receipts = Receipts::default();
    for (lease_id, fencing_token, slots) in told.iter().copied() {
        let devices = granted(lease_id, fencing_token, slots).devices;
        let request_id = format!("r{lease_id}");
        receipts.asked(&request_id, HostShare { cpu_millis: 2_000, memory_bytes: 10 });
        let lease =
            v1::Lease { id: lease_id, request_id, fencing_token, devices, ..Default::default() };
        receipts.granted(&lease.into());
        receipts.releasing(lease_id);
        receipts.released(lease_id);
    }
    let mut ledger = Ledger::new(capacity(), receipts);
    for (revision, event) in (1..).zip(events) {
        ledger.apply(&batch(revision, event));
    }
    judge(&ledger)
}

#[track_caller]
fn check(fault: Fault, told: &[(u64, u64, u32)], events: Vec<v1::LeaseEvent>) {
    let verdict = play(told, events);
    assert!(verdict.count(fault) > 0, "{fault:?} was not found: {verdict}");
}

fn released(lease_id: u64) -> v1::LeaseEvent {
    ended(lease_id, v1::EndReason::Released)
}

#[test]
fn a_clean_run_has_no_fault_and_counts_who_waited() {
    let verdict = play(
        &[(1, 1, 600), (2, 2, 600)],
        vec![
            requested(1, 600),
            granted(1, 1, 600),
            requested(2, 600),
            released(1),
            granted(2, 2, 600),
            released(2),
        ],
    );
    assert!(verdict.is_clean(), "{:?}", verdict.words());
    assert_eq!((verdict.granted, verdict.released, verdict.waited), (2, 2, 2));
}

#[test]
fn slots_over_the_device_are_a_double_grant() {
    let events = vec![
        requested(1, 600),
        granted(1, 1, 600),
        requested(2, 600),
        granted(2, 2, 600),
        released(1),
        released(2),
    ];
    check(Fault::DoubleGrant, &[(1, 1, 600), (2, 2, 600)], events);
}

#[test]
fn a_whole_device_beside_slots_is_a_double_grant() {
    for (first, second) in [(0, 1), (1, 0), (0, 0)] {
        let events = vec![
            requested(1, first),
            granted(1, 1, first),
            requested(2, second),
            granted(2, 2, second),
            released(1),
            released(2),
        ];
        check(Fault::DoubleGrant, &[(1, 1, first), (2, 2, second)], events);
    }
}

#[test]
fn what_a_former_lease_closes_is_not_free() {
    let events = vec![
        requested(1, 600),
        granted(1, 1, 600),
        reclaiming(1),
        requested(2, 600),
        granted(2, 2, 600),
        released(2),
    ];
    check(Fault::DoubleGrant, &[(2, 2, 600)], events);
}

#[test]
fn a_token_that_does_not_grow_is_a_violation() {
    let events = vec![
        requested(1, 1),
        granted(1, 5, 1),
        requested(2, 1),
        granted(2, 5, 1),
        released(1),
        released(2),
    ];
    check(Fault::Invariant, &[(1, 5, 1), (2, 5, 1)], events);
}

#[test]
fn host_cpu_beyond_the_node_is_a_violation() {
    let three = [(1, 1, 1), (2, 2, 1), (3, 3, 1)];
    let mut events = Vec::new();
    for (lease_id, token, slots) in three {
        events.extend([requested(lease_id, slots), granted(lease_id, token, slots)]);
    }
    events.extend((1..=3).map(released));
    check(Fault::Invariant, &three, events);
}

#[test]
fn a_grant_that_a_client_knows_and_the_events_do_not_is_lost() {
    check(Fault::GrantLost, &[(1, 1, 1)], vec![requested(1, 1)]);
    check(Fault::GrantLost, &[(1, 1, 1)], vec![requested(1, 1), granted(1, 2, 1), released(1)]);
}

#[test]
fn a_known_grant_that_expires_is_lost() {
    let events = vec![requested(1, 1), granted(1, 1, 1), reclaiming(1)];
    check(Fault::GrantLost, &[(1, 1, 1)], events);
}

#[test]
fn a_second_lease_of_a_request_is_not_once() {
    let mut second = requested(2, 1);
    second.request_id = "r1".to_owned();
    let events = vec![requested(1, 1), granted(1, 1, 1), released(1), second];
    check(Fault::NotOnce, &[(1, 1, 1)], events);
}

#[test]
fn a_grant_after_the_end_is_a_violation() {
    let events = vec![requested(1, 1), granted(1, 1, 1), released(1), granted(1, 2, 1)];
    check(Fault::DoubleGrant, &[(1, 1, 1)], events);
}

#[test]
fn a_revision_that_goes_back_is_a_violation() {
    let receipts = Receipts::default();
    receipts.asked("r1", HostShare::default());
    let mut ledger = Ledger::new(capacity(), receipts);
    ledger.apply(&batch(2, requested(1, 1)));
    ledger.apply(&batch(1, granted(1, 1, 1)));
    assert_eq!(judge(&ledger).count(Fault::Invariant), 1);
}
