//! What has to happen when a journal is imported or repaired (P2), as a batch of its own.
//!
//! The journal may be older than the truth: leases may live that it does not know, with tokens that it never saw. So
//! the counters of tokens and leases jump, and every device is closed until the longest such lease is over. Whoever
//! imports decides for how long, and under which revision the batch stands; applying it is in `state/import.rs`, opening
//! devices in `scheduler/import.rs`.

use crate::{
    event::{Batch, Event},
    id::{Revision, Token},
    state::{Defect, State},
    time::Span,
};

/// How far an import raises the counter of tokens, and that of revisions where batches were lost, at least: 2^32 grants are 44 hours at 27,000 a second, so that an
/// imported copy may be older than that by far.
pub const TOKEN_JUMP: u64 = 1 << 32;

/// How far an import raises the counter of leases, so that a number which a lost lease had names no other: an hour of
/// requests at 27,000 a second.
pub const LEASE_JUMP: u64 = 100_000_000;

/// The closing where no lease is found that says how long leases live: the longest TTL that there can be.
pub const TTL_UNKNOWN: Span = Span::from_secs(24 * 3_600);

/// How far [`Import::counter_floor`] goes on in each millisecond.
const COUNTS_PER_MILLISECOND: u64 = 1_024;

/// What an import knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Import {
    /// The revision of its batch, above that of the state.
    pub revision: Revision,
    /// The newest token that was found anywhere, be it in a part of the journal that cannot be replayed.
    pub token_found: Token,
    /// For how long devices are closed: the longest TTL and the lock delay.
    pub closed_for: Span,
}

impl Import {
    /// A number above every token and revision that was ever given, where none was found and only the wall clock is
    /// left: the milliseconds since 1970, times 1,024.
    ///
    /// Both counters start at 0 and go on by one for a grant or a batch, so they stay below this as long as fewer than a
    /// million of them a second were made since 1970 (27,000 are the most that was measured), and fewer than one import
    /// in 70 minutes, each of which raises them by 2^32. It stays below 2^53, which a double still holds, until the year
    /// 2248.
    #[must_use]
    pub const fn counter_floor(unix_millis: u64) -> u64 {
        unix_millis.saturating_mul(COUNTS_PER_MILLISECOND)
    }
}

impl State {
    /// Makes the batch of an import and applies it. A revision further than the next one leaves out those of lost
    /// batches: the state then is the beginning of a new history, which no watcher of the old one can go on in.
    ///
    /// # Errors
    /// The revision or the token does not fit.
    pub fn import(&mut self, import: Import) -> Result<Batch, Defect> {
        let Some(before) = import.revision.0.checked_sub(1).filter(|it| *it >= self.revision.0)
        else {
            let what = format!("an import comes after revision {}", self.revision);
            return Err(Defect { revision: import.revision, what });
        };
        self.revision = Revision(before);
        let token = self.last_token.max(import.token_found);
        let imported = Event::Imported {
            token: Token(token.0.saturating_add(TOKEN_JUMP)),
            closed_until: self.time.after(import.closed_for),
        };
        let batch = Batch { revision: import.revision, time: self.time, events: vec![imported] };
        self.apply_batch(&batch)?;
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    fn import(revision: u64, token_found: u64) -> Import {
        let closed_for = Span::from_secs(45);
        Import { revision: Revision(revision), token_found: Token(token_found), closed_for }
    }

    #[test]
    fn tokens_jump_above_the_newest_that_was_found_anywhere() {
        let mut state = State { last_token: Token(7), ..State::default() };
        state.import(import(1, 3)).unwrap();
        assert_eq!(state.token(), Token(7 + TOKEN_JUMP));
        assert_eq!(state.last_lease.0, LEASE_JUMP);
        state.import(import(2, 9 + TOKEN_JUMP)).unwrap();
        assert_eq!(state.token(), Token(9 + 2 * TOKEN_JUMP));
    }

    #[test]
    fn a_later_import_never_closes_for_shorter() {
        let mut state = State::default();
        state.import(import(1, 0)).unwrap();
        state.import(Import { closed_for: Span::ZERO, ..import(2, 0) }).unwrap();
        assert_eq!(state.closed_until(), Time::from_millis(45_000));
    }

    #[test]
    fn a_revision_may_jump_ahead_and_never_back() {
        let mut state = State::default();
        let batch = state.import(import(100, 0)).unwrap();
        assert_eq!((batch.revision, state.revision()), (Revision(100), Revision(100)));
        state.import(import(100, 0)).unwrap_err();
        state.import(import(0, 0)).unwrap_err();
    }

    #[test]
    fn a_counter_from_the_clock_is_above_half_a_century_of_grants_and_fits_in_a_double() {
        let in_2026 = Import::counter_floor(1_780_000_000_000);
        let grants = 56 * 365 * 86_400 * 27_000;
        assert!(in_2026 > grants && in_2026 < 1 << 53, "{in_2026}");
    }
}
