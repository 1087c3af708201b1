//! The admin service: the coordinator in figures, and the configuration in force.

use std::{sync::Arc, time::SystemTime};

use gpulease_proto::v1::{self, admin_service_server::AdminService};
use tonic::{Request, Response, Status};

use super::{
    convert::timestamp,
    status::{Attempt, EdgeError, refuse},
};
use crate::actor::Handle;

/// The admin service over a handle.
#[derive(Clone)]
pub(super) struct Admin {
    handle: Handle,
    configuration: Arc<str>,
}

impl Admin {
    pub(super) fn new(handle: Handle, configuration: Arc<str>) -> Self {
        Self { handle, configuration }
    }

    async fn read(&self) -> Result<v1::StatusResponse, EdgeError> {
        let counts = self.handle.query(|reading| reading.scheduler.counts()).await?;
        let facts = self.handle.facts();
        let uptime = SystemTime::now().duration_since(facts.started).unwrap_or_default();
        let small = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(timestamp(facts.started)),
            uptime: uptime.try_into().ok(),
            revision: facts.revision.0,
            revision_oldest: facts.oldest_revision.0,
            revision_snapshot: facts.snapshot_revision.0,
            fencing_token: counts.token.0,
            nodes: small(counts.nodes),
            devices: small(counts.devices),
            devices_available: small(counts.devices_available),
            leases_queued: counts.queued as u64,
            leases_active: counts.active as u64,
            leases_reclaiming: counts.reclaiming as u64,
            leases_ended: counts.ended as u64,
            sessions: counts.sessions as u64,
            data_directory: facts
                .data_directory
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            backend: facts.backend,
            grants_total: facts.grants_total,
            ..Default::default()
        })
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let answer = self.read().await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::ReadStatus, error))
    }

    async fn configuration(
        &self,
        _: Request<v1::ConfigurationRequest>,
    ) -> Result<Response<v1::ConfigurationResponse>, Status> {
        let toml = self.configuration.to_string();
        Ok(Response::new(v1::ConfigurationResponse { toml }))
    }

    async fn cordon(
        &self,
        _: Request<v1::CordonRequest>,
    ) -> Result<Response<v1::CordonResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }

    async fn uncordon(
        &self,
        _: Request<v1::UncordonRequest>,
    ) -> Result<Response<v1::UncordonResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }

    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }

    async fn open_device(
        &self,
        _: Request<v1::OpenDeviceRequest>,
    ) -> Result<Response<v1::OpenDeviceResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }
}
