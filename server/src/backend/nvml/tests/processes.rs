//! Whose memory is used, and whose processes live: what passes over them tell.

use gpulease_core::{input::MemoryReport, request::Process};
use gpulease_fake_nvml::{ProcessKind, uuid};

use super::bench::{GIB, Host, Stepped};
use crate::backend::Attribution;

const LIST: &str = "nvmlDeviceGetComputeRunningProcesses_v3";

/// The bytes of each process, and the root that it is told for.
fn uses(backend: &Stepped) -> Vec<(u32, u64, Option<u32>)> {
    let told = backend.processes(0).iter();
    told.map(|used| (used.process.pid, used.bytes / GIB, used.root.map(|root| root.pid))).collect()
}

#[test]
fn a_process_in_a_tracked_tree_is_told_with_its_root_and_any_other_without() {
    let host = Host::with(1);
    let root = host.start(50, 1);
    host.start(51, 50);
    host.start(60, 1);
    host.fake.run_process(&uuid(0), 51, 3 * GIB).unwrap();
    host.fake.run_process(&uuid(0), 60, 4 * GIB).unwrap();
    let mut backend = host.backend();
    assert_eq!(uses(&backend), [(60, 4, None), (51, 3, None)]);
    backend.track(root);
    backend.look(1);
    assert_eq!(uses(&backend), [(60, 4, None), (51, 3, Some(50))]);
    let told = &backend.processes(0)[0];
    assert_eq!((told.uid, told.command.as_str()), (Some(1_000), "work 60"));
    assert_eq!(told.process, Process { pid: 60, started_ticks: 600 });
}

#[test]
fn a_holder_that_was_killed_lives_on_in_its_child_until_that_ends() {
    let host = Host::with(1);
    let root = host.start(50, 1);
    host.start(51, 50);
    host.fake.run_process(&uuid(0), 51, 3 * GIB).unwrap();
    let mut backend = host.backend();
    backend.track(root);
    backend.look(1);
    host.end(50);
    host.start(51, 1);
    backend.look(2);
    assert_eq!(backend.trees().unwrap().alive, [root]);
    assert_eq!(uses(&backend), [(51, 3, Some(50))]);
    host.end(51);
    backend.look(3);
    assert_eq!(backend.trees().unwrap().alive, []);
    assert_eq!(uses(&backend), [], "it has gone, and its bytes are nobody's");
    assert!(
        matches!(backend.memory(0), MemoryReport::Pass { used_bytes, .. } if *used_bytes == 3 * GIB)
    );
}

#[test]
fn a_root_that_was_never_seen_alive_is_not_called_exited() {
    let host = Host::with(1);
    let root = Process { pid: 50, started_ticks: 500 };
    let mut backend = host.backend();
    backend.track(root);
    backend.step(50);
    assert_eq!(backend.trees().unwrap().alive, [root], "told as soon as it is tracked");
    backend.look(1);
    assert_eq!(backend.trees().unwrap().alive, [root]);
}

#[test]
fn exits_prove_nothing_once_a_process_could_not_be_tracked() {
    let host = Host::with(1);
    let mut backend = host.backend();
    backend.ask(|asked| asked.tracked_dropped = true);
    backend.look(1);
    assert!(backend.sample(0).is_some() && backend.trees().is_none());
}

#[test]
fn memory_is_not_attributed_where_the_driver_does_not_say_who_uses_how_much() {
    let host = Host::with(1);
    host.start(50, 1);
    host.fake.set_processes(&uuid(0), ProcessKind::Compute, &[(50, None)]).unwrap();
    let backend = host.backend();
    let MemoryReport::Unattributed { reason, .. } = backend.memory(0) else { panic!() };
    assert!(reason.as_str().contains("how much each process uses"), "{reason}");
}

#[test]
fn memory_is_not_attributed_in_a_foreign_namespace_nor_where_it_is_off_and_nobody_is_asked() {
    for (attribution, expected) in
        [(Attribution::Auto, "PID namespace"), (Attribution::Off, "off in the configuration")]
    {
        let host = Host::with(1);
        let mut config = host.config();
        config.attribution = attribution;
        let mut backend = host.stepped(config);
        backend.play(1_000);
        let MemoryReport::Unattributed { reason, .. } = backend.memory(0) else { panic!() };
        assert!(reason.as_str().contains(expected), "{reason}");
        assert_eq!(host.fake.calls(LIST).unwrap(), 0);
    }
}

#[test]
fn an_unclear_list_of_processes_is_a_sum_this_time() {
    let host = Host::with(1);
    let mut backend = host.backend();
    host.fake.fail_times(LIST, gpulease_fake_nvml::Code::UNKNOWN, 1).unwrap();
    backend.look(1);
    assert_eq!(*backend.memory(0), MemoryReport::Sum { used_bytes: 0 });
    assert_eq!(backend.sample(0).unwrap().check, 0, "that is no answer");
    backend.look(2);
    assert_eq!(backend.sample(0).unwrap().check, 2);
}
