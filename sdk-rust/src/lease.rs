//! The guard of a held lease: renewed in the background for as long as it lives, released when it is dropped.

use std::{sync::Arc, time::Duration};

use crate::{
    error::Error,
    held::{Held, LostReason},
    info::{LeaseInfo, LeasedDevice},
    session::Session,
};

/// A held lease.
///
/// It is renewed a third of its TTL after the last good renewal was sent, by one background task for all leases of
/// the client. Its validity counts from that send time, on a clock that runs through a suspend; when it ends, or
/// when the coordinator says so, the lease is *lost*: stop the work that needs it.
///
/// Dropping the guard releases the lease in the background and never blocks. A lost lease is released too, late
/// as that is: the coordinator may take it as proof that the devices are free.
#[derive(Debug)]
#[must_use = "dropping the guard releases the lease"]
pub struct Lease {
    held: Arc<Held>,
    session: Arc<Session>,
    /// The guard still answers for the lease's end.
    responsible: bool,
}

impl Lease {
    pub(crate) fn new(held: Arc<Held>, session: Arc<Session>) -> Self {
        Self { held, session, responsible: true }
    }

    /// The lease's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.held.id
    }

    /// The fencing token: pass it on to whatever can refuse an older one.
    #[must_use]
    pub fn fencing_token(&self) -> u64 {
        self.held.fencing_token()
    }

    /// The lease as the coordinator last told it whole; [`Self::remaining`] is newer than its times.
    #[must_use]
    pub fn info(&self) -> LeaseInfo {
        self.held.info().clone()
    }

    /// The devices it holds.
    #[must_use]
    pub fn devices(&self) -> Vec<LeasedDevice> {
        self.held.info().devices.clone()
    }

    /// For how long it is provably held without another renewal; zero once it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let now = self.session.now();
        if self.held.is_lost_at(now) {
            return Duration::ZERO;
        }
        self.held.valid_until().saturating_sub(now)
    }

    /// Whether it is lost. Cheap: ask as often as you like.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.held.is_lost_at(self.session.now())
    }

    /// `Ok` while it is provably held.
    ///
    /// # Errors
    /// [`LeaseLost`](crate::ErrorKind::LeaseLost) with the reason once it is lost.
    pub fn check(&self) -> Result<(), Error> {
        match self.held.lost_at(self.session.now()) {
            None => Ok(()),
            Some(reason) => Err(self.held.lost_error(&reason)),
        }
    }

    /// Waits until it is lost. Dropping the future is harmless.
    pub async fn lost(&self) -> LostReason {
        self.held.lost().await
    }

    /// Gives the devices back and waits for the coordinator's word. Stop the work first. The release goes out even
    /// when the future is dropped.
    ///
    /// # Errors
    /// What the coordinator refused it for, such as [`LeaseEnded`](crate::ErrorKind::LeaseEnded), or
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when no try reached it: then the lease ends with its TTL.
    pub async fn release(mut self) -> Result<LeaseInfo, Error> {
        self.responsible = false;
        let answer = self.session.release(self.held.id, self.held.fencing_token());
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
        if self.responsible && !replaced {
            self.session.release_in_background(self.held.id, self.held.fencing_token());
        }
    }
}
