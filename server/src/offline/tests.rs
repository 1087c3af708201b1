//! The three verbs over journals on disk, whole and damaged in every way that matters to what is left.

use std::{fs, path::Path, path::PathBuf, sync::Arc};

use gpulease_core::{
    id::{Caller, Holder, Name, Ticket, Token},
    import::TOKEN_JUMP,
    input::{DeviceReport, Input},
    inventory::{DeviceFacts, NodeFacts},
    output::Output,
    policy::Policy,
    request::{Ask, Constraints, Preemptible, Priority, RequestFields, Share},
    scheduler::Scheduler,
    state::State,
    time::{Span, Time},
};
use tempfile::TempDir;

use super::{
    Told,
    args::{ExportArgs, ImportArgs, Place},
    check,
    error::OfflineError,
    export, import,
};
use crate::{
    actor::recovery,
    journal::{HistoryBound, Journal, JournalError, Revision, codec, sled},
};

/// A journal that a scheduler wrote, and its state as it should be.
struct Written {
    place: TempDir,
    state: State,
}

/// The TTL of a lease by its number.
fn ttl(number: u64) -> Span {
    Span::from_secs(10 + number)
}

fn lease(number: u64) -> Input {
    let request = RequestFields {
        holder: Holder { service: "s".into(), name: "h".into() },
        request_id: Name::new(&format!("r{number}")),
        name: None,
        ask: Ask { devices: 1, share: Share::Part { slots: None, memory_bytes: Some(1 << 30) } },
        constraints: Constraints::default(),
        priority: Priority::Normal,
        ttl: ttl(number),
        wait: Span::ZERO,
        expected_duration: None,
        lifetime_max: None,
        preemptible: Preemptible::Never,
        minimum_hold: Span::ZERO,
        process: None,
        placement: None,
        pause_cost: None,
    };
    let request = Arc::new(request.validate().unwrap());
    Input::Acquire { caller: Caller::Call(number), ticket: Ticket(number), request }
}

fn observed() -> Input {
    let node = NodeFacts {
        name: "n1".into(),
        boot_id: "boot-1".into(),
        labels: Default::default(),
        host_cpu_millis: 8_000,
        host_memory_bytes: 8 << 30,
    };
    let facts = DeviceFacts {
        uuid: "n1/0".into(),
        index: 0,
        pci_address: None,
        vendor: "simulated".into(),
        model: "SIM".into(),
        compute_capability: None,
        frameworks: Vec::new(),
        memory_total_bytes: 80 << 30,
        memory_driver_bytes: 0,
        memory_limit_bytes: None,
        memory_reserve_bytes: 0,
        slots: 4,
        answers_at_once: true,
    };
    let devices = vec![DeviceReport { facts: Arc::new(facts), lost: None }];
    Input::Observed { node: Arc::new(node), devices }
}

/// Batch 1 is the inventory, each further one a lease: number, token and revision of a lease are one apart.
fn written(leases: u64, snapshot: Option<u64>) -> Written {
    let place = tempfile::tempdir().unwrap();
    let policy = Policy { grant_unmeasured: true, ..Policy::default() };
    let mut scheduler = Scheduler::recover(State::default(), policy, Time::ZERO);
    let mut journal = sled::open(data(&place)).unwrap().journal;
    for (at, input) in (0..).zip(std::iter::once(observed()).chain((1..=leases).map(lease))) {
        let mut out = Output::default();
        scheduler.begin(Time::from_millis(at * 100));
        scheduler.step(input, &mut out);
        let batch = scheduler.finish(&mut out).unwrap();
        journal.append(Revision(batch.revision.0), &codec::encode(&batch).unwrap()).unwrap();
        if snapshot == Some(batch.revision.0) {
            let bytes = codec::encode(scheduler.state()).unwrap();
            let archive = journal.archive();
            archive.store_snapshot(Revision(batch.revision.0), &bytes).unwrap();
            archive.prune(HistoryBound { batches_max: 2, bytes_max: u64::MAX }).unwrap();
        }
    }
    Written { place, state: scheduler.state().clone() }
}

fn data(place: &TempDir) -> PathBuf {
    place.path().join("data")
}

fn place(data: PathBuf) -> Place {
    Place { data: Some(data), config: None }
}

impl Written {
    fn check(&self) -> Told {
        check::run(&place(data(&self.place)), false).unwrap()
    }

    fn export(&self) -> Told {
        let args = ExportArgs { place: place(data(&self.place)), to: self.file() };
        export::run(&args, false).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.place.path().join("journal.export")
    }

    fn new_data(&self) -> PathBuf {
        self.place.path().join("new")
    }

    fn try_import(&self, salvage: bool) -> Result<Told, OfflineError> {
        let args = ImportArgs { place: place(self.new_data()), from: self.file(), salvage };
        import::run(&args, false)
    }

    /// Imports what was exported, and answers with the state that a coordinator starts with.
    fn import(&self, salvage: bool) -> State {
        let told = self.try_import(salvage).unwrap();
        assert_eq!(told.exit_code(), 0, "{}", told.text);
        let checked = check::run(&place(self.new_data()), false).unwrap();
        assert!(checked.whole, "{}", checked.text);
        let opened = sled::open(self.new_data()).unwrap();
        let recovered = recovery::recover(opened, Policy::default()).unwrap();
        recovered.scheduler().state().clone()
    }

    /// Damages every copy of a batch in the log.
    fn damage_batch(&self, revision: u64) {
        let request = format!("r{}", revision - 1);
        let path = data(&self.place).join("journal/batches/db");
        let mut bytes = fs::read(&path).unwrap();
        let copies: Vec<usize> = (0..bytes.len() - request.len())
            .filter(|at| bytes[*at..].starts_with(request.as_bytes()))
            .collect();
        assert!(!copies.is_empty());
        copies.iter().for_each(|at| bytes[*at] ^= 0x40);
        fs::write(path, bytes).unwrap();
    }

    fn damage_snapshots(&self) {
        for entry in fs::read_dir(data(&self.place).join("journal/snapshots")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
}

fn assert_said(told: &Told, words: &[&str]) {
    let missing: Vec<_> = words.iter().filter(|word| !told.text.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in:\n{}", told.text);
}

/// Every device is closed for so long, those included that are still to come.
fn assert_closed_for(state: &State, span: Span) {
    assert_eq!(state.closed_until(), state.time().after(span));
    for (_, device) in state.inventory().devices() {
        assert_eq!(device.closed_until, Some(state.closed_until()));
    }
}

#[test]
fn a_whole_journal_is_carried_over_with_its_history() {
    for snapshot in [None, Some(6)] {
        let written = written(8, snapshot);
        let checked = written.check();
        assert_said(&checked, &["revision     9", "8 ACTIVE", "1 on 1 nodes", "It is whole"]);
        assert_eq!(checked.exit_code(), 0);
        let exported = written.export();
        assert_eq!(exported.exit_code(), 0, "{}", exported.text);
        let state = written.import(false);
        assert_eq!(state.revision().0, 10);
        assert_eq!(state.token(), Token(8 + TOKEN_JUMP));
        assert_eq!(state.leases(), written.state.leases());
        assert_closed_for(&state, ttl(8).plus(Span::from_secs(15)));
        let archive = sled::open(written.new_data()).unwrap().journal.archive();
        assert!(archive.read_batches(Revision(6), 100).unwrap().len() == 4);
    }
}

#[test]
fn a_journal_that_nothing_was_ever_written_to_is_whole() {
    let place = tempfile::tempdir().unwrap();
    drop(sled::open(data(&place)).unwrap());
    let written = Written { place, state: State::default() };
    assert!(written.check().whole);
    written.export();
    let state = written.import(false);
    assert_eq!((state.revision().0, state.token()), (1, Token(TOKEN_JUMP)));
    // Nobody knows how long the leases live that were granted after the export.
    assert_closed_for(&state, Span::from_secs(24 * 3_600 + 15));
}

#[test]
fn a_damaged_batch_ends_the_state_before_it_and_is_named() {
    let written = written(8, None);
    written.damage_batch(6);
    let checked = written.check();
    let words =
        ["batch 6 is missing or damaged", "does not start", "revisions 6 to 9", "3 batches are"];
    assert_said(&checked, &words);
    assert_eq!(checked.exit_code(), 4);
    let exported = written.export();
    assert_said(&exported, &["batch 6 is missing or damaged", "--salvage"]);
    assert_eq!(exported.exit_code(), 4);
    let refused = written.try_import(false).unwrap();
    assert_said(&refused, &["batch 6", "revisions 6 to 9", "Nothing was imported", "--salvage"]);
    assert!(refused.exit_code() == 4 && !written.new_data().exists());
    let state = written.import(true);
    assert_eq!(state.tally().live(), 4);
    // The token of lease 8, which cannot be applied, was given all the same; so was its TTL.
    assert_eq!(state.token(), Token(8 + TOKEN_JUMP));
    assert_closed_for(&state, ttl(8).plus(Span::from_secs(15)));
    assert_eq!(state.revision().0, 9 + TOKEN_JUMP);
}

#[test]
fn a_cut_off_end_is_told_by_the_mark_and_travels_with_the_export() {
    let written = written(8, None);
    (7..=9).for_each(|revision| written.damage_batch(revision));
    assert_said(&written.check(), &["batches 7 to 9 are missing", "revision 9 was acknowledged"]);
    written.export();
    assert_said(&written.try_import(false).unwrap(), &["revision 9 was acknowledged"]);
    let state = written.import(true);
    assert_eq!((state.tally().live(), state.revision().0), (5, 9 + TOKEN_JUMP));
    assert_eq!(state.token(), Token(5 + TOKEN_JUMP));
}

#[test]
fn without_a_snapshot_to_begin_with_every_device_is_closed_for_a_day() {
    let written = written(8, Some(6));
    written.damage_snapshots();
    // What was pruned lies in the log by chance: here it is overwritten.
    (2..=4).for_each(|revision| written.damage_batch(revision));
    let checked = written.check();
    assert_said(&checked, &["snapshot", "checksum", "state        unknown"]);
    written.export();
    assert!(!written.try_import(false).unwrap().whole);
    let state = written.import(true);
    assert_eq!(state.tally().live(), 0);
    assert_eq!(state.token(), Token(8 + TOKEN_JUMP));
    assert!(state.closed_until() >= state.time().after(Span::from_secs(24 * 3_600 + 15)));
}

#[test]
fn where_nothing_is_readable_tokens_and_revisions_go_on_from_the_clock() {
    let written = written(8, None);
    let journal = data(&written.place).join("journal");
    fs::write(journal.join("batches/db"), [0; 100]).unwrap();
    fs::remove_file(journal.join("acknowledged")).unwrap();
    fs::write(journal.join("snapshots/snapshot.00000000000000000006"), b"nothing").unwrap();
    assert_eq!(written.check().exit_code(), 4);
    written.export();
    let state = written.import(true);
    assert_eq!(state.leases().len(), 0);
    assert!(state.token().0 > 1_767_225_600_000 << 10, "{}", state.token());
    assert!(state.revision().0 > 1_767_225_600_000 << 10, "{}", state.revision());
    assert_closed_for(&state, Span::from_secs(24 * 3_600 + 15));
}

#[test]
fn a_batch_that_does_not_fit_is_left_out_with_all_behind_it() {
    let written = written(3, None);
    let mut journal = sled::open(data(&written.place)).unwrap().journal;
    let mut foreign = gpulease_core::event::Batch {
        revision: gpulease_core::id::Revision(5),
        time: Time::from_millis(900),
        events: vec![gpulease_core::event::Event::NodeLost { node: gpulease_core::id::NodeId(9) }],
    };
    journal.append(Revision(5), &codec::encode(&foreign).unwrap()).unwrap();
    (foreign.revision, foreign.events) = (gpulease_core::id::Revision(6), Vec::new());
    journal.append(Revision(6), &codec::encode(&foreign).unwrap()).unwrap();
    journal.append(Revision(7), b"no batch").unwrap();
    drop(journal);
    let checked = written.check();
    assert_said(&checked, &["revision 5 does not fit the state", "revisions 5 to 7", "3 ACTIVE"]);
    written.export();
    let state = written.import(true);
    assert_eq!(state.leases(), written.state.leases());
}

#[test]
fn a_damaged_export_gives_what_is_left_of_it() {
    let written = written(8, Some(4));
    written.export();
    let whole = fs::read_to_string(written.file()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    for damaged in 0..lines.len() {
        let changed = |(at, line): (usize, &&str)| match at == damaged {
            true => line.replacen(|digit: char| digit.is_ascii_digit(), "x", 1),
            false => (*line).to_owned(),
        };
        let text: Vec<String> = lines.iter().enumerate().map(changed).collect();
        fs::write(written.file(), text.join("\n") + "\n").unwrap();
        let refused = written.try_import(false).unwrap();
        assert!(refused.exit_code() == 4, "line {damaged}: {}", refused.text);
        let state = written.import(true);
        assert!(state.token().0 > 8 || lines[damaged].contains("format"), "line {damaged}");
        fs::remove_dir_all(written.new_data()).unwrap();
    }
    fs::write(written.file(), &whole[..whole.len() / 2]).unwrap();
    assert_said(&written.try_import(false).unwrap(), &["of the export"]);
    written.import(true);
}

#[test]
fn check_and_export_change_nothing() {
    let written = written(8, Some(5));
    written.damage_batch(8);
    let before = contents(&data(&written.place));
    written.check();
    written.export();
    assert!(contents(&data(&written.place)) == before);
}

fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_in_the_way_is_refused_by_name_and_exit_code() {
    let written = written(2, None);
    let code = |error: OfflineError| (error.exit_code(), error.text());
    let place_of = |data: &Path| place(data.to_owned());
    let running = sled::open(data(&written.place)).unwrap();
    let (exit, text) = code(check::run(&place_of(&data(&written.place)), false).unwrap_err());
    assert!(exit == 3 && text.contains(&std::process::id().to_string()), "{text}");
    drop(running);
    let (exit, text) = code(check::run(&place_of(&written.new_data()), false).unwrap_err());
    assert!(exit == 1 && text.contains("no journal"), "{text}");
    assert!(!written.new_data().exists());
    written.export();
    let again = ExportArgs { place: place_of(&data(&written.place)), to: written.file() };
    let (exit, text) = code(export::run(&again, false).unwrap_err());
    assert!(exit == 1 && text.contains("there already"), "{text}");
    fs::create_dir(written.new_data()).unwrap();
    fs::write(written.new_data().join("notes"), b"mine").unwrap();
    let refused = written.try_import(false).unwrap_err();
    assert!(matches!(refused, OfflineError::Journal(JournalError::NotEmpty { .. })), "{refused:?}");
    assert!(refused.text().contains("notes"), "{}", refused.text());
    let missing =
        ImportArgs { place: place_of(&written.new_data()), from: "/x".into(), salvage: true };
    assert_eq!(import::run(&missing, false).unwrap_err().exit_code(), 1);
}

#[test]
fn json_says_the_same_in_one_object() {
    let written = written(3, None);
    written.damage_batch(3);
    let told = check::run(&place(data(&written.place)), true).unwrap();
    let said: serde_json::Value = serde_json::from_str(&told.text).unwrap();
    assert_eq!(said["whole"], false);
    assert_eq!((&said["revision"], &said["revision_acknowledged"]), (&2.into(), &4.into()));
    assert!(said["problems"][0].as_str().unwrap().contains("batch 3"), "{said}");
    written.export();
    let args = ImportArgs { place: place(written.new_data()), from: written.file(), salvage: true };
    let told = import::run(&args, true).unwrap();
    let said: serde_json::Value = serde_json::from_str(&told.text).unwrap();
    assert_eq!(said["imported"]["fencing_token"], 3 + TOKEN_JUMP);
    assert_eq!(said["imported"]["closed_seconds"], 13 + 15);
}
