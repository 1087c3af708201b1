//! Fairness: what the services have used of late, and which of them is to be served first (P10).
//!
//! | what | how it counts |
//! |---|---|
//! | use | bytes of device memory × time held; a whole device counts its ceiling, slots their share of it if that is more than the bytes |
//! | forgetting | use halves with every half-life: an hour of today weighs as much as two of yesterday |
//! | entry charge | from its grant until it gives its devices back a lease counts [`ENTRY`] more than it has run, so that a burst cannot win before it is measured; the same for all, whatever they say they expect |
//! | share | use ÷ weight: the service with the smaller one goes first |
//!
//! Use is part of the state: every grant and every giving back books what the lease counts, and nothing is ever summed
//! anew. Units are byte-milliseconds: 131,072 devices of 1 PiB for ten years are 2^106, far within 128 bits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::Name,
    policy::Policy,
    state::{Service, State},
    time::{Span, Time},
};

/// A grant counts at once as if it had lasted this long. What its holder expects does not count: nobody checks that.
pub const ENTRY: Span = Span::from_secs(60);
/// In how long use halves, unless configured.
pub const HALF_LIFE_DEFAULT: Span = Span::from_secs(24 * 3_600);
/// Use below this is as good as none, in bits of byte-milliseconds: 2^46 is one GiB held for about a minute.
const NOTHING_BITS: u32 = 46;

/// Use is decayed at this many moments of each half-life, which are the same for all services: between two of them it
/// grows linearly, so that booking in many steps or in one comes to the same.
const STEPS: u64 = 64;

/// 2^(−i/64) for i = 0 … 63, times 2^32, rounded to the nearest: `round(2**32 * 2**(-i/64))`.
const DECAY: [u64; 64] = [
    4_294_967_296,
    4_248_701_965,
    4_202_935_003,
    4_157_661_043,
    4_112_874_773,
    4_068_570_940,
    4_024_744_348,
    3_981_389_855,
    3_938_502_376,
    3_896_076_880,
    3_854_108_391,
    3_812_591_987,
    3_771_522_796,
    3_730_896_002,
    3_690_706_840,
    3_650_950_594,
    3_611_622_603,
    3_572_718_252,
    3_534_232_978,
    3_496_162_267,
    3_458_501_653,
    3_421_246_719,
    3_384_393_094,
    3_347_936_457,
    3_311_872_529,
    3_276_197_082,
    3_240_905_930,
    3_205_994_934,
    3_171_459_999,
    3_137_297_074,
    3_103_502_151,
    3_070_071_267,
    3_037_000_500,
    3_004_285_971,
    2_971_923_842,
    2_939_910_317,
    2_908_241_642,
    2_876_914_102,
    2_845_924_021,
    2_815_267_765,
    2_784_941_738,
    2_754_942_382,
    2_725_266_179,
    2_695_909_648,
    2_666_869_345,
    2_638_141_863,
    2_609_723_834,
    2_581_611_923,
    2_553_802_834,
    2_526_293_303,
    2_499_080_105,
    2_472_160_047,
    2_445_529_972,
    2_419_186_755,
    2_393_127_307,
    2_367_348_571,
    2_341_847_524,
    2_316_621_173,
    2_291_666_561,
    2_266_980_759,
    2_242_560_872,
    2_218_404_036,
    2_194_507_417,
    2_170_868_212,
];

/// Σ 2^(−j/64) over all j ≥ 1, times 2^16: `round(2**16 / (2**(1/64) - 1))`. The first m terms are this × (1 − 2^(−m/64)).
const STEADY: u128 = 6_018_393;

/// What is left of `value` after so many steps.
fn decayed(value: u128, steps: u64) -> u128 {
    let halvings = u32::try_from(steps / STEPS).unwrap_or(u32::MAX);
    let value = value.checked_shr(halvings).unwrap_or(0);
    let index = usize::try_from(steps % STEPS).unwrap_or(0);
    let factor = u128::from(DECAY.get(index).copied().unwrap_or(0));
    // In two halves, so that no product exceeds 128 bits.
    let low = (value & u128::from(u32::MAX)).saturating_mul(factor) >> 32;
    (value >> 32).saturating_mul(factor).saturating_add(low)
}

/// What a service has used of late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Byte-milliseconds, as they weigh at `at`.
    used: u128,
    /// Entry charges of the leases that hold devices now.
    deposits: u128,
    /// What its leases count now, in bytes.
    held_bytes: u64,
    /// Up to when it is booked.
    at: Time,
}

impl Usage {
    /// What its leases count now, in bytes.
    #[must_use]
    pub const fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Its entry charges, in byte-milliseconds.
    #[must_use]
    pub const fn deposits(&self) -> u128 {
        self.deposits
    }

    /// All that counts at a moment, in byte-milliseconds.
    #[must_use]
    pub fn at(&self, now: Time, half_life: Span) -> u128 {
        self.settled(now, half_life).saturating_add(self.deposits)
    }

    /// What was used up to a moment, as it weighs then: the past decays by every step between, and of what is held now
    /// each whole step by those after it.
    fn settled(&self, now: Time, half_life: Span) -> u128 {
        let rate = u128::from(self.held_bytes);
        let step = Span::from_millis((half_life.as_millis() / STEPS).max(1));
        let (first, last) =
            (self.at.since(Time::ZERO).whole(step), now.since(Time::ZERO).whole(step));
        let over = |span: Span| rate.saturating_mul(u128::from(span.as_millis()));
        let crossed = last.saturating_sub(first);
        if crossed == 0 {
            return self.used.saturating_add(over(now.since(self.at)));
        }
        let next = Time::ZERO.after(step.times(first.saturating_add(1)));
        let before = self.used.saturating_add(over(next.since(self.at)));
        let steady = over(step).saturating_mul(STEADY) >> 16;
        let between = steady.saturating_sub(decayed(steady, crossed.saturating_sub(1)));
        let since = over(now.since(Time::ZERO.after(step.times(last))));
        decayed(before, crossed).saturating_add(between).saturating_add(since)
    }

    /// Books everything up to now.
    pub(crate) fn settle(&mut self, now: Time, half_life: Span) {
        self.used = self.settled(now, half_life);
        self.at = self.at.max(now);
    }

    /// A lease takes devices.
    pub(crate) fn take(&mut self, (now, half_life): (Time, Span), bytes: u64, entry: u128) {
        self.settle(now, half_life);
        self.held_bytes = self.held_bytes.saturating_add(bytes);
        self.deposits = self.deposits.saturating_add(entry);
    }

    /// A lease gives them back.
    pub(crate) fn give_back(&mut self, (now, half_life): (Time, Span), bytes: u64, entry: u128) {
        self.settle(now, half_life);
        self.held_bytes = self.held_bytes.saturating_sub(bytes);
        self.deposits = self.deposits.saturating_sub(entry);
    }

    /// When what was used is as good as nothing, if nothing is added; never, while something is held.
    pub(crate) fn forgotten_at(&self, now: Time, half_life: Span) -> Time {
        if self.held_bytes > 0 || self.deposits > 0 {
            return Time::NEVER;
        }
        let rest = self.settled(now, half_life) >> NOTHING_BITS;
        rest.checked_ilog2().map_or(now, |halvings| {
            now.after(half_life.times(u64::from(halvings).saturating_add(1)))
        })
    }
}

/// What a lease of so many bytes counts at its grant, in byte-milliseconds.
#[must_use]
pub fn entry_charge(bytes: u64) -> u128 {
    u128::from(bytes).saturating_mul(u128::from(ENTRY.as_millis()))
}

/// The shares of all services at one moment, by which the order goes.
#[derive(Clone, Copy)]
pub(crate) struct Shares<'a> {
    services: &'a BTreeMap<Name, Service>,
    policy: &'a Policy,
    half_life: Span,
    now: Time,
}

impl<'a> Shares<'a> {
    pub(crate) fn new(state: &'a State, policy: &'a Policy, now: Time) -> Self {
        Self { services: state.services(), policy, half_life: state.half_life(), now }
    }

    /// Use ÷ weight; nothing for a service without use, and for all where fairness is off.
    pub(crate) fn of(&self, service: &Name) -> u128 {
        if !self.policy.fairness {
            return 0;
        }
        let Some(known) = self.services.get(service) else { return 0 };
        self.of_use(service, known.usage.at(self.now, self.half_life))
    }

    /// The same of what was used, without entry charges: it only changes with time.
    pub(crate) fn of_measured(&self, service: &Name) -> u128 {
        let known = self.services.get(service);
        let used = known.map_or(0, |known| known.usage.settled(self.now, self.half_life));
        self.of_use(service, used)
    }

    /// So much use as a share of this service.
    pub(crate) fn of_use(&self, service: &Name, used: u128) -> u128 {
        if !self.policy.fairness {
            return 0;
        }
        let weight = self.policy.service(service).weight;
        used.checked_div(u128::from(weight)).unwrap_or(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3_600 * 1_000;
    const GIB: u64 = 1 << 30;

    /// What `bytes` held for so long count after so much time without anything, in byte-seconds of one GiB.
    fn check(held_millis: u64, idle_millis: u64, bookings: u64) -> u64 {
        let half_life = HALF_LIFE_DEFAULT;
        let mut usage = Usage::default();
        usage.take((Time::ZERO, half_life), GIB, 0);
        for booking in 1..=bookings {
            let at = held_millis.saturating_mul(booking).checked_div(bookings).unwrap_or(0);
            usage.settle(Time::from_millis(at), half_life);
        }
        let end = Time::from_millis(held_millis);
        usage.give_back((end, half_life), GIB, 0);
        let now = end.after(Span::from_millis(idle_millis));
        u64::try_from((usage.at(now, half_life) >> 30) / 1_000).expect("it is small")
    }

    #[test]
    fn use_counts_by_bytes_and_time_and_halves() {
        assert_eq!(check(0, 0, 1), 0);
        assert_eq!(check(60_000, 0, 1), 60);
        // Half an hour, whole, after one and after two half-lives.
        assert_eq!(check(1_200_000, 0, 1), 1_200);
        assert_eq!(check(1_200_000, DAY, 1), 600);
        assert_eq!(check(1_200_000, 2 * DAY, 1), 300);
        // A steady user ends at half-life ÷ ln 2 = 124,650 s; the steps make it at most 1/128 of a half-life less.
        let steady = check(40 * DAY, 0, 1);
        assert!((123_900..=124_650).contains(&steady), "{steady}");
    }

    #[test]
    fn booking_in_many_steps_or_in_one_comes_to_the_same() {
        for held in [7_000, DAY, 10 * DAY] {
            let (once, often) = (check(held, 5_000, 1), check(held, 5_000, 1_000));
            assert!(once.abs_diff(often) <= 1, "{once} and {often} after {held} ms");
        }
    }

    #[test]
    fn nothing_overflows() {
        let mut usage = Usage::default();
        usage.take((Time::ZERO, HALF_LIFE_DEFAULT), u64::MAX, u128::from(u64::MAX));
        let century = Time::from_millis(100 * 365 * DAY);
        assert!(usage.at(century, HALF_LIFE_DEFAULT) > u128::from(u64::MAX));
        assert_eq!(decayed(u128::MAX, 64 * 128), 0);
        assert_eq!(decayed(u128::MAX, u64::MAX), 0);
        assert_eq!(decayed(1 << 100, 64), 1 << 99);
    }

    #[test]
    fn the_entry_charge_is_a_minute_of_what_a_lease_counts() {
        assert_eq!(entry_charge(2), 120_000);
        assert_eq!(entry_charge(0), 0);
    }

    #[test]
    fn use_is_forgotten_once_it_is_as_good_as_none() {
        let half_life = HALF_LIFE_DEFAULT;
        let mut usage = Usage::default();
        usage.take((Time::ZERO, half_life), GIB, 0);
        assert_eq!(usage.forgotten_at(Time::ZERO, half_life), Time::NEVER);
        let hour = Time::from_millis(3_600_000);
        usage.give_back((hour, half_life), GIB, 0);
        let forgotten = usage.forgotten_at(hour, half_life);
        assert!(usage.at(forgotten, half_life) >> NOTHING_BITS == 0);
        assert_eq!(forgotten, hour.after(half_life.times(6)));
    }
}
