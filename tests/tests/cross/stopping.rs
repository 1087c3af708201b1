//! A graceful stop: everyone is told, with the revision to resume from, and it takes at most five seconds.

use std::time::{Duration, Instant};

use gpulease_proto::v1::{self, session_response};
use gpulease_tests::{
    coordinator::Coordinator,
    deadline::soon,
    session::Session,
    wire::{self, Refusal, Wire},
};
use tonic::{Code, Streaming};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

/// The contract's bound for the streams, and two seconds for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(7);

#[tokio::test]
async fn health_sessions_watches_and_waiters_are_told_of_a_stop() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut health = wire.health().watch(HealthCheckRequest::default()).await?.into_inner();
    assert_eq!(
        soon("health", health.message()).await?.map(|told| told.status()),
        Some(ServingStatus::Serving)
    );
    let mut session = Session::open(&wire, "holder").await?;
    wire.acquire(wire::whole_devices("holds", 1)).await?;
    let mut watch = wire.events().watch(v1::WatchRequest::default()).await?.into_inner();
    soon("the watch's first word", watch.message()).await?;
    let waiting = tokio::spawn({
        let wire = wire.clone();
        async move { wire.leases().acquire(wire::whole_devices("waits", 1)).await }
    });
    let requested = soon("the event of the waiting request", next_batch(&mut watch)).await?;

    let began = Instant::now();
    let status = coordinator.stop().await?;
    assert!(status.success(), "{status:?}");
    assert!(began.elapsed() < STOP_MAX, "{:?}", began.elapsed());
    let told = soon("health", health.message()).await?.map(|told| told.status());
    assert_eq!(told, Some(ServingStatus::NotServing));
    let revision = goodbye(&mut session).await?;
    assert!(revision >= requested.revision, "{revision} {requested:?}");
    let end = Refusal::of(&end_of(&mut watch).await);
    assert_eq!((end.code, end.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    assert_eq!(end.figure("revision").parse::<u64>()?, revision);
    let refused = wire::refusal(soon("the waiter's answer", waiting).await?);
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "SHUTTING_DOWN"));
    assert!(refused.retry_after.is_some());
    Ok(())
}

#[tokio::test]
async fn a_watch_resumed_after_the_goodbye_misses_nothing() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let mut session = Session::open(&wire, "holder").await?;
    coordinator.stop().await?;
    let revision = goodbye(&mut session).await?;
    coordinator.restart().await?;
    let wire = Wire::connect(coordinator.endpoint()).await?;
    let watch = v1::WatchRequest { after_revision: Some(revision), ..Default::default() };
    let mut watch = wire.events().watch(watch).await?.into_inner();
    let lease = wire.acquire(wire::request("after")).await?;
    let mut last = revision;
    loop {
        let batch = soon("the grant", next_batch(&mut watch)).await?;
        assert_eq!(batch.revision, last + 1, "each revision once and in order");
        last = batch.revision;
        if batch.events.iter().any(|event| lease_of(event) == Some(lease.id)) {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn readers_that_never_read_do_not_hold_up_a_stop() -> anyhow::Result<()> {
    let mut coordinator = Coordinator::simulate("1x24GiB").await?;
    let stuck = Wire::connect(coordinator.endpoint()).await?;
    let _watch = stuck.events().watch(v1::WatchRequest::default()).await?;
    let _samples = stuck.metrics().subscribe(v1::SubscribeRequest::default()).await?;
    let _session = Session::open(&stuck, "holder").await?;
    let began = Instant::now();
    let status = coordinator.stop().await?;
    assert!(status.success(), "{status:?}");
    assert!(began.elapsed() < STOP_MAX, "{:?}", began.elapsed());
    Ok(())
}

/// The revision of the goodbye that a session ends with.
async fn goodbye(session: &mut Session) -> anyhow::Result<u64> {
    let goodbye = session.until(|body| match body {
        session_response::Body::Goodbye(goodbye) => Some(goodbye.revision),
        _ => None,
    });
    Ok(goodbye.await?)
}

/// The next batch that is no bookmark.
async fn next_batch(watch: &mut Streaming<v1::WatchResponse>) -> anyhow::Result<v1::WatchResponse> {
    loop {
        match watch.message().await? {
            Some(batch) if !batch.events.is_empty() => return Ok(batch),
            Some(_) => {}
            None => anyhow::bail!("the watch ended"),
        }
    }
}

async fn end_of(watch: &mut Streaming<v1::WatchResponse>) -> tonic::Status {
    loop {
        match soon("the end of the watch", watch.message()).await {
            Err(status) => return status,
            Ok(None) => panic!("the watch ended without a status"),
            Ok(Some(_)) => {}
        }
    }
}

fn lease_of(event: &v1::Event) -> Option<u64> {
    match &event.body {
        Some(v1::event::Body::Lease(lease)) => Some(lease.lease_id),
        _ => None,
    }
}
