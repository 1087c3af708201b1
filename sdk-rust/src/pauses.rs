//! Holding a lease through its pauses: the two usual loops.
//!
//! | whose work it is | use |
//! |---|---|
//! | a loop of your own that can stop between two steps | [`Lease::turn`] |
//! | something beside you: a child process, an engine with a sleep call | [`Lease::answer_notices`] |
//!
//! Both do the same: on a notice the work stops, the notice is acknowledged, the lease waits for its turn, and the work
//! goes on with new devices. A holder that has stopped answers a newer notice at once; one whose notice was withdrawn
//! while it stopped goes on with what it had.

use std::{future::Future, sync::Arc, time::Duration};

use crate::{
    clock::Clock,
    error::Error,
    held::Held,
    info::LeasedDevice,
    lease::Lease,
    notice::Notice,
    retry::Backoff,
    standing::{Grant, LeaseStatus, LostReason},
};

/// Why work on a lease's devices is to stop for now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PauseReason {
    /// A notice asks for it: until its deadline there is time to save.
    Notice(Notice),
    /// The devices are gone already, with what was on them.
    DevicesLost,
}

/// The time between a grant and its end: what work needs to know while it runs. Clones look at the same turn.
#[derive(Clone, Debug)]
pub struct Turn {
    grant: Grant,
    held: Arc<Held>,
    clock: Clock,
}

impl Turn {
    pub(crate) fn new(grant: Grant, held: Arc<Held>, clock: Clock) -> Self {
        Self { grant, held, clock }
    }

    /// What this turn holds.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The devices of this turn.
    #[must_use]
    pub fn devices(&self) -> &[LeasedDevice] {
        &self.grant.devices
    }

    /// The fencing token of this turn.
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.grant.fencing_token
    }

    /// Whether the work is to stop: a notice stands, or the turn is over. Cheap: ask between any two steps.
    #[must_use]
    pub fn must_stop(&self) -> bool {
        let now = self.clock.now();
        self.held.is_lost_at(now) || self.pause_reason(now).is_some()
    }

    /// Waits until the work is to stop.
    ///
    /// # Errors
    /// The reason for which the lease is lost.
    pub async fn stop_asked(&self) -> Result<PauseReason, LostReason> {
        self.held
            .until(|held| match held.over() {
                Some(reason) => Some(Err(reason)),
                None => self.pause_reason(self.clock.now()).map(Ok),
            })
            .await
    }

    /// `Ok` while the devices of this turn may be used, a notice's time included.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost); [`LeasePaused`](crate::ErrorKind::LeasePaused) also where the lease
    /// has other devices by now.
    pub fn check(&self) -> Result<(), Error> {
        self.held.check_at(self.clock.now())?;
        if self.held.fencing_token() == self.grant.fencing_token {
            Ok(())
        } else {
            Err(self.held.paused_error())
        }
    }

    fn pause_reason(&self, now: Duration) -> Option<PauseReason> {
        if self.held.fencing_token() != self.grant.fencing_token || self.held.is_paused() {
            return Some(PauseReason::DevicesLost);
        }
        self.held.notice_at(now).map(PauseReason::Notice)
    }
}

/// What stops and starts work that runs beside its holder, for [`Lease::answer_notices`].
pub trait PauseHandler: Send {
    /// What can go wrong with it.
    type Error: Send;

    /// Stops the work and makes it give its devices back. Dropped in the middle when the lease is lost.
    fn pause(
        &mut self,
        reason: &PauseReason,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Lets the work go on with these devices, which may be others than before.
    fn resume(&mut self, grant: &Grant) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

impl Lease {
    /// The next turn: waits until the lease holds devices that nobody asks for. Whoever calls it uses none now, so every
    /// notice that stands is answered on the way. This is all that a loop needs to give way and go on:
    ///
    /// ```no_run
    /// # async fn step(_: u32) {}
    /// # fn save() {}
    /// # async fn example(lease: gpulease::Lease) -> Result<(), gpulease::Error> {
    /// let mut steps = 0;
    /// while steps < 1_000 {
    ///     let turn = lease.turn().await?;
    ///     println!("training on {}", turn.devices()[0].uuid);
    ///     while steps < 1_000 && !turn.must_stop() {
    ///         step(steps).await;
    ///         steps += 1;
    ///     }
    ///     save(); // and free the devices: the next turn may have others
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) when the lease is over, which is how one of
    /// [`Preemptible::End`](crate::Preemptible::End) ends on a notice.
    pub async fn turn(&self) -> Result<Turn, Error> {
        let mut backoff = Backoff::default();
        loop {
            let Some(notice) = self.notice_or_turn().await? else {
                let (held, clock) = self.parts();
                return Ok(Turn::new(held.grant(), held, clock));
            };
            if let Err(error) = self.acknowledge(&notice).await {
                self.check_not_lost()?;
                // The coordinator is away: the deadline decides, or the next try.
                tokio::time::sleep(backoff.pause(error.retry_after())).await;
            }
        }
    }

    /// A notice to answer, or `None` once it holds devices that nobody asks for.
    async fn notice_or_turn(&self) -> Result<Option<Notice>, Error> {
        let (held, clock) = self.parts();
        held.until(|held| match held.status_at(clock.now()) {
            LeaseStatus::Active | LeaseStatus::Uncertain { .. } => Some(Ok(None)),
            LeaseStatus::Pausing(notice) => Some(Ok(Some(notice))),
            LeaseStatus::Paused => None,
            LeaseStatus::Lost(_) | LeaseStatus::Ended { .. } => {
                Some(held.check_at(clock.now()).map(|()| None))
            }
        })
        .await
    }

    /// Answers every notice through a handler, until the lease is over: pause, acknowledge, wait for the resume, resume.
    /// Meant to run beside the work, in a `select!` with its end.
    ///
    /// # Errors
    /// What the handler fails with. The notice stands unanswered then: stop the work before its deadline.
    pub async fn answer_notices<H: PauseHandler>(
        &self,
        handler: &mut H,
    ) -> Result<LostReason, H::Error> {
        let (held, clock) = self.parts();
        let mut grant = held.grant();
        loop {
            let turn = Turn::new(grant, Arc::clone(&held), clock.clone());
            let reason = match turn.stop_asked().await {
                Ok(reason) => reason,
                Err(lost) => return Ok(lost),
            };
            tokio::select! {
                biased;
                paused = handler.pause(&reason) => paused?,
                lost = held.lost() => return Ok(lost),
            }
            grant = match self.turn().await {
                Ok(turn) => turn.grant,
                Err(_) => return Ok(held.lost().await),
            };
            tokio::select! {
                biased;
                resumed = handler.resume(&grant) => resumed?,
                lost = held.lost() => return Ok(lost),
            }
        }
    }
}
