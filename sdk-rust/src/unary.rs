//! Unary calls: everything that is about no lease of this client's session, or about somebody else's.
//!
//! Each call has a deadline for each try, and is repeated as `retry.rs` says; all of them are safe to repeat.

use std::{future::Future, time::Duration};

use gpulease_proto::v1::{
    self, admin_service_client::AdminServiceClient, device_service_client::DeviceServiceClient,
    event_service_client::EventServiceClient, lease_service_client::LeaseServiceClient,
    metrics_service_client::MetricsServiceClient,
};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataValue, transport::Channel};

use crate::{
    convert,
    device::DeviceInfo,
    error::Error,
    info::{LeaseDetail, LeaseFact, LeaseInfo, Renewed},
    link::MESSAGE_MAX_BYTES,
    metrics::Sample,
    request::{LeaseFilter, Listing},
    retry::repeat,
    trace::TraceSource,
};

/// The longest that one try of a call may take: the seeds' request timeout.
const CALL_MAX: Duration = Duration::from_secs(15);
/// How long opening a stream may take.
const OPEN_MAX: Duration = Duration::from_secs(15);
/// The shortest: a slow network's round trip.
const CALL_MIN: Duration = Duration::from_secs(1);
/// Where a W3C trace context travels.
pub(crate) const TRACE_PARENT: &str = "traceparent";
/// Items on one page, the wire's bound: 1,000 leases of at most 8 KiB are well under the 64 MiB of a message.
const PAGE_SIZE: u32 = 1_000;

/// The unary face of one coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Unary {
    channel: Channel,
    call_max: Duration,
    trace: TraceSource,
}

pub(crate) fn some<T>(part: Option<T>, what: &str) -> Result<T, Error> {
    part.ok_or_else(|| Error::protocol(&format!("it has no {what}")))
}

impl Unary {
    pub(crate) fn new(channel: Channel, call_max: Duration, trace: TraceSource) -> Self {
        Self { channel, call_max: call_max.clamp(CALL_MIN, CALL_MAX), trace }
    }

    /// One call with a deadline for each of its tries, in the present trace.
    pub(crate) async fn call<M, R, F>(
        &self,
        message: M,
        send: impl Fn(Request<M>) -> F,
    ) -> Result<R, Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let trace_parent =
            self.trace.current().and_then(|text| text.parse::<MetadataValue<_>>().ok());
        repeat(|| {
            let mut request = Request::new(message.clone());
            request.set_timeout(self.call_max);
            if let Some(trace_parent) = trace_parent.clone() {
                request.metadata_mut().insert(TRACE_PARENT, trace_parent);
            }
            let answer = send(request);
            async move { Ok(answer.await?.into_inner()) }
        })
        .await
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn lease_service(&self) -> LeaseServiceClient<Channel> {
        LeaseServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub(crate) async fn renew(&self, lease_id: u64, fencing_token: u64) -> Result<Renewed, Error> {
        let (service, holder) = Default::default();
        let message =
            v1::RenewRequest { lease_id, fencing_token, service, holder, operations: None };
        self.call(message, |request| {
            let mut client = self.lease_service();
            async move { client.renew(request).await }
        })
        .await
        .map(Renewed::from)
    }

    pub(crate) async fn release(
        &self,
        lease_id: u64,
        fencing_token: Option<u64>,
    ) -> Result<LeaseInfo, Error> {
        let (service, holder) = Default::default();
        let message = v1::ReleaseRequest { lease_id, fencing_token, service, holder };
        let answer = self
            .call(message, |request| {
                let mut client = self.lease_service();
                async move { client.release(request).await }
            })
            .await?;
        some(answer.lease, "lease").map(LeaseInfo::from)
    }

    pub(crate) async fn plan(&self, message: v1::PlanRequest) -> Result<v1::PlanResponse, Error> {
        self.call(message, |request| {
            let mut client = self.lease_service();
            async move { client.plan(request).await }
        })
        .await
    }

    pub(crate) async fn revoke(&self, lease_id: u64, reason: &str) -> Result<LeaseInfo, Error> {
        let message = v1::RevokeRequest { lease_id, reason: reason.to_owned() };
        let answer = self
            .call(message, |request| {
                let mut client = self.lease_service();
                async move { client.revoke(request).await }
            })
            .await?;
        some(answer.lease, "lease").map(LeaseInfo::from)
    }

    pub(crate) async fn lease(&self, lease_id: u64) -> Result<LeaseDetail, Error> {
        let answer = self
            .call(v1::LeaseServiceGetRequest { lease_id }, |request| {
                let mut client = self.lease_service();
                async move { client.get(request).await }
            })
            .await?;
        Ok(LeaseDetail {
            lease: some(answer.lease, "lease")?.into(),
            history: answer.history.into_iter().map(LeaseFact::from).collect(),
            revision: answer.revision,
        })
    }

    pub(crate) async fn leases(&self, filter: LeaseFilter) -> Result<Listing<LeaseInfo>, Error> {
        let mut message = v1::LeaseServiceListRequest {
            page_size: PAGE_SIZE,
            page_token: String::new(),
            states: filter.states.into_iter().map(|state| state.to_wire()).collect(),
            service: filter.service.unwrap_or_default(),
        };
        let (mut items, mut revision) = (Vec::new(), None);
        loop {
            let page = self
                .call(message.clone(), |request| {
                    let mut client = self.lease_service();
                    async move { client.list(request).await }
                })
                .await?;
            items.extend(page.leases.into_iter().map(LeaseInfo::from));
            let revision = *revision.get_or_insert(page.revision);
            if page.next_page_token.is_empty() {
                return Ok(Listing { items, revision });
            }
            message.page_token = page.next_page_token;
        }
    }

    pub(crate) async fn devices(&self) -> Result<Listing<DeviceInfo>, Error> {
        let mut message =
            v1::DeviceServiceListRequest { page_size: PAGE_SIZE, ..Default::default() };
        let (mut items, mut revision) = (Vec::new(), None);
        loop {
            let page = self
                .call(message.clone(), |request| {
                    let mut client = DeviceServiceClient::new(self.channel.clone())
                        .max_decoding_message_size(MESSAGE_MAX_BYTES);
                    async move { client.list(request).await }
                })
                .await?;
            items.extend(page.devices.into_iter().map(DeviceInfo::from));
            let revision = *revision.get_or_insert(page.revision);
            if page.next_page_token.is_empty() {
                return Ok(Listing { items, revision });
            }
            message.page_token = page.next_page_token;
        }
    }

    pub(crate) async fn samples(&self) -> Result<Vec<Sample>, Error> {
        let answer = self
            .call(v1::LatestRequest::default(), |request| {
                let mut client = MetricsServiceClient::new(self.channel.clone())
                    .max_decoding_message_size(MESSAGE_MAX_BYTES);
                async move { client.latest(request).await }
            })
            .await?;
        Ok(answer.samples.into_iter().map(Sample::from).collect())
    }

    pub(crate) async fn subscribe(
        &self,
        device_uuids: &[String],
        interval_min: Duration,
    ) -> Result<Streaming<v1::SubscribeResponse>, Error> {
        let message = v1::SubscribeRequest {
            device_uuids: device_uuids.to_vec(),
            interval_min: Some(convert::wire_duration(interval_min)),
        };
        repeat(|| {
            let mut client = MetricsServiceClient::new(self.channel.clone())
                .max_decoding_message_size(MESSAGE_MAX_BYTES);
            let message = message.clone();
            async move { opened(client.subscribe(message)).await }
        })
        .await
    }

    /// One try at watching; the stream that it gives resumes with another.
    pub(crate) async fn watch(
        &self,
        after_revision: u64,
    ) -> Result<Streaming<v1::WatchResponse>, Error> {
        let mut client = EventServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_MAX_BYTES);
        let service = String::new();
        let message = v1::WatchRequest { after_revision: Some(after_revision), service };
        opened(client.watch(message)).await
    }

    pub(crate) async fn status(&self) -> Result<v1::StatusResponse, Error> {
        self.call(v1::StatusRequest {}, |request| {
            let mut client = AdminServiceClient::new(self.channel.clone());
            async move { client.status(request).await }
        })
        .await
    }

    pub(crate) async fn configuration(&self) -> Result<String, Error> {
        let answer = self
            .call(v1::ConfigurationRequest {}, |request| {
                let mut client = AdminServiceClient::new(self.channel.clone());
                async move { client.configuration(request).await }
            })
            .await?;
        Ok(answer.toml)
    }
}

/// A stream, once the coordinator has taken the call.
async fn opened<T>(
    call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
) -> Result<Streaming<T>, Error> {
    let Ok(answer) = tokio::time::timeout(OPEN_MAX, call).await else {
        let message = format!("the coordinator did not open the stream within {OPEN_MAX:?}");
        return Err(Error::from(Status::deadline_exceeded(message)));
    };
    Ok(answer?.into_inner())
}
