//! The client: one coordinator, one service, one holder.

use std::{sync::Arc, time::Duration};

use crate::{
    builder::ClientBuilder,
    device::DeviceInfo,
    error::Error,
    events::EventStream,
    info::{LeaseDetail, LeaseInfo, Renewed},
    lease::Lease,
    metrics::{Sample, SampleStream},
    request::{LeaseFilter, LeaseRequest, Listing},
    session::Session,
    status::Status,
    unary::Unary,
};

/// A client of one coordinator. Clones are cheap and share one session, which opens when it is first needed,
/// reconnects by itself, and ends when the last clone and the last [`Lease`] are gone.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Arc<str>,
    unary: Unary,
    session: Arc<Session>,
}

impl Client {
    pub(crate) fn new(endpoint: String, unary: Unary, session: Arc<Session>) -> Self {
        Self { endpoint: endpoint.into(), unary, session }
    }

    /// Settings for a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Connects to the coordinator at an endpoint; everything else is as [`ClientBuilder`] has it by default.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        Self::builder().endpoint(endpoint).connect().await
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The service that asks.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.session.0.identity.service
    }

    /// The holder that this client is.
    #[must_use]
    pub fn holder(&self) -> &str {
        &self.session.0.identity.holder
    }

    /// Asks for a lease and waits for it, at most as long as the request says. Dropping the future cancels the
    /// request; a grant that comes too late for that is given back.
    ///
    /// # Errors
    /// [`NoCapacity`](crate::ErrorKind::NoCapacity) for a request that may not wait,
    /// [`WaitOver`](crate::ErrorKind::WaitOver) after its wait, and any other refusal of the coordinator;
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when ten tries in a row did not reach it.
    pub async fn acquire(&self, request: LeaseRequest) -> Result<Lease, Error> {
        self.acquire_with(request, |_| ()).await
    }

    /// Like [`Self::acquire`]; calls `on_queued` with the waiting lease each time the coordinator says that it has
    /// to wait.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub async fn acquire_with(
        &self,
        request: LeaseRequest,
        on_queued: impl FnMut(&LeaseInfo) + Send,
    ) -> Result<Lease, Error> {
        let wait = request.wait_max();
        let held = self.session.acquire(request.into_wire(), wait, on_queued).await?;
        Ok(Lease::new(held, Arc::clone(&self.session)))
    }

    /// Starts the TTL of an active lease anew, in a call of its own. A [`Lease`] does this by itself.
    ///
    /// # Errors
    /// [`StaleToken`](crate::ErrorKind::StaleToken), [`LeaseEnded`](crate::ErrorKind::LeaseEnded),
    /// [`NotFound`](crate::ErrorKind::NotFound), or no coordinator.
    pub async fn renew(&self, lease_id: u64, fencing_token: u64) -> Result<Renewed, Error> {
        self.unary.renew(lease_id, fencing_token).await
    }

    /// Gives a lease back, in a call of its own. The token may be left out while the lease is queued. Releasing a
    /// released lease again succeeds.
    ///
    /// # Errors
    /// [`StaleToken`](crate::ErrorKind::StaleToken), [`LeaseEnded`](crate::ErrorKind::LeaseEnded),
    /// [`NotFound`](crate::ErrorKind::NotFound), or no coordinator.
    pub async fn release(
        &self,
        lease_id: u64,
        fencing_token: Option<u64>,
    ) -> Result<LeaseInfo, Error> {
        self.unary.release(lease_id, fencing_token).await
    }

    /// Ends anybody's lease, as an operator.
    ///
    /// # Errors
    /// [`LeaseEnded`](crate::ErrorKind::LeaseEnded), [`NotFound`](crate::ErrorKind::NotFound), or no coordinator.
    pub async fn revoke(&self, lease_id: u64, reason: &str) -> Result<LeaseInfo, Error> {
        self.unary.revoke(lease_id, reason).await
    }

    /// One lease with its history.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), or no coordinator.
    pub async fn lease(&self, lease_id: u64) -> Result<LeaseDetail, Error> {
        self.unary.lease(lease_id).await
    }

    /// All leases that pass the filter, whatever the number of pages.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn leases(&self, filter: LeaseFilter) -> Result<Listing<LeaseInfo>, Error> {
        self.unary.leases(filter).await
    }

    /// All devices, in order of node and index.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn devices(&self) -> Result<Listing<DeviceInfo>, Error> {
        self.unary.devices().await
    }

    /// Every batch of events behind a revision; `None`: from now on.
    ///
    /// # Errors
    /// [`HistoryGone`](crate::ErrorKind::HistoryGone) for a revision that is no longer kept, or no coordinator.
    pub async fn watch(&self, after_revision: Option<u64>) -> Result<EventStream, Error> {
        EventStream::open(self.unary.clone(), after_revision).await
    }

    /// The latest sample of each device.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn samples(&self) -> Result<Vec<Sample>, Error> {
        self.unary.samples().await
    }

    /// Samples as they come, the latest only: of these devices (none: all), and at least `interval_min` apart.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn subscribe(
        &self,
        device_uuids: &[String],
        interval_min: Duration,
    ) -> Result<SampleStream, Error> {
        self.unary.subscribe(device_uuids, interval_min).await.map(SampleStream::new)
    }

    /// The coordinator in figures.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn status(&self) -> Result<Status, Error> {
        self.unary.status().await.map(Status::from)
    }

    /// The coordinator's configuration in force, in TOML.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn configuration(&self) -> Result<String, Error> {
        self.unary.configuration().await
    }

    /// Ends the session, for all clones: requests that still wait are cancelled, releases on their way are waited
    /// for (at most 5 s), leases that are still held are lost to their guards and end with their TTL.
    pub async fn close(self) {
        self.session.close().await;
    }

    #[cfg(test)]
    pub(crate) fn session_for_tests(&self) -> &Session {
        &self.session
    }
}
