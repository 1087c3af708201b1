//! The stream of events across breaks.

use gpulease_proto::v1;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::Scene;
use crate::{DeviceEventKind, ErrorKind, Event, EventStream};

fn batch(revision: u64) -> v1::WatchResponse {
    let device = v1::DeviceEvent {
        kind: v1::DeviceEventKind::Added as i32,
        uuid: format!("device-{revision}"),
        ..v1::DeviceEvent::default()
    };
    let event = v1::Event { body: Some(v1::event::Body::Device(device)) };
    v1::WatchResponse { revision, events: vec![event], ..v1::WatchResponse::default() }
}

async fn next(stream: &mut EventStream) -> u64 {
    let batch = stream.next().await.unwrap().unwrap();
    let Event::Device(event) = &batch.events[0] else { panic!("{batch:?}") };
    assert_eq!(event.kind, DeviceEventKind::Added);
    batch.revision
}

#[tokio::test]
async fn a_broken_stream_resumes_after_its_last_revision() {
    let mut scene = Scene::new().await;
    let mut stream = scene.client.watch(Some(3)).await.unwrap();
    let watch = scene.coordinator.watch().await;
    assert_eq!(watch.request.after_revision, Some(3));
    watch.answers.send(Ok(batch(4))).await.unwrap();
    watch.answers.send(Ok(batch(9))).await.unwrap();
    watch.answers.send(Err(Status::unavailable("going away"))).await.unwrap();
    assert_eq!(next(&mut stream).await, 4);
    assert_eq!(next(&mut stream).await, 9);
    let reading = tokio::spawn(async move { next(&mut stream).await });
    let watch = scene.coordinator.watch().await;
    assert_eq!(watch.request.after_revision, Some(9));
    watch.answers.send(Ok(batch(10))).await.unwrap();
    assert_eq!(reading.await.unwrap(), 10);
}

#[tokio::test]
async fn from_now_on_is_made_a_revision_so_that_an_early_break_loses_nothing() {
    let mut scene = Scene::new().await;
    let mut stream = scene.client.watch(None).await.unwrap();
    assert_eq!(stream.revision(), 17);
    drop(scene.coordinator.watch().await);
    let reading = tokio::spawn(async move { next(&mut stream).await });
    let watch = scene.coordinator.watch().await;
    assert_eq!(watch.request.after_revision, Some(17));
    watch.answers.send(Ok(batch(18))).await.unwrap();
    assert_eq!(reading.await.unwrap(), 18);
}

#[tokio::test]
async fn a_revision_that_is_no_longer_kept_ends_the_stream() {
    let mut scene = Scene::new().await;
    let mut stream = scene.client.watch(Some(1)).await.unwrap();
    let watch = scene.coordinator.watch().await;
    let details = ErrorDetails::with_error_info("HISTORY_GONE", "gpulease", []);
    let gone = Status::with_error_details(Code::OutOfRange, "list first", details);
    watch.answers.send(Err(gone)).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::HistoryGone);
    assert!(stream.next().await.is_none());
}
