//! Watchers: every batch once and in order, from the ring or from the journal (P20).

use gpulease_core::{event::Event, id::Revision};

use super::*;
use crate::actor::{FeedEnd, Subject};

/// Reads up to a revision, while the actor answers questions.
async fn read(rig: &mut Rig, after: u64, up_to: u64) -> Vec<super::super::Published> {
    let mut cursor = rig.handle.feed().after(Some(Revision(after))).unwrap();
    let mut found = Vec::new();
    while cursor.position() < Revision(up_to) {
        let mut next = std::pin::pin!(cursor.next());
        // Dropping the future would lose nothing but the work it did so far, so it is kept.
        let published = loop {
            tokio::select! {
                biased;
                published = &mut next => break published,
                () = tokio::task::yield_now() => drop(rig.settle().unwrap()),
            }
        };
        found.push(published.unwrap());
    }
    found
}

#[tokio::test]
async fn a_cursor_gives_each_later_batch_once_in_order_with_names() {
    let mut rig = Rig::on(&Disk::new());
    (0..5).for_each(|number| drop(rig.grant(&format!("r{number}"))));
    let last = rig.handle.facts().revision.0;
    let all = read(&mut rig, 0, last).await;
    let revisions: Vec<u64> = all.iter().map(|published| published.batch.revision.0).collect();
    assert_eq!(revisions, (1..=last).collect::<Vec<_>>());
    let published = all.last().unwrap();
    assert!(matches!(published.batch.events[..], [Event::Requested { .. }, Event::Granted { .. }]));
    let Subject::Lease { request, devices, .. } = &published.subjects[1] else {
        panic!("{published:?}")
    };
    assert_eq!(request.as_ref().unwrap().request_id, "r4".into());
    assert_eq!(devices[0].facts.uuid, "SIM-0".into());
}

#[tokio::test]
async fn history_from_before_a_restart_is_read_from_the_journal() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    (0..300).for_each(|number| rig.grant_and_release(&format!("r{number}")));
    let last = rig.handle.facts().revision.0;
    drop(rig);
    let mut rig = Rig::on(&disk);
    let found = read(&mut rig, 7, last).await;
    let revisions: Vec<u64> = found.iter().map(|published| published.batch.revision.0).collect();
    assert_eq!(revisions, (8..=last).collect::<Vec<_>>());
    assert!(matches!(found[0].subjects[0], Subject::Lease { .. }));
}

#[tokio::test]
async fn a_revision_that_is_still_to_come_or_gone_is_refused() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    drop(rig.grant("one"));
    let last = rig.handle.facts().revision;
    let to_come = rig.handle.feed().after(Some(Revision(last.0 + 1))).map(drop).unwrap_err();
    assert_eq!((to_come.asked.0, to_come.last), (last.0 + 1, last));
    let archive = Arc::clone(&rig.handle.shared.archive);
    let snapshot = crate::journal::codec::encode(rig.actor.scheduler().state()).unwrap();
    archive.store_snapshot(crate::journal::Revision(last.0), &snapshot).unwrap();
    archive.prune(HistoryBound { batches_max: 0, bytes_max: 0 }).unwrap();
    drop((rig, archive));
    let rig = Rig::on(&disk);
    let gone = rig.handle.feed().after(Some(Revision(0))).map(drop).unwrap_err();
    assert_eq!(gone.oldest, rig.handle.facts().oldest_revision);
    assert!(rig.handle.feed().after(None).is_ok());
}

#[tokio::test]
async fn at_a_stop_a_cursor_drains_and_then_ends_with_the_revision_to_resume_from() {
    let mut rig = Rig::on(&Disk::new());
    let mut cursor = rig.handle.feed().after(None).unwrap();
    drop(rig.grant("one"));
    rig.handle.stop();
    let Rig { actor, handle, .. } = rig;
    drop(run::live(actor));
    let last = handle.facts().revision;
    assert_eq!(cursor.next().await.unwrap().batch.revision, last);
    assert!(
        matches!(cursor.next().await, Err(FeedEnd::Stopped { resume_from }) if resume_from == last)
    );
}

/// More leases than records are kept of: whose the oldest were is told by the journal alone.
#[tokio::test]
async fn the_past_names_leases_whose_records_are_forgotten() {
    let mut rig = Rig::on(&Disk::new());
    for number in 0..gpulease_core::state::RECORDS_MAX as u64 + 10 {
        rig.grant_and_release(&format!("r{number}"));
    }
    let first = read(&mut rig, 0, 20).await;
    let events = first
        .iter()
        .flat_map(|published| published.batch.events.iter().zip(published.subjects.iter()));
    let mut named = 0;
    for (event, subject) in events {
        if let Subject::Lease { request, .. } = subject {
            assert!(request.is_some(), "{event:?} is nobody's");
            named += 1;
        }
    }
    assert!(named >= 20, "only {named} events were about leases");
}
