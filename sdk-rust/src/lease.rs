//! The guard of a held lease: renewed in the background for as long as it lives, released when it is dropped.

use std::{sync::Arc, time::Duration};

use crate::{
    changes::{LeaseChanges, call_for_each},
    clock::Clock,
    counters::Tally,
    error::Error,
    held::{Held, Work},
    info::{EndReason, LeaseInfo, LeasedDevice},
    notice::Notice,
    session::Session,
    standing::{Change, Grant, LeaseStatus, LostReason},
};

/// A held lease.
///
/// It is renewed a third of its TTL after the last good renewal was sent, by one background task for all leases of
/// the client. Its validity counts from that send time, on a clock that runs through a suspend; when it ends, or
/// when the coordinator says so, the lease is *lost*: stop the work that needs it.
///
/// A lease that may be preempted ([`Preemptible`](crate::Preemptible)) can be asked for its devices by a
/// [`Notice`]: stop, save, [`acknowledge`](Self::acknowledge), wait for [`resumed`](Self::resumed).
/// [`turn`](Self::turn) and [`answer_notices`](Self::answer_notices) do all of that.
///
/// Dropping the guard releases the lease in the background and never blocks. A lost lease is released too, late
/// as that is: the coordinator may take it as proof that the devices are free.
#[derive(Debug)]
#[must_use = "dropping the guard releases the lease"]
pub struct Lease {
    held: Arc<Held>,
    session: Arc<Session>,
    tally: Arc<Tally>,
    /// The guard still answers for the lease's end.
    responsible: bool,
}

impl Lease {
    pub(crate) fn new(held: Arc<Held>, session: Arc<Session>, tally: Arc<Tally>) -> Self {
        Self { held, session, tally, responsible: true }
    }

    pub(crate) fn parts(&self) -> (Arc<Held>, Clock) {
        (Arc::clone(&self.held), self.session.0.clock.clone())
    }

    /// The lease's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.held.id
    }

    /// The fencing token: pass it on to whatever can refuse an older one. A resume brings a new one; see
    /// [`Self::grant`] for token and devices of one moment.
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.held.fencing_token()
    }

    /// The lease as the coordinator last told it whole; [`Self::remaining`] and [`Self::status`] are newer.
    #[must_use]
    pub fn info(&self) -> LeaseInfo {
        self.held.info()
    }

    /// The devices it holds; none while it is paused.
    #[must_use]
    pub fn devices(&self) -> Vec<LeasedDevice> {
        self.held.grant().devices
    }

    /// Token and devices, both of its newest grant.
    #[must_use]
    pub fn grant(&self) -> Grant {
        self.held.grant()
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> LeaseStatus {
        self.held.status_at(self.session.now())
    }

    /// The notice to answer, with what is left of its time.
    #[must_use]
    pub fn notice(&self) -> Option<Notice> {
        self.held.notice_at(self.session.now())
    }

    /// For how long it is provably held without another renewal or an answer to its notice; zero once it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.held.remaining_at(self.session.now())
    }

    /// Whether it is lost. Cheap: ask as often as you like.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.held.is_lost_at(self.session.now())
    }

    /// Whether no renewal was answered for half a TTL.
    #[must_use]
    pub fn is_uncertain(&self) -> bool {
        self.held.is_uncertain_at(self.session.now())
    }

    /// `Ok` while its devices may be used.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) with the reason once it is lost,
    /// [`LeasePaused`](crate::ErrorKind::LeasePaused) while it is paused.
    pub fn check(&self) -> Result<(), Error> {
        self.held.check_at(self.session.now())
    }

    /// As [`Self::check`], but a paused lease is not lost.
    pub(crate) fn check_not_lost(&self) -> Result<(), Error> {
        match self.held.lost_at(self.session.now()) {
            None => Ok(()),
            Some(reason) => Err(self.held.lost_error(&reason)),
        }
    }

    /// Waits until it is lost. Dropping the future is harmless.
    pub async fn lost(&self) -> LostReason {
        self.held.lost().await
    }

    /// Waits until a notice stands.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost).
    pub async fn noticed(&self) -> Result<Notice, Error> {
        self.until(|status| match status {
            LeaseStatus::Pausing(notice) => Some(notice),
            _ => None,
        })
        .await
    }

    /// Waits until it is paused: its devices are given back, or were lost.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost).
    pub async fn paused(&self) -> Result<(), Error> {
        self.until(|status| (status == LeaseStatus::Paused).then_some(())).await
    }

    /// Waits until it holds devices that no notice asks for: at once if it does, else until it is resumed or the notice
    /// is withdrawn.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost).
    pub async fn resumed(&self) -> Result<Grant, Error> {
        let is_free =
            |status| matches!(status, LeaseStatus::Active | LeaseStatus::Uncertain { .. });
        self.until(|status| is_free(status).then(|| self.held.grant())).await
    }

    /// Waits for a status that `look` accepts.
    async fn until<T>(&self, mut look: impl FnMut(LeaseStatus) -> Option<T>) -> Result<T, Error> {
        let now = || self.session.now();
        self.held
            .until(|held| match held.lost_at(now()) {
                Some(reason) => Some(Err(held.lost_error(&reason))),
                None => look(held.status_at(now())).map(Ok),
            })
            .await
    }

    /// Every change from now on.
    #[must_use]
    pub fn changes(&self) -> LeaseChanges {
        LeaseChanges::new(&self.held, self.session.now())
    }

    /// Calls a function for every change from now on. Functions run on a thread where they may block, each one call at a
    /// time; a slow one delays nothing but its own next call, and misses changes when it is behind by more than 32.
    pub fn on_change(&self, function: impl FnMut(Change) + Send + 'static) {
        call_for_each(&self.session.0.runtime, self.changes(), function);
    }

    /// Calls a function for every notice, changed ones included. As [`Self::on_change`].
    pub fn on_notice(&self, mut function: impl FnMut(Notice) + Send + 'static) {
        self.on_change(move |change| match change {
            Change::Noticed(notice) | Change::NoticeChanged(notice) => function(notice),
            _ => {}
        });
    }

    /// Calls a function each time it is paused. As [`Self::on_change`].
    pub fn on_pause(&self, mut function: impl FnMut() + Send + 'static) {
        self.on_change(move |change| {
            if change == Change::Paused {
                function();
            }
        });
    }

    /// Calls a function each time it is resumed. As [`Self::on_change`].
    pub fn on_resume(&self, mut function: impl FnMut(Grant) + Send + 'static) {
        self.on_change(move |change| {
            if let Change::Resumed(grant) = change {
                function(grant);
            }
        });
    }

    /// Calls a function when it is lost, or ends in any other way than by its holder's release. As
    /// [`Self::on_change`].
    pub fn on_lost(&self, mut function: impl FnMut(LostReason) + Send + 'static) {
        self.on_change(move |change| match change {
            Change::Lost(reason) => function(reason),
            Change::Ended { reason: Some(EndReason::Released), .. } => {}
            Change::Ended { reason, detail } => function(LostReason::Ended { reason, detail }),
            _ => {}
        });
    }

    /// Answers a notice: the work has stopped, and the devices are given back. How the lease stands then: paused; ended,
    /// where it may only be preempted so; or active, where the notice was withdrawn: go on. A newer notice that stands
    /// by then is answered too. The answer goes out even when the future is dropped.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the deadline is over, or whatever the coordinator refused it for.
    pub async fn acknowledge(&self, notice: &Notice) -> Result<LeaseStatus, Error> {
        self.check_not_lost()?;
        let standing = self.notice();
        if let Some(standing) = standing {
            if standing.id != notice.id {
                tracing::debug!(lease_id = self.id(), "a newer notice stands and is answered");
            }
            self.session.acknowledge(&self.held, standing.id).await?;
        }
        Ok(self.status())
    }

    /// Asks for more time to answer a notice, once for each: less is given where it is over the bound.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost), or what the coordinator refused it for.
    pub async fn extend_notice(&self, notice: &Notice, by: Duration) -> Result<Notice, Error> {
        self.check_not_lost()?;
        self.session.extend_notice(&self.held, notice.id, by).await
    }

    /// Tells of work done on the devices: so many operations that took so long together. It travels with the next
    /// renewal, for throughput and latency per device and service.
    pub fn record_operation(&self, count: u64, busy: Duration) {
        self.held.add_work(Work { count, busy });
        self.tally.worked(count, busy);
    }

    /// Gives the devices back and waits for the coordinator's word. Stop the work first. The release goes out even
    /// when the future is dropped.
    ///
    /// # Errors
    /// What the coordinator refused it for, such as [`LeaseEnded`](crate::ErrorKind::LeaseEnded), or
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when no try reached it: then the lease ends with its TTL.
    pub async fn release(mut self) -> Result<LeaseInfo, Error> {
        self.responsible = false;
        let answer = self.session.release(&self.held);
        let answer = answer.await.unwrap_or_else(|_| Err(Error::closed()));
        answer.map(|info| *info)
    }

    /// Stops renewing and does not release: the lease lives for its remaining time, or for whoever takes it over
    /// with this id and fencing token.
    #[must_use = "without id and token nobody can renew or release the lease"]
    pub fn detach(mut self) -> (u64, u64) {
        self.responsible = false;
        self.session.forget(self.held.id);
        (self.held.id, self.held.fencing_token())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A replaced session's leases are the replacing session's to release.
        let replaced = self.held.lost_at(self.session.now()) == Some(LostReason::SessionReplaced);
        if self.responsible && !replaced && !self.held.has_ended() {
            self.session.release_in_background(&self.held);
        }
    }
}
