//! The wire as a foreign client sees it: the generated stubs, requests that are valid unless a test spoils them, and
//! refusals taken apart.

use std::{collections::HashMap, fmt::Debug, time::Duration};

use anyhow::Context as _;
use gpulease_proto::v1::{
    self, admin_service_client::AdminServiceClient, device_service_client::DeviceServiceClient,
    event_service_client::EventServiceClient, lease_service_client::LeaseServiceClient,
    metrics_service_client::MetricsServiceClient,
};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

/// A gibibyte.
pub const GIB: u64 = 1 << 30;
/// The service of [`request`].
pub const SERVICE: &str = "tests";

/// One connection to a coordinator, and the stubs over it.
#[derive(Clone, Debug)]
pub struct Wire {
    channel: Channel,
}

impl Wire {
    /// Connects to `http://host:port` or `unix:///path`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let endpoint =
            Endpoint::from_shared(endpoint.to_owned()).context("the endpoint is no URI")?;
        let channel = endpoint.connect().await.context("connect to the coordinator")?;
        Ok(Self { channel })
    }

    /// The connection, for other stubs.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The lease service.
    #[must_use]
    pub fn leases(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.channel())
    }

    /// The device service.
    #[must_use]
    pub fn devices(&self) -> DeviceServiceClient<Channel> {
        DeviceServiceClient::new(self.channel())
    }

    /// The event service.
    #[must_use]
    pub fn events(&self) -> EventServiceClient<Channel> {
        EventServiceClient::new(self.channel())
    }

    /// The metrics service.
    #[must_use]
    pub fn metrics(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(self.channel())
    }

    /// The admin service.
    #[must_use]
    pub fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel())
    }

    /// The health service.
    #[must_use]
    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel())
    }

    /// Acquires over a unary call.
    ///
    /// # Errors
    /// The refusal.
    pub async fn acquire(&self, request: v1::AcquireRequest) -> Result<v1::Lease, Status> {
        let answer = self.leases().acquire(request).await?.into_inner();
        answer.lease.ok_or_else(|| Status::internal("an answer without its lease"))
    }

    /// Renews a lease as its holder.
    ///
    /// # Errors
    /// The refusal.
    pub async fn renew(&self, lease: &v1::Lease) -> Result<v1::RenewResponse, Status> {
        let request = v1::RenewRequest {
            lease_id: lease.id,
            fencing_token: lease.fencing_token,
            ..Default::default()
        };
        Ok(self.leases().renew(request).await?.into_inner())
    }

    /// Releases a lease as its holder.
    ///
    /// # Errors
    /// The refusal.
    pub async fn release(&self, lease: &v1::Lease) -> Result<v1::Lease, Status> {
        let request = v1::ReleaseRequest {
            lease_id: lease.id,
            fencing_token: Some(lease.fencing_token),
            ..Default::default()
        };
        let answer = self.leases().release(request).await?.into_inner();
        answer.lease.ok_or_else(|| Status::internal("an answer without its lease"))
    }

    /// A lease as it is now.
    ///
    /// # Errors
    /// The refusal.
    pub async fn lease(&self, lease_id: u64) -> Result<v1::Lease, Status> {
        let request = v1::LeaseServiceGetRequest { lease_id };
        let answer = self.leases().get(request).await?.into_inner();
        answer.lease.ok_or_else(|| Status::internal("an answer without its lease"))
    }

    /// The coordinator in figures.
    ///
    /// # Errors
    /// The refusal.
    pub async fn status(&self) -> Result<v1::StatusResponse, Status> {
        Ok(self.admin().status(v1::StatusRequest {}).await?.into_inner())
    }
}

/// A valid request for one GiB of one device for 60 s, by a holder and with a request id of this name.
#[must_use]
pub fn request(name: &str) -> v1::AcquireRequest {
    v1::AcquireRequest {
        service: SERVICE.to_owned(),
        holder: name.to_owned(),
        request_id: name.to_owned(),
        ask: Some(v1::Ask { memory_bytes: Some(GIB), ..Default::default() }),
        ttl: Some(seconds(60)),
        ..Default::default()
    }
}

/// The same for whole devices, waiting for them for ten minutes.
#[must_use]
pub fn whole_devices(name: &str, devices: u32) -> v1::AcquireRequest {
    let ask = v1::Ask { devices: Some(devices), exclusive: true, ..Default::default() };
    v1::AcquireRequest { ask: Some(ask), wait: Some(seconds(600)), ..request(name) }
}

/// A wire duration.
#[must_use]
pub fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// A refusal, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The stable reason.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The figures.
    pub metadata: HashMap<String, String>,
    /// The field at fault; empty: none.
    pub field: String,
    /// When to try again, where that can help.
    pub retry_after: Option<Duration>,
    /// Whether it names a quota.
    pub quota: bool,
}

impl Refusal {
    /// Takes a status apart.
    #[must_use]
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let field = details.bad_request().and_then(|bad| bad.field_violations.first());
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
            field: field.map(|violation| violation.field.clone()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            quota: details.quota_failure().is_some(),
        }
    }

    /// One figure, or nothing.
    #[must_use]
    pub fn figure(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }
}

/// The refusal that a call must have ended with.
///
/// # Panics
/// When it did not.
pub fn refusal<T: Debug>(outcome: Result<Response<T>, Status>) -> Refusal {
    match outcome {
        Ok(answer) => panic!("this should have been refused: {:?}", answer.into_inner()),
        Err(status) => Refusal::of(&status),
    }
}
