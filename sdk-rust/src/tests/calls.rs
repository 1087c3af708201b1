//! Calls of operators and tools, and the trace context that travels with requests.

use super::{Scene, acquire};
use crate::{
    Client, DeviceProcess, ErrorKind, LeaseRequest, LeaseState, ProcessFilter, Target,
    tests::coordinator::{Coordinator, active},
};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER_TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b8-00";

#[tokio::test]
async fn cordon_drain_and_open_name_the_leases_they_touch() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let (device, node) = (Target::Device("GPU-1".into()), Target::Node("node-a".into()));
    assert_eq!(client.cordon(&device, "dusty").await.unwrap(), [4]);
    let drained = client.drain(&node, "kernel").await.unwrap();
    assert_eq!((drained.noticed, drained.later, drained.staying), (vec![5], vec![], vec![6]));
    assert!(client.drain(&device, "fan").await.unwrap().noticed.is_empty());
    client.uncordon(&node).await.unwrap();
    assert_eq!(client.open_device("GPU-1", "I looked").await.unwrap(), [7]);
    assert_eq!([device.to_string(), node.to_string()], ["device GPU-1", "node node-a"]);
}

#[tokio::test]
async fn explain_says_what_stands_in_the_way() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let explained = client.explain(9).await.unwrap();
    assert_eq!((explained.lease.id, explained.lease.state), (9, LeaseState::Queued));
    assert_eq!(explained.waiting.unwrap().blocking[0].lease_id, 1);
    assert_eq!(explained.granted, None);
}

#[tokio::test]
async fn processes_come_from_every_page_and_through_the_filter() {
    let scene = Scene::new().await;
    let client = &scene.client;
    let pids = |processes: Vec<DeviceProcess>| -> Vec<u32> {
        processes.iter().map(|process| process.process.pid).collect()
    };
    let all = client.processes(ProcessFilter::default()).await.unwrap();
    assert_eq!((all[0].lease_id, all[1].lease_id), (Some(1), None));
    assert_eq!(pids(all), [101, 102]);
    let filter = ProcessFilter::default().device("GPU-2").node("node-a");
    assert_eq!(pids(client.processes(filter).await.unwrap()), [102]);
}

#[tokio::test]
async fn notices_are_answered_by_number_and_token_too() {
    let scene = Scene::new().await;
    let client = &scene.client;
    assert_eq!(client.acknowledge(7, 3, 11).await.unwrap().state, LeaseState::Paused);
    let extended = client.extend_notice(7, 3, 11, std::time::Duration::from_secs(9)).await.unwrap();
    assert_eq!(extended.notice.unwrap().remaining.as_secs(), 9);
}

#[tokio::test]
async fn the_trace_context_travels_with_the_session_and_with_each_request() {
    let mut coordinator = Coordinator::start();
    let client = Client::builder()
        .endpoint(coordinator.endpoint())
        .trace_context(|| Some(TRACE.to_owned()))
        .connect()
        .await
        .unwrap();
    let by_default = acquire(&client, LeaseRequest::slots(1));
    let mut session = coordinator.welcome(vec![]).await;
    assert_eq!(session.trace_parent.as_deref(), Some(TRACE));
    let (sequence, asked) = session.acquire().await;
    assert_eq!(asked.trace_parent, TRACE);
    session.grant(sequence, active(1, 1)).await;
    drop(by_default.await.unwrap().unwrap());
    session.release().await;

    let given = acquire(&client, LeaseRequest::slots(1).trace_parent(OTHER_TRACE));
    let (sequence, asked) = session.acquire().await;
    assert_eq!(asked.trace_parent, OTHER_TRACE);
    session.grant(sequence, active(2, 2)).await;
    drop(given.await.unwrap().unwrap());

    let error =
        client.acquire(LeaseRequest::slots(1).trace_parent("00-nonsense")).await.unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidArgument, Some("trace_parent")));
}
