//! What is built on changes: turns, handlers, functions, and slow readers.

use std::sync::mpsc;

use gpulease_proto::v1;

use super::{
    Scene,
    coordinator::active,
    pausing::{acknowledged, held, paused, pausing, push, seconds},
    settle,
};
use crate::{Change, ErrorKind, Grant, LostReason, PauseHandler, PauseReason};

#[tokio::test]
async fn functions_are_told_in_order_and_a_slow_one_delays_no_renewal() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let (said, hear) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let tell = said.clone();
    lease.on_notice(move |notice| {
        tell.send(format!("notice {}", notice.id)).unwrap();
        wait.recv().unwrap();
    });
    let tell = said.clone();
    lease.on_resume(move |grant| tell.send(format!("resume {}", grant.fencing_token)).unwrap());
    lease.on_lost(move |reason| said.send(format!("lost: {reason}")).unwrap());
    push(&session, pausing(7, 3, 11)).await;
    lease.noticed().await.unwrap();
    scene.advance(seconds(10));
    session.renewal().await;
    push(&session, paused(7, 3)).await;
    push(&session, active(7, 4)).await;
    lease.resumed().await.unwrap();
    let reclaiming = v1::LeaseState::Reclaiming as i32;
    push(&session, v1::Lease { state: reclaiming, ..active(7, 4) }).await;
    lease.lost().await;
    go_on.send(()).unwrap();
    let heard = tokio::task::spawn_blocking(move || hear.iter().take(3).collect::<Vec<_>>());
    let mut heard = heard.await.unwrap();
    heard.sort();
    assert_eq!(heard, ["lost: the coordinator ended it: ENDED ", "notice 11", "resume 4"]);
}

#[tokio::test]
async fn a_slow_reader_of_changes_skips_the_oldest_and_gets_the_newest() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let mut changes = lease.changes();
    for notice_id in 1..=20 {
        push(&session, pausing(7, 3, notice_id)).await;
        push(&session, active(7, 3)).await;
    }
    settle(&scene, &mut session).await;
    drop(lease);
    let mut last = None;
    let mut count = 0;
    while let Some(change) = changes.next().await {
        (last, count) = (Some(change), count + 1);
    }
    assert!(matches!(last, Some(Change::Ended { .. })), "{last:?}");
    assert_eq!((count, changes.skipped()), (32, 9));
}

#[tokio::test]
async fn work_goes_turn_by_turn_through_its_pauses() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let (turns, mut told) = tokio::sync::mpsc::channel(4);
    let working = tokio::spawn(async move {
        let first = lease.turn().await.unwrap();
        turns.send((first.fencing_token(), first.must_stop())).await.unwrap();
        let reason = first.stop_asked().await.unwrap();
        assert!(matches!(reason, PauseReason::Notice(notice) if notice.id == 11));
        assert!(first.must_stop());
        first.check().unwrap();
        let second = lease.turn().await.unwrap();
        turns.send((second.fencing_token(), second.must_stop())).await.unwrap();
        second.check().unwrap();
        assert_eq!(first.check().unwrap_err().kind(), ErrorKind::LeasePaused, "its turn is over");
        lease
    });
    assert_eq!(told.recv().await, Some((3, false)));
    push(&session, pausing(7, 3, 11)).await;
    acknowledged(&mut session, 11, paused(7, 3)).await;
    push(&session, active(7, 4)).await;
    assert_eq!(told.recv().await, Some((4, false)));
    assert!(!working.await.unwrap().is_lost());
}

struct Hooks(tokio::sync::mpsc::Sender<String>);

impl PauseHandler for Hooks {
    type Error = String;

    async fn pause(&mut self, reason: &PauseReason) -> Result<(), String> {
        let said = match reason {
            PauseReason::Notice(notice) => format!("pause for notice {}", notice.id),
            PauseReason::DevicesLost => "pause for lost devices".to_owned(),
        };
        self.0.send(said).await.map_err(|error| error.to_string())
    }

    async fn resume(&mut self, grant: &Grant) -> Result<(), String> {
        let said = format!("resume with {}", grant.fencing_token);
        self.0.send(said).await.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn a_handler_pauses_and_resumes_what_runs_beside_it() {
    let mut scene = Scene::new().await;
    let (mut session, lease) = held(&mut scene).await;
    let (said, mut heard) = tokio::sync::mpsc::channel(8);
    let answering = tokio::spawn(async move { lease.answer_notices(&mut Hooks(said)).await });
    push(&session, pausing(7, 3, 11)).await;
    assert_eq!(heard.recv().await.unwrap(), "pause for notice 11");
    acknowledged(&mut session, 11, paused(7, 3)).await;
    push(&session, active(7, 4)).await;
    assert_eq!(heard.recv().await.unwrap(), "resume with 4");
    let (_, renewals) = session.renewal().await;
    assert_eq!(renewals[0].fencing_token, 4);
    push(&session, paused(7, 4)).await;
    assert_eq!(heard.recv().await.unwrap(), "pause for lost devices");
    push(&session, active(7, 5)).await;
    assert_eq!(heard.recv().await.unwrap(), "resume with 5");
    push(&session, v1::Lease { state: v1::LeaseState::Ended as i32, ..active(7, 5) }).await;
    assert!(matches!(answering.await.unwrap(), Ok(LostReason::Ended { .. })));
}
