//! The device service.

use std::collections::BTreeMap;

use gpulease_core::{
    id::{DeviceId, Name},
    view::{DeviceView, ProcessView},
};
use gpulease_proto::v1::{self, device_service_server::DeviceService};
use tonic::{Request, Response, Status};

use super::{
    convert::{self, Page, PageKind},
    status::{Attempt, EdgeError, refuse},
};
use crate::actor::Handle;

/// The most devices of one page of processes: 8 × 1,024 processes of some 400 bytes are 3 MiB.
const PROCESS_DEVICES_MAX: usize = 8;

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
                let node = node.as_ref().map(Name::as_str);
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

    /// Pages are made of devices: each with all its processes, or none of them.
    async fn processes(
        &self,
        wire: &v1::ListProcessesRequest,
    ) -> Result<v1::ListProcessesResponse, EdgeError> {
        let optional = |field, text: &str| match text {
            "" => Ok(None),
            text => convert::known_text(field, text).map(Some),
        };
        let (uuid, node) =
            (optional("device_uuid", &wire.device_uuid)?, optional("node", &wire.node)?);
        let filter = format!("{uuid:?} {node:?}");
        let page = Page::parse(PageKind::Processes, wire.page_size, &wire.page_token, &filter)?;
        let after = page.after.and_then(|after| u32::try_from(after).ok()).map(DeviceId);
        let limit = page.size.min(PROCESS_DEVICES_MAX);
        let (views, last) = self
            .handle
            .query(move |reading| {
                let node = node.as_ref().map(Name::as_str);
                let devices = reading.scheduler.devices(after, limit, node);
                let last = devices.last().filter(|_| devices.len() == limit).map(|(id, _)| *id);
                let wanted = |view: &DeviceView| {
                    uuid.as_ref().is_none_or(|uuid| *uuid == view.device.facts.uuid)
                };
                let shown = devices.iter().filter(|(_, view)| wanted(view));
                let views: Vec<ProcessView> =
                    shown.flat_map(|(id, _)| reading.scheduler.processes(*id)).collect();
                (views, last)
            })
            .await?;
        let mut users = Users::default();
        let mut process = |view: &ProcessView| {
            let user = view.uid.map(|uid| users.name(uid)).unwrap_or_default();
            convert::device_process(view, user)
        };
        Ok(v1::ListProcessesResponse {
            processes: views.iter().map(&mut process).collect(),
            next_page_token: last.map(|id| page.token_after(id.0.into())).unwrap_or_default(),
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
        request: Request<v1::ListProcessesRequest>,
    ) -> Result<Response<v1::ListProcessesResponse>, Status> {
        let answer = self.processes(request.get_ref()).await;
        answer.map(Response::new).map_err(|error| refuse(Attempt::ListProcesses, error))
    }
}

/// The names of users by their ids, looked up once for each.
#[derive(Default)]
struct Users(BTreeMap<u32, String>);

impl Users {
    fn name(&mut self, uid: u32) -> String {
        let look_up = || {
            let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
            user.ok().flatten().map(|user| user.name).unwrap_or_default()
        };
        self.0.entry(uid).or_insert_with(look_up).clone()
    }
}
