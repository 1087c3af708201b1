//! What holds for the journal on disk alone: the facts about sled that `store` lists, one by one, and refusals.
//!
//! What needs a process of its own (kills, full and failing disks, power cuts) is in `tests/journal_on_disk`.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{
    BATCH_BYTES_MAX, Batch, HistoryBound, Journal, JournalError, Revision, portable,
};
use super::*;

fn batch(revision: u64) -> Vec<u8> {
    format!("batch {revision} ").repeat(1 + usize::try_from(revision % 40).unwrap()).into_bytes()
}

/// A closed journal with batches 1 to `last`.
fn filled(last: u64) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let mut journal = open(place.path()).unwrap().journal;
    for revision in 1..=last {
        journal.append(Revision(revision), &batch(revision)).unwrap();
    }
    place
}

/// Opens and reads everything, as recovery does.
fn recover(path: &Path) -> Result<Vec<Batch>, JournalError> {
    open(path)?.batches.collect()
}

fn refusal(path: &Path) -> String {
    recover(path).expect_err("this must be refused").to_string()
}

fn batches(place: &Path) -> PathBuf {
    place.join("journal/batches")
}

#[test]
fn leftovers_of_a_killed_opening_do_not_matter() {
    let place = filled(10);
    fs::write(batches(place.path()).join("snap.00000000000000FF.generating"), b"half").unwrap();
    fs::write(
        place.path().join("journal/snapshots/snapshot.00000000000000000004.partial"),
        b"half",
    )
    .unwrap();
    fs::create_dir_all(place.path().join("journal.creating/batches")).unwrap();
    assert_eq!(recover(place.path()).unwrap().len(), 10);
    assert!(!place.path().join("journal.creating").exists());
    assert_eq!(fs::read_dir(place.path().join("journal/snapshots")).unwrap().count(), 0);
}

#[test]
fn the_log_alone_is_enough_where_sled_has_lost_its_own_snapshot() {
    let place = filled(30);
    for _ in 0..3 {
        let names = fs::read_dir(batches(place.path())).unwrap().map(|entry| entry.unwrap().path());
        for path in names.filter(|path| path.display().to_string().contains("snap.")) {
            fs::remove_file(path).unwrap();
        }
        assert_eq!(recover(place.path()).unwrap().len(), 30);
    }
}

#[test]
fn a_directory_is_opened_again_at_once() {
    let place = tempfile::tempdir().unwrap();
    for revision in 1..=60 {
        open(place.path())
            .unwrap()
            .journal
            .append(Revision(revision), b"same bytes every time")
            .unwrap();
    }
    assert_eq!(recover(place.path()).unwrap().len(), 60);
}

#[test]
fn no_batch_of_any_size_becomes_a_file_that_sled_does_not_sync() {
    let place = tempfile::tempdir().unwrap();
    let mut journal = open(place.path()).unwrap().journal;
    let archive = journal.archive();
    let sizes = [RECORD_BYTES_MAX, BATCH_BYTES_MAX, RECORD_BYTES_MAX + 1, 10];
    for revision in 1..=80 {
        let size = sizes[usize::try_from(if revision < 60 { 0 } else { revision % 4 }).unwrap()];
        let bytes: Vec<u8> = (0..size).map(|at| u8::try_from((at + size) % 251).unwrap()).collect();
        journal.append(Revision(revision), &bytes).unwrap();
    }
    archive.store_snapshot(Revision(70), b"state").unwrap();
    archive.prune(HistoryBound { batches_max: 5, bytes_max: u64::MAX }).unwrap();
    assert_eq!(fs::read_dir(batches(place.path()).join("blobs")).unwrap().count(), 0);
}

#[test]
fn a_missing_part_is_refused_with_the_way_out() {
    for part in
        ["journal/format", "journal/batches/db", "journal/snapshots/snapshot.00000000000000000008"]
    {
        let place = filled(0);
        let mut journal = open(place.path()).unwrap().journal;
        (1..=9).for_each(|revision| journal.append(Revision(revision), &batch(revision)).unwrap());
        let archive = journal.archive();
        archive.store_snapshot(Revision(8), b"state").unwrap();
        archive.prune(HistoryBound { batches_max: 0, bytes_max: 0 }).unwrap();
        drop((journal, archive));
        fs::remove_file(place.path().join(part)).unwrap();
        let message = refusal(place.path());
        assert!(message.contains("corrupt"), "{part}: {message}");
        assert!(
            message.contains("a copy of the data directory")
                && message.contains("gpulease journal check"),
            "{message}"
        );
    }
}

#[test]
fn another_format_is_refused_by_name() {
    let place = filled(1);
    fs::write(place.path().join("journal/format"), "gpulease journal 7\n").unwrap();
    let message = refusal(place.path());
    assert!(
        message.contains("gpulease journal 7") && message.contains("gpulease journal 1"),
        "{message}"
    );
}

#[test]
fn an_end_that_was_cut_off_is_noticed() {
    let place = filled(200);
    let path = batches(place.path()).join("db");
    let db = fs::File::options().write(true).open(&path).unwrap();
    db.set_len(u64::try_from(written_bytes(&fs::read(&path).unwrap()) / 2).unwrap()).unwrap();
    for entry in fs::read_dir(batches(place.path())).unwrap() {
        let path = entry.unwrap().path();
        if path.display().to_string().contains("snap.") {
            fs::remove_file(path).unwrap();
        }
    }
    assert!(refusal(place.path()).contains("acknowledged"));
}

/// sled's answers to damage differ by where it is: an error, a panic, a shorter log. None may pass for a whole journal.
#[test]
fn a_flipped_bit_anywhere_is_refused_or_was_in_nobodys_bytes() {
    let place = filled(300);
    {
        let opened = open(place.path()).unwrap();
        opened.journal.archive().store_snapshot(Revision(100), &vec![5; 3_000]).unwrap();
    }
    let expected = recover(place.path()).unwrap();
    let mut files = vec![place.path().join("journal/snapshots/snapshot.00000000000000000100")];
    files.extend(fs::read_dir(batches(place.path())).unwrap().map(|entry| entry.unwrap().path()));
    let mut refused = 0;
    for (seed, file) in (0..240_usize).zip(files.iter().filter(|file| file.is_file()).cycle()) {
        let copy = in_memory();
        copy_tree(place.path(), copy.path());
        let damaged = copy.path().join(file.strip_prefix(place.path()).unwrap());
        let mut bytes = fs::read(&damaged).unwrap();
        let written = written_bytes(&bytes);
        bytes[seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % written] ^= 1 << (seed % 8);
        fs::write(&damaged, bytes).unwrap();
        match recover(copy.path()) {
            Ok(found) => assert_eq!(found, expected, "seed {seed}, {}", file.display()),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100, "only {refused} of 240 flips were noticed");
}

/// Memory where there is some: hundreds of openings with all their syncs, of files that nobody needs.
pub(super) fn in_memory() -> tempfile::TempDir {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() {
        tempfile::tempdir_in(shared_memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Where the zeros begin that sled leaves behind its last message.
fn written_bytes(file: &[u8]) -> usize {
    file.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_path_that_is_no_directory_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [file.clone(), file.join("below")] {
        let refused = recover(&path).unwrap_err();
        assert!(matches!(refused, JournalError::NotADirectory { .. }), "{refused:?}");
        assert!(refused.to_string().contains("file"), "{refused}");
    }
}

#[test]
fn an_import_appears_whole_or_not_at_all() {
    let from = filled(40);
    let mut export = Vec::new();
    portable::export(&open(from.path()).unwrap().journal.archive(), &mut export).unwrap();
    let place = tempfile::tempdir().unwrap();
    let cut = &mut &export[..export.len() / 2];
    assert!(matches!(
        create(place.path(), |journal| portable::import(cut, journal)),
        Err(JournalError::Import { .. })
    ));
    assert!(!place.path().join("journal").exists());
    create(place.path(), |journal| portable::import(&mut export.as_slice(), journal)).unwrap();
    assert_eq!(recover(place.path()).unwrap(), recover(from.path()).unwrap());
    let again = create(place.path(), |_| Ok(()));
    assert!(matches!(again, Err(JournalError::NotEmpty { .. })), "{again:?}");
}
