//! Processes: declared over the Unix socket, and shown with whose they are.

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use gpulease_core::{
    id::Name,
    input::{DeviceReport, DeviceSample, Input, MemoryReport, ProcessUse},
    inventory::{DeviceFacts, NodeFacts},
    request::Process,
};
use gpulease_proto::v1::{
    self, device_service_client::DeviceServiceClient, lease_service_client::LeaseServiceClient,
    session_request::Body as Ask,
};
use tonic::{Code, transport::Channel};

use super::harness::{Coordinator, GIB, Session, check, hello, of, policy, request};
use crate::journal::memory::Disk;

/// A coordinator with a socket, in a directory that goes with it.
async fn with_socket() -> (Coordinator, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gpulease.sock");
    (Coordinator::start_with(Disk::new(), policy(), Some(&path)).await, directory)
}

fn socket(coordinator: &Coordinator) -> LeaseServiceClient<Channel> {
    LeaseServiceClient::new(coordinator.socket.clone().unwrap())
}

fn declaring(id: &str, pid: u32, started_ticks: Option<u64>) -> v1::AcquireRequest {
    let process = Some(v1::Process { pid, started_ticks });
    v1::AcquireRequest { process, ..of("training", "worker-1", request(id, 1)) }
}

#[tokio::test]
async fn a_process_of_ones_own_is_declared_by_its_id_or_as_oneself_and_shown_with_its_start() {
    let (coordinator, _directory) = with_socket().await;
    let own = std::process::id();
    let lease = socket(&coordinator).acquire(declaring("by-id", own, None)).await.unwrap();
    let shown = lease.into_inner().lease.unwrap().process.unwrap();
    assert_eq!(shown.pid, own);
    assert!(shown.started_ticks.is_some_and(|ticks| ticks > 0));
    let exact = declaring("exact", own, shown.started_ticks);
    socket(&coordinator).acquire(exact).await.unwrap();
    let itself = socket(&coordinator).acquire(declaring("itself", 0, None)).await.unwrap();
    assert_eq!(itself.into_inner().lease.unwrap().process, Some(shown));

    let mut session = Session::over(coordinator.socket.clone().unwrap()).await;
    session.send(1, hello("training", "worker-1"));
    session.next().await;
    session.send(2, Ask::Acquire(declaring("in-session", own, None)));
    assert_eq!(session.granted().await.process, Some(shown));
}

#[tokio::test]
async fn over_tcp_no_process_can_be_declared() {
    let (coordinator, _directory) = with_socket().await;
    let own = declaring("own", std::process::id(), None);
    let status = coordinator.leases().acquire(own.clone()).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "process.pid");
    assert!(status.message().contains("Unix socket"), "{status:?}");
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(own));
    let error = session.error().await;
    assert_eq!((error.reason.as_str(), error.field.as_str()), ("INVALID_FIELD", "process.pid"));
}

#[tokio::test]
async fn a_process_that_has_gone_or_is_another_by_now_is_refused() {
    let (coordinator, _directory) = with_socket().await;
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let status =
        socket(&coordinator).acquire(declaring("gone", child.id(), None)).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "process.pid");
    let other = declaring("other", std::process::id(), Some(1));
    let status = socket(&coordinator).acquire(other).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "process.started_ticks");
}

/// Somebody else's: as root it is allowed, and the rule for others is proven beside `Peer`.
#[tokio::test]
async fn the_process_of_another_user_is_declared_by_root_alone() {
    use std::os::unix::fs::MetadataExt as _;
    let (coordinator, _directory) = with_socket().await;
    let first = Path::new("/proc/1");
    let (own, other) =
        (std::fs::metadata("/proc/self").unwrap().uid(), first.metadata().unwrap().uid());
    let answer = socket(&coordinator).acquire(declaring("init", 1, None)).await;
    if own == 0 || own == other {
        assert_eq!(answer.unwrap().into_inner().lease.unwrap().process.unwrap().pid, 1);
        return;
    }
    check(&answer.unwrap_err(), Code::InvalidArgument, "INVALID_FIELD", "process.pid");
}

/// Devices whose processes a driver tells.
fn observe_driven(coordinator: &Coordinator, uses: &[(&str, Vec<ProcessUse>)]) {
    let node = NodeFacts {
        name: "node-1".into(),
        boot_id: "boot-1".into(),
        labels: BTreeMap::new(),
        host_cpu_millis: 8_000,
        host_memory_bytes: 64 * GIB,
    };
    let facts = |(index, (uuid, _)): (usize, &(&str, Vec<ProcessUse>))| DeviceFacts {
        uuid: Name::new(uuid),
        index: u32::try_from(index).unwrap(),
        pci_address: None,
        vendor: "nvidia".into(),
        model: "H100".into(),
        compute_capability: Some((9, 0)),
        frameworks: vec!["cuda".into(), "torch".into()],
        memory_total_bytes: 80 * GIB,
        memory_driver_bytes: GIB,
        memory_limit_bytes: None,
        memory_reserve_bytes: 0,
        slots: 8,
        answers_at_once: false,
    };
    let report = |facts: DeviceFacts| DeviceReport { facts: Arc::new(facts), lost: None };
    let devices = uses.iter().enumerate().map(facts).map(report).collect();
    coordinator.handle.tell(Input::Observed { node: Arc::new(node), devices });
    let sample = |(uuid, processes): &(&str, Vec<ProcessUse>)| DeviceSample {
        uuid: Name::new(uuid),
        memory: Some(MemoryReport::Pass {
            used_bytes: processes.iter().map(|used| used.bytes).sum(),
            processes: processes.clone(),
        }),
        check: 0,
    };
    let samples = uses.iter().map(sample).collect();
    coordinator.handle.tell(Input::Sampled { node: "node-1".into(), samples, trees: None });
}

fn uses(pid: u32, root: Option<Process>, gib: u64) -> ProcessUse {
    let process = root.filter(|root| root.pid == pid).unwrap_or(Process { pid, started_ticks: 7 });
    ProcessUse { process, root, bytes: gib * GIB, uid: Some(0), command: "python train.py".into() }
}

fn asking(device_uuid: &str, node: &str, page_size: u32) -> v1::ListProcessesRequest {
    let (device_uuid, node) = (device_uuid.to_owned(), node.to_owned());
    v1::ListProcessesRequest { device_uuid, node, page_size, ..Default::default() }
}

#[tokio::test]
async fn processes_are_listed_with_their_leases_and_the_rest_is_foreign() {
    let (coordinator, _directory) = with_socket().await;
    observe_driven(&coordinator, &[("GPU-0", Vec::new())]);
    let allow = v1::Constraints { device_allow: vec!["GPU-0".to_owned()], ..Default::default() };
    let wire = v1::AcquireRequest { constraints: Some(allow), ..declaring("job", 0, None) };
    let lease = socket(&coordinator).acquire(wire).await.unwrap().into_inner().lease.unwrap();
    let declared = lease.process.unwrap();
    let root = Process { pid: declared.pid, started_ticks: declared.started_ticks.unwrap() };
    let seen =
        vec![uses(root.pid, Some(root), 1), uses(4_001, Some(root), 2), uses(4_002, None, 3)];
    observe_driven(&coordinator, &[("GPU-0", seen)]);

    let mut devices = DeviceServiceClient::new(coordinator.channel.clone());
    let told = devices.list_processes(asking("GPU-0", "", 0)).await.unwrap().into_inner();
    let shown: Vec<_> = (told.processes.iter())
        .map(|it| (it.process.unwrap().pid, it.lease_id, it.memory_bytes / GIB))
        .collect();
    assert_eq!(shown, [(root.pid, lease.id, 1), (4_001, lease.id, 2), (4_002, 0, 3)]);
    assert_eq!(told.processes[1].root, Some(declared));
    assert_eq!(told.processes[2].root, None);
    let one = &told.processes[0];
    assert_eq!((one.node.as_str(), one.device_uuid.as_str()), ("node-1", "GPU-0"));
    assert_eq!(
        (one.uid, one.user.as_str(), one.command.as_str()),
        (Some(0), "root", "python train.py")
    );
    let get = v1::DeviceServiceGetRequest { uuid: "GPU-0".to_owned() };
    let device = devices.get(get).await.unwrap().into_inner().device.unwrap();
    // Of 6 GiB in use 3 are the lease's tree, although it asked for 1.
    assert_eq!(device.memory_foreign_bytes, Some(3 * GIB));
}

#[tokio::test]
async fn processes_come_in_pages_of_whole_devices_and_unknown_devices_are_refused() {
    let coordinator = Coordinator::start().await;
    let names: Vec<String> = (0..5).map(|index| format!("GPU-{index}")).collect();
    let two = |index: u32| vec![uses(10 * index + 1, None, 1), uses(10 * index + 2, None, 1)];
    let driven: Vec<_> =
        names.iter().zip(1..).map(|(name, index)| (name.as_str(), two(index))).collect();
    observe_driven(&coordinator, &driven);
    let mut devices = coordinator.devices();
    let (mut seen, mut pages, mut token) = (Vec::new(), 0, String::new());
    loop {
        let wire = v1::ListProcessesRequest { page_token: token, ..asking("", "node-1", 2) };
        let told = devices.list_processes(wire).await.unwrap().into_inner();
        seen.extend(told.processes.iter().map(|it| it.process.unwrap().pid));
        (token, pages) = (told.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((seen, pages), (vec![11, 12, 21, 22, 31, 32, 41, 42, 51, 52], 3));
    let elsewhere =
        devices.list_processes(asking("GPU-0", "node-0", 0)).await.unwrap().into_inner();
    assert!(elsewhere.processes.is_empty() && elsewhere.next_page_token.is_empty());
    let status = devices.list_processes(asking("GPU-9", "", 0)).await.unwrap_err();
    check(&status, Code::NotFound, "DEVICE_NOT_FOUND", "");
    let status = devices.list_processes(asking("", "", 101)).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "page_size");
    let foreign = v1::ListProcessesRequest { page_token: "p".to_owned(), ..asking("", "", 0) };
    let status = devices.list_processes(foreign).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_PAGE_TOKEN", "page_token");
}
