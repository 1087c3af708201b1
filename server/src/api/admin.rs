//! The admin service: the coordinator in figures, the configuration in force, and devices taken out of use.

use std::{sync::Arc, time::SystemTime};

use gpulease_core::{
    id::{LeaseId, Ticket},
    input::Input,
    output::{Answer, Cordoned},
};
use gpulease_proto::v1::{self, admin_service_server::AdminService};
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::{
    convert::{self, timestamp},
    limits::{LEASE_IDS_MAX, REASON_BYTES_MAX},
    status::{Attempt, EdgeError, refuse},
};
use crate::actor::{Handle, ReplyTo, SubmitError};

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
            leases_pausing: counts.pausing as u64,
            leases_paused: counts.paused as u64,
        })
    }

    /// Hands in what an operator wants and waits for the answer.
    async fn ask(&self, make: impl FnOnce(Ticket) -> Input + Send) -> Result<Answer, EdgeError> {
        let (to, answered) = oneshot::channel();
        self.handle.submit(ReplyTo::Call(to), make)?;
        let stopped = || self.handle.refusal().unwrap_or(SubmitError::Stopping);
        let reply = answered.await.map_err(|_| stopped())?;
        Ok(reply.outcome?)
    }

    async fn close_to_grants(
        &self,
        target: Option<&v1::Target>,
        reason: &str,
        drain: bool,
    ) -> Result<Cordoned, EdgeError> {
        let target = convert::target(target)?;
        let reason = convert::text_within_bytes("reason", reason, REASON_BYTES_MAX)?;
        match self.ask(|ticket| Input::Cordon { ticket, target, drain, reason }).await? {
            Answer::Cordoned(met) => Ok(met),
            _ => Err(EdgeError::Mismatched),
        }
    }

    async fn open_to_grants(
        &self,
        target: Option<&v1::Target>,
    ) -> Result<v1::UncordonResponse, EdgeError> {
        let target = convert::target(target)?;
        match self.ask(|ticket| Input::Uncordon { ticket, target }).await? {
            Answer::Uncordoned => Ok(v1::UncordonResponse {}),
            _ => Err(EdgeError::Mismatched),
        }
    }

    async fn quiesce(&self, node: &str, quiesced: bool) -> Result<(), EdgeError> {
        let node = convert::known_text("node", node)?;
        match self.ask(|ticket| Input::Quiesce { ticket, node, quiesced }).await? {
            Answer::Quiesced => Ok(()),
            _ => Err(EdgeError::Mismatched),
        }
    }

    async fn open(
        &self,
        wire: &v1::OpenDeviceRequest,
    ) -> Result<v1::OpenDeviceResponse, EdgeError> {
        let uuid = convert::known_text("device_uuid", &wire.device_uuid)?;
        let detail = convert::text_within_bytes("reason", &wire.reason, REASON_BYTES_MAX)?;
        match self.ask(|ticket| Input::OpenDevice { ticket, uuid, detail }).await? {
            Answer::DeviceOpened { leases } => {
                Ok(v1::OpenDeviceResponse { lease_ids: numbers(&leases) })
            }
            _ => Err(EdgeError::Mismatched),
        }
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
        request: Request<v1::CordonRequest>,
    ) -> Result<Response<v1::CordonResponse>, Status> {
        let wire = request.get_ref();
        let answer = self.close_to_grants(wire.target.as_ref(), &wire.reason, false).await;
        let response = answer.map(|met| v1::CordonResponse { lease_ids: numbers(&met.holding) });
        let target = name_of(wire.target.as_ref());
        response.map(Response::new).map_err(|error| refuse(Attempt::Cordon(target), error))
    }

    async fn uncordon(
        &self,
        request: Request<v1::UncordonRequest>,
    ) -> Result<Response<v1::UncordonResponse>, Status> {
        let wire = request.get_ref();
        let answer = self.open_to_grants(wire.target.as_ref()).await;
        let target = name_of(wire.target.as_ref());
        answer.map(Response::new).map_err(|error| refuse(Attempt::Uncordon(target), error))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let wire = request.get_ref();
        let answer = self.close_to_grants(wire.target.as_ref(), &wire.reason, true).await;
        let response = answer.map(|met| v1::DrainResponse {
            noticed_lease_ids: numbers(&met.noticed),
            later_lease_ids: numbers(&met.later),
            staying_lease_ids: numbers(&met.staying),
        });
        let target = name_of(wire.target.as_ref());
        response.map(Response::new).map_err(|error| refuse(Attempt::Drain(target), error))
    }

    async fn open_device(
        &self,
        request: Request<v1::OpenDeviceRequest>,
    ) -> Result<Response<v1::OpenDeviceResponse>, Status> {
        let wire = request.get_ref();
        let answer = self.open(wire).await;
        let uuid = &wire.device_uuid;
        answer.map(Response::new).map_err(|error| refuse(Attempt::OpenDevice(uuid), error))
    }

    async fn quiesce_driver(
        &self,
        request: Request<v1::QuiesceDriverRequest>,
    ) -> Result<Response<v1::QuiesceDriverResponse>, Status> {
        let node = &request.get_ref().node;
        let answer = self.quiesce(node, true).await.map(|()| v1::QuiesceDriverResponse {});
        answer.map(Response::new).map_err(|error| refuse(Attempt::Quiesce(node), error))
    }

    async fn resume_driver(
        &self,
        request: Request<v1::ResumeDriverRequest>,
    ) -> Result<Response<v1::ResumeDriverResponse>, Status> {
        let node = &request.get_ref().node;
        let answer = self.quiesce(node, false).await.map(|()| v1::ResumeDriverResponse {});
        answer.map(Response::new).map_err(|error| refuse(Attempt::Quiesce(node), error))
    }
}

fn numbers(leases: &[LeaseId]) -> Vec<u64> {
    leases.iter().take(LEASE_IDS_MAX).map(|lease| lease.0).collect()
}

/// What a target is called, for the words of a refusal.
fn name_of(target: Option<&v1::Target>) -> &str {
    use v1::target::Target;
    match target.and_then(|target| target.target.as_ref()) {
        Some(Target::DeviceUuid(uuid)) => uuid,
        Some(Target::Node(node)) => node,
        None => "nothing",
    }
}
