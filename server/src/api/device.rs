//! The device service.

use gpulease_core::id::DeviceId;
use gpulease_proto::v1::{self, device_service_server::DeviceService};
use tonic::{Request, Response, Status};

use super::{
    convert::{self, Page, PageKind},
    status::{Attempt, EdgeError, refuse},
};
use crate::actor::Handle;

/// The device service over a handle.
#[derive(Clone)]
pub(super) struct Devices {
    handle: Handle,
}

impl Devices {
    pub(super) fn new(handle: Handle) -> Self {
        Self { handle }
    }

    async fn page(
        &self,
        wire: &v1::DeviceServiceListRequest,
    ) -> Result<v1::DeviceServiceListResponse, EdgeError> {
        let node = match wire.node.as_str() {
            "" => None,
            node => Some(convert::known_text("node", node)?),
        };
        let filter = format!("{node:?}");
        let page = Page::parse(PageKind::Devices, wire.page_size, &wire.page_token, &filter)?;
        let after = page.after.and_then(|after| u32::try_from(after).ok()).map(DeviceId);
        // One more than asked for tells whether a page follows.
        let limit = page.size + 1;
        let (mut views, revision) = self
            .handle
            .query(move |reading| {
                let node = node.as_ref().map(gpulease_core::id::Name::as_str);
                (reading.scheduler.devices(after, limit, node), reading.scheduler.revision())
            })
            .await?;
        let more = views.len() > page.size;
        views.truncate(page.size);
        let last = views.last().filter(|_| more);
        Ok(v1::DeviceServiceListResponse {
            next_page_token: last
                .map(|(id, _)| page.token_after(u64::from(id.0)))
                .unwrap_or_default(),
            devices: views.iter().map(|(_, view)| convert::device(view)).collect(),
            revision: revision.0,
        })
    }

    async fn read(&self, uuid: &str) -> Result<v1::DeviceServiceGetResponse, EdgeError> {
        let name = convert::known_text("uuid", uuid)?;
        let (found, revision) = self
            .handle
            .query(move |reading| {
                (reading.scheduler.device(name.as_str()), reading.scheduler.revision())
            })
            .await?;
        let view = found.ok_or(EdgeError::DeviceNotFound)?;
        Ok(v1::DeviceServiceGetResponse {
            device: Some(convert::device(&view)),
            revision: revision.0,
        })
    }
}

#[tonic::async_trait]
impl DeviceService for Devices {
    async fn list(
        &self,
        request: Request<v1::DeviceServiceListRequest>,
    ) -> Result<Response<v1::DeviceServiceListResponse>, Status> {
        let answer = self.page(request.get_ref()).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::ListDevices, error))
    }

    async fn get(
        &self,
        request: Request<v1::DeviceServiceGetRequest>,
    ) -> Result<Response<v1::DeviceServiceGetResponse>, Status> {
        let uuid = &request.get_ref().uuid;
        let answer = self.read(uuid).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::ReadDevice(uuid), error))
    }

    async fn list_processes(
        &self,
        _: Request<v1::ListProcessesRequest>,
    ) -> Result<Response<v1::ListProcessesResponse>, Status> {
        Err(Status::unimplemented("comes with the next commits"))
    }
}
