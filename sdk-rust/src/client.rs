//! The client: one coordinator, one service, one holder.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use crate::{
    acquired::{Acquired, CpuReason},
    breaker::{Admission, Breaker, BreakerState},
    builder::{ClientBuilder, check_health},
    counters::{Counters, Ending, Tally},
    device::{DeviceInfo, DeviceProcess},
    error::{Error, ErrorKind},
    events::EventStream,
    explain::Explanation,
    info::{LeaseDetail, LeaseInfo, Renewed},
    lease::Lease,
    metrics::{Sample, SampleStream},
    operator::{Drained, ProcessFilter, Target},
    request::{LeaseFilter, LeaseRequest, Listing, Terms, WhileUnreachable},
    session::Session,
    status::Status,
    trace::TraceSource,
    unary::Unary,
};

/// How much longer than its wait an answer may take before the CPU is used: a slow network's round trip.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// What a client was told to do.
#[derive(Debug)]
pub(crate) struct Conduct {
    pub(crate) endpoint: String,
    pub(crate) is_socket: bool,
    pub(crate) enabled: bool,
    pub(crate) fallback_to_cpu: bool,
    pub(crate) request_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) while_unreachable: WhileUnreachable,
    pub(crate) trace: TraceSource,
    pub(crate) breaker: Arc<Breaker>,
}

/// A client of one coordinator. Clones are cheap and share one session, which opens when it is first needed,
/// reconnects by itself, and ends when the last clone and the last [`Lease`] are gone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) conduct: Arc<Conduct>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) unary: Unary,
    pub(crate) session: Arc<Session>,
}

impl Client {
    pub(crate) fn new(conduct: Conduct, unary: Unary, session: Arc<Session>) -> Self {
        Self { conduct: Arc::new(conduct), tally: Arc::default(), unary, session }
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

    /// Connects with every setting from the environment or by default.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub async fn from_env() -> Result<Self, Error> {
        Self::builder().connect().await
    }

    /// Where the coordinator is.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.conduct.endpoint
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
        if !self.conduct.enabled {
            return Err(disabled());
        }
        let asked = Instant::now();
        let outcome = self.ask(request, on_queued).await;
        self.tally.ended(match &outcome {
            Ok(_) => Ending::Granted(asked.elapsed()),
            Err(_) => Ending::Failed,
        });
        outcome
    }

    /// Asks for a lease, and says CPU where none can be had: GPUs are disabled, the coordinator is not there, does not
    /// answer within its wait or the client's request timeout, or has no GPU for this request. Whatever else is wrong
    /// with the request is an error.
    ///
    /// # Errors
    /// A request that is at fault; with [`ClientBuilder::fallback_to_cpu`] off, whatever [`Self::acquire`] says.
    pub async fn acquire_or_cpu(&self, request: LeaseRequest) -> Result<Acquired, Error> {
        if !self.conduct.enabled {
            self.tally.ended(Ending::Disabled);
            return Ok(Acquired::Cpu(CpuReason::Disabled));
        }
        let asked = Instant::now();
        let wait = request.wait_or(self.conduct.request_timeout);
        let longest = wait.max(self.conduct.request_timeout).saturating_add(LATENCY_MAX);
        let outcome = timeout(longest, self.ask(request, |_| ())).await;
        let outcome = outcome.unwrap_or_else(|_| Err(self.session.no_answer(longest)));
        let outcome = match outcome {
            Ok(lease) => Ok(Acquired::Gpu(lease)),
            Err(error) if self.conduct.fallback_to_cpu => CpuReason::of(error).map(Acquired::Cpu),
            Err(error) => Err(error),
        };
        if let Ok(Acquired::Cpu(reason)) = &outcome {
            tracing::warn!(%reason, "no GPU, using the CPU");
        }
        self.tally.ended(match &outcome {
            Ok(Acquired::Gpu(_)) => Ending::Granted(asked.elapsed()),
            Ok(Acquired::Cpu(_)) => Ending::Fallback,
            Err(_) => Ending::Failed,
        });
        outcome
    }

    /// One request, as far as the circuit breaker lets it go.
    async fn ask(
        &self,
        request: LeaseRequest,
        on_queued: impl FnMut(&LeaseInfo) + Send,
    ) -> Result<Lease, Error> {
        let conduct = &*self.conduct;
        let request = request.prepare(Terms {
            endpoint: &conduct.endpoint,
            is_socket: conduct.is_socket,
            wait: conduct.request_timeout,
            while_unreachable: conduct.while_unreachable,
            trace_parent: conduct.trace.current(),
        })?;
        self.pass_breaker().await?;
        let held = self.session.acquire(request, on_queued).await?;
        Ok(Lease::new(held, Arc::clone(&self.session), Arc::clone(&self.tally)))
    }

    async fn pass_breaker(&self) -> Result<(), Error> {
        let breaker = &self.conduct.breaker;
        let open = |retry_after: Duration| {
            let message = format!(
                "the coordinator at {} failed too often: it is left alone for {:.1} s more",
                self.endpoint(),
                retry_after.as_secs_f64()
            );
            Error::new(ErrorKind::CircuitOpen, "CIRCUIT_OPEN", message)
                .with_retry_after(Some(retry_after))
        };
        match breaker.admit(self.session.holds_any(), self.session.now()) {
            Admission::Go => Ok(()),
            Admission::Refuse(retry_after) => Err(open(retry_after)),
            Admission::Probe(checks) => {
                let probe = Probe { breaker, session: &self.session, healthy: false };
                self.probe(checks, probe).await
            }
        }
    }

    async fn probe(&self, checks: u32, mut probe: Probe<'_>) -> Result<(), Error> {
        for _ in 0..checks {
            self.check_health().await?;
        }
        probe.healthy = true;
        Ok(())
    }

    /// Asks the coordinator's health service once whether it serves.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when nobody serves there within the connect timeout.
    pub async fn check_health(&self) -> Result<(), Error> {
        let conduct = &*self.conduct;
        check_health(self.unary.channel(), &conduct.endpoint, conduct.connect_timeout).await
    }

    /// Where the circuit breaker stands.
    #[must_use]
    pub fn breaker_state(&self) -> BreakerState {
        self.conduct.breaker.state(self.session.now())
    }

    /// What this client has been through, in figures.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.tally.read(self.conduct.breaker.opened())
    }

    /// Answers a notice in a call of its own, for a lease held by number and token. A [`Lease`] has
    /// [`Lease::acknowledge`].
    ///
    /// # Errors
    /// [`StaleToken`](ErrorKind::StaleToken), [`LeaseEnded`](ErrorKind::LeaseEnded),
    /// [`NotFound`](ErrorKind::NotFound), or no coordinator.
    pub async fn acknowledge(
        &self,
        lease_id: u64,
        fencing_token: u64,
        notice_id: u64,
    ) -> Result<LeaseInfo, Error> {
        self.unary.acknowledge(lease_id, fencing_token, notice_id).await
    }

    /// Asks for more time to answer a notice, in a call of its own.
    ///
    /// # Errors
    /// As [`Self::acknowledge`].
    pub async fn extend_notice(
        &self,
        lease_id: u64,
        fencing_token: u64,
        notice_id: u64,
        by: Duration,
    ) -> Result<LeaseInfo, Error> {
        self.unary.extend_notice(lease_id, fencing_token, notice_id, by).await
    }

    /// Why a lease waits, for whom and how long, or why it got the devices it has.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), or no coordinator.
    pub async fn explain(&self, lease_id: u64) -> Result<Explanation, Error> {
        self.unary.explain(lease_id).await
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

    /// The processes that use devices, as last seen, each with the lease that explains it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a device that is not known, or no coordinator.
    pub async fn processes(&self, filter: ProcessFilter) -> Result<Vec<DeviceProcess>, Error> {
        self.unary.processes(filter).await
    }

    /// No new grants on a device or node; its holders keep what they have. The leases that hold devices there.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), or no coordinator.
    pub async fn cordon(&self, target: &Target, reason: &str) -> Result<Vec<u64>, Error> {
        self.unary.cordon(target, reason).await
    }

    /// Takes a cordon or drain back; notices of the drain are withdrawn.
    ///
    /// # Errors
    /// As [`Self::cordon`].
    pub async fn uncordon(&self, target: &Target) -> Result<(), Error> {
        self.unary.uncordon(target).await
    }

    /// A cordon, and notices to the holders.
    ///
    /// # Errors
    /// As [`Self::cordon`].
    pub async fn drain(&self, target: &Target, reason: &str) -> Result<Drained, Error> {
        self.unary.drain(target, reason).await
    }

    /// Opens a device that former leases closed, on the operator's word that nothing of theirs runs there. Those leases.
    ///
    /// # Errors
    /// As [`Self::cordon`].
    pub async fn open_device(&self, uuid: &str, reason: &str) -> Result<Vec<u64>, Error> {
        self.unary.open_device(uuid, reason).await
    }

    /// Lets a node's driver go (`quiesced`), so that it can be reset or updated, or takes it up again. Holders keep what
    /// they have; nothing new is granted there meanwhile.
    ///
    /// # Errors
    /// There is no such node, or no coordinator.
    pub async fn quiesce_driver(&self, node: &str, quiesced: bool) -> Result<(), Error> {
        self.unary.quiesce_driver(node, quiesced).await
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

    /// Whether it was closed, or its runtime is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.session.is_over()
    }

    #[cfg(test)]
    pub(crate) fn session_for_tests(&self) -> &Session {
        &self.session
    }
}

pub(crate) fn disabled() -> Error {
    let message = "GPUs are disabled here (GPULEASE_ENABLED, GPU_ENABLED or the client's settings)";
    Error::new(ErrorKind::Disabled, "DISABLED", message)
}

/// Somebody asks the health service on behalf of all. Dropping it says what came of it, be it that the caller left.
struct Probe<'a> {
    breaker: &'a Breaker,
    session: &'a Session,
    healthy: bool,
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.breaker.probed(self.healthy, self.session.now());
    }
}
