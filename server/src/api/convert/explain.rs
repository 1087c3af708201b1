//! Explanations and processes, from the core's views to the wire.

use gpulease_core::{
    lease::{Basis, Why},
    request::PlacementPolicy,
    view::{Blocking, Explanation, ProcessView, Waiting},
};
use gpulease_proto::v1;

use super::{
    lease::{lease, priority, state},
    notice::process,
    time::{Display, from_span},
};

/// Why a lease stands where it does.
pub(in crate::api) fn explanation(
    view: &Explanation,
    display: &Display,
    revision: u64,
) -> v1::ExplainResponse {
    v1::ExplainResponse {
        lease: Some(lease(&view.lease, display)),
        waiting: view.waiting.as_ref().map(|it| waiting(it, view.lease.queue_position)),
        granted: view.basis.map(granted),
        revision,
    }
}

fn waiting(view: &Waiting, queue_position: u64) -> v1::WaitingExplanation {
    let excluded = |(what, devices): &(&'static str, usize)| v1::ExclusionCount {
        what: (*what).to_owned(),
        devices: small(*devices),
    };
    v1::WaitingExplanation {
        queue_position,
        devices_known: small(view.known),
        devices_suitable: small(view.suitable),
        devices_fitting: small(view.fitting),
        excluded: view.excluded.iter().map(excluded).collect(),
        blocking: view.blocking.iter().map(blocking).collect(),
        forecast: view.forecast.map(from_span),
        forecast_basis: view.forecast_basis.clone(),
    }
}

fn blocking(view: &Blocking) -> v1::BlockingLease {
    v1::BlockingLease {
        lease_id: view.lease.0,
        service: view.request.holder.service.to_string(),
        holder: view.request.holder.name.to_string(),
        state: state(view.state).into(),
        priority: priority(view.request.priority).into(),
        device_uuid: view.device.to_string(),
        forecast: view.forecast.map(from_span),
        preemption: view.preemption.to_owned(),
    }
}

fn granted(basis: Basis) -> v1::GrantExplanation {
    let reason = match basis.why {
        Why::Policy(policy) => policy_reason(policy),
        Why::Preferred => "the device that its holder prefers had room",
        Why::Only => "no other devices would have done",
        Why::Kept => "they were kept for it while it waited",
        Why::Preempted => "they were kept for it, and their holders gave them back on a notice",
        Why::Backfilled => {
            "they are kept for an earlier request, and it is sure to be gone in time"
        }
        Why::Owned => "its service owns them",
        Why::Planned => "a plan balanced its pipelines over the devices that were free",
    };
    v1::GrantExplanation { devices_fitting: basis.fitting, reason: reason.to_owned() }
}

/// Why a policy chose these of those that would have done.
const fn policy_reason(policy: PlacementPolicy) -> &'static str {
    match policy {
        PlacementPolicy::BestFit => "least is left over of their node: best-fit",
        PlacementPolicy::MostFreeMemory => "they have the most free memory: most-free-memory",
        PlacementPolicy::LeastLoaded => "the smallest share of them is in use: least-loaded",
        PlacementPolicy::RoundRobin => "they come next after those granted last: round-robin",
        PlacementPolicy::Fragmentation => {
            "what is left stays most useful for the requests seen so far: fragmentation"
        }
        PlacementPolicy::Pack => "they are in use most already: pack",
    }
}

/// A process that uses a device. Names of users are looked up by the caller.
pub(in crate::api) fn device_process(view: &ProcessView, user: String) -> v1::DeviceProcess {
    v1::DeviceProcess {
        node: view.node.to_string(),
        device_uuid: view.device.to_string(),
        process: Some(process(view.process)),
        uid: view.uid,
        user,
        command: view.command.to_string(),
        memory_bytes: view.bytes,
        lease_id: view.lease.map_or(0, |lease| lease.0),
        root: view.root.map(process),
    }
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
