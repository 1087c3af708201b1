//! Checks: asked for at any time, answered by a look begun after.

use super::bench::{GIB, Host, Stepped};
use gpulease_core::input::MemoryReport;
use gpulease_fake_nvml::{FakeNvml, uuid};

const LIST: &str = "nvmlDeviceGetComputeRunningProcesses_v3";

fn lists(fake: &FakeNvml, number: u32) -> usize {
    fake.device_calls(LIST, &uuid(number)).unwrap()
}

/// The check that the last step's sample of a device answers.
fn answered(stepped: &Stepped, number: u32) -> Option<u64> {
    stepped.sample(number).map(|sample| sample.check)
}

#[test]
fn a_check_looks_at_its_device_alone_and_at_once() {
    let host = Host::with(2);
    let mut backend = host.backend();
    let before = (lists(&host.fake, 0), lists(&host.fake, 1));
    host.fake.set_memory_used(&uuid(0), 7 * GIB).unwrap();
    backend.check(0, 41);
    backend.step(300);
    assert_eq!((lists(&host.fake, 0), lists(&host.fake, 1)), (before.0 + 1, before.1));
    assert_eq!((answered(&backend, 0), answered(&backend, 1)), (Some(41), None));
    assert_eq!(backend.trees().unwrap().check, 41);
    let expected = MemoryReport::Pass { used_bytes: 7 * GIB, processes: Vec::new() };
    assert_eq!(*backend.memory(0), expected);
}

#[test]
fn a_sample_between_looks_answers_no_check_and_the_tiers_look_answers_the_newest() {
    let host = Host::with(2);
    let mut backend = host.backend();
    backend.check(0, 3);
    backend.check(1, 4);
    backend.step(300);
    backend.play(1_000);
    assert_eq!(*backend.memory(0), MemoryReport::Sum { used_bytes: 0 });
    assert_eq!((answered(&backend, 0), answered(&backend, 1)), (Some(0), Some(0)));
    backend.play(5_000);
    assert_eq!((answered(&backend, 0), answered(&backend, 1)), (Some(3), Some(4)));
    assert_eq!(backend.trees().unwrap().check, 4);
}

#[test]
fn a_storm_of_checks_is_answered_by_few_looks() {
    let host = Host::with(1);
    let mut backend = host.backend();
    let delay = std::time::Duration::from_millis(20);
    host.fake.delay(LIST, delay).unwrap();
    let before = lists(&host.fake, 0);
    for number in 1..=100 {
        backend.check(0, number);
        backend.step(500 + number);
    }
    // Each look takes 20 ms, so that the next begins 100 ms later at the earliest.
    assert!(lists(&host.fake, 0) <= before + 2, "{} looks", lists(&host.fake, 0) - before);
    backend.play(999);
    assert_eq!(answered(&backend, 0).or(Some(100)), Some(100), "the newest is answered in the end");
}

#[test]
fn without_attribution_every_sample_answers_the_newest_check() {
    let host = Host::with(1);
    let fault = gpulease_fake_nvml::Code::NOT_SUPPORTED;
    host.fake.fail(LIST, fault).unwrap();
    let mut backend = host.backend();
    backend.check(0, 8);
    for _ in 0..3 {
        backend.until(|backend| backend.sample(0).is_some());
        let MemoryReport::Unattributed { reason, .. } = backend.memory(0) else { panic!() };
        assert!(reason.as_str().contains("does not tell who uses it"), "{reason}");
        assert_eq!(answered(&backend, 0), Some(8));
    }
}

#[test]
fn a_check_asked_for_while_a_pass_hangs_is_answered_by_a_later_pass() {
    let host = Host::with(1);
    let mut backend = host.backend();
    backend.check(0, 1);
    let fault = host.fake.hang(LIST).unwrap();
    backend.step(200);
    assert_eq!(answered(&backend, 0), None);
    backend.check(0, 2);
    host.fake.lift(fault).unwrap();
    backend.until(|backend| answered(backend, 0) == Some(1));
    backend.until(|backend| answered(backend, 0) == Some(2));
}
