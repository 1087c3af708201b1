//! Leases, from the core's views to the wire, and the filter of a list.

use gpulease_core::{
    inventory::DeviceFacts,
    lease::{DropCause, EndReason, Fact, FactKind, OpenCause, State},
    request::{
        Affinity, AffinityScope, Ask, Constraints, InvalidField, PlacementPolicy, Preemptible,
        Priority, Share,
    },
    time::Span,
    view::{DeviceName, LeaseView},
};
use gpulease_proto::v1;
use prost::Message as _;

use super::{
    bounds::at_most,
    notice::{notice, process},
    time::{Display, from_span},
};
use crate::api::limits::STATES_MAX;

/// A lease as the world sees it.
pub(in crate::api) fn lease(view: &LeaseView, display: &Display) -> v1::Lease {
    let request = &view.request;
    let waited_until = view.granted_at.or(view.ended_at).unwrap_or(view.seen_at);
    v1::Lease {
        id: view.id.0,
        service: text(&request.holder.service),
        holder: text(&request.holder.name),
        name: request.name.as_ref().map(text).unwrap_or_default(),
        request_id: text(&request.request_id),
        state: state(view.state).into(),
        fencing_token: view.token.0,
        priority: priority(request.priority).into(),
        ask: Some(ask(request.ask)),
        constraints: constraints(&request.constraints),
        devices: leased_devices(&view.devices, view.share()),
        ttl: Some(from_span(request.ttl)),
        remaining: view.remaining.map(from_span),
        expire_time: view.remaining.map(|left| display.timestamp(view.seen_at.after(left))),
        request_time: Some(display.timestamp(view.requested_at)),
        grant_time: view.granted_at.map(|time| display.timestamp(time)),
        end_time: view.ended_at.map(|time| display.timestamp(time)),
        waited: Some(from_span(waited_until.since(view.requested_at))),
        end_reason: end_reason(view.state.end_reason()).into(),
        end_detail: view.detail.as_deref().unwrap_or_default().to_owned(),
        queue_position: view.queue_position,
        kept_devices: uuids(&view.kept),
        closed_devices: uuids(&view.closed),
        expected_duration: request.expected_duration.map(from_span),
        lifetime_max: request.lifetime_max.map(from_span),
        preemptible: preemptible(request.preemptible).into(),
        minimum_hold: (request.minimum_hold > Span::ZERO).then(|| from_span(request.minimum_hold)),
        notice: view
            .notice
            .as_ref()
            .map(|it| notice(it, display.timestamp(view.seen_at.after(it.remaining)))),
        process: request.process.map(process),
        preemptions: view.preemptions,
        pause_took: view.pause_took.map(from_span),
        placement: request.placement.map_or(v1::PlacementPolicy::Unspecified, placement).into(),
        pause_cost: request.pause_cost.map(from_span),
    }
}

/// The newest of these leases that fit into one message, in order of id.
pub(in crate::api) fn leases_within(
    views: &[LeaseView],
    display: &Display,
    bytes_max: usize,
) -> Vec<v1::Lease> {
    let mut bytes = 0;
    let newest_first = views.iter().rev().map(|view| lease(view, display));
    let mut leases: Vec<_> = newest_first
        .take_while(|lease| {
            bytes += lease.encoded_len();
            bytes <= bytes_max
        })
        .collect();
    leases.reverse();
    leases
}

fn text(name: &gpulease_core::id::Name) -> String {
    name.as_str().to_owned()
}

fn uuids(devices: &[DeviceName]) -> Vec<String> {
    devices.iter().map(|device| text(&device.facts.uuid)).collect()
}

/// What is held of each of these devices.
pub(super) fn leased_devices(devices: &[DeviceName], share: Share) -> Vec<v1::LeasedDevice> {
    devices.iter().map(|device| leased_device(device.node.as_str(), &device.facts, share)).collect()
}

/// What is held of one device.
pub(super) fn leased_device(node: &str, facts: &DeviceFacts, share: Share) -> v1::LeasedDevice {
    v1::LeasedDevice {
        node: node.to_owned(),
        uuid: text(&facts.uuid),
        index: facts.index,
        pci_address: facts.pci_address.as_ref().map(text).unwrap_or_default(),
        vendor: text(&facts.vendor),
        model: text(&facts.model),
        exclusive: share == Share::Exclusive,
        slots: share.slots(),
        memory_bytes: share.memory_bytes(),
    }
}

/// Where a lease stands.
pub(in crate::api) const fn state(state: State) -> v1::LeaseState {
    match state {
        State::Queued => v1::LeaseState::Queued,
        State::Active => v1::LeaseState::Active,
        State::Pausing => v1::LeaseState::Pausing,
        State::Paused => v1::LeaseState::Paused,
        State::Reclaiming(_) => v1::LeaseState::Reclaiming,
        State::Ended(_) => v1::LeaseState::Ended,
    }
}

/// Why a lease ended.
pub(super) const fn end_reason(reason: Option<EndReason>) -> v1::EndReason {
    match reason {
        None => v1::EndReason::Unspecified,
        Some(EndReason::Released) => v1::EndReason::Released,
        Some(EndReason::Expired) => v1::EndReason::Expired,
        Some(EndReason::Revoked) => v1::EndReason::Revoked,
        Some(EndReason::Cancelled) => v1::EndReason::Cancelled,
        Some(EndReason::WaitOver) => v1::EndReason::WaitOver,
        Some(EndReason::Unsatisfiable) => v1::EndReason::Unsatisfiable,
        Some(EndReason::DeviceLost) => v1::EndReason::DeviceLost,
    }
}

/// How urgent a request is.
pub(super) const fn priority(priority: Priority) -> v1::Priority {
    match priority {
        Priority::Background => v1::Priority::Background,
        Priority::Normal => v1::Priority::Normal,
        Priority::Immediate => v1::Priority::Immediate,
    }
}

/// How a lease may be preempted.
const fn placement(policy: PlacementPolicy) -> v1::PlacementPolicy {
    match policy {
        PlacementPolicy::BestFit => v1::PlacementPolicy::BestFit,
        PlacementPolicy::MostFreeMemory => v1::PlacementPolicy::MostFreeMemory,
        PlacementPolicy::LeastLoaded => v1::PlacementPolicy::LeastLoaded,
        PlacementPolicy::RoundRobin => v1::PlacementPolicy::RoundRobin,
        PlacementPolicy::Fragmentation => v1::PlacementPolicy::Fragmentation,
        PlacementPolicy::Pack => v1::PlacementPolicy::Pack,
    }
}

fn affinity(affinity: &Affinity) -> v1::Affinity {
    let scope = match affinity.scope {
        AffinityScope::Device => v1::AffinityScope::Device,
        AffinityScope::Node => v1::AffinityScope::Node,
    };
    v1::Affinity { key: text(&affinity.key), scope: scope.into() }
}

const fn preemptible(preemptible: Preemptible) -> v1::Preemptible {
    match preemptible {
        Preemptible::Never => v1::Preemptible::Never,
        Preemptible::Pause => v1::Preemptible::Pause,
        Preemptible::End => v1::Preemptible::End,
    }
}

/// What a request takes.
pub(super) const fn ask(ask: Ask) -> v1::Ask {
    let devices = Some(ask.devices);
    match ask.share {
        Share::Exclusive => v1::Ask { devices, exclusive: true, slots: None, memory_bytes: None },
        Share::Part { slots, memory_bytes } => {
            v1::Ask { devices, exclusive: false, slots, memory_bytes }
        }
    }
}

fn constraints(constraints: &Constraints) -> Option<v1::Constraints> {
    if *constraints == Constraints::default() {
        return None;
    }
    let texts = |names: &[gpulease_core::id::Name]| names.iter().map(text).collect();
    let least = constraints.compute_capability_min;
    Some(v1::Constraints {
        vendor: constraints.vendor.as_ref().map(text).unwrap_or_default(),
        models: texts(&constraints.models),
        compute_capability_min: least.map(|(major, minor)| v1::ComputeCapability { major, minor }),
        device_allow: texts(&constraints.device_allow),
        device_deny: texts(&constraints.device_deny),
        node_allow: texts(&constraints.node_allow),
        node_deny: texts(&constraints.node_deny),
        node_labels: constraints.node_labels.iter().map(|(k, v)| (text(k), text(v))).collect(),
        preferred_device: constraints.preferred_device.as_ref().map(text).unwrap_or_default(),
        same_node: constraints.same_node,
        framework: constraints.framework.as_ref().map(text).unwrap_or_default(),
        affinity: constraints.affinity.as_ref().map(affinity),
        host_cpu_millis: constraints.host_cpu_millis,
        host_memory_bytes: constraints.host_memory_bytes,
    })
}

/// What happened to a lease, oldest first.
pub(in crate::api) fn facts(facts: &[Fact], display: &Display) -> Vec<v1::LeaseFact> {
    let mut now = v1::LeaseState::Queued;
    let fact = |fact: &Fact| {
        now = match fact.what {
            FactKind::Requested => v1::LeaseState::Queued,
            FactKind::Granted(_) | FactKind::Resumed(_) | FactKind::NoticeWithdrawn(_) => {
                v1::LeaseState::Active
            }
            FactKind::Noticed(_) | FactKind::NoticeChanged(_) => v1::LeaseState::Pausing,
            FactKind::Paused(_) => v1::LeaseState::Paused,
            FactKind::Reclaiming(_) => v1::LeaseState::Reclaiming,
            FactKind::Ended(_) => v1::LeaseState::Ended,
            FactKind::Kept | FactKind::KeepDropped(_) | FactKind::Opened(..) => now,
        };
        v1::LeaseFact {
            time: Some(display.timestamp(fact.time)),
            revision: fact.revision.0,
            state: now.into(),
            description: describe(fact.what),
        }
    };
    facts.iter().map(fact).collect()
}

fn describe(what: FactKind) -> String {
    match what {
        FactKind::Requested => "requested".to_owned(),
        FactKind::Kept => "devices are kept for it".to_owned(),
        FactKind::KeepDropped(cause) => {
            format!("devices are no longer kept for it: {}", drop_cause(cause))
        }
        FactKind::Granted(token) => format!("granted with fencing token {token}"),
        FactKind::Noticed(notice) => format!("given notice {notice}"),
        FactKind::NoticeChanged(notice) => {
            format!("notice {notice} has other causes or another deadline")
        }
        FactKind::NoticeWithdrawn(notice) => format!("notice {notice} was withdrawn"),
        FactKind::Paused(Some(took)) => format!("paused: its holder answered after {took}"),
        FactKind::Paused(None) => "paused: it lost a device".to_owned(),
        FactKind::Resumed(token) => format!("resumed with fencing token {token}"),
        FactKind::Reclaiming(reason) => {
            format!("{}; its devices stay closed until that is safe", ended(reason))
        }
        FactKind::Opened(_, cause) => format!("a device opened: {}", open_cause(cause)),
        FactKind::Ended(reason) => format!("ended: {}", ended(reason)),
    }
}

/// Why devices are no longer kept, in words.
pub(super) const fn drop_cause(cause: DropCause) -> &'static str {
    match cause {
        DropCause::TakenOver => "a request earlier in the order took them over",
        DropCause::NotFirst => "another request is the first of its priority now",
        DropCause::Away => "its caller is away",
        DropCause::Blocked => "something other than leases is in the way",
        DropCause::Lapsed => "they were kept for as long as they may be",
        DropCause::Better => "others can be had earlier",
        DropCause::Quota => "its service's quota does not leave them to it any more",
    }
}

/// Why a closed part is open again, in words.
pub(super) const fn open_cause(cause: OpenCause) -> &'static str {
    match cause {
        OpenCause::LockDelay => "the lock delay is over",
        OpenCause::Reboot => "its node has a new boot id",
        OpenCause::LateRelease => {
            "the former holder released it late, and nothing of it is left there"
        }
        OpenCause::Checked => "a pass found nothing of the former holder there",
        OpenCause::CheckOver => {
            "it was checked for as long as it is; what is left counts as foreign"
        }
        OpenCause::Exited => "all processes of the former holder have exited",
        OpenCause::Operator => "an operator said that it is safe",
        OpenCause::Moved => "it is in another host now, where the former holder cannot use it",
    }
}

/// Why a lease ended, in words.
pub(in crate::api) const fn ended(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => "its holder released it",
        EndReason::Expired => "its time was over",
        EndReason::Revoked => "it was revoked",
        EndReason::Cancelled => "its holder cancelled it or went away",
        EndReason::WaitOver => "the longest wait was over",
        EndReason::Unsatisfiable => "no known node can satisfy it any more",
        EndReason::DeviceLost => "a device or node that it held was lost",
    }
}

/// Which states a list shows: a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) struct StateFilter(u32);

impl StateFilter {
    /// Whether leases of this state are shown.
    pub(in crate::api) const fn shows(self, lease: State) -> bool {
        self.0 & (1 << (state(lease) as u32)) != 0
    }
}

/// Checks the states of a list's filter; none means all that have not ended.
///
/// # Errors
/// A state is unknown, or there are too many.
pub(in crate::api) fn state_filter(states: &[i32]) -> Result<StateFilter, InvalidField> {
    at_most("states", states.len(), STATES_MAX)?;
    let mut bits = 0;
    for &number in states {
        match v1::LeaseState::try_from(number) {
            Ok(known) if known != v1::LeaseState::Unspecified => bits |= 1 << (known as u32),
            _ => {
                let allowed = "LEASE_STATE_QUEUED (1), LEASE_STATE_ACTIVE (2), LEASE_STATE_PAUSING (3), \
                               LEASE_STATE_PAUSED (4), LEASE_STATE_RECLAIMING (5) or LEASE_STATE_ENDED (6)";
                return Err(InvalidField::new("states", number, allowed));
            }
        }
    }
    let live = !(1 << (v1::LeaseState::Ended as u32));
    Ok(StateFilter(if states.is_empty() { live } else { bits }))
}
