//! Drivers that hang, go away or are let go; devices that vanish, sleep or are partitioned.

use std::time::Duration;

use gpulease_core::input::MemoryReport;
use gpulease_fake_nvml::{Code, Device, control::Calls, uuid};

use super::{
    super::Found,
    bench::{GIB, Host},
};
use crate::backend::{Handle, Measurement, Sink, Stopped, pace};

#[test]
fn a_driver_that_hangs_makes_its_devices_stale_while_the_node_stays_heard() {
    let host = Host::with(2);
    let mut backend = host.backend();
    let fault = host.fake.hang(Calls::about(&uuid(1))).unwrap();
    for second in 1..10 {
        backend.play(second * 1_000);
        assert!(backend.signs() > 0, "the node is silent at {second} s");
        assert!(backend.sample(0).is_none() && backend.observed().is_none());
    }
    host.fake.lift(fault).unwrap();
    backend.until(|backend| backend.sample(0).is_some() && backend.sample(1).is_some());
}

#[test]
fn a_stop_does_not_wait_for_a_driver_that_hangs() {
    struct Nobody;
    impl Sink for Nobody {
        fn report(&mut self, _: gpulease_core::input::Input) {}
        fn measured(&mut self, _: Vec<Measurement>) {}
    }
    let host = Host::with(1);
    let (backend, _) = host.opened(host.config());
    host.fake.hang(Calls::all()).unwrap();
    let running = pace::run(Box::new(backend), Box::new(Nobody), &Handle::default()).unwrap();
    assert_eq!(running.stop(), Stopped::Ended);
    host.fake.lift_all().unwrap();
}

#[test]
fn a_driver_that_hangs_at_the_start_is_waited_for_with_a_bound() {
    let host = Host::with(1);
    let fault = host.fake.hang("nvmlInit_v2").unwrap();
    let (backend, found) = host.opened_within(Duration::from_millis(1));
    assert_eq!(found, Found::Late);
    let mut backend = backend;
    backend.play(4_000);
    assert!(
        backend.signs() > 0 && backend.observed().is_none(),
        "nothing is known, nothing is lost"
    );
    host.fake.lift(fault).unwrap();
    backend.until(|backend| backend.observed().is_some_and(|devices| devices.len() == 1));
}

#[test]
fn a_driver_that_goes_away_is_tried_ever_less_often_and_its_devices_are_not_lost() {
    let host = Host::with(1);
    let mut backend = host.backend();
    let opened = || host.fake.calls("nvmlInit_v2").unwrap();
    let gone = [
        host.fake.fail("nvmlDeviceGetMemoryInfo_v2", Code::UNINITIALIZED).unwrap(),
        host.fake.fail("nvmlInit_v2", Code::DRIVER_NOT_LOADED).unwrap(),
    ];
    let before = opened();
    for second in 1..=40 {
        backend.play(second * 1_000);
        assert!(backend.observed().is_none() && backend.sample(0).is_none());
        assert!(backend.signs() > 0, "the node is silent at {second} s");
    }
    // After 1, 2, 4, 8 and 16 s.
    assert_eq!(opened() - before, 5);
    gone.into_iter().for_each(|fault| host.fake.lift(fault).unwrap());
    backend.play(64_000);
    assert!(backend.sample(0).is_some());
    assert_eq!(opened() - before, 6);
}

#[test]
fn a_device_that_vanishes_is_lost_and_returns() {
    let host = Host::with(2);
    let mut backend = host.backend();
    let device = host.fake.state().device(&uuid(1)).unwrap().clone();
    host.fake.remove_device(&uuid(1)).unwrap();
    backend.play(1_000);
    assert!(backend.sample(0).is_some(), "one device's failure fails no other");
    backend.play(30_000);
    assert!(backend.sample(0).is_some() && backend.sample(1).is_none());
    host.fake.add_device(device).unwrap();
    backend.play(60_000);
    assert_eq!(backend.lost(), [None, None]);
    assert!(backend.sample(1).is_some());
}

#[test]
fn a_lost_device_is_told_with_its_reason() {
    let host = Host::with(2);
    let mut backend = host.backend();
    host.fake.lose(&uuid(0)).unwrap();
    backend.play(1_000);
    let lost = backend.lost();
    assert!(lost[0].as_ref().unwrap().contains("fell off the bus"), "{lost:?}");
    assert_eq!(lost[1], None);
}

#[test]
fn a_device_that_is_closed_to_this_user_is_not_lost() {
    let host = Host::with(2);
    let mut backend = host.backend();
    let attach = ("nvmlDeviceGetHandleByIndex_v2", uuid(0));
    let fault = host.fake.fail((attach.0, attach.1.as_str()), Code::NO_PERMISSION).unwrap();
    // Past the inventory that opens NVML anew, which no longer knows whose the number is.
    for tenth in 1..=4_000 {
        backend.step(tenth * 100);
        assert!(backend.observed().is_none(), "told as lost at {tenth} tenths of a second");
    }
    backend.play(401_000);
    assert!(backend.sample(0).is_none() && backend.sample(1).is_some());
    host.fake.lift(fault).unwrap();
    backend.play(440_000);
    assert!(backend.sample(0).is_some());
}

#[test]
fn a_device_missing_for_long_is_looked_for_by_opening_the_driver_anew() {
    let host = Host::with(2);
    let mut backend = host.backend();
    host.fake.lose(&uuid(0)).unwrap();
    let before = host.fake.calls("nvmlInit_v2").unwrap();
    backend.play(331_000);
    assert_eq!(host.fake.calls("nvmlInit_v2").unwrap(), before + 1);
}

#[test]
fn a_quiesced_driver_is_not_touched_until_it_is_resumed() {
    let host = Host::with(1);
    let mut backend = host.backend();
    backend.ask(|asked| asked.quiesced = [("another".into(), true)].into());
    backend.step(100);
    assert_eq!(host.fake.calls("nvmlShutdown").unwrap(), 0, "another node's driver is meant");
    backend.ask(|asked| asked.quiesced = [("alpha".into(), true)].into());
    backend.step(200);
    assert_eq!(host.fake.calls("nvmlShutdown").unwrap(), 1);
    let before = host.fake.calls("nvmlInit_v2").unwrap();
    backend.play(60_000);
    assert!(backend.signs() > 0 && backend.sample(0).is_none() && backend.observed().is_none());
    assert_eq!(host.fake.calls("nvmlInit_v2").unwrap(), before);
    backend.ask(|asked| asked.quiesced = [("alpha".into(), false)].into());
    backend.step(60_200);
    backend.play(61_000);
    assert!(backend.sample(0).is_some());
}

#[test]
fn a_sleeping_device_is_told_as_it_was_and_woken_only_by_a_check() {
    let host = Host::with(1);
    host.fake.set_memory_used(&uuid(0), GIB).unwrap();
    let mut backend = host.backend();
    host.suspend("0000:18:00.0", "suspended\n");
    let calls = || host.fake.device_calls("nvmlDeviceGetMemoryInfo_v2", &uuid(0)).unwrap();
    let before = calls();
    for second in 1..=40 {
        backend.play(second * 1_000);
        assert_eq!(*backend.memory(0), MemoryReport::Sum { used_bytes: GIB });
    }
    assert_eq!(calls(), before);
    backend.check(0, 5);
    backend.step(40_500);
    assert!(calls() > before && backend.sample(0).unwrap().check == 5);
}

#[test]
fn a_partitioned_device_is_told_and_not_leased() {
    let host = Host::with(0);
    host.fake.add_device(Device { mig_mode: Some((1, 1)), ..Device::new(0) }).unwrap();
    let backend = host.backend();
    assert!(backend.lost()[0].as_ref().unwrap().contains("MIG"));
    assert!(backend.sample(0).is_none());
}

#[test]
fn a_slow_driver_is_asked_less_often() {
    let host = Host::with(1);
    let mut backend = host.backend();
    host.fake.delay("nvmlDeviceGetTemperature", Duration::from_millis(300)).unwrap();
    backend.play(1_000);
    let calls = || host.fake.calls("nvmlDeviceGetTemperature").unwrap();
    let before = calls();
    backend.play(2_400);
    assert_eq!(calls(), before, "300 ms are a fifth of a second and a half");
    backend.play(3_000);
    assert_eq!(calls(), before + 1);
}
