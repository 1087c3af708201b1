//! The metrics service: the latest samples, and a latest-value subscription (P21).

use std::{sync::Arc, time::Duration};

use gpulease_core::{id::Name, time::Span};
use gpulease_proto::v1::{self, metrics_service_server::MetricsService};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{
    convert,
    flow::{Flow, Flowing, flowing},
    limits::{OPERATION_TOTALS_MAX, READERS_MAX, SAMPLE_DEVICES_MAX, SAMPLE_INTERVAL_MAX},
    status::{Attempt, EdgeError, refuse},
};
use crate::{
    actor::{Handle, Health, SubmitError},
    telemetry::{
        hub::{SampleHub, SampleReader},
        operations::Operations,
    },
};

/// The metrics service over the hub.
#[derive(Clone)]
pub(super) struct Metrics {
    handle: Handle,
    hub: SampleHub,
    operations: Operations,
    places: Arc<Semaphore>,
}

impl Metrics {
    pub(super) fn new(handle: Handle, hub: SampleHub, operations: Operations) -> Self {
        Self { handle, hub, operations, places: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    fn read(&self, wire: &v1::LatestRequest) -> Result<v1::LatestResponse, EdgeError> {
        let devices = devices(&wire.device_uuids)?;
        let latest = self.hub.latest(&devices);
        let samples = latest.iter().map(|sample| convert::sample(sample)).collect();
        let totals = self.operations.totals(&devices, OPERATION_TOTALS_MAX);
        let operations = totals.iter().map(convert::operations).collect();
        Ok(v1::LatestResponse { samples, operations })
    }

    fn follow(
        &self,
        wire: &v1::SubscribeRequest,
    ) -> Result<Flowing<v1::SubscribeResponse>, EdgeError> {
        let devices = devices(&wire.device_uuids)?;
        let bounds = (Span::ZERO, Span::from(SAMPLE_INTERVAL_MAX));
        let interval = wire.interval_min.as_ref();
        let interval =
            interval.map(|wire| convert::duration("interval_min", wire, bounds)).transpose()?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| EdgeError::TooManyReaders { max: READERS_MAX })?;
        let (handle, reader) = (self.handle.clone(), self.hub.subscribe(devices));
        let interval = interval.unwrap_or_default().as_duration();
        Ok(flowing(move |flow| async move {
            let _place = place;
            let error = tokio::select! {
                error = ended(&handle) => error,
                never = tell(reader, interval, &flow) => match never {},
            };
            Err(refuse(Attempt::ReadSamples, error))
        }))
    }
}

fn devices(uuids: &[String]) -> Result<Vec<Name>, EdgeError> {
    convert::at_most("device_uuids", uuids.len(), SAMPLE_DEVICES_MAX)?;
    let checked: Result<Vec<_>, _> =
        uuids.iter().map(|uuid| convert::known_text("device_uuids", uuid)).collect();
    Ok(checked?)
}

async fn tell(
    mut reader: SampleReader,
    interval: Duration,
    flow: &Flow<v1::SubscribeResponse>,
) -> std::convert::Infallible {
    loop {
        let news = reader.next().await;
        flow.put(v1::SubscribeResponse {
            samples: news.samples.iter().map(|sample| convert::sample(sample)).collect(),
            skipped: news.skipped,
        });
        flow.taken().await;
        tokio::time::sleep(interval).await;
    }
}

/// Waits for the end of the coordinator.
async fn ended(handle: &Handle) -> EdgeError {
    let mut health = handle.health();
    // An error means that the actor is gone, which is an end too.
    let _ = health.wait_for(|health| *health != Health::Serving).await;
    handle.refusal().unwrap_or(SubmitError::Stopping).into()
}

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn latest(
        &self,
        request: Request<v1::LatestRequest>,
    ) -> Result<Response<v1::LatestResponse>, Status> {
        let answer = self.read(request.get_ref());
        answer.map(Response::new).map_err(|error| refuse(Attempt::ReadSamples, error))
    }

    type SubscribeStream = Flowing<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let stream = self.follow(request.get_ref());
        stream.map(Response::new).map_err(|error| refuse(Attempt::ReadSamples, error))
    }
}
