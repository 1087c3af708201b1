//! What is found of a journal without opening it: all of a whole one, and all but the damaged part of a damaged one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Batch, HistoryBound, Journal, JournalError, Revision};
use super::*;

/// Bytes that say which revision they are of.
fn bytes(revision: u64, length: usize) -> Vec<u8> {
    let mut bytes = [b"batch".as_slice(), &revision.to_le_bytes()].concat();
    let filler = (0..).map(|at: usize| u8::try_from((at / 3 + length) % 256).unwrap());
    bytes.extend(filler.take(length));
    bytes
}

fn revision_of(bytes: &[u8]) -> Option<Revision> {
    let revision = bytes.strip_prefix(b"batch")?.first_chunk()?;
    Some(Revision(u64::from_le_bytes(*revision)))
}

fn filled(lengths: impl IntoIterator<Item = usize>) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut journal = open(place.path()).unwrap().journal;
    for (revision, length) in (1..).zip(lengths) {
        journal.append(Revision(revision), &bytes(revision, length)).unwrap();
    }
    place
}

fn look(place: &Path) -> Remains {
    remains(place, revision_of).unwrap()
}

fn batches(remains: &Remains) -> Vec<Batch> {
    remains.revisions().into_iter().map(|revision| remains.batch(revision).unwrap()).collect()
}

/// Every file below a directory with its content.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn a_whole_journal_is_found_as_it_is_and_nothing_is_changed() {
    let place = filled((0..300).map(|at| at * 37 % 900));
    let opened = open(place.path()).unwrap();
    let archive = opened.journal.archive();
    archive.store_snapshot(Revision(200), b"state").unwrap();
    archive.prune(HistoryBound { batches_max: 50, bytes_max: u64::MAX }).unwrap();
    let expected = archive.read_batches(Revision(150), 500).unwrap();
    drop((opened, archive));
    let before = contents(place.path());
    let found = look(place.path());
    assert_eq!(found.snapshot().unwrap().revision, Revision(200));
    assert_eq!(found.acknowledged(), Some(Revision(300)));
    assert_eq!(found.damage(), [""; 0]);
    let batches = batches(&found);
    assert!(batches.ends_with(&expected), "of {} batches", batches.len());
    drop(found);
    assert!(contents(place.path()) == before, "looking at a journal changed it");
}

#[test]
fn batches_of_many_records_are_put_together() {
    let lengths = [0, 5, RECORD_BYTES_MAX - 13, RECORD_BYTES_MAX, 3_000_000, 7, 8_000_000, 70_000];
    let place = filled(lengths);
    let expected: Vec<Vec<u8>> = (1..).zip(lengths).map(|(at, length)| bytes(at, length)).collect();
    let found: Vec<_> = batches(&look(place.path())).into_iter().map(|it| it.bytes).collect();
    assert!(found == expected, "a batch came back changed");
}

#[test]
fn a_flipped_bit_costs_one_batch_at_most_and_none_comes_back_changed() {
    let place = filled((0..200).map(|at| at * 41 % 300));
    let whole = batches(&look(place.path()));
    let db = place.path().join("journal/batches/db");
    let written = fs::read(&db).unwrap();
    let used = written.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for seed in 0..60_usize {
        let mut damaged = written.clone();
        damaged[seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % used] ^= 1 << (seed % 8);
        fs::write(&db, &damaged).unwrap();
        let found = batches(&look(place.path()));
        assert!(found.iter().all(|batch| whole.contains(batch)), "seed {seed}");
        assert!(found.len() + 1 >= whole.len(), "seed {seed}: {} were found", found.len());
    }
}

#[test]
fn a_batch_of_which_every_copy_is_damaged_is_left_out() {
    let place = filled([100; 50]);
    let db = place.path().join("journal/batches/db");
    let mut written = fs::read(&db).unwrap();
    let wanted = bytes(17, 100);
    let copies: Vec<usize> =
        (0..written.len()).filter(|at| written[*at..].starts_with(&wanted)).collect();
    assert!(!copies.is_empty());
    copies.iter().for_each(|at| written[at + 50] ^= 1);
    fs::write(&db, &written).unwrap();
    let expected: Vec<_> = (1..=50).filter(|at| *at != 17).map(Revision).collect();
    assert_eq!(look(place.path()).revisions(), expected);
}

#[test]
fn what_was_removed_and_is_found_again_does_not_count() {
    let place = tempfile::tempdir().unwrap();
    let mut journal = open_with_segments_of(place.path(), 64 << 10).unwrap().journal;
    for revision in 1..=3_000 {
        journal.append(Revision(revision), &bytes(revision, 100)).unwrap();
        if revision % 500 == 0 {
            let archive = journal.archive();
            archive.store_snapshot(Revision(revision - 10), b"state").unwrap();
            archive.prune(HistoryBound { batches_max: 20, bytes_max: u64::MAX }).unwrap();
        }
    }
    drop(journal);
    let found = look(place.path());
    let revisions = found.revisions();
    assert!(revisions.len() >= 30, "{revisions:?}");
    assert_eq!(revisions.last(), Some(&Revision(3_000)));
    assert!(revisions.is_sorted_by(|left, right| left.next() == *right), "{revisions:?}");
}

#[test]
fn a_damaged_snapshot_is_named_and_missing_files_are_too() {
    let place = filled([10; 20]);
    let opened = open(place.path()).unwrap();
    opened.journal.archive().store_snapshot(Revision(12), &[7; 90]).unwrap();
    drop(opened);
    let snapshot = place.path().join("journal/snapshots/snapshot.00000000000000000012");
    let mut bytes = fs::read(&snapshot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    fs::remove_file(place.path().join("journal/acknowledged")).unwrap();
    fs::remove_file(place.path().join("journal/format")).unwrap();
    let found = look(place.path());
    assert!(found.snapshot().is_none() && found.acknowledged().is_none());
    assert!(found.damage().concat().contains("checksum"), "{:?}", found.damage());
    assert!(found.damage().concat().contains("format is missing"), "{:?}", found.damage());
    assert_eq!(found.revisions().len(), 20);
    drop(found);
    fs::remove_file(place.path().join("journal/batches/db")).unwrap();
    fs::remove_dir_all(place.path().join("journal/snapshots")).unwrap();
    let found = look(place.path());
    assert!(found.damage().concat().contains("db is missing"), "{:?}", found.damage());
    assert!(found.damage().concat().contains("snapshots is missing"), "{:?}", found.damage());
}

#[test]
fn a_running_coordinator_is_left_alone_and_kept_away() {
    let place = filled([10; 3]);
    let running = open(place.path()).unwrap();
    let refused = remains(place.path(), revision_of).map(drop).unwrap_err();
    assert!(matches!(refused, JournalError::InUse { .. }), "{refused:?}");
    drop(running);
    let found = look(place.path());
    assert!(matches!(open(place.path()).map(drop), Err(JournalError::InUse { .. })));
    drop(found);
    open(place.path()).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let refused = remains(empty.path(), revision_of).map(drop).unwrap_err();
    assert!(matches!(refused, JournalError::NoJournal { .. }), "{refused:?}");
    assert!(fs::read_dir(empty.path()).unwrap().next().is_none());
}

/// A journal with one bit of its log flipped at this place.
fn damaged(written: &Path, at: usize, bit: usize) -> tempfile::TempDir {
    let place = tests::in_memory();
    for (path, mut content) in contents(written) {
        let target = place.path().join(path.strip_prefix(written).unwrap());
        if path.ends_with("journal/batches/db") {
            content[at] ^= 1 << bit;
        }
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, content).unwrap();
    }
    fs::create_dir_all(place.path().join("journal/snapshots")).unwrap();
    place
}

/// As a kill leaves it: what sled writes when it is closed is not there.
fn filled_and_killed() -> tempfile::TempDir {
    let killed = tempfile::tempdir().unwrap();
    let place = filled([]);
    let mut journal = open(place.path()).unwrap().journal;
    for revision in 1..=12 {
        journal.append(Revision(revision), &bytes(revision, 40)).unwrap();
    }
    for (path, content) in contents(place.path()) {
        let target = killed.path().join(path.strip_prefix(place.path()).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, content).unwrap();
    }
    fs::create_dir_all(killed.path().join("journal/snapshots")).unwrap();
    killed
}

#[test]
fn a_start_that_is_refused_costs_nothing_that_was_there_before_it() {
    let written = filled_and_killed();
    let db = fs::read(written.path().join("journal/batches/db")).unwrap();
    let used = db.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let (mut untouched, mut put_aside) = (0, 0);
    for at in (0..used).step_by(13) {
        let place = damaged(written.path(), at, at % 8);
        let before = batches(&look(place.path()));
        let refused = match open_guarded(place.path(), revision_of) {
            Ok(opened) => {
                assert_eq!(opened.batches.count(), 12, "byte {at}");
                continue;
            }
            Err(refused) => refused.to_string(),
        };
        untouched += usize::from(refused.contains("nothing was changed"));
        put_aside += usize::from(refused.contains("put into"));
        let after = batches(&look(place.path()));
        assert!(after == before, "byte {at}: {} of {} are left", after.len(), before.len());
        assert!(open_guarded(place.path(), revision_of).is_err(), "byte {at}");
        assert!(batches(&look(place.path())) == before, "byte {at}, once more");
    }
    assert!(untouched > 0 && put_aside > 0, "{untouched} untouched, {put_aside} put aside");
}
