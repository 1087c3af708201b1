//! What every journal must do, written once and run on each: see `tests` at the end for where.
//!
//! A `Place` is a disk or a directory that can be opened again and again; every check gets a fresh one.

use super::*;

/// Where a journal lives, over restarts.
trait Place {
    type Opens: Journal;
    fn fresh() -> Self;
    fn open(&self) -> Result<Opened<Self::Opens>, JournalError>;
}

struct InMemory(memory::Disk);

impl Place for InMemory {
    type Opens = memory::MemoryJournal;
    fn fresh() -> Self {
        InMemory(memory::Disk::new())
    }
    fn open(&self) -> Result<Opened<Self::Opens>, JournalError> {
        self.0.open()
    }
}

struct OnDisk(tempfile::TempDir);

impl Place for OnDisk {
    type Opens = sled::SledJournal;
    fn fresh() -> Self {
        OnDisk(tempfile::tempdir().unwrap())
    }
    fn open(&self) -> Result<Opened<Self::Opens>, JournalError> {
        sled::open(self.0.path())
    }
}

/// A batch that says which revision it is, of a length that varies with it.
fn sample(revision: u64) -> Vec<u8> {
    let length = usize::try_from(revision * 37 % 900).unwrap();
    let mut bytes = revision.to_le_bytes().to_vec();
    bytes.resize(8 + length, u8::try_from(revision % 251).unwrap());
    bytes
}

fn append(journal: &mut impl Journal, revisions: std::ops::RangeInclusive<u64>) {
    for revision in revisions {
        journal.append(Revision(revision), &sample(revision)).unwrap();
    }
}

fn assert_batches(found: &[Batch], revisions: std::ops::RangeInclusive<u64>) {
    let expected: Vec<_> = revisions
        .map(|revision| Batch { revision: Revision(revision), bytes: sample(revision) })
        .collect();
    assert_eq!(found, expected);
}

fn replay(batches: Replay) -> Vec<Batch> {
    batches.collect::<Result<_, _>>().unwrap()
}

fn an_empty_journal_opens_empty<P: Place>() {
    let place = P::fresh();
    let opened = place.open().unwrap();
    assert_eq!(opened.journal.last_revision(), Revision::ZERO);
    assert_eq!(opened.snapshot, None);
    assert_eq!(replay(opened.batches), []);
    let archive = opened.journal.archive();
    assert_eq!(archive.oldest_revision(), Revision(1));
    assert_eq!(archive.read_batches(Revision::ZERO, 10).unwrap(), []);
    assert_eq!(archive.prune(HistoryBound::DEFAULT).unwrap(), 0);
}

fn batches_come_back_in_order_after_reopening<P: Place>() {
    let place = P::fresh();
    for round in 0..3 {
        let mut opened = place.open().unwrap();
        let last = round * 40;
        assert_eq!(opened.journal.last_revision(), Revision(last));
        assert_batches(&replay(opened.batches), 1..=last);
        append(&mut opened.journal, last + 1..=last + 40);
    }
}

fn an_empty_and_a_large_batch_are_whole<P: Place>() {
    let place = P::fresh();
    let sizes = [
        0,
        1,
        sled::RECORD_BYTES_MAX,
        sled::RECORD_BYTES_MAX + 1,
        3_000_000,
        0,
        BATCH_BYTES_MAX,
        5,
    ];
    let batch = |size: usize| -> Vec<u8> {
        (0..size).map(|at| u8::try_from((at / 7 + size) % 256).unwrap()).collect()
    };
    let mut journal = place.open().unwrap().journal;
    for (revision, size) in (1..).zip(sizes) {
        journal.append(Revision(revision), &batch(size)).unwrap();
    }
    drop(journal);
    let found = replay(place.open().unwrap().batches);
    let found: Vec<_> = found.into_iter().map(|batch| batch.bytes).collect();
    assert!(found == sizes.map(batch), "a batch came back changed");
}

fn a_wrong_revision_or_size_is_refused_and_harmless<P: Place>() {
    let place = P::fresh();
    let mut journal = place.open().unwrap().journal;
    append(&mut journal, 1..=2);
    for found in [0, 2, 4, u64::MAX] {
        let refused = journal.append(Revision(found), b"x");
        assert!(
            matches!(refused, Err(JournalError::OutOfOrder { expected: Revision(3), .. })),
            "{refused:?}"
        );
    }
    let too_large = vec![0; BATCH_BYTES_MAX + 1];
    assert!(matches!(
        journal.append(Revision(3), &too_large),
        Err(JournalError::BatchTooLarge { .. })
    ));
    append(&mut journal, 3..=3);
    assert_batches(&journal.archive().read_batches(Revision::ZERO, 9).unwrap(), 1..=3);
}

fn a_snapshot_replaces_the_batches_before_it<P: Place>() {
    let place = P::fresh();
    let mut journal = place.open().unwrap().journal;
    append(&mut journal, 1..=10);
    let archive = journal.archive();
    archive.store_snapshot(Revision(4), b"four").unwrap();
    archive.store_snapshot(Revision(7), &vec![7; 5_000_000]).unwrap();
    for found in [0, 6, 7, 11] {
        let refused = archive.store_snapshot(Revision(found), b"x");
        assert!(matches!(refused, Err(JournalError::SnapshotOutOfPlace { .. })), "{refused:?}");
    }
    drop((journal, archive));
    let opened = place.open().unwrap();
    let snapshot = opened.snapshot.unwrap();
    assert_eq!(snapshot.revision, Revision(7));
    assert!(snapshot.bytes == vec![7; 5_000_000]);
    assert_batches(&replay(opened.batches), 8..=10);
}

fn history_is_read_in_pages_and_pruned_by_count<P: Place>() {
    let place = P::fresh();
    let mut journal = place.open().unwrap().journal;
    append(&mut journal, 1..=1_000);
    let archive = journal.archive();
    assert_batches(&archive.read_batches(Revision(3), 5).unwrap(), 4..=8);
    assert_eq!(archive.read_batches(Revision(3), 0).unwrap(), []);
    assert_eq!(archive.read_batches(Revision(5_000), 5).unwrap(), []);
    let bound = HistoryBound { batches_max: 100, bytes_max: u64::MAX };
    assert_eq!(archive.prune(bound).unwrap(), 0, "nothing goes without a snapshot");
    archive.store_snapshot(Revision(900), b"state").unwrap();
    assert_eq!(archive.prune(bound).unwrap(), 800);
    assert_eq!(archive.prune(bound).unwrap(), 0);
    assert_eq!(archive.oldest_revision(), Revision(801));
    let gone = archive.read_batches(Revision(799), 5);
    assert!(
        matches!(gone, Err(JournalError::HistoryGone { oldest: Revision(801), .. })),
        "{gone:?}"
    );
    assert_batches(&archive.read_batches(Revision(800), 500).unwrap(), 801..=1_000);
    append(&mut journal, 1_001..=1_010);
    drop((journal, archive));
    let opened = place.open().unwrap();
    assert_batches(&replay(opened.batches), 901..=1_010);
    assert_eq!(opened.journal.archive().oldest_revision(), Revision(801));
}

fn pruning_by_bytes_keeps_what_the_snapshot_lacks_and_the_last<P: Place>() {
    let place = P::fresh();
    let mut journal = place.open().unwrap().journal;
    for revision in 1..=20 {
        journal.append(Revision(revision), &[1; 100]).unwrap();
    }
    let archive = journal.archive();
    archive.store_snapshot(Revision(10), b"state").unwrap();
    assert_eq!(archive.prune(HistoryBound { batches_max: u64::MAX, bytes_max: 350 }).unwrap(), 7);
    assert_eq!(archive.prune(HistoryBound { batches_max: 0, bytes_max: 0 }).unwrap(), 3);
    assert_eq!(archive.read_batches(Revision(10), 50).unwrap().len(), 10);
    archive.store_snapshot(Revision(20), b"state").unwrap();
    archive.prune(HistoryBound { batches_max: 0, bytes_max: 0 }).unwrap();
    assert_eq!(archive.oldest_revision(), Revision(20));
    drop((journal, archive));
    let mut opened = place.open().unwrap();
    assert_eq!(opened.journal.last_revision(), Revision(20));
    append(&mut opened.journal, 21..=21);
}

fn a_second_opening_is_refused_until_the_first_is_dropped<P: Place>() {
    let place = P::fresh();
    let first = place.open().unwrap();
    let refused = place.open().map(|_| ()).unwrap_err();
    let own = std::process::id();
    assert!(
        matches!(refused, JournalError::InUse { holder_pid: Some(pid), .. } if pid == own),
        "{refused:?}"
    );
    assert!(refused.to_string().contains(&own.to_string()), "{refused}");
    drop(first);
    place.open().unwrap();
}

fn an_export_imports_with_its_revisions<P: Place>() {
    let (from, to) = (P::fresh(), P::fresh());
    let mut journal = from.open().unwrap().journal;
    append(&mut journal, 1..=50);
    let archive = journal.archive();
    archive.store_snapshot(Revision(40), &vec![9; 2_500_000]).unwrap();
    archive.prune(HistoryBound { batches_max: 10, bytes_max: u64::MAX }).unwrap();
    let mut file = Vec::new();
    portable::export(&archive, &mut file).unwrap();

    let mut copy = to.open().unwrap().journal;
    portable::import(&mut file.as_slice(), &mut copy).unwrap();
    assert_batches(&copy.archive().read_batches(Revision(30), 100).unwrap(), 31..=50);
    append(&mut copy, 51..=52);
    let again = portable::import(&mut file.as_slice(), &mut copy);
    assert!(matches!(again, Err(JournalError::NotEmpty { .. })), "{again:?}");
    drop(copy);
    let opened = to.open().unwrap();
    assert_eq!(opened.snapshot.unwrap(), archive.newest_snapshot().unwrap().unwrap());
    assert_batches(&replay(opened.batches), 41..=52);
}

fn a_changed_or_cut_export_is_refused<P: Place>() {
    let place = P::fresh();
    let mut journal = place.open().unwrap().journal;
    append(&mut journal, 1..=5);
    journal.archive().store_snapshot(Revision(3), b"state").unwrap();
    let mut file = Vec::new();
    portable::export(&journal.archive(), &mut file).unwrap();
    let text = String::from_utf8(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without = |gone: usize| {
        let kept = lines.iter().enumerate().filter(|(at, _)| *at != gone);
        kept.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    let mut broken: Vec<String> = (0..lines.len()).map(without).collect();
    broken.push(text.replacen("\"hex\":\"7", "\"hex\":\"6", 1));
    broken.push(text.replacen("export 1", "export 2", 1));
    broken.push(text[..text.len() / 2].to_owned());
    for file in broken {
        let target = P::fresh();
        let mut copy = target.open().unwrap().journal;
        let refused = portable::import(&mut file.as_bytes(), &mut copy);
        assert!(
            matches!(refused, Err(JournalError::Import { .. } | JournalError::OutOfOrder { .. })),
            "{refused:?}"
        );
    }
}

fn readers_and_a_pruner_run_beside_the_writer<P: Place>() {
    let place = P::fresh();
    let mut journal = place.open().unwrap().journal;
    append(&mut journal, 1..=1);
    let archive = journal.archive();
    let reader = archive.clone();
    let watcher = std::thread::spawn(move || {
        let mut seen = Revision::ZERO;
        while seen < Revision(600) {
            match reader.read_batches(seen, 7) {
                Ok(batches) => {
                    assert_batches(
                        &batches,
                        seen.0 + 1..=seen.0 + u64::try_from(batches.len()).unwrap(),
                    );
                    seen = batches.last().map_or(seen, |batch| batch.revision);
                }
                Err(JournalError::HistoryGone { oldest, .. }) => seen = Revision(oldest.0 - 1),
                Err(error) => panic!("{error}"),
            }
        }
    });
    let background = std::thread::spawn(move || {
        for revision in (50..=550).step_by(50) {
            while archive.last_revision() < Revision(revision) {
                std::thread::yield_now();
            }
            archive.store_snapshot(Revision(revision), &sample(revision)).unwrap();
            archive.prune(HistoryBound { batches_max: 20, bytes_max: u64::MAX }).unwrap();
        }
    });
    append(&mut journal, 2..=600);
    watcher.join().unwrap();
    background.join().unwrap();
    drop(journal);
    assert_batches(&replay(place.open().unwrap().batches), 551..=600);
}

macro_rules! run_on_every_journal {
    ($($check:ident),* $(,)?) => {
        mod tests {
            mod memory { $(#[test] fn $check() { super::super::$check::<super::super::InMemory>(); })* }
            mod sled { $(#[test] fn $check() { super::super::$check::<super::super::OnDisk>(); })* }
        }
    };
}

run_on_every_journal!(
    an_empty_journal_opens_empty,
    batches_come_back_in_order_after_reopening,
    an_empty_and_a_large_batch_are_whole,
    a_wrong_revision_or_size_is_refused_and_harmless,
    a_snapshot_replaces_the_batches_before_it,
    history_is_read_in_pages_and_pruned_by_count,
    pruning_by_bytes_keeps_what_the_snapshot_lacks_and_the_last,
    a_second_opening_is_refused_until_the_first_is_dropped,
    an_export_imports_with_its_revisions,
    a_changed_or_cut_export_is_refused,
    readers_and_a_pruner_run_beside_the_writer,
);
