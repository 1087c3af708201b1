//! Faults while the events come, and the verdict at the end, when the events and the receipts are laid side by side.

use std::{collections::BTreeMap, fmt};

use gpulease::EndReason;

use super::{
    ledger::{Ledger, Life, Phase},
    receipts::{Book, Told},
};

/// How many faults are kept in words: enough to see a pattern; the rest is counted.
const WORDS_MAX: usize = 50;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A client was told of a grant that the events do not have, or that something other than its release ended.
    GrantLost,
    /// Two grants overlap.
    DoubleGrant,
    /// The stream breaks the contract in another way.
    Invariant,
    /// A request was not granted and released exactly once.
    NotOnce,
}

/// Faults, counted and in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    counts: BTreeMap<Fault, u64>,
    words: Vec<String>,
}

impl Faults {
    pub(crate) fn add(&mut self, fault: Fault, text: String) {
        *self.counts.entry(fault).or_default() += 1;
        if self.words.len() < WORDS_MAX {
            self.words.push(format!("{fault:?}: {text}"));
        }
    }
}

/// The outcome.
#[derive(Clone, Debug)]
pub struct Verdict {
    faults: Faults,
    /// Grants that clients were told of.
    pub granted: usize,
    /// Releases that clients were told of.
    pub released: usize,
    /// Requests that could never be granted, and were refused.
    pub refused: usize,
    /// Grants for which the request had waited.
    pub waited: usize,
}

impl Verdict {
    /// How often this went wrong.
    #[must_use]
    pub fn count(&self, fault: Fault) -> u64 {
        self.faults.counts.get(&fault).copied().unwrap_or(0)
    }

    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.counts.is_empty()
    }

    /// The first faults in words.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.faults.words
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "acknowledged grants lost {}, double grants {}, invariant violations {}, not granted and released \
             exactly once {}",
            self.count(Fault::GrantLost),
            self.count(Fault::DoubleGrant),
            self.count(Fault::Invariant),
            self.count(Fault::NotOnce)
        )
    }
}

/// Lays the receipts beside the events. Everything asked must be over by now.
#[must_use]
pub fn judge(ledger: &Ledger) -> Verdict {
    let mut faults = ledger.faults.clone();
    let receipts = ledger.receipts().clone();
    let book = receipts.book();
    for complaint in &book.complaints {
        faults.add(Fault::GrantLost, complaint.clone());
    }
    for (id, told) in &book.granted {
        if let Some(text) = contradiction(*id, told, ledger.leases.get(id)) {
            faults.add(Fault::GrantLost, text);
        }
    }
    for id in &book.released {
        let life = ledger.leases.get(id);
        if life.is_none_or(|life| life.phase != Phase::Ended) {
            faults
                .add(Fault::GrantLost, format!("lease {id}: its release is gone from the events"));
        }
    }
    count_once(ledger, &book, &mut faults);
    Verdict {
        granted: book.granted.len(),
        released: book.released.len(),
        refused: book.refused.len(),
        waited: ledger.waited(),
        faults,
    }
}

/// What the events say against a grant that a client was told of.
fn contradiction(id: u64, told: &Told, life: Option<&Life>) -> Option<String> {
    let Some(life) = life else {
        return Some(format!("lease {id} of {} is not in the events", told.request_id));
    };
    let same_devices = told.devices.iter().all(|device| life.devices.contains(&device.uuid))
        && told.devices.len() == life.devices.len();
    if life.fencing_token != told.fencing_token
        || !same_devices
        || life.request_id != told.request_id
    {
        return Some(format!("lease {id}: a client was told {told:?}, the events say {life:?}"));
    }
    match life.end_reason {
        None | Some(EndReason::Released) => None,
        Some(reason) => Some(format!("lease {id} of {}: it ended as {reason}", told.request_id)),
    }
}

/// Each request, if not refused, must have been granted once and released once, by the events and by the receipts.
fn count_once(ledger: &Ledger, book: &Book, faults: &mut Faults) {
    let mut lives: BTreeMap<&str, Vec<(&u64, &Life)>> = BTreeMap::new();
    for (id, life) in &ledger.leases {
        lives.entry(&life.request_id).or_default().push((id, life));
    }
    for request_id in book.asked.keys() {
        let lives = lives.get(request_id.as_str()).map_or(&[][..], Vec::as_slice);
        let fault = match (lives, book.refused.contains(request_id)) {
            ([], true) => None,
            (_, true) => Some("was refused, and there is a lease of it".to_owned()),
            ([(id, life)], false) => not_once(**id, life, book),
            (lives, false) => Some(format!("has {} leases", lives.len())),
        };
        if let Some(fault) = fault {
            faults.add(Fault::NotOnce, format!("request {request_id}: {fault}"));
        }
    }
}

fn not_once(id: u64, life: &Life, book: &Book) -> Option<String> {
    let released = life.phase == Phase::Ended && life.end_reason == Some(EndReason::Released);
    match (released, book.granted.contains_key(&id), book.released.contains(&id)) {
        (true, true, true) => None,
        (released, granted, told) => Some(format!(
            "lease {id}: released by the events {released}, its client knew of the grant {granted}, of the release {told}"
        )),
    }
}
