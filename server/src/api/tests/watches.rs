//! Watches (P20).

use gpulease_core::time::Span;
use gpulease_proto::v1::{self, event::Body};
use tonic::{Code, Streaming};
use tonic_types::StatusExt as _;

use super::harness::{Coordinator, check, request};
use crate::{
    actor::recovery::recover,
    journal::{HistoryBound, Journal as _, codec},
};

async fn watch(
    coordinator: &Coordinator,
    after_revision: Option<u64>,
    service: &str,
) -> Streaming<v1::WatchResponse> {
    let wire = v1::WatchRequest { after_revision, service: service.to_owned() };
    coordinator.events().watch(wire).await.unwrap().into_inner()
}

async fn refusal(coordinator: &Coordinator, after_revision: u64) -> tonic::Status {
    let wire = v1::WatchRequest { after_revision: Some(after_revision), ..Default::default() };
    coordinator.events().watch(wire).await.unwrap_err()
}

/// The next batch that is no bookmark.
async fn batch(stream: &mut Streaming<v1::WatchResponse>) -> v1::WatchResponse {
    loop {
        let said = stream.message().await.unwrap().unwrap();
        if !said.events.is_empty() {
            return said;
        }
    }
}

fn leases(batch: &v1::WatchResponse) -> Vec<(v1::LeaseEventKind, u64)> {
    let of_lease = |event: &v1::Event| match event.body.as_ref().unwrap() {
        Body::Lease(lease) => Some((lease.kind(), lease.lease_id)),
        _ => None,
    };
    batch.events.iter().filter_map(of_lease).collect()
}

async fn acquire_for(coordinator: &Coordinator, service: &str, id: &str) -> u64 {
    let wire = v1::AcquireRequest {
        service: service.to_owned(),
        holder: "worker".to_owned(),
        ..request(id, 1)
    };
    coordinator.leases().acquire(wire).await.unwrap().into_inner().lease.unwrap().id
}

#[tokio::test]
async fn a_watch_says_that_it_stands_then_each_batch_once_and_resumes_without_a_gap() {
    use v1::LeaseEventKind::{Granted, Requested};
    let coordinator = Coordinator::start().await;
    let first = coordinator.acquire("a", 1).await;
    let mut stream = watch(&coordinator, None, "").await;
    let bookmark = stream.message().await.unwrap().unwrap();
    assert!(bookmark.events.is_empty() && bookmark.revision >= 1, "{bookmark:?}");
    let second = coordinator.acquire("b", 1).await;
    let told = batch(&mut stream).await;
    assert_eq!(leases(&told), [(Requested, second.id), (Granted, second.id)]);
    let Some(Body::Lease(granted)) = &told.events[1].body else { panic!("{told:?}") };
    assert_eq!(granted.fencing_token, second.fencing_token);
    assert_eq!(granted.devices.len(), 1);
    assert_eq!((granted.service.as_str(), granted.request_id.as_str()), ("training", "b"));

    let mut again = watch(&coordinator, Some(0), "").await;
    let mut seen = Vec::new();
    let mut revisions = Vec::new();
    while !seen.contains(&(Granted, second.id)) {
        let told = batch(&mut again).await;
        revisions.push(told.revision);
        seen.extend(leases(&told));
    }
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    let expected =
        [(Requested, first.id), (Granted, first.id), (Requested, second.id), (Granted, second.id)];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_watch_of_one_service_shows_its_leases_and_nothing_else() {
    let coordinator = Coordinator::start().await;
    let mut training = watch(&coordinator, Some(0), "training").await;
    let mut serving = watch(&coordinator, Some(0), "serving").await;
    let one = acquire_for(&coordinator, "training", "a").await;
    let two = acquire_for(&coordinator, "serving", "b").await;
    let three = acquire_for(&coordinator, "training", "c").await;
    let ids =
        |batch: &v1::WatchResponse| leases(batch).iter().map(|(_, id)| *id).collect::<Vec<_>>();
    assert_eq!(ids(&batch(&mut training).await), [one, one]);
    assert_eq!(ids(&batch(&mut training).await), [three, three]);
    assert_eq!(ids(&batch(&mut serving).await), [two, two]);
}

#[tokio::test]
async fn a_revision_still_to_come_is_refused() {
    let coordinator = Coordinator::start().await;
    let status = refusal(&coordinator, 1_000).await;
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "after_revision");
}

#[tokio::test]
async fn a_revision_no_longer_kept_is_refused_with_the_oldest_that_is() {
    let coordinator = Coordinator::start().await;
    for number in 0..4 {
        coordinator.acquire(&format!("job-{number}"), 1).await;
    }
    let disk = coordinator.stop().await;
    let recovered = recover(disk.open().unwrap(), Default::default()).unwrap();
    let state = codec::encode(recovered.scheduler().state()).unwrap();
    drop(recovered);
    let journal = disk.open().unwrap().journal;
    journal.archive().store_snapshot(journal.last_revision(), &state).unwrap();
    journal.archive().prune(HistoryBound { batches_max: 1, bytes_max: 1 }).unwrap();
    drop(journal);
    let coordinator = Coordinator::start_on(disk).await;
    let status = refusal(&coordinator, 1).await;
    check(&status, Code::OutOfRange, "HISTORY_GONE", "");
    let details = status.get_error_details();
    let oldest: u64 = details.error_info().unwrap().metadata["revision_oldest"].parse().unwrap();
    assert!(oldest > 2);
    let mut stream = watch(&coordinator, Some(oldest), "").await;
    assert!(stream.message().await.unwrap().is_some(), "from the oldest on it can be watched");
}

#[tokio::test]
async fn a_graceful_stop_ends_a_watch_with_the_revision_to_resume_from() {
    let coordinator = Coordinator::start().await;
    coordinator.acquire("job", 1).await;
    let mut stream = watch(&coordinator, Some(0), "").await;
    batch(&mut stream).await;
    coordinator.handle.stop();
    let status = loop {
        match stream.message().await {
            Ok(said) => assert!(said.is_some(), "it ends with a status"),
            Err(status) => break status,
        }
    };
    check(&status, Code::Unavailable, "SHUTTING_DOWN", "");
    let details = status.get_error_details();
    let revision: u64 = details.error_info().unwrap().metadata["revision"].parse().unwrap();
    assert!(revision >= 1);
    let wait = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(Span::from(wait) > Span::ZERO);
}
