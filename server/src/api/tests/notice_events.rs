//! What a watcher sees of notices, pauses and cordons, live and from history: the same, in order, with every field.

use gpulease_proto::v1::{
    self, DeviceEventKind as OfDevice, LeaseEventKind as OfLease, NodeEventKind as OfNode,
    event::Body, session_request::Body as Ask, session_response::Body as Say,
};
use tonic::Streaming;

use super::harness::{Coordinator, acknowledge, device, node, pausable, policy, urgent};

/// The events of so many, from after a revision.
async fn watch(
    coordinator: &Coordinator,
    after: u64,
    service: &str,
) -> Streaming<v1::WatchResponse> {
    let wire = v1::WatchRequest { after_revision: Some(after), service: service.to_owned() };
    coordinator.events().watch(wire).await.unwrap().into_inner()
}

async fn take(stream: &mut Streaming<v1::WatchResponse>, count: usize) -> Vec<Body> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let said = stream.message().await.unwrap().unwrap();
        bodies.extend(said.events.into_iter().filter_map(|event| event.body));
    }
    assert_eq!(bodies.len(), count, "{bodies:?}");
    bodies
}

fn lease_of(body: &Body) -> &v1::LeaseEvent {
    let Body::Lease(event) = body else { panic!("{body:?}") };
    event
}

fn kind_of(body: &Body) -> String {
    match body {
        Body::Lease(event) => event.kind().as_str_name().replace("LEASE_EVENT_KIND_", ""),
        Body::Device(event) => event.kind().as_str_name().replace("_EVENT_KIND_", " "),
        Body::Node(event) => event.kind().as_str_name().replace("_EVENT_KIND_", " "),
    }
}

/// A drain on top of a preemption, an answer, a resume, a withdrawal. Answers the lease, and the request it gave way to.
async fn live_a_little(coordinator: &Coordinator) -> (v1::Lease, v1::Lease) {
    let mut session = coordinator.session("training", "worker-1").await;
    session.send(2, Ask::Acquire(pausable("job", 24)));
    let lease = session.granted().await;
    let urgent = coordinator.wait(urgent("now", 24));
    session.changed().await;
    let cordon =
        |reason: &str| v1::CordonRequest { target: node("node-0"), reason: reason.to_owned() };
    let drain = v1::DrainRequest { target: device("SIM-node-0-1"), reason: "fan".to_owned() };
    coordinator.admin().drain(drain).await.unwrap();
    let pausing = coordinator.lease(lease.id).await;
    session.send(3, Ask::Acknowledge(acknowledge(&pausing)));
    assert!(matches!(session.next().await.body, Some(Say::Acknowledged(_))));
    let urgent = urgent.await.unwrap();
    let release = v1::ReleaseRequest {
        lease_id: urgent.id,
        fencing_token: Some(urgent.fencing_token),
        ..v1::ReleaseRequest::default()
    };
    coordinator.leases().release(release).await.unwrap();
    let resumed = session.changed().await;
    coordinator.admin().cordon(cordon("inspection")).await.unwrap();
    let drain = v1::DrainRequest { target: device("SIM-node-0-0"), reason: String::new() };
    coordinator.admin().drain(drain).await.unwrap();
    let pausing = session.changed().await;
    let more = v1::ExtendNoticeRequest {
        lease_id: lease.id,
        fencing_token: pausing.fencing_token,
        notice_id: pausing.notice.unwrap().id,
        extension: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
        ..v1::ExtendNoticeRequest::default()
    };
    coordinator.leases().extend_notice(more).await.unwrap();
    for target in [device("SIM-node-0-0"), device("SIM-node-0-1"), node("node-0")] {
        coordinator.admin().uncordon(v1::UncordonRequest { target }).await.unwrap();
    }
    (resumed, urgent)
}

const EXPECTED: [&str; 22] = [
    "NODE ADDED",
    "DEVICE ADDED",
    "DEVICE ADDED",
    "REQUESTED",
    "GRANTED",
    "REQUESTED",
    "KEPT",
    "NOTICED",
    "DEVICE DRAINING",
    "PAUSED",
    "GRANTED",
    "KEPT",
    "ENDED",
    "RESUMED",
    "NODE CORDONED",
    "DEVICE DRAINING",
    "NOTICED",
    "NOTICE_CHANGED",
    "DEVICE UNCORDONED",
    "NOTICE_WITHDRAWN",
    "DEVICE UNCORDONED",
    "NODE UNCORDONED",
];

#[tokio::test]
async fn notices_pauses_and_cordons_are_seen_in_order_live_and_from_history() {
    let coordinator = Coordinator::start().await;
    let mut live = watch(&coordinator, 0, "").await;
    let (resumed, urgent) = live_a_little(&coordinator).await;
    let seen = take(&mut live, EXPECTED.len()).await;
    let kinds: Vec<String> = seen.iter().map(kind_of).collect();
    assert_eq!(kinds, EXPECTED);
    check_fields(&seen, &resumed, &urgent);

    let past = take(&mut watch(&coordinator, 0, "").await, EXPECTED.len()).await;
    assert_eq!(past, seen, "the past is told as it was");
    let disk = coordinator.stop().await;
    let coordinator = Coordinator::start_with(disk, policy(), None).await;
    let journaled = take(&mut watch(&coordinator, 0, "").await, EXPECTED.len()).await;
    assert_eq!(journaled, seen, "by the journal alone, too");
    let own = take(&mut watch(&coordinator, 0, "training").await, 9).await;
    let own: Vec<String> = own.iter().map(kind_of).collect();
    let of_training = [
        "REQUESTED",
        "GRANTED",
        "NOTICED",
        "PAUSED",
        "KEPT",
        "RESUMED",
        "NOTICED",
        "NOTICE_CHANGED",
        "NOTICE_WITHDRAWN",
    ];
    assert_eq!(own, of_training, "a service sees its own leases");
}

fn check_fields(seen: &[Body], resumed: &v1::Lease, urgent: &v1::Lease) {
    let at = |kind: &str| seen.iter().filter(|body| kind_of(body) == kind).collect::<Vec<_>>();
    let noticed = at("NOTICED");
    let first = lease_of(noticed[0]);
    assert_eq!((first.lease_id, first.notice_id, first.kind()), (resumed.id, 1, OfLease::Noticed));
    assert_eq!(first.notice_remaining.map(|left| left.seconds), Some(30));
    assert_eq!(first.notice_causes[0].lease_id, urgent.id);
    assert_eq!((first.service.as_str(), first.holder.as_str()), ("training", "worker-1"));
    let second = lease_of(noticed[1]);
    assert_eq!((second.notice_id, second.notice_causes.len()), (2, 1));
    let cause = &second.notice_causes[0];
    assert_eq!((cause.kind(), cause.node.as_str()), (v1::NoticeCauseKind::Drain, "node-0"));
    assert_eq!(cause.device_uuid, "SIM-node-0-0");
    let changed = lease_of(at("NOTICE_CHANGED")[0]);
    assert_eq!((changed.notice_id, changed.notice_causes.len()), (2, 1));
    assert!(changed.notice_remaining.is_some_and(|left| left.seconds >= 33), "{changed:?}");
    assert_eq!(lease_of(at("NOTICE_WITHDRAWN")[0]).notice_id, 2);
    let again = lease_of(at("RESUMED")[0]);
    assert_eq!((again.fencing_token, again.devices.len()), (resumed.fencing_token, 1));
    assert_eq!(lease_of(at("PAUSED")[0]).detail, "");

    let Body::Device(draining) = at("DEVICE DRAINING")[0] else { panic!() };
    assert_eq!((draining.kind(), draining.uuid.as_str()), (OfDevice::Draining, "SIM-node-0-1"));
    assert_eq!((draining.node.as_str(), draining.detail.as_str()), ("node-0", "fan"));
    let Body::Node(cordoned) = at("NODE CORDONED")[0] else { panic!() };
    assert_eq!((cordoned.kind(), cordoned.node.as_str()), (OfNode::Cordoned, "node-0"));
    assert_eq!(cordoned.detail, "inspection");
}
