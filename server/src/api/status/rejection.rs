//! The rows of what the rules refuse.

use std::time::Duration;

use gpulease_core::{
    id::Name,
    lease::EndReason,
    output::{Exclusion, Quota, QuotaReached, Rejection, Unsatisfiable},
    plan::Unassigned,
    request::InvalidField,
    time::Span,
};
use tonic::Code;

use super::Refusal;
use crate::api::convert;

/// After which a lease may have ended: the shortest TTL is twice as long.
const CAPACITY_RETRY: Duration = Duration::from_secs(1);
/// After which the first inventory may be there: nodes report every second, the first report takes some.
const INVENTORY_RETRY: Duration = Duration::from_secs(3);
/// After which a full table may have room: leases live for 30 s unless told otherwise.
const FULL_RETRY: Duration = Duration::from_secs(5);

impl From<&Rejection> for Refusal {
    fn from(rejection: &Rejection) -> Self {
        match rejection {
            Rejection::NoCapacity
            | Rejection::DevicesClosed { .. }
            | Rejection::WaitOver { .. }
            | Rejection::Unsatisfiable(_)
            | Rejection::PlanIncomplete { .. }
            | Rejection::InventoryUnknown
            | Rejection::QueueFull { .. }
            | Rejection::LeasesFull { .. }
            | Rejection::ServicesFull { .. }
            | Rejection::QuotaReached(_) => of_capacity(rejection),
            Rejection::NameTaken { .. }
            | Rejection::RequestIdTaken { .. }
            | Rejection::RequestIdReused { .. }
            | Rejection::Cancelled { .. }
            | Rejection::Revoked { .. }
            | Rejection::Superseded { .. }
            | Rejection::SessionReplaced
            | Rejection::InvalidField(_) => of_request(rejection),
            Rejection::StaleToken { .. }
            | Rejection::LeaseEnded { .. }
            | Rejection::LeaseNotActive { .. }
            | Rejection::LeaseNotFound { .. }
            | Rejection::NoticeOver { .. }
            | Rejection::NoticeAtBound { .. }
            | Rejection::NotTheHolder { .. } => of_lease(rejection),
            Rejection::DeviceNotFound { uuid } => {
                let why =
                    format!("there is no device {uuid}; list the devices to see what there is");
                Refusal::new(Code::NotFound, "DEVICE_NOT_FOUND", why).with("uuid", uuid)
            }
            Rejection::NodeNotFound { name } => {
                let why = format!("there is no node {name}; list the devices to see the nodes");
                Refusal::new(Code::NotFound, "NODE_NOT_FOUND", why).with("node", name)
            }
        }
    }
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::from(&rejection)
    }
}

/// There are not enough devices, or not enough room.
fn of_capacity(rejection: &Rejection) -> Refusal {
    let full = |reason, what: &'static str, max: &usize| {
        let why = format!("{max} {what}, as many as may; try again when some are gone");
        Refusal::new(Code::ResourceExhausted, reason, why)
            .with("max", max)
            .quota(what, format!("at most {max}"))
            .retry_after(FULL_RETRY)
    };
    match rejection {
        Rejection::WaitOver { waited, held_back } => {
            let why = held_back.as_ref().map_or_else(
                || "nothing fitted within its wait".to_owned(),
                |reached| format!("{reached} at the end of its wait"),
            );
            let why = format!("{why} of {waited}; ask again with a longer wait");
            let refusal = Refusal::new(Code::DeadlineExceeded, "WAIT_OVER", why);
            let refusal = refusal.with("waited", waited);
            match held_back {
                Some(reached) => {
                    refusal.quota(format!("service:{}", reached.service), reached.to_string())
                }
                None => refusal,
            }
        }
        Rejection::DevicesClosed { devices, remaining } => {
            let remaining = Span::from_secs(remaining.as_millis().div_ceil(1_000));
            let why = format!(
                "{devices} devices that would do are closed for {remaining}, since the journal was imported and leases \
                 that it lacks may still use them; wait, or have an operator open a device on which nothing of them runs"
            );
            Refusal::new(Code::ResourceExhausted, "DEVICES_CLOSED", why)
                .with("closed_devices", devices)
                .with("closed_remaining", remaining)
                .retry_after(CAPACITY_RETRY)
        }
        Rejection::Unsatisfiable(what) => unsatisfiable(what),
        Rejection::PlanIncomplete { pipeline, name, unassigned, why } => {
            plan_incomplete((*pipeline, name), *unassigned, why)
        }
        Rejection::InventoryUnknown => {
            let why = "no node has reported its devices yet; try again, or ask with a wait";
            Refusal::new(Code::Unavailable, "INVENTORY_UNKNOWN", why).retry_after(INVENTORY_RETRY)
        }
        Rejection::QueueFull { max } => full("QUEUE_FULL", "requests wait", max),
        Rejection::LeasesFull { max } => full("LEASES_FULL", "leases live", max),
        Rejection::ServicesFull { max } => full("SERVICES_FULL", "services are known", max),
        Rejection::QuotaReached(reached) => quota_reached(reached),
        _ => {
            let why =
                "nothing fits now and the request may not wait; ask with a wait, or try again";
            Refusal::new(Code::ResourceExhausted, "NO_CAPACITY", why).retry_after(CAPACITY_RETRY)
        }
    }
}

/// A quota of the service: to be tried again, unless the request alone is above it.
fn quota_reached(reached: &QuotaReached) -> Refusal {
    let (reason, what_next) = match (reached.never(), reached.quota) {
        (true, _) => ("QUOTA_TOO_SMALL", "ask for less, or have its quota raised"),
        (false, Quota::Waiting) => {
            ("QUOTA_REACHED", "try again when some of them were granted, or cancel one")
        }
        (false, _) => ("QUOTA_REACHED", "ask with a wait, or give back some of what it holds"),
    };
    let limit = format!(
        "at most {} {} of service {}, {} in use, {} wanted",
        reached.limit,
        reached.quota.noun(),
        reached.service,
        reached.in_use,
        reached.wanted
    );
    let refusal = Refusal::new(Code::ResourceExhausted, reason, format!("{reached}; {what_next}"))
        .with("service", &reached.service)
        .with("quota", reached.quota.noun())
        .with("limit", reached.limit)
        .with("in_use", reached.in_use)
        .with("wanted", reached.wanted)
        .quota(format!("service:{}", reached.service), limit);
    if reached.never() { refusal } else { refusal.retry_after(CAPACITY_RETRY) }
}

/// Names the first pipeline that has no device as the field at fault.
fn plan_incomplete((index, name): (usize, &Name), unassigned: usize, why: &Unassigned) -> Refusal {
    let field = format!("pipelines[{index}]");
    let text = format!(
        "{unassigned} of its pipelines have no device, so nothing was granted; the first of them, {name}: {}",
        why.reason
    );
    let refusal = if why.never {
        let text = format!("{text}; leave it out, or ask for less");
        Refusal::new(Code::FailedPrecondition, "UNSATISFIABLE", text)
    } else {
        let text = format!("{text}; try again when some of it is free, or ask for less");
        Refusal::new(Code::ResourceExhausted, "PLAN_INCOMPLETE", text).retry_after(CAPACITY_RETRY)
    };
    refusal.with("pipeline", name).with("unassigned", unassigned).field(field, why.reason.clone())
}

/// Names the field that excludes the most devices as the one at fault.
fn unsatisfiable(what: &Unsatisfiable) -> Refusal {
    let why = format!("no known node could satisfy it even when empty: {what}; ask for less");
    let mut refusal = Refusal::new(Code::FailedPrecondition, "UNSATISFIABLE", why)
        .with("devices_known", what.devices)
        .with("devices_wanted", what.wanted)
        .with("devices_suitable", what.suitable);
    for (exclusion, count) in &what.excluded {
        refusal = refusal.with(exclusion_key(*exclusion), count);
    }
    let by_field = what.excluded.iter().filter(|(exclusion, _)| *exclusion != Exclusion::NotSeen);
    match by_field.max_by_key(|(_, count)| *count) {
        Some((worst, count)) => refusal.field(worst.field(), format!("excludes {count} devices")),
        // Each device would do; there are too few of them.
        None if what.excluded.is_empty() => {
            refusal.field("ask.devices", format!("at most {}", what.suitable))
        }
        None => refusal,
    }
}

const fn exclusion_key(exclusion: Exclusion) -> &'static str {
    match exclusion {
        Exclusion::NotSeen => "excluded_by_not_seen",
        Exclusion::Vendor => "excluded_by_vendor",
        Exclusion::Model => "excluded_by_model",
        Exclusion::ComputeCapability => "excluded_by_compute_capability",
        Exclusion::Framework => "excluded_by_framework",
        Exclusion::DeviceAllow => "excluded_by_device_allow",
        Exclusion::DeviceDeny => "excluded_by_device_deny",
        Exclusion::NodeAllow => "excluded_by_node_allow",
        Exclusion::NodeDeny => "excluded_by_node_deny",
        Exclusion::NodeLabels => "excluded_by_node_labels",
        Exclusion::HostCpu => "excluded_by_host_cpu",
        Exclusion::HostMemory => "excluded_by_host_memory",
        Exclusion::Slots => "excluded_by_slots",
        Exclusion::Memory => "excluded_by_memory",
    }
}

/// The request itself stands in its way, or somebody took it back.
fn of_request(rejection: &Rejection) -> Refusal {
    match rejection {
        Rejection::NameTaken { name, lease } => {
            let why = format!(
                "lease {lease} of the service has the name {name}; use another, or wait for its end"
            );
            Refusal::new(Code::AlreadyExists, "NAME_TAKEN", why)
                .with("lease_id", lease)
                .field("name", "unique among the service's live leases")
        }
        Rejection::RequestIdTaken { lease } => {
            let why = format!(
                "lease {lease} of another holder of the service has this request id; use another"
            );
            Refusal::new(Code::AlreadyExists, "REQUEST_ID_TAKEN", why)
                .with("lease_id", lease)
                .field("request_id", "not in use by another holder")
        }
        Rejection::RequestIdReused { lease } => {
            let why = format!(
                "lease {lease} was asked for with this request id and another body; use a new id"
            );
            Refusal::new(Code::InvalidArgument, "REQUEST_ID_REUSED", why)
                .with("lease_id", lease)
                .field("request_id", "new for every new request")
        }
        Rejection::Cancelled { lease } => {
            let why = format!(
                "lease {lease} was cancelled while it waited; ask again if it is still wanted"
            );
            Refusal::new(Code::Cancelled, "REQUEST_CANCELLED", why).with("lease_id", lease)
        }
        Rejection::Revoked { lease, detail } => {
            let said =
                detail.as_deref().filter(|text| !text.is_empty()).unwrap_or("no reason given");
            let why = format!(
                "an operator revoked lease {lease} while it waited ({said}); ask the operator"
            );
            Refusal::new(Code::FailedPrecondition, "REVOKED", why).with("lease_id", lease)
        }
        Rejection::Superseded { lease } => {
            let why = format!(
                "a newer call with this request id waits for lease {lease} now; its answer goes there"
            );
            Refusal::new(Code::Aborted, "SUPERSEDED", why).with("lease_id", lease)
        }
        Rejection::InvalidField(invalid) => Refusal::from(invalid),
        _ => session_replaced(),
    }
}

/// The one row that both the rules and the edge use.
pub(super) fn session_replaced() -> Refusal {
    let why =
        "a newer session of the same holder took over; give every running client its own holder id";
    Refusal::new(Code::Aborted, "SESSION_REPLACED", why)
}

impl From<&InvalidField> for Refusal {
    fn from(invalid: &InvalidField) -> Self {
        Self::new(Code::InvalidArgument, "INVALID_FIELD", invalid.to_string())
            .with("value", &invalid.value)
            .with("bound", &invalid.bound)
            .field(invalid.field.clone(), format!("must be {}", invalid.bound))
    }
}

/// The lease is not what the caller thinks.
fn of_lease(rejection: &Rejection) -> Refusal {
    match rejection {
        Rejection::StaleToken { lease, given } => {
            let given = given
                .map_or_else(|| "none was given".to_owned(), |token| format!("{token} was given"));
            let why = format!(
                "that takes the fencing token of its newest grant, and {given}; \
                               use the one of the last grant or renewal, or acquire a new lease"
            );
            Refusal::new(Code::FailedPrecondition, "STALE_TOKEN", why).with("lease_id", lease)
        }
        Rejection::LeaseEnded { lease, reason } => {
            let why = format!("it is over: {}; acquire a new lease", convert::ended(*reason));
            Refusal::new(Code::FailedPrecondition, "LEASE_ENDED", why)
                .with("lease_id", lease)
                .with("end_reason", end_reason(*reason))
        }
        Rejection::LeaseNotActive { lease } => {
            let why =
                "it still waits for devices; wait for its grant, or release it to leave the queue";
            Refusal::new(Code::FailedPrecondition, "LEASE_NOT_ACTIVE", why).with("lease_id", lease)
        }
        Rejection::NoticeOver { lease } => {
            let why = "that notice does not stand: it was answered or withdrawn, or a newer one was given; \
                       look at the lease";
            Refusal::new(Code::FailedPrecondition, "NOTICE_OVER", why).with("lease_id", lease)
        }
        Rejection::NoticeAtBound { lease, max } => {
            let why = format!(
                "a notice is extended once, and never past {max} from its start; stop and answer it"
            );
            Refusal::new(Code::FailedPrecondition, "NOTICE_AT_BOUND", why)
                .with("lease_id", lease)
                .with("notice_max", max)
        }
        Rejection::NotTheHolder { lease } => {
            let why = "another holder has it; only its holder may, an operator can revoke it";
            Refusal::new(Code::PermissionDenied, "NOT_THE_HOLDER", why).with("lease_id", lease)
        }
        Rejection::LeaseNotFound { lease } => lease_not_found(lease.0),
        _ => lease_not_found(0),
    }
}

/// The row that both the rules and the reading calls use.
pub(super) fn lease_not_found(lease: u64) -> Refusal {
    let why = "there is no such lease, or its record is gone; list the leases to see what there is";
    Refusal::new(Code::NotFound, "LEASE_NOT_FOUND", why).with("lease_id", lease)
}

const fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => "RELEASED",
        EndReason::Expired => "EXPIRED",
        EndReason::Revoked => "REVOKED",
        EndReason::Cancelled => "CANCELLED",
        EndReason::WaitOver => "WAIT_OVER",
        EndReason::Unsatisfiable => "UNSATISFIABLE",
        EndReason::DeviceLost => "DEVICE_LOST",
    }
}
