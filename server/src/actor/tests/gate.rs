//! Nothing leaves before it is durable (P3), and after a failed commit nothing leaves at all.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use gpulease_core::id::Revision;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::{
    actor::{Exit, FeedEnd, Health, InboxEnd, SubmitError, start},
    journal::{self, Archive, JournalError},
};

/// A journal that looks around while it appends.
pub(super) struct Watched<J> {
    pub(super) inner: J,
    pub(super) look: Box<dyn FnMut() + Send>,
}

impl<J: Journal> Journal for Watched<J> {
    fn append(&mut self, revision: journal::Revision, batch: &[u8]) -> Result<(), JournalError> {
        (self.look)();
        self.inner.append(revision, batch)
    }

    fn last_revision(&self) -> journal::Revision {
        self.inner.last_revision()
    }

    fn begin_at(&mut self, first: journal::Revision) -> Result<(), JournalError> {
        self.inner.begin_at(first)
    }

    fn archive(&self) -> Arc<dyn Archive> {
        self.inner.archive()
    }
}

#[test]
fn no_reply_and_no_event_is_out_while_the_journal_still_writes() {
    let disk = Disk::new();
    let Opened { journal, snapshot, batches } = disk.open().unwrap();
    let watched: Arc<Mutex<Option<(Answered, Handle, Revision)>>> = Arc::default();
    let looks = Arc::new(AtomicUsize::new(0));
    let look = {
        let (watched, looks) = (Arc::clone(&watched), Arc::clone(&looks));
        move || {
            let mut watched = watched.lock().unwrap();
            let Some((answered, handle, before)) = watched.as_mut() else { return };
            assert_eq!(answered.try_recv().map(drop), Err(TryRecvError::Empty));
            assert_eq!(handle.facts().revision, *before);
            assert_eq!(handle.shared.ring.last(), *before);
            looks.fetch_add(1, Ordering::Relaxed);
        }
    };
    let journal = Watched { inner: journal, look: Box::new(look) };
    let mut rig = Rig::with(Opened { journal, snapshot, batches });
    let answered = rig.acquire(request("one", GIB));
    let before = rig.handle.facts().revision;
    *watched.lock().unwrap() = Some((answered, rig.handle.clone(), before));
    rig.settle().unwrap();
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    let (mut answered, _, _) = watched.lock().unwrap().take().unwrap();
    let reply = answered.try_recv().unwrap();
    assert_eq!(reply.revision, Revision(before.0 + 1));
    assert!(is_active(&rig, lease_of(reply).id));
}

#[test]
fn a_batch_without_events_needs_no_append() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    let lease = rig.grant("one");
    disk.fail_after(0);
    let mut renewed = rig.call(|caller, ticket| Input::Renew {
        caller,
        ticket,
        lease: lease.id,
        token: lease.token,
        holder: None,
    });
    rig.settle().unwrap();
    assert!(matches!(renewed.try_recv().unwrap().outcome, Ok(Answer::Renewed { .. })));
}

#[tokio::test]
async fn after_a_failed_commit_nothing_leaves_and_everyone_learns_why() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    let mut session = rig.session();
    rig.settle().unwrap();
    session.messages();
    let mut cursor = rig.handle.feed().after(None).unwrap();
    let before = rig.handle.facts().revision;
    disk.fail_after(0);
    let mut unary = rig.acquire(request("one", GIB));
    session.acquire(1, request("two", GIB));
    let Rig { actor, handle, .. } = rig;
    let exit = run::live(actor);
    assert!(matches!(exit, Exit::JournalFailed(ref why) if why.contains("no space")), "{exit:?}");
    assert_eq!(unary.try_recv().map(drop), Err(TryRecvError::Closed));
    let mut messages = Vec::new();
    assert_eq!(session.inbox.receive(&mut messages).await, Err(InboxEnd::Closed));
    assert!(
        matches!(cursor.next().await, Err(FeedEnd::Stopped { resume_from }) if resume_from == before)
    );
    assert_eq!(handle.facts().revision, before);
    assert!(matches!(handle.query(|_| ()).await, Err(SubmitError::Failed(_))));
    assert!(matches!(&*handle.health().borrow(), Health::Failed(_)));
    let (line, _) = oneshot::channel();
    let late = handle.submit(ReplyTo::Call(line), |_| Input::Tick);
    assert!(matches!(late, Err(SubmitError::Failed(_))));
}

#[tokio::test]
async fn what_was_acknowledged_before_the_failure_is_on_the_disk_and_nothing_else() {
    for appends in 0..6 {
        let disk = Disk::new();
        let mut rig = Rig::on(&disk);
        disk.fail_after(appends);
        let mut acknowledged = Vec::new();
        for number in 0..8 {
            let mut answered = rig.acquire(request(&format!("r{number}"), GIB));
            let settled = rig.settle();
            acknowledged.extend(answered.try_recv().ok().map(lease_of));
            if settled.is_err() {
                break;
            }
        }
        assert_eq!(acknowledged.len() as u64, appends);
        drop(rig);
        let rig = Rig::on(&disk);
        assert!(acknowledged.iter().all(|lease| is_active(&rig, lease.id)));
        assert_eq!(rig.actor.scheduler().state().tally().active as u64, appends);
    }
}

#[tokio::test]
async fn the_thread_ends_with_the_reason_when_the_journal_fails() {
    let disk = Disk::new();
    disk.fail_after(0);
    let (handle, running) = start(setup(disk.open().unwrap())).unwrap();
    handle.tell(observed(1));
    assert!(matches!(running.ended().await, Exit::JournalFailed(_)));
    assert!(handle.facts().started >= SystemTime::UNIX_EPOCH);
}

#[tokio::test]
async fn a_stop_on_request_is_serving_no_more_and_says_goodbye() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    let mut session = rig.session();
    rig.settle().unwrap();
    session.messages();
    let lease = rig.grant("one");
    // One fits beside the lease, one when that is released, and one never.
    let mut whole = ["now", "later", "never"].map(|name| rig.acquire(request(name, 24 * GIB)));
    rig.settle().unwrap();
    session.release(9, lease.id, lease.token);
    rig.handle.stop();
    assert_eq!(*rig.handle.health().borrow(), Health::Stopping);
    let Rig { actor, handle, .. } = rig;
    let exit = run::live(actor);
    let revision = handle.facts().revision;
    assert_eq!(exit, Exit::Stopped { revision });
    let messages = session.messages();
    assert!(
        matches!(messages.first(), Some(SessionMessage::Reply { sequence: 9, .. })),
        "{messages:?}"
    );
    assert!(
        matches!(messages.last(), Some(SessionMessage::Goodbye { revision: last }) if *last == revision)
    );
    let answered = whole.each_mut().map(|line| line.try_recv().is_ok());
    assert_eq!(answered, [true, true, false]);
    assert_eq!(handle.refusal(), Some(SubmitError::Stopping));
}
