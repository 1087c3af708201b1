//! What operators do: cordon, drain, open, look at processes; and the answers to notices as calls of their own, for
//! tools that hold a lease by its number and token.

use std::{fmt, time::Duration};

use gpulease_proto::v1::{
    self, admin_service_client::AdminServiceClient, device_service_client::DeviceServiceClient,
};
use tonic::transport::Channel;

use crate::{
    convert,
    device::DeviceProcess,
    error::Error,
    explain::Explanation,
    info::LeaseInfo,
    link::MESSAGE_MAX_BYTES,
    unary::{Unary, some},
};

/// Devices on one page of processes, the wire's bound: 100 devices of some 100 processes of 1 KiB are 10 MiB.
const DEVICES_PER_PAGE: u32 = 100;

/// A device or a node, for [`Client::cordon`](crate::Client::cordon) and its kin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A device, by UUID.
    Device(String),
    /// A node, by name.
    Node(String),
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(uuid) => write!(formatter, "device {uuid}"),
            Self::Node(name) => write!(formatter, "node {name}"),
        }
    }
}

impl From<&Target> for v1::Target {
    fn from(target: &Target) -> Self {
        let target = match target {
            Target::Device(uuid) => v1::target::Target::DeviceUuid(uuid.clone()),
            Target::Node(name) => v1::target::Target::Node(name.clone()),
        };
        Self { target: Some(target) }
    }
}

/// What a drain did, by the ids of the leases that hold devices there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Those that were given notice, or had one.
    pub noticed: Vec<u64>,
    /// Those whose minimum hold is not over: they are given notice then.
    pub later: Vec<u64>,
    /// Those that may never be preempted: they stay until they end, or are revoked.
    pub staying: Vec<u64>,
}

/// Which processes to list. The default: those on all devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a filter does nothing until it is passed to Client::processes"]
pub struct ProcessFilter {
    device_uuid: Option<String>,
    node: Option<String>,
}

impl ProcessFilter {
    /// Only those on this device.
    pub fn device(mut self, uuid: impl Into<String>) -> Self {
        self.device_uuid = Some(uuid.into());
        self
    }

    /// Only those on devices of this node.
    pub fn node(mut self, name: impl Into<String>) -> Self {
        self.node = Some(name.into());
        self
    }
}

impl Unary {
    fn admin_service(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(self.channel()).max_decoding_message_size(MESSAGE_MAX_BYTES)
    }

    pub(crate) async fn acknowledge(
        &self,
        lease_id: u64,
        fencing_token: u64,
        notice_id: u64,
    ) -> Result<LeaseInfo, Error> {
        let (service, holder) = Default::default();
        let message =
            v1::AcknowledgeRequest { lease_id, fencing_token, notice_id, service, holder };
        let answer = self
            .call(message, |request| {
                let mut client = self.lease_service();
                async move { client.acknowledge(request).await }
            })
            .await?;
        some(answer.lease, "lease").map(LeaseInfo::from)
    }

    pub(crate) async fn extend_notice(
        &self,
        lease_id: u64,
        fencing_token: u64,
        notice_id: u64,
        by: Duration,
    ) -> Result<LeaseInfo, Error> {
        let (service, holder) = Default::default();
        let extension = Some(convert::wire_duration(by));
        let message = v1::ExtendNoticeRequest {
            lease_id,
            fencing_token,
            notice_id,
            extension,
            service,
            holder,
        };
        let answer = self
            .call(message, |request| {
                let mut client = self.lease_service();
                async move { client.extend_notice(request).await }
            })
            .await?;
        some(answer.lease, "lease").map(LeaseInfo::from)
    }

    pub(crate) async fn explain(&self, lease_id: u64) -> Result<Explanation, Error> {
        let mut answer = self
            .call(v1::ExplainRequest { lease_id }, |request| {
                let mut client = self.lease_service();
                async move { client.explain(request).await }
            })
            .await?;
        let lease = some(answer.lease.take(), "lease")?;
        Ok(Explanation::from_wire(answer, lease))
    }

    pub(crate) async fn cordon(&self, target: &Target, reason: &str) -> Result<Vec<u64>, Error> {
        let message = v1::CordonRequest { target: Some(target.into()), reason: reason.to_owned() };
        let answer = self
            .call(message, |request| {
                let mut client = self.admin_service();
                async move { client.cordon(request).await }
            })
            .await?;
        Ok(answer.lease_ids)
    }

    pub(crate) async fn uncordon(&self, target: &Target) -> Result<(), Error> {
        let message = v1::UncordonRequest { target: Some(target.into()) };
        self.call(message, |request| {
            let mut client = self.admin_service();
            async move { client.uncordon(request).await }
        })
        .await?;
        Ok(())
    }

    pub(crate) async fn drain(&self, target: &Target, reason: &str) -> Result<Drained, Error> {
        let message = v1::DrainRequest { target: Some(target.into()), reason: reason.to_owned() };
        let answer = self
            .call(message, |request| {
                let mut client = self.admin_service();
                async move { client.drain(request).await }
            })
            .await?;
        Ok(Drained {
            noticed: answer.noticed_lease_ids,
            later: answer.later_lease_ids,
            staying: answer.staying_lease_ids,
        })
    }

    pub(crate) async fn open_device(&self, uuid: &str, reason: &str) -> Result<Vec<u64>, Error> {
        let message =
            v1::OpenDeviceRequest { device_uuid: uuid.to_owned(), reason: reason.to_owned() };
        let answer = self
            .call(message, |request| {
                let mut client = self.admin_service();
                async move { client.open_device(request).await }
            })
            .await?;
        Ok(answer.lease_ids)
    }

    pub(crate) async fn quiesce_driver(&self, node: &str, quiesced: bool) -> Result<(), Error> {
        let node = node.to_owned();
        if !quiesced {
            let message = v1::ResumeDriverRequest { node };
            let resumed = self.call(message, |request| {
                let mut client = self.admin_service();
                async move { client.resume_driver(request).await }
            });
            return resumed.await.map(|_| ());
        }
        let message = v1::QuiesceDriverRequest { node };
        let let_go = self.call(message, |request| {
            let mut client = self.admin_service();
            async move { client.quiesce_driver(request).await }
        });
        let_go.await.map(|_| ())
    }

    pub(crate) async fn processes(
        &self,
        filter: ProcessFilter,
    ) -> Result<Vec<DeviceProcess>, Error> {
        let mut message = v1::ListProcessesRequest {
            page_size: DEVICES_PER_PAGE,
            page_token: String::new(),
            device_uuid: filter.device_uuid.unwrap_or_default(),
            node: filter.node.unwrap_or_default(),
        };
        let mut processes = Vec::new();
        loop {
            let page = self
                .call(message.clone(), |request| {
                    let mut client = DeviceServiceClient::new(self.channel())
                        .max_decoding_message_size(MESSAGE_MAX_BYTES);
                    async move { client.list_processes(request).await }
                })
                .await?;
            processes.extend(page.processes.into_iter().filter_map(DeviceProcess::from_wire));
            if page.next_page_token.is_empty() {
                return Ok(processes);
            }
            message.page_token = page.next_page_token;
        }
    }
}
