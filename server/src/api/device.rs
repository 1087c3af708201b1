//! The device service.

use std::collections::{BTreeMap, BTreeSet};

use gpulease_core::{
    id::{DeviceId, Name},
    view::{DeviceView, ProcessView},
};
use gpulease_proto::v1::{self, device_service_server::DeviceService};
use prost::Message;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::{
    convert::{self, Page, PageKind},
    limits::{PROCESSES_BYTES_MAX, USER_NAMES_WAIT_MAX},
    status::{Attempt, EdgeError, refuse},
};
use crate::actor::{Handle, Reading};

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
        // One more than asked for tells whether a page follows.
        let (after, limit) = (device_after(&page), page.size + 1);
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
        let (after, limit) = (device_after(&page), page.size + 1);
        let found = self
            .handle
            .query(move |reading| {
                let devices = chosen(reading, (uuid.as_ref(), node.as_ref()), after, limit)?;
                let views = |id: DeviceId| (id, reading.scheduler.processes(id));
                Some(devices.into_iter().map(views).collect::<Vec<_>>())
            })
            .await?;
        let found = found.ok_or(EdgeError::DeviceNotFound)?;
        let users = Users::of(found.iter().flat_map(|(_, views)| views)).await;
        let (processes, next_page_token) = fill(&page, &found, &users);
        Ok(v1::ListProcessesResponse { processes, next_page_token })
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

fn device_after(page: &Page) -> Option<DeviceId> {
    page.after.and_then(|after| u32::try_from(after).ok()).map(DeviceId)
}

/// The devices of a page: the one that is asked for, where it is on the node asked for, or those behind `after`. `None`:
/// there is no such device.
fn chosen(
    reading: &Reading<'_>,
    (uuid, node): (Option<&Name>, Option<&Name>),
    after: Option<DeviceId>,
    limit: usize,
) -> Option<Vec<DeviceId>> {
    let Some(uuid) = uuid else {
        let devices = reading.scheduler.devices(after, limit, node.map(Name::as_str));
        return Some(devices.into_iter().map(|(id, _)| id).collect());
    };
    let id = reading.scheduler.state().inventory().device_with(uuid.as_str())?;
    let is_there = |view: &DeviceView| node.is_none_or(|node| *node == view.node);
    let view = reading.scheduler.device(uuid.as_str()).filter(is_there);
    Some(view.map(|_| id).into_iter().collect())
}

/// Fills a page up to its devices and its size in bytes, with at least one device, so that every page gets on.
fn fill(
    page: &Page,
    found: &[(DeviceId, Vec<ProcessView>)],
    users: &Users,
) -> (Vec<v1::DeviceProcess>, String) {
    let (mut processes, mut bytes, mut last) = (Vec::new(), 0, None);
    for (count, (id, views)) in found.iter().enumerate() {
        let told: Vec<_> =
            views.iter().map(|view| convert::device_process(view, users.name(view))).collect();
        bytes += told.iter().map(Message::encoded_len).sum::<usize>();
        let full = count >= page.size || bytes > PROCESSES_BYTES_MAX;
        if let Some(last) = last.filter(|_| full) {
            return (processes, page.token_after(last));
        }
        processes.extend(told);
        last = Some(u64::from(id.0));
    }
    (processes, String::new())
}

/// The names of users by their ids.
#[derive(Default)]
struct Users(BTreeMap<u32, String>);

impl Users {
    /// Looks the users of these processes up, each once, on a thread that may block: they may be in a directory on the
    /// network. Who is not found in time has no name.
    async fn of(views: impl Iterator<Item = &ProcessView>) -> Self {
        let uids: BTreeSet<u32> = views.filter_map(|view| view.uid).collect();
        let name = |uid: u32| {
            let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
            Some((uid, user.ok().flatten()?.name))
        };
        let look_up = move || Self(uids.into_iter().filter_map(name).collect());
        let found = timeout(USER_NAMES_WAIT_MAX, tokio::task::spawn_blocking(look_up)).await;
        found.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn name(&self, view: &ProcessView) -> String {
        view.uid.and_then(|uid| self.0.get(&uid)).cloned().unwrap_or_default()
    }
}
