//! Backfill: requests that are sure to be gone in time are let in where devices are kept for an earlier one (P10).
//!
//! Sure is: its longest lifetime is over by then; or it may be preempted, and even if it stays for longer than it
//! expected there is time for a notice. Either way what it leaves may be closed for a while, which counts too. A hint
//! alone, of a lease that may never be preempted and has no longest lifetime, does not do: the start of the request
//! before it would rest on a stranger's guess.
//! A lease that is let in this way is a guest of the keep. The request for which the devices are kept, and whoever goes
//! before that, takes it back by a notice in time: `scheduler/backfill`.

use crate::{
    policy::Policy,
    request::{Preemptible, Request},
    time::{Span, Time},
};

/// Spans are taken up to the next of eight steps per octave, at most an eighth more than they are. So waiters for the
/// same with about the same spans fit or do not fit alike, and only the first of them has to be tried: some hundred
/// different ones in all, from a second to a week.
const STEPS_BITS: u32 = 3;

/// How long a request would hold devices at the most, by what it says of itself, the time of a notice included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Brevity(Span);

impl Brevity {
    /// The shorter of its longest lifetime and, if it may be preempted, how long it expects to need and may not be asked to
    /// go, and a notice then. `None`: it does not say how long, or cannot be taken back.
    pub(crate) fn of(request: &Request, notice: Span) -> Option<Self> {
        let hint = request.expected_duration.filter(|_| request.preemptible != Preemptible::Never);
        let stays = hint.map(|hint| Self(coarse(hint.max(request.minimum_hold).plus(notice))));
        Self::by_lifetime(request).into_iter().chain(stays).min()
    }

    /// The same of one that may not be asked to go.
    pub(crate) fn by_lifetime(request: &Request) -> Option<Self> {
        request.lifetime_max.map(|life| Self(coarse(life)))
    }

    /// Whether a lease that is granted `now` is sure to have left nothing at the time `by`.
    pub(crate) fn fits(self, now: Time, by: Time, room: Room) -> bool {
        now.after(self.0.plus(room.closed)) <= by
    }
}

/// What has to be left for a guest to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    notice: Span,
    /// How long what it leaves may be closed: after an unclean end for the lock delay; on a real device after a clean one
    /// until a pass shows it free.
    closed: Span,
    /// It is not given notice before.
    shielded_until: Time,
}

impl Room {
    pub(crate) fn of(policy: &Policy, exact: bool, shielded_until: Time) -> Self {
        let checked = if exact { Span::ZERO } else { policy.release_check_max };
        Self { notice: policy.notice, closed: policy.lock_delay.max(checked), shielded_until }
    }

    /// When a guest is asked at the latest, so that it has left nothing at the time `by`.
    pub(crate) const fn asked_at(self, by: Time) -> Time {
        self.gone_at(by).before(self.notice)
    }

    /// Whether it may be given notice in time to have left nothing at the time `by`.
    pub(crate) fn may_be_asked(self, by: Time) -> bool {
        self.shielded_until <= self.asked_at(by)
    }

    /// When a guest gives its devices back at the latest, so that it has left nothing at the time `by`.
    pub(crate) const fn gone_at(self, by: Time) -> Time {
        by.before(self.closed)
    }
}

/// See [`STEPS_BITS`].
fn coarse(span: Span) -> Span {
    let millis = span.as_millis();
    let bits = u64::BITS.saturating_sub(millis.leading_zeros());
    let shift = bits.saturating_sub(STEPS_BITS.saturating_add(1));
    let step = 1u64.wrapping_shl(shift);
    Span::from_millis(millis.div_ceil(step).saturating_mul(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_taken_up_by_an_eighth_at_the_most() {
        for millis in (0..20_000).chain([86_400_000, u64::MAX >> 8]) {
            let taken = coarse(Span::from_millis(millis)).as_millis();
            assert!(taken >= millis && taken <= millis + millis / 8, "{millis} becomes {taken}");
        }
        assert_eq!(coarse(Span::from_secs(60)), Span::from_millis(61_440));
    }

    #[test]
    fn there_are_eight_steps_for_each_doubling() {
        let steps: std::collections::BTreeSet<_> =
            (65_537..=131_072).map(|millis| coarse(Span::from_millis(millis))).collect();
        assert_eq!(steps.len(), 8);
    }
}
