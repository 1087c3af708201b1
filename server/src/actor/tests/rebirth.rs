//! After a restart the state is what it was, or there is none.

use super::*;
use crate::{
    actor::{
        recovery::{RecoveryError, recover},
        snapshot,
    },
    journal::{Revision, codec},
};

/// Some life: grants, a release, an expiry, waiting requests.
fn live_a_little(rig: &mut Rig, round: u32) {
    let lease = rig.grant(&format!("released {round}"));
    drop(rig.grant(&format!("left to expire {round}")));
    drop(rig.acquire(request(&format!("fits beside {round}"), 24 * GIB)));
    drop(rig.acquire(request(&format!("waits {round}"), 24 * GIB)));
    drop(rig.call(|caller, ticket| Input::Release {
        caller,
        ticket,
        lease: lease.id,
        token: Some(lease.token),
        holder: None,
    }));
    // The TTL and the lock delay of what expires, twice over: for the one that waits, too.
    rig.pass(Span::from_secs(60));
}

#[test]
fn replay_gives_the_state_that_was_live() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    for round in 0..4 {
        live_a_little(&mut rig, round);
        let live = rig.actor.scheduler().state().clone();
        drop(rig);
        let recovered = recover(disk.open().unwrap(), Policy::default()).unwrap();
        assert_eq!(*recovered.scheduler().state(), live);
        drop(recovered);
        rig = Rig::on(&disk);
    }
}

#[test]
fn a_snapshot_in_the_middle_changes_nothing_and_shortens_the_replay() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    live_a_little(&mut rig, 0);
    let folded =
        snapshot::fold(&rig.handle.shared, HistoryBound { batches_max: 3, bytes_max: 1 << 20 });
    let revision = rig.handle.facts().revision;
    assert_eq!(folded.unwrap(), Some(Revision(revision.0)));
    assert_eq!(rig.handle.facts().snapshot_revision, revision);
    assert_eq!(rig.handle.facts().oldest_revision.0, revision.0 - 2);
    live_a_little(&mut rig, 1);
    let live = rig.actor.scheduler().state().clone();
    drop(rig);
    let opened = disk.open().unwrap();
    assert_eq!(opened.snapshot.as_ref().map(|snapshot| snapshot.revision.0), Some(revision.0));
    assert_eq!(*recover(opened, Policy::default()).unwrap().scheduler().state(), live);
}

/// What becomes of a disk that something was appended to.
fn check(append: impl FnOnce(Revision) -> Vec<u8>, expected: impl FnOnce(&RecoveryError) -> bool) {
    let disk = Disk::new();
    drop(Rig::on(&disk));
    let mut opened = disk.open().unwrap();
    let next = opened.journal.last_revision().next();
    opened.journal.append(next, &append(next)).unwrap();
    drop(opened);
    let error = recover(disk.open().unwrap(), Policy::default()).map(drop).unwrap_err();
    assert!(expected(&error), "{error}");
    assert!(error.is_corruption());
    assert!(error.to_string().contains("does not start empty"), "{error}");
}

#[test]
fn what_cannot_be_understood_is_refused_with_the_way_out() {
    let batch = |revision: u64, events| {
        let revision = gpulease_core::id::Revision(revision);
        let time = Time::from_millis(u64::MAX / 2);
        codec::encode(&gpulease_core::event::Batch { revision, time, events }).unwrap()
    };
    check(|_| vec![9, 9, 9], |error| matches!(error, RecoveryError::Undecodable { .. }));
    check(
        |next| batch(next.0 + 1, vec![]),
        |error| matches!(error, RecoveryError::Misplaced { .. }),
    );
    let unknown = gpulease_core::event::Event::NodeLost { node: gpulease_core::id::NodeId(77) };
    check(
        |next| batch(next.0, vec![unknown]),
        |error| matches!(error, RecoveryError::Inapplicable(_)),
    );
}

#[test]
fn a_lost_batch_is_refused_with_the_way_out() {
    let disk = Disk::new();
    let mut rig = Rig::on(&disk);
    live_a_little(&mut rig, 0);
    drop(rig);
    disk.lose_batch(Revision(3));
    let opened = disk.open();
    let refused =
        opened.map_err(RecoveryError::from).and_then(|opened| recover(opened, Policy::default()));
    let error = refused.map(drop).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    assert!(error.to_string().contains("does not start empty"), "{error}");
}
