//! How what the coordinator tells of a lease changes what is known of it.
//!
//! | now | told | then | said |
//! |---|---|---|---|
//! | active | PAUSING | pausing, until its deadline | noticed |
//! | pausing | PAUSING | pausing; another notice, cause or deadline | noticed, notice changed |
//! | pausing | ACTIVE, same token | active | notice withdrawn |
//! | pausing | the same, asked before the notice was heard | pausing: it is asked again | |
//! | active, pausing | PAUSED | paused | paused |
//! | any | ACTIVE, greater token | active under that token | paused unless it was, resumed |
//! | any | RECLAIMING, ENDED | over | ended |
//! | any | validity over, deadline over | over | lost |
//!
//! What an older token tells is old and passed over; so is what a paused lease is told of the time before its pause.

use std::time::Duration;

use crate::{
    info::{LeaseInfo, LeaseState},
    notice::Notice,
    standing::{Change, Grant},
};

/// Two reports of one deadline that differ by less than this are the same one, told by messages that took longer.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);
/// A moment that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

/// Where a lease that is not over stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Active,
    Pausing { notice: Notice, deadline: Duration, heard_at: Duration },
    Paused,
}

/// What is known of a lease and changes together.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) info: LeaseInfo,
    pub(crate) phase: Phase,
    /// The notice that is being acknowledged: its holder has stopped, so its deadline loses nothing any more.
    pub(crate) acknowledging: Option<u64>,
    pub(crate) uncertain: bool,
}

/// When the coordinator said something: surely not before the first, and surely not after the second moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) after: Duration,
    pub(crate) before: Duration,
}

impl Told {
    /// Said by itself: it is here now, and nobody knows how long it took.
    pub(crate) fn now(now: Duration) -> Self {
        Self { after: now, before: now }
    }
}

/// What the coordinator says of a lease.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) fencing_token: u64,
    pub(crate) state: LeaseState,
    pub(crate) notice: Option<Notice>,
    /// The lease itself, where it was told whole.
    pub(crate) info: Option<Box<LeaseInfo>>,
    pub(crate) told: Told,
}

impl Report {
    pub(crate) fn whole(info: LeaseInfo, told: Told) -> Self {
        Self {
            fencing_token: info.fencing_token,
            state: info.state,
            notice: info.notice.clone(),
            info: Some(Box::new(info)),
            told,
        }
    }
}

impl Facts {
    /// A lease that was just granted, or that a repeated request found in the middle of a pause.
    pub(crate) fn new(info: LeaseInfo, told: Told) -> Self {
        let phase = match (info.state, &info.notice) {
            (LeaseState::Pausing, Some(notice)) => Phase::Pausing {
                notice: notice.clone(),
                deadline: told.before.saturating_add(notice.remaining),
                heard_at: told.before,
            },
            (LeaseState::Paused, _) => Phase::Paused,
            _ => Phase::Active,
        };
        Self { info, phase, acknowledging: None, uncertain: false }
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant { fencing_token: self.info.fencing_token, devices: self.info.devices.clone() }
    }

    pub(crate) fn deadline_nanos(&self) -> u64 {
        match &self.phase {
            Phase::Pausing { deadline, .. } if self.acknowledging.is_none() => nanos(*deadline),
            _ => NEVER,
        }
    }

    /// The coordinator says at once that a lease changes, and what became of renewals only when all of a message are
    /// done. So one that was sent before the notice was heard may tell of the time before it.
    pub(crate) fn may_be_older_than_notice(&self, report: &Report) -> bool {
        matches!(&self.phase, Phase::Pausing { heard_at, .. }
            if report.state == LeaseState::Active
                && report.fencing_token == self.info.fencing_token
                && report.told.after < *heard_at)
    }

    /// A new grant: whatever was held before is gone, be it that nobody said so meanwhile.
    pub(crate) fn begin_anew(&mut self, state: LeaseState, said: &mut Vec<Change>) {
        self.acknowledging = None;
        if self.phase != Phase::Paused {
            said.push(Change::Paused);
        }
        if state.holds() {
            self.phase = Phase::Active;
            said.push(Change::Resumed(self.grant()));
        } else {
            self.phase = Phase::Paused;
        }
    }

    /// The same grant, as it stands now.
    pub(crate) fn proceed(
        &mut self,
        state: LeaseState,
        notice: Option<Notice>,
        told: Told,
        said: &mut Vec<Change>,
    ) {
        match (&self.phase, state, notice) {
            (Phase::Active | Phase::Pausing { .. }, LeaseState::Pausing, Some(notice)) => {
                self.notice(notice, told, said);
            }
            (Phase::Pausing { .. }, LeaseState::Active, _) => {
                (self.phase, self.acknowledging) = (Phase::Active, None);
                said.push(Change::NoticeWithdrawn);
            }
            (Phase::Active, LeaseState::Active, _) => self.acknowledging = None,
            (Phase::Active | Phase::Pausing { .. }, LeaseState::Paused, _) => {
                (self.phase, self.acknowledging) = (Phase::Paused, None);
                said.push(Change::Paused);
            }
            // Nothing new; or PAUSED and told of a time before it.
            _ => {}
        }
    }

    fn notice(&mut self, notice: Notice, told: Told, said: &mut Vec<Change>) {
        let earliest = told.after.saturating_add(notice.remaining);
        let latest = told.before.saturating_add(notice.remaining);
        let known = match &self.phase {
            Phase::Pausing { notice: known, deadline, heard_at } if known.id == notice.id => {
                Some((known.clone(), *deadline, *heard_at))
            }
            _ => None,
        };
        let Some((known, before, heard_at)) = known else {
            self.acknowledging = None;
            said.push(Change::Noticed(notice.clone()));
            self.phase = Phase::Pausing { notice, deadline: latest, heard_at: told.before };
            return;
        };
        let deadline = before.clamp(earliest, latest);
        let changed = deadline.abs_diff(before) > DEADLINE_SLACK
            || known.causes != notice.causes
            || known.extension_max != notice.extension_max;
        if changed {
            said.push(Change::NoticeChanged(notice.clone()));
        }
        let deadline = if changed { deadline } else { before.min(latest) };
        self.phase = Phase::Pausing { notice, deadline, heard_at };
    }
}

/// The notice with what is left of it now.
pub(crate) fn at(notice: &Notice, deadline: Duration, now: Duration) -> Notice {
    Notice { remaining: deadline.saturating_sub(now), ..notice.clone() }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
