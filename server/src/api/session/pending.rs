//! What of a session is in flight: a table of at most [`IN_FLIGHT_MAX`] places.
//!
//! The actor carries a tag back with each answer: the place in this table, and within a batch of renewals which one.
//! A tag is made of numbers of our own, so that the holder's numbers may be anything.

use gpulease_core::id::LeaseId;
use gpulease_proto::v1::{self, session_renewal_outcome::Outcome};

use crate::{
    api::limits::{IN_FLIGHT_MAX, RENEWALS_MAX},
    telemetry::operations::Work,
};

/// Bits of a tag that count renewals within a batch.
const INDEX_BITS: u32 = 10;
const _: () = assert!(RENEWALS_MAX <= 1 << INDEX_BITS);

/// What a place waits for.
#[derive(Debug)]
pub(super) enum Waiting {
    /// One answer, or two where the first is that it waits.
    Answer {
        /// The holder's number.
        sequence: u64,
        /// What was asked.
        asked: Asked,
    },
    /// As many outcomes as a batch has renewals.
    Outcomes(Batch),
}

/// What was asked, for the words of a refusal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Hello,
    Acquire,
    Release(u64),
    Acknowledge(u64),
    ExtendNotice(u64),
}

/// A batch of renewals.
#[derive(Debug)]
pub(super) struct Batch {
    /// The holder's number.
    pub(super) sequence: u64,
    /// The leases, for the words of a refusal.
    pub(super) leases: Vec<u64>,
    /// What became of each.
    pub(super) outcomes: Vec<v1::SessionRenewalOutcome>,
    /// What was told of work done, with the place of its renewal.
    told: Vec<(usize, Work)>,
    /// How many are missing.
    pub(super) left: usize,
}

impl Batch {
    /// Nothing has become of these renewals yet.
    pub(super) fn new<E>(
        sequence: u64,
        wire: &[v1::RenewRequest],
        told: &[Result<Option<Work>, E>],
    ) -> Self {
        let work = |(place, told): (usize, &Result<Option<Work>, E>)| {
            told.as_ref().ok().copied().flatten().map(|work| (place, work))
        };
        Self {
            sequence,
            leases: wire.iter().map(|renewal| renewal.lease_id).collect(),
            outcomes: vec![v1::SessionRenewalOutcome { outcome: None }; wire.len()],
            told: told.iter().enumerate().filter_map(work).collect(),
            left: wire.len(),
        }
    }

    /// Work told with those renewals that succeeded.
    pub(super) fn worked(&self) -> Vec<(LeaseId, Work)> {
        let renewed = |place: usize| {
            let outcome = self.outcomes.get(place).and_then(|it| it.outcome.as_ref());
            matches!(outcome, Some(Outcome::Renewed(_)))
        };
        let told = self.told.iter().filter(|(place, _)| renewed(*place));
        let of_lease = |(place, work): &(usize, Work)| {
            self.leases.get(*place).map(|lease| (LeaseId(*lease), *work))
        };
        told.filter_map(of_lease).collect()
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Pending {
    places: Vec<Option<Waiting>>,
    free: Vec<usize>,
}

impl Pending {
    /// Nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// As much is in flight as may.
    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty() && self.places.len() >= IN_FLIGHT_MAX
    }

    /// Takes a place; answers its tag.
    pub(super) fn insert(&mut self, waiting: Waiting) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(waiting);
        (place as u64) << INDEX_BITS
    }

    /// What a tag's place waits for, and which part of it.
    pub(super) fn find(&mut self, tag: u64) -> Option<(&mut Waiting, usize)> {
        let (place, index) = split(tag)?;
        Some((self.places.get_mut(place)?.as_mut()?, index))
    }

    /// Frees a place.
    pub(super) fn remove(&mut self, tag: u64) -> Option<Waiting> {
        let (place, _) = split(tag)?;
        let waiting = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(waiting)
    }
}

fn split(tag: u64) -> Option<(usize, usize)> {
    let place = usize::try_from(tag >> INDEX_BITS).ok()?;
    let index = usize::try_from(tag & ((1 << INDEX_BITS) - 1)).ok()?;
    Some((place, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(sequence: u64) -> Waiting {
        Waiting::Answer { sequence, asked: Asked::Acquire }
    }

    #[test]
    fn a_place_is_used_again_and_the_table_stays_within_its_bound() {
        let mut pending = Pending::default();
        let tags: Vec<_> =
            (0..IN_FLIGHT_MAX as u64).map(|sequence| pending.insert(waiting(sequence))).collect();
        assert!(pending.is_full() && !pending.is_empty());
        assert!(matches!(pending.remove(tags[7]), Some(Waiting::Answer { sequence: 7, .. })));
        assert!(pending.remove(tags[7]).is_none(), "a place is freed once");
        assert!(!pending.is_full());
        assert_eq!(pending.insert(waiting(9)), tags[7]);
    }

    #[test]
    fn a_tag_within_a_batch_finds_its_place() {
        let mut pending = Pending::default();
        pending.insert(waiting(0));
        let tag = pending.insert(waiting(1));
        let found = pending.find(tag + 999);
        assert!(matches!(found, Some((Waiting::Answer { sequence: 1, .. }, 999))));
    }
}
