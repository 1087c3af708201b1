//! What the contract promises of real devices (P6, P7, P8), with the rules at work on made-up ones of 80 GiB.
//!
//! Of these the driver keeps 600 MiB and the reserve is 512 MiB, so that a little less than 79 GiB can be granted.

use gpulease_core::{
    id::LeaseId,
    lease::{EndReason, State},
    request::{Process, Share},
    time::Span,
    view::DeviceCondition,
};
use gpulease_fake_nvml::{Code, control::Calls, uuid};

use super::{
    bench::{GIB, Host},
    world::{World, gib},
};

const LIST: &str = "nvmlDeviceGetComputeRunningProcesses_v3";

/// One device, and a holder with a child that computes.
fn holder_with_a_child(uses_gib: u64) -> (World, Process) {
    let host = Host::with(1);
    let root = host.start(50, 1);
    host.start(51, 50);
    host.fake.run_process(&uuid(0), 51, uses_gib * GIB).unwrap();
    (World::of(host), root)
}

/// Its parent dies, and does so without a word: the lease of two seconds expires.
fn killed_under_its_lease(world: &mut World, root: Process) -> LeaseId {
    let lease = world.acquire_for(gib(8), Some(root), Span::from_secs(2));
    world.pass(1_000);
    world.host.end(50);
    world.host.start(51, 1);
    world.pass(1_500);
    assert_eq!(world.state(lease), State::Reclaiming(EndReason::Expired));
    lease
}

#[test]
fn the_part_of_a_killed_holder_opens_when_its_last_child_has_exited() {
    let (mut world, root) = holder_with_a_child(6);
    let lease = killed_under_its_lease(&mut world, root);
    let waiter = world.acquire(Share::Exclusive, None);
    world.pass(5_000);
    assert!(!world.is_active(waiter), "the child lives");
    world.host.fake.end_process(&uuid(0), 51).unwrap();
    world.host.end(51);
    // Checks come ever less often, the processes' own tier every five seconds.
    world.pass(5_000);
    assert_eq!(world.state(lease), State::Ended(EndReason::Expired));
    assert!(world.is_active(waiter), "proof came before the lock delay of 15 s was over");
}

#[test]
fn a_child_that_outlives_the_lock_delay_keeps_whole_device_grants_off_and_its_bytes_are_foreign() {
    let (mut world, root) = holder_with_a_child(6);
    let lease = killed_under_its_lease(&mut world, root);
    let whole = world.acquire(Share::Exclusive, None);
    world.pass(15_000);
    assert_eq!(world.state(lease), State::Ended(EndReason::Expired));
    assert!(!world.is_active(whole));
    assert_eq!(world.memory(), (Some(6), Some(73)));
    world.host.fake.end_process(&uuid(0), 51).unwrap();
    world.host.end(51);
    world.pass(5_000);
    assert!(world.is_active(whole));
}

#[test]
fn a_foreign_process_that_grows_leaves_less_to_grant_and_takes_nothing_from_a_lease() {
    let (mut world, root) = holder_with_a_child(6);
    let lease = world.acquire(gib(8), Some(root));
    world.host.start(60, 1);
    // Foreign memory takes the place of the reserve, which is why the first half gibibyte of it costs nothing.
    for (foreign_gib, free_gib) in [(0, 70), (10, 61), (30, 41), (60, 11)] {
        world.host.fake.run_process(&uuid(0), 60, foreign_gib * GIB).unwrap();
        world.pass(6_000);
        assert_eq!(world.memory(), (Some(foreign_gib), Some(free_gib)));
    }
    assert!(world.is_active(lease));
}

#[test]
fn a_holder_above_its_lease_is_charged_what_it_uses() {
    let (mut world, root) = holder_with_a_child(20);
    let lease = world.acquire(gib(8), Some(root));
    world.pass(6_000);
    assert_eq!(world.memory(), (Some(0), Some(58)));
    assert!(world.is_active(lease));
}

#[test]
fn a_desktops_few_hundred_mebibytes_do_not_keep_a_whole_device_from_being_leased() {
    let host = Host::with(1);
    host.start(70, 1);
    host.fake.run_process(&uuid(0), 70, 400 << 20).unwrap();
    let mut world = World::of(host);
    let whole = world.acquire(Share::Exclusive, None);
    assert!(world.is_active(whole));
    world.release(whole);
    world.host.fake.run_process(&uuid(0), 70, 2 * GIB).unwrap();
    world.pass(6_000);
    let second = world.acquire(Share::Exclusive, None);
    assert!(!world.is_active(second), "two gibibytes are more than a desktop");
}

#[test]
fn a_device_that_vanishes_ends_its_lease_and_serves_again_when_it_returns() {
    let (mut world, root) = holder_with_a_child(6);
    let lease = world.acquire(gib(8), Some(root));
    world.host.fake.lose(&uuid(0)).unwrap();
    world.pass(1_000);
    assert_eq!(world.state(lease), State::Reclaiming(EndReason::DeviceLost));
    assert_eq!(world.device(0).condition, DeviceCondition::Unavailable);
    world.host.fake.restore(&uuid(0)).unwrap();
    world.pass(31_000);
    assert_eq!(world.device(0).condition, DeviceCondition::Available);
    let next = world.acquire(gib(8), Some(root));
    assert!(world.is_active(next));
}

/// A lease of 75 GiB whose child uses 70 of them, and a request that waits for 60.
fn one_that_uses_what_another_waits_for() -> (World, LeaseId, LeaseId) {
    let (mut world, root) = holder_with_a_child(0);
    let first = world.acquire(gib(75), Some(root));
    assert!(world.is_active(first));
    world.host.fake.run_process(&uuid(0), 51, 70 * GIB).unwrap();
    world.pass(6_000);
    let second = world.acquire(gib(60), None);
    (world, first, second)
}

#[test]
fn released_bytes_are_free_once_a_look_begun_after_the_release_shows_them_free() {
    let (mut world, first, second) = one_that_uses_what_another_waits_for();
    let looks = world.host.fake.calls(LIST).unwrap();
    world.release(first);
    world.pass(400);
    assert!(!world.is_active(second), "the bytes are still in use");
    assert!(world.host.fake.calls(LIST).unwrap() > looks, "it was looked at outside all tiers");
    world.host.fake.end_process(&uuid(0), 51).unwrap();
    world.pass(400);
    assert!(world.is_active(second), "without waiting for a tier");
}

#[test]
fn bytes_still_in_use_two_seconds_after_their_release_are_foreign() {
    let (mut world, first, second) = one_that_uses_what_another_waits_for();
    assert_eq!(world.memory(), (Some(0), Some(3)));
    world.release(first);
    world.pass(2_500);
    assert!(!world.is_active(second));
    assert_eq!(world.memory(), (Some(70), Some(9)));
}

#[test]
fn without_attribution_released_bytes_count_until_use_falls_by_them() {
    let (world, root) = holder_with_a_child(0);
    world.host.fake.fail(LIST, Code::NOT_SUPPORTED).unwrap();
    let mut world = World::of(world.host);
    assert!(world.device(0).attribution_off.is_some());
    let first = world.acquire(gib(40), Some(root));
    world.host.fake.set_memory_used(&uuid(0), 40 * GIB).unwrap();
    world.pass(2_000);
    let second = world.acquire(gib(60), None);
    world.release(first);
    world.pass(500);
    assert!(!world.is_active(second));
    world.host.fake.set_memory_used(&uuid(0), 0).unwrap();
    world.pass(1_000);
    assert!(world.is_active(second));
}

#[test]
fn a_driver_that_hangs_for_minutes_ends_no_lease_and_grants_none() {
    let (mut world, root) = holder_with_a_child(6);
    let lease = world.acquire(gib(8), Some(root));
    let fault = world.host.fake.hang(Calls::all()).unwrap();
    world.pass(90_000);
    assert!(world.is_active(lease));
    assert_eq!(world.device(0).condition, DeviceCondition::Stale);
    let waiter = world.acquire(gib(8), None);
    world.pass(1_000);
    assert!(!world.is_active(waiter));
    world.host.fake.lift(fault).unwrap();
    world.pass(5_000);
    assert!(world.is_active(waiter), "{:?}", world.device(0));
}
