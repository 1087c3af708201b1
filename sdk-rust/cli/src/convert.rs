//! From the SDK's types to what the verbs show. Nothing else in this crate reads the SDK's fields.

mod explain;
mod notice;
mod operator;
mod plan;
mod queue;

pub(crate) use notice::renewal;
pub(crate) use operator::process;

use gpulease::{
    DeviceEvent, DeviceInfo, Error, ErrorKind, Event, LeaseDetail, LeaseEvent, LeaseFact,
    LeaseInfo, LeasedDevice, NodeEvent,
};

use crate::failure::{Failure, Refusal};
use crate::view;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Refusal {
            message: error.message().to_owned(),
            reason: error.reason(),
            field: error.field(),
            retry_after: error.retry_after(),
            request_id: error.request_id(),
            unreachable: matches!(error.kind(), ErrorKind::Unavailable),
        }
        .into()
    }
}

impl From<&LeaseInfo> for view::Lease {
    fn from(lease: &LeaseInfo) -> Self {
        let queued = lease.state == gpulease::LeaseState::Queued;
        Self {
            id: lease.id.to_string(),
            state: lease.state.to_string(),
            fencing_token: lease.fencing_token,
            devices: lease.devices.iter().map(Into::into).collect(),
            service: lease.service.clone(),
            holder: lease.holder.clone(),
            name: lease.name.clone(),
            request_id: lease.request_id.clone(),
            priority: lease.priority.to_string(),
            ask: (&lease.ask).into(),
            ttl_seconds: lease.ttl.as_secs_f64(),
            remaining_seconds: lease.remaining.map(|remaining| remaining.as_secs_f64()),
            waited_seconds: lease.waited.as_secs_f64(),
            requested_at: lease.requested_at,
            granted_at: lease.granted_at,
            expires_at: lease.expires_at,
            ended_at: lease.ended_at,
            end_reason: lease.end_reason.map(|reason| reason.to_string()),
            end_detail: text(&lease.end_detail),
            queue_position: queued.then_some(lease.queue_position),
            kept_devices: lease.kept_devices.clone(),
            closed_devices: lease.closed_devices.clone(),
            preemptible: lease.preemptible.to_string(),
            minimum_hold_seconds: lease.minimum_hold.as_secs_f64(),
            notice: lease.notice.as_ref().map(Into::into),
            process: lease.process.map(Into::into),
            preemptions: lease.preemptions,
            pause_took_seconds: lease.pause_took.map(|took| took.as_secs_f64()),
            pause_cost_seconds: lease.pause_cost.map(|cost| cost.as_secs_f64()),
            placement: lease.placement.map(|policy| policy.to_string()),
            affinity: lease.constraints.affinity.as_ref().map(|affinity| affinity.key.clone()),
            environment: None,
        }
    }
}

impl From<&gpulease::Ask> for view::Ask {
    fn from(ask: &gpulease::Ask) -> Self {
        Self {
            devices: ask.devices,
            exclusive: ask.exclusive,
            slots: ask.slots,
            memory_bytes: ask.memory_bytes,
        }
    }
}

impl From<&LeasedDevice> for view::DeviceShare {
    fn from(device: &LeasedDevice) -> Self {
        Self {
            uuid: device.uuid.clone(),
            node: device.node.clone(),
            index: device.index,
            pci_address: device.pci_address.clone(),
            vendor: device.vendor.clone(),
            model: device.model.clone(),
            exclusive: device.exclusive,
            slots: device.slots,
            memory_bytes: device.memory_bytes,
        }
    }
}

impl From<&LeaseDetail> for view::LeaseHistory {
    fn from(detail: &LeaseDetail) -> Self {
        Self {
            lease: (&detail.lease).into(),
            history: detail.history.iter().map(Into::into).collect(),
            revision: detail.revision,
        }
    }
}

impl From<&LeaseFact> for view::Fact {
    fn from(fact: &LeaseFact) -> Self {
        Self {
            time: fact.time,
            revision: fact.revision,
            state: fact.state.to_string(),
            description: fact.description.clone(),
        }
    }
}

impl From<&DeviceInfo> for view::Device {
    fn from(device: &DeviceInfo) -> Self {
        let ids = |ids: &[u64]| ids.iter().map(u64::to_string).collect();
        Self {
            node: device.node.clone(),
            index: device.index,
            uuid: device.uuid.clone(),
            pci_address: device.pci_address.clone(),
            vendor: device.vendor.clone(),
            model: device.model.clone(),
            compute_capability: device
                .compute_capability
                .map(|(major, minor)| format!("{major}.{minor}")),
            frameworks: device.frameworks.clone(),
            state: device.state.to_string(),
            memory_total_bytes: device.memory_total_bytes,
            memory_reserved_bytes: device.memory_reserved_bytes,
            memory_used_bytes: device.memory_used_bytes,
            memory_leased_bytes: device.memory_leased_bytes,
            memory_foreign_bytes: device.memory_foreign_bytes,
            memory_closed_bytes: device.memory_closed_bytes,
            memory_free_bytes: device.memory_free_bytes,
            slots: device.slots,
            slots_leased: device.slots_leased,
            exclusive: device.exclusive,
            lease_ids: ids(&device.lease_ids),
            closed_by: ids(&device.closed_by),
            kept_for: device.kept_for.map(|id| id.to_string()),
            sample_age_seconds: device.sample_age.map(|age| age.as_secs_f64()),
            cordon: device.cordon.as_ref().map(Into::into),
            owner: device.owner.clone(),
            attribution_off: device.attribution_off.clone(),
            closed_remaining_seconds: device.closed_remaining.map(|left| left.as_secs_f64()),
        }
    }
}

impl From<&Event> for view::Subject {
    fn from(event: &Event) -> Self {
        match event {
            Event::Lease(event) => lease_subject(event),
            Event::Device(event) => device_subject(event),
            Event::Node(event) => node_subject(event),
            _ => Self::Other,
        }
    }
}

/// The coordinator's figures, with the endpoint that they were asked at.
pub(crate) fn status(endpoint: &str, status: &gpulease::Status) -> view::Status {
    view::Status {
        endpoint: endpoint.to_owned(),
        version: status.version.clone(),
        uptime_seconds: status.uptime.as_secs_f64(),
        revision: status.revision,
        revision_oldest: status.revision_oldest,
        revision_snapshot: status.revision_snapshot,
        fencing_token: status.fencing_token,
        nodes: status.nodes,
        devices: status.devices,
        devices_available: status.devices_available,
        leases_queued: status.leases_queued,
        leases_active: status.leases_active,
        leases_reclaiming: status.leases_reclaiming,
        leases_ended: status.leases_ended,
        leases_pausing: status.leases_pausing,
        leases_paused: status.leases_paused,
        sessions: status.sessions,
        data_directory: status.data_directory.clone(),
        backend: status.backend.clone(),
        grants_total: status.grants_total,
    }
}

fn lease_subject(event: &LeaseEvent) -> view::Subject {
    view::Subject::Lease {
        kind: event.kind.to_string(),
        lease_id: event.lease_id.to_string(),
        service: event.service.clone(),
        holder: event.holder.clone(),
        request_id: event.request_id.clone(),
        name: event.name.clone(),
        priority: event.priority.to_string(),
        ask: event.ask.as_ref().map(Into::into),
        fencing_token: event.fencing_token,
        devices: event.devices.iter().map(Into::into).collect(),
        end_reason: event.end_reason.map(|reason| reason.to_string()),
        detail: text(&event.detail),
        kept_devices: event.kept_devices.clone(),
        notice: notice::told(event).map(Box::new),
    }
}

fn device_subject(event: &DeviceEvent) -> view::Subject {
    view::Subject::Device {
        kind: event.kind.to_string(),
        node: event.node.clone(),
        uuid: event.uuid.clone(),
        lease_id: event.lease_id.map(|id| id.to_string()),
        detail: text(&event.detail),
    }
}

fn node_subject(event: &NodeEvent) -> view::Subject {
    view::Subject::Node {
        kind: event.kind.to_string(),
        node: event.node.clone(),
        detail: text(&event.detail),
    }
}

/// Words, where there are any.
fn text(words: &str) -> Option<String> {
    (!words.is_empty()).then(|| words.to_owned())
}
