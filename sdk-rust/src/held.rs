//! What the guard and the session share about one held lease: its token, until when it is provably held, how it
//! stands, and what it got done. How what is told changes it is in `facts.rs`.
//!
//! Being over is final, and the first reason stands.

use std::{
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{broadcast, watch};

use crate::{
    error::{Error, ErrorKind},
    facts::{Facts, NEVER, Phase, Report, Told, at, nanos},
    info::{LeaseInfo, LeaseState},
    notice::Notice,
    standing::{Change, Grant, LeaseStatus, LostReason},
};

/// Changes kept for a reader that is slow: more than the six of a whole pause (noticed, changed, paused, resumed,
/// uncertain, certain), five times over.
pub(crate) const CHANGES_MAX: usize = 32;
/// Work done and not yet told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub(crate) count: u64,
    pub(crate) busy: Duration,
}

/// One held lease.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: u64,
    pub(crate) ttl: Duration,
    /// It lives on for a TTL after each time that nobody was at the coordinator's socket.
    pub(crate) keeps: bool,
    facts: Mutex<Facts>,
    fencing_token: AtomicU64,
    /// On the client's clock, in nanoseconds: 2⁶⁴ of them are 584 years.
    valid_until_nanos: AtomicU64,
    /// Likewise: when the notice's deadline loses it.
    deadline_nanos: AtomicU64,
    /// Likewise: from when on it is uncertain.
    uncertain_from_nanos: AtomicU64,
    over: OnceLock<LostReason>,
    /// Wakes whoever waits for a change and looks for itself.
    changed: watch::Sender<()>,
    /// Made for the first who listens: most leases are never listened to, and its buffer is some kilobytes.
    changes: OnceLock<broadcast::Sender<Change>>,
    work: Mutex<Work>,
}

impl Held {
    pub(crate) fn new(info: LeaseInfo, valid_until: Duration, keeps: bool, told: Told) -> Self {
        let uncertain_from = told.after.saturating_add(info.ttl / 2).min(valid_until);
        let facts = Facts::new(info, told);
        Self {
            id: facts.info.id,
            ttl: facts.info.ttl,
            keeps,
            fencing_token: AtomicU64::new(facts.info.fencing_token),
            valid_until_nanos: AtomicU64::new(nanos(valid_until)),
            deadline_nanos: AtomicU64::new(facts.deadline_nanos()),
            uncertain_from_nanos: AtomicU64::new(nanos(uncertain_from)),
            facts: Mutex::new(facts),
            over: OnceLock::new(),
            changed: watch::channel(()).0,
            changes: OnceLock::new(),
            work: Mutex::default(),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn info(&self) -> LeaseInfo {
        self.facts().info.clone()
    }

    pub(crate) fn grant(&self) -> Grant {
        self.facts().grant()
    }

    pub(crate) fn fencing_token(&self) -> u64 {
        self.fencing_token.load(Ordering::Acquire)
    }

    pub(crate) fn valid_until(&self) -> Duration {
        Duration::from_nanos(self.valid_until_nanos.load(Ordering::Acquire))
    }

    /// A renewal was answered. Answers may overtake each other, so validity only ever grows.
    pub(crate) fn renewed(&self, sent_at: Duration, valid_until: Duration) {
        self.valid_until_nanos.fetch_max(nanos(valid_until), Ordering::AcqRel);
        let uncertain_from = sent_at.saturating_add(self.ttl / 2).min(valid_until);
        self.uncertain_from_nanos.fetch_max(nanos(uncertain_from), Ordering::AcqRel);
        let mut facts = self.facts();
        if std::mem::take(&mut facts.uncertain) {
            self.say(Change::Certain);
        }
    }

    /// A greater token without the lease: used from now on.
    pub(crate) fn adopt_token(&self, fencing_token: u64) {
        let mut facts = self.facts();
        if facts.info.fencing_token < fencing_token {
            facts.info.fencing_token = fencing_token;
            self.fencing_token.store(fencing_token, Ordering::Release);
        }
    }

    /// Takes up what the coordinator says of a lease that is not over. `false`: it may be older than the notice that
    /// stands, and was not believed.
    #[must_use]
    pub(crate) fn observe(&self, report: Report) -> bool {
        let mut facts = self.facts();
        if report.fencing_token < facts.info.fencing_token || self.over.get().is_some() {
            return true;
        }
        if facts.may_be_older_than_notice(&report) {
            return false;
        }
        let (token, state, told) = (report.fencing_token, report.state, report.told);
        let is_newer = token > facts.info.fencing_token;
        if let Some(info) = report.info {
            facts.info = *info;
        }
        facts.info.fencing_token = token;
        self.fencing_token.store(token, Ordering::Release);
        let mut said = Vec::new();
        if is_newer {
            facts.begin_anew(state, &mut said);
        }
        facts.proceed(state, report.notice, told, &mut said);
        facts.info.state = state;
        facts.info.notice = match &facts.phase {
            Phase::Pausing { notice, .. } => Some(notice.clone()),
            _ => None,
        };
        self.deadline_nanos.store(facts.deadline_nanos(), Ordering::Release);
        for change in said {
            tracing::debug!(lease_id = self.id, ?change, "lease changed");
            self.say(change);
        }
        true
    }

    fn say(&self, change: Change) {
        if let Some(changes) = self.changes.get() {
            // Without a reader there is nobody to tell.
            let _ = changes.send(change);
        }
        self.changed.send_replace(());
    }

    /// It is over.
    pub(crate) fn lose(&self, reason: LostReason) {
        let facts = self.facts();
        if self.over.set(reason.clone()).is_ok() {
            if reason != LostReason::released() {
                tracing::warn!(lease_id = self.id, %reason, "lease lost");
            }
            self.say(reason.into());
        }
        drop(facts);
    }

    /// What the coordinator last told of it, when it ends.
    pub(crate) fn set_info(&self, info: LeaseInfo) {
        self.facts().info = info;
    }

    /// Why it is lost, if it is: said, or by the clock alone.
    pub(crate) fn lost_at(&self, now: Duration) -> Option<LostReason> {
        self.over.get().cloned().or_else(|| self.lost_by_time(now))
    }

    /// Why it is lost by the clock alone.
    pub(crate) fn lost_by_time(&self, now: Duration) -> Option<LostReason> {
        let now = nanos(now);
        if now >= self.valid_until_nanos.load(Ordering::Acquire) {
            Some(LostReason::ValidityOver)
        } else if now >= self.deadline_nanos.load(Ordering::Acquire) {
            Some(LostReason::NoticeOver)
        } else {
            None
        }
    }

    pub(crate) fn is_lost_at(&self, now: Duration) -> bool {
        self.over.get().is_some() || self.lost_by_time(now).is_some()
    }

    pub(crate) fn is_uncertain_at(&self, now: Duration) -> bool {
        nanos(now) >= self.uncertain_from_nanos.load(Ordering::Acquire)
    }

    /// A connection that was tried then was refused: a coordinator that starts later gives it its full TTL. Only a
    /// lease that keeps takes note.
    pub(crate) fn found_gone(&self, tried_at: Duration) {
        if self.keeps {
            let valid_until = nanos(tried_at.saturating_add(self.ttl));
            self.valid_until_nanos.fetch_max(valid_until, Ordering::AcqRel);
        }
    }

    /// Says once that it became uncertain.
    pub(crate) fn look(&self, now: Duration) {
        let mut facts = self.facts();
        if self.is_uncertain_at(now) && !facts.uncertain {
            facts.uncertain = true;
            self.say(Change::Uncertain { remaining: self.valid_until().saturating_sub(now) });
        }
    }

    /// When it changes next by the clock alone; `None`: only when somebody says something.
    pub(crate) fn next_moment(&self, now: Duration) -> Option<Duration> {
        [&self.uncertain_from_nanos, &self.deadline_nanos, &self.valid_until_nanos]
            .into_iter()
            .map(|moment| moment.load(Ordering::Acquire))
            .filter(|moment| *moment > nanos(now) && *moment < NEVER)
            .min()
            .map(Duration::from_nanos)
    }

    pub(crate) fn status_at(&self, now: Duration) -> LeaseStatus {
        if let Some(reason) = self.lost_at(now) {
            return reason.into();
        }
        match &self.facts().phase {
            Phase::Pausing { notice, deadline, .. } => {
                LeaseStatus::Pausing(at(notice, *deadline, now))
            }
            Phase::Paused => LeaseStatus::Paused,
            Phase::Active if self.is_uncertain_at(now) => {
                LeaseStatus::Uncertain { remaining: self.valid_until().saturating_sub(now) }
            }
            Phase::Active => LeaseStatus::Active,
        }
    }

    /// For how long it is provably held.
    pub(crate) fn remaining_at(&self, now: Duration) -> Duration {
        if self.is_lost_at(now) {
            return Duration::ZERO;
        }
        let deadline = Duration::from_nanos(self.deadline_nanos.load(Ordering::Acquire));
        self.valid_until().min(deadline).saturating_sub(now)
    }

    /// `Ok` while its devices may be used.
    pub(crate) fn check_at(&self, now: Duration) -> Result<(), Error> {
        if let Some(reason) = self.lost_at(now) {
            return Err(self.lost_error(&reason));
        }
        let facts = self.facts();
        if facts.phase == Phase::Paused || facts.acknowledging.is_some() {
            return Err(self.paused_error());
        }
        Ok(())
    }

    /// The notice is being acknowledged. One that does not stand any more is nothing to stop for.
    pub(crate) fn begin_acknowledging(&self, notice_id: u64) {
        let mut facts = self.facts();
        if matches!(&facts.phase, Phase::Pausing { notice, .. } if notice.id == notice_id) {
            facts.acknowledging = Some(notice_id);
            self.deadline_nanos.store(facts.deadline_nanos(), Ordering::Release);
        }
    }

    /// The acknowledgement of that notice has its answer, or will never have one.
    pub(crate) fn end_acknowledging(&self, notice_id: u64) {
        let mut facts = self.facts();
        if facts.acknowledging == Some(notice_id) {
            facts.acknowledging = None;
            self.deadline_nanos.store(facts.deadline_nanos(), Ordering::Release);
        }
    }

    /// Calls `look` now and after every change until it finds something.
    pub(crate) async fn until<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(found) = look(self) {
                return found;
            }
            // An error would mean that the sender is gone, and `self` holds it.
            let _ = changed.changed().await;
        }
    }

    /// Why it is over, where somebody or the keep-alive has said so.
    pub(crate) fn over(&self) -> Option<LostReason> {
        self.over.get().cloned()
    }

    /// Whether the coordinator said that it is over and left nothing closed: there is nothing to give back.
    pub(crate) fn has_ended(&self) -> bool {
        self.facts().info.state == LeaseState::Ended
    }

    /// Waits until it is over.
    pub(crate) async fn lost(&self) -> LostReason {
        self.until(Self::over).await
    }

    /// The changes from now on, and what is to be said first of a lease that is not plainly active.
    pub(crate) fn subscribe(&self, now: Duration) -> (Option<Change>, broadcast::Receiver<Change>) {
        let facts = self.facts();
        let changes = self.changes.get_or_init(|| broadcast::channel(CHANGES_MAX).0).subscribe();
        let first = match (self.over.get(), &facts.phase) {
            (Some(reason), _) => Some(reason.clone().into()),
            (None, Phase::Pausing { notice, deadline, .. }) => {
                Some(Change::Noticed(at(notice, *deadline, now)))
            }
            (None, Phase::Paused) => Some(Change::Paused),
            (None, Phase::Active) if self.is_uncertain_at(now) => {
                // One that was not said yet is said to whoever listens, this reader included.
                let remaining = self.valid_until().saturating_sub(now);
                facts.uncertain.then_some(Change::Uncertain { remaining })
            }
            (None, Phase::Active) => None,
        };
        (first, changes)
    }

    /// The notice to answer, if one stands.
    pub(crate) fn notice_at(&self, now: Duration) -> Option<Notice> {
        match &self.facts().phase {
            Phase::Pausing { notice, deadline, .. } => Some(at(notice, *deadline, now)),
            _ => None,
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.facts().phase == Phase::Paused
    }

    pub(crate) fn add_work(&self, work: Work) {
        let mut sum = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        sum.count = sum.count.saturating_add(work.count);
        sum.busy = sum.busy.saturating_add(work.busy);
    }

    pub(crate) fn has_work(&self) -> bool {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) != Work::default()
    }

    /// The work that was not told yet, to be told now.
    pub(crate) fn take_work(&self) -> Option<Work> {
        let mut sum = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut *sum)).filter(|work| *work != Work::default())
    }

    pub(crate) fn lost_error(&self, reason: &LostReason) -> Error {
        let message = format!(
            "lease {} is lost: {reason}; stop the work that needs it, then acquire again",
            self.id
        );
        Error::new(ErrorKind::LeaseLost, "LEASE_LOST", message)
    }

    pub(crate) fn paused_error(&self) -> Error {
        let message = format!(
            "lease {} is paused and holds no devices now: wait for its resume before using any",
            self.id
        );
        Error::new(ErrorKind::LeasePaused, "LEASE_PAUSED", message)
    }
}
