//! Without a GPU: disabled, nobody there, no capacity; the circuit breaker; and leases kept while nobody is there.

use std::time::Duration;

use gpulease_proto::v1::{self, session_renewal_outcome::Outcome, session_response::Body};
use tonic::Code;

use super::{
    Scene, TTL, acquire,
    coordinator::{Coordinator, FakeSession, active, refusal},
};
use crate::{
    Acquired, BreakerSettings, BreakerState, Change, Client, CpuReason, DeviceKind, ErrorKind,
    Lease, LeaseRequest, LeaseStatus, LostReason, WhileUnreachable, clock::Clock,
};

/// Short, so that a coordinator that says nothing is soon given up.
const SHORT: Duration = Duration::from_millis(50);

fn request() -> LeaseRequest {
    LeaseRequest::slots(1).wait(Duration::ZERO)
}

/// A port that nobody listens at.
fn nobody() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn disabled_gpus_mean_the_cpu_without_asking_anybody() {
    let client = Client::builder().endpoint(nobody()).enabled(false).build().unwrap();
    let acquired = client.acquire_or_cpu(LeaseRequest::slots(1)).await.unwrap();
    assert_eq!(acquired.device_kind(), DeviceKind::Cpu);
    assert!(matches!(acquired, Acquired::Cpu(CpuReason::Disabled)));
    acquired.check().unwrap();
    acquired.record_operation(1, SHORT);
    assert!(acquired.release().await.unwrap().is_none());
    let error = client.acquire(LeaseRequest::slots(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disabled);
    let counters = client.counters();
    assert_eq!((counters.requests, counters.disabled), (0, 1));
    assert_eq!((counters.gpu_rate(), counters.fallback_rate()), (Some(0.0), None));
}

#[tokio::test]
async fn nobody_at_the_endpoint_means_the_cpu_unless_the_caller_will_not_have_it() {
    let endpoint = nobody();
    let client = || Client::builder().endpoint(&endpoint).request_timeout(SHORT);
    let client_with = client().build().unwrap();
    let acquired = client_with.acquire_or_cpu(request()).await.unwrap();
    assert!(matches!(acquired, Acquired::Cpu(CpuReason::Unreachable(_))), "{acquired:?}");
    assert_eq!(client_with.counters().fallback_rate(), Some(1.0));
    let strict = client().fallback_to_cpu(false).build().unwrap();
    let error = strict.acquire_or_cpu(request()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::DeadlineExceeded));
    assert_eq!(strict.counters().success_rate(), Some(0.0));
}

#[tokio::test]
async fn no_capacity_means_the_cpu_and_a_request_at_fault_is_an_error() {
    let mut scene = Scene::new().await;
    let ask = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move { client.acquire_or_cpu(request()).await })
    };
    let call = ask(&scene.client);
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (sequence, _) = session.acquire().await;
    session.refuse(sequence, Code::ResourceExhausted, "NO_CAPACITY").await;
    let acquired = call.await.unwrap().unwrap();
    assert!(matches!(acquired, Acquired::Cpu(CpuReason::NoGpu(_))), "{acquired:?}");

    let call = ask(&scene.client);
    let (sequence, _) = session.acquire().await;
    session.refuse(sequence, Code::InvalidArgument, "INVALID_FIELD").await;
    assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);

    let call = ask(&scene.client);
    let (sequence, _) = session.acquire().await;
    session.grant(sequence, active(1, 1)).await;
    let acquired = call.await.unwrap().unwrap();
    assert_eq!(acquired.lease().map(Lease::id), Some(1));
    let counters = scene.client.counters();
    assert_eq!((counters.granted, counters.fallbacks, counters.failed), (1, 1, 1));
    assert!(counters.latency_p50.is_some());
}

/// A client that gives up at once, of a coordinator that lets it.
async fn impatient(scene: &Scene) -> Client {
    Client::builder()
        .endpoint(scene.coordinator.endpoint())
        .request_timeout(SHORT)
        .breaker(BreakerSettings::default().failures(2).calls_min(1))
        .clock(Clock::Manual(std::sync::Arc::clone(&scene.now)))
        .connect()
        .await
        .unwrap()
}

/// Two requests without an answer.
async fn exhaust(client: &Client) {
    for _ in 0..2 {
        let error = client.acquire(request()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    }
}

#[tokio::test]
async fn an_open_circuit_means_the_cpu_and_health_checks_close_it() {
    let mut scene = Scene::new().await;
    let client = impatient(&scene).await;
    let exhausting = client.clone();
    let exhausted = tokio::spawn(async move { exhaust(&exhausting).await });
    let mut session = scene.coordinator.welcome(vec![]).await;
    exhausted.await.unwrap();
    assert_eq!(client.breaker_state(), BreakerState::Open);
    let error = client.acquire(request()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::CircuitOpen, "CIRCUIT_OPEN"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(20)));
    let acquired = client.acquire_or_cpu(request()).await.unwrap();
    assert!(matches!(acquired, Acquired::Cpu(CpuReason::CircuitOpen(_))));
    assert_eq!(client.counters().circuit_opened, 1);

    scene.advance(Duration::from_secs(20));
    assert_eq!(client.breaker_state(), BreakerState::HalfOpen);
    let call = acquire(&client, LeaseRequest::slots(1));
    granted_next(&mut session).await;
    drop(call.await.unwrap().unwrap());
    assert_eq!(client.breaker_state(), BreakerState::Closed);
}

/// Grants the newest request; those before it were given up.
async fn granted_next(session: &mut FakeSession) {
    loop {
        if let (sequence, v1::session_request::Body::Acquire(acquire)) = session.next().await
            && acquire.wait.is_some_and(|wait| wait.nanos > 0)
        {
            return session.grant(sequence, active(1, 1)).await;
        }
    }
}

#[tokio::test]
async fn while_a_lease_is_held_an_open_circuit_refuses_nothing() {
    let mut scene = Scene::new().await;
    let client = impatient(&scene).await;
    let call = acquire(&client, LeaseRequest::slots(1));
    let mut session = scene.coordinator.welcome(vec![]).await;
    granted_next(&mut session).await;
    let lease = call.await.unwrap().unwrap();
    exhaust(&client).await;
    assert_eq!(client.breaker_state(), BreakerState::Open);
    let call = acquire(&client, LeaseRequest::slots(1));
    granted_next(&mut session).await;
    drop(call.await.unwrap().unwrap());
    drop(lease);
}

fn invalid() -> v1::Error {
    refusal(Code::InvalidArgument, "INVALID_FIELD")
}

/// A lease kept over a socket.
struct Kept {
    path: std::path::PathBuf,
    scene: Scene,
    lease: Lease,
    /// The first session, for as long as it is not broken.
    _session: FakeSession,
}

impl Kept {
    async fn new() -> Self {
        let path = std::env::temp_dir().join(format!("gpulease-{}.sock", uuid::Uuid::now_v7()));
        let mut scene = Scene::at(Coordinator::start_on_socket(&path)).await;
        let request = LeaseRequest::slots(1).while_unreachable(WhileUnreachable::Keep);
        let call = acquire(&scene.client, request);
        let mut session = scene.coordinator.welcome(vec![]).await;
        let (sequence, asked) = session.acquire().await;
        let declared = asked.process.map(|process| process.pid);
        assert_eq!(declared, Some(std::process::id()), "over a socket the own process is declared");
        let other = v1::Error { field: "process.started_ticks".to_owned(), ..invalid() };
        session.answer(sequence, Body::Error(other)).await;
        let (sequence, asked) = session.acquire().await;
        assert_eq!(asked.process, None, "one that the coordinator does not see is left out");
        session.grant(sequence, active(7, 3)).await;
        let lease = call.await.unwrap().unwrap();
        Self { path, scene, lease, _session: session }
    }

    /// Its coordinator crashes: the socket's file stays, and nobody listens.
    async fn gone() -> Self {
        let mut kept = Self::new().await;
        kept.scene.coordinator.end();
        kept.passes(Duration::from_secs(1)).await;
        kept
    }

    /// So much time, at the end of which the coordinator is still found gone.
    async fn passes(&self, time: Duration) {
        self.scene.advance(time);
        let kept = async {
            while self.lease.remaining() < TTL {
                tokio::task::yield_now().await;
            }
        };
        let kept = tokio::time::timeout(Duration::from_secs(20), kept).await;
        kept.expect("a refused connection keeps the lease for a TTL");
    }

    fn bring_back(&mut self) {
        std::fs::remove_file(&self.path).unwrap();
        self.scene.coordinator = Coordinator::start_on_socket(&self.path);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Where it was removed already there is nothing to remove.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[tokio::test]
async fn a_kept_lease_outlives_a_coordinator_that_is_gone_and_goes_on_when_it_returns() {
    let mut kept = Kept::gone().await;
    let mut changes = kept.lease.changes();
    for _ in 0..4 {
        kept.passes(TTL * 2 / 3).await;
    }
    assert!(matches!(changes.next().await, Some(Change::Uncertain { .. })));
    assert_eq!(kept.lease.status(), LeaseStatus::Uncertain { remaining: TTL });
    kept.lease.check().unwrap();
    kept.bring_back();
    let _session = kept.scene.coordinator.welcome(vec![active(7, 3)]).await;
    assert_eq!(changes.next().await, Some(Change::Certain));
    assert_eq!(kept.lease.status(), LeaseStatus::Active);
    assert_eq!(kept.lease.remaining(), TTL);
}

#[tokio::test]
async fn a_kept_lease_is_lost_a_ttl_after_its_coordinator_was_last_found_gone() {
    let kept = Kept::gone().await;
    kept.scene.advance(TTL * 3);
    assert_eq!(kept.lease.check().unwrap_err().kind(), ErrorKind::LeaseLost);
    assert_eq!(kept.lease.lost().await, LostReason::ValidityOver, "nobody looked in between");
}

#[tokio::test]
async fn a_socket_without_a_file_does_not_say_that_the_coordinator_is_gone() {
    let mut kept = Kept::new().await;
    std::fs::remove_file(&kept.path).unwrap();
    kept.scene.coordinator.end();
    kept.scene.advance(TTL / 2);
    let session = kept.scene.client.session_for_tests();
    while session.0.state().away.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(kept.lease.remaining(), TTL / 2, "it may listen where this client does not see it");
    kept.scene.advance(TTL / 2);
    assert_eq!(kept.lease.lost().await, LostReason::ValidityOver);
}

#[tokio::test]
async fn a_kept_lease_that_the_returned_coordinator_does_not_know_is_lost() {
    let mut kept = Kept::gone().await;
    kept.bring_back();
    let mut session = kept.scene.coordinator.welcome(vec![]).await;
    let (sequence, renewals) = session.renewal().await;
    assert_eq!(renewals[0].lease_id, 7);
    let unknown = Outcome::Error(refusal(Code::NotFound, "LEASE_NOT_FOUND"));
    session.renewed(sequence, vec![unknown]).await;
    assert!(matches!(kept.lease.lost().await, LostReason::Ended { .. }));
}

#[tokio::test]
async fn keeping_and_declaring_a_process_need_the_coordinators_socket() {
    let scene = Scene::new().await;
    let keep = LeaseRequest::slots(1).while_unreachable(WhileUnreachable::Keep);
    let error = scene.client.acquire(keep).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::InvalidArgument, "NEEDS_SOCKET"));
    let declared = LeaseRequest::slots(1).declare_process(1);
    let error = scene.client.acquire(declared).await.unwrap_err();
    assert_eq!((error.reason(), error.field()), ("NEEDS_SOCKET", Some("process")));
}
