//! A request for a lease: from the wire to a [`Request`] that cannot be invalid.

use std::{collections::BTreeMap, sync::Arc};

use gpulease_core::{
    id::{Holder, Name},
    input::TargetName,
    request::{
        Affinity, AffinityScope, Ask, Constraints, DURATION_MAX, InvalidField, LIST_MAX,
        MINIMUM_HOLD_MAX, PAUSE_COST_MAX, PlacementPolicy, Preemptible, Priority, Request,
        RequestFields, Share, TTL_DEFAULT, TTL_MAX, TTL_MIN, WAIT_MAX,
    },
    time::Span,
};
use gpulease_proto::v1;

use super::{
    bounds::{at_most, holder_of, known_text, label, optional, texts},
    time::duration,
};
use crate::api::peer::Peer;

/// What a request can take, in words.
const ASK_FORMS: &str = "exclusive, slots, memory_bytes, or slots and memory_bytes";

/// The longest trace context: a W3C `traceparent` has this very length.
const TRACE_PARENT_MAX_BYTES: usize = 55;

/// Checks a request. `holder` is the session's; a unary call has said its own.
///
/// # Errors
/// The first field that is out of bounds.
pub(in crate::api) fn request(
    wire: &v1::AcquireRequest,
    holder: Option<&Holder>,
    peer: &Peer,
) -> Result<Request, InvalidField> {
    let holder = match holder {
        Some(holder) => holder.clone(),
        None => holder_of(&wire.service, &wire.holder)?,
    };
    text_within_bytes("trace_parent", &wire.trace_parent, TRACE_PARENT_MAX_BYTES)?;
    let fields = RequestFields {
        holder,
        request_id: label("request_id", &wire.request_id)?,
        name: optional(&wire.name, |name| label("name", name))?,
        ask: ask(wire.ask.as_ref())?,
        constraints: wire
            .constraints
            .as_ref()
            .map_or_else(|| Ok(Constraints::default()), constraints)?,
        priority: priority(wire.priority)?,
        ttl: span("ttl", wire.ttl.as_ref(), (TTL_MIN, TTL_MAX))?.unwrap_or(TTL_DEFAULT),
        wait: span("wait", wire.wait.as_ref(), (Span::ZERO, WAIT_MAX))?.unwrap_or_default(),
        expected_duration: span(
            "expected_duration",
            wire.expected_duration.as_ref(),
            (Span::ZERO, DURATION_MAX),
        )?,
        lifetime_max: span("lifetime_max", wire.lifetime_max.as_ref(), (TTL_MIN, DURATION_MAX))?,
        preemptible: preemptible(wire.preemptible)?,
        minimum_hold: span(
            "minimum_hold",
            wire.minimum_hold.as_ref(),
            (Span::ZERO, MINIMUM_HOLD_MAX),
        )?
        .unwrap_or_default(),
        process: wire.process.as_ref().map(|process| peer.process(process)).transpose()?,
        placement: placement(wire.placement)?,
        pause_cost: span("pause_cost", wire.pause_cost.as_ref(), (Span::ZERO, PAUSE_COST_MAX))?,
    };
    fields.validate()
}

pub(super) fn span(
    field: &'static str,
    wire: Option<&prost_types::Duration>,
    bounds: (Span, Span),
) -> Result<Option<Span>, InvalidField> {
    wire.map(|wire| duration(field, wire, bounds)).transpose()
}

pub(super) fn preemptible(wire: i32) -> Result<Preemptible, InvalidField> {
    match v1::Preemptible::try_from(wire) {
        Ok(v1::Preemptible::Unspecified | v1::Preemptible::Never) => Ok(Preemptible::Never),
        Ok(v1::Preemptible::Pause) => Ok(Preemptible::Pause),
        Ok(v1::Preemptible::End) => Ok(Preemptible::End),
        Err(_) => {
            let allowed = "PREEMPTIBLE_NEVER (1), PREEMPTIBLE_PAUSE (2) or PREEMPTIBLE_END (3)";
            Err(InvalidField::new("preemptible", wire, allowed))
        }
    }
}

fn placement(wire: i32) -> Result<Option<PlacementPolicy>, InvalidField> {
    match v1::PlacementPolicy::try_from(wire) {
        Ok(v1::PlacementPolicy::Unspecified) => Ok(None),
        Ok(v1::PlacementPolicy::BestFit) => Ok(Some(PlacementPolicy::BestFit)),
        Ok(v1::PlacementPolicy::MostFreeMemory) => Ok(Some(PlacementPolicy::MostFreeMemory)),
        Ok(v1::PlacementPolicy::LeastLoaded) => Ok(Some(PlacementPolicy::LeastLoaded)),
        Ok(v1::PlacementPolicy::RoundRobin) => Ok(Some(PlacementPolicy::RoundRobin)),
        Ok(v1::PlacementPolicy::Fragmentation) => Ok(Some(PlacementPolicy::Fragmentation)),
        Ok(v1::PlacementPolicy::Pack) => Ok(Some(PlacementPolicy::Pack)),
        Err(_) => {
            let allowed = "0 (as configured) to PLACEMENT_POLICY_PACK (6)";
            Err(InvalidField::new("placement", wire, allowed))
        }
    }
}

fn affinity(wire: &v1::Affinity) -> Result<Affinity, InvalidField> {
    let scope = match v1::AffinityScope::try_from(wire.scope) {
        Ok(v1::AffinityScope::Unspecified | v1::AffinityScope::Device) => AffinityScope::Device,
        Ok(v1::AffinityScope::Node) => AffinityScope::Node,
        Err(_) => {
            let allowed = "AFFINITY_SCOPE_DEVICE (1) or AFFINITY_SCOPE_NODE (2)";
            return Err(InvalidField::new("constraints.affinity.scope", wire.scope, allowed));
        }
    };
    Ok(Affinity { key: label("constraints.affinity.key", &wire.key)?, scope })
}

/// A device or node, as an operator names it.
pub(in crate::api) fn target(wire: Option<&v1::Target>) -> Result<TargetName, InvalidField> {
    use v1::target::Target;
    match wire.and_then(|wire| wire.target.as_ref()) {
        Some(Target::DeviceUuid(uuid)) => {
            Ok(TargetName::Device(known_text("target.device_uuid", uuid)?))
        }
        Some(Target::Node(node)) => Ok(TargetName::Node(known_text("target.node", node)?)),
        None => Err(InvalidField::new("target", "absent", "device_uuid or node")),
    }
}

/// A text of somebody's own words, which may be empty.
pub(in crate::api) fn text_within_bytes(
    field: &'static str,
    text: &str,
    max: usize,
) -> Result<Arc<str>, InvalidField> {
    if text.len() <= max {
        return Ok(text.into());
    }
    let value = format!("{} bytes long", text.len());
    Err(InvalidField::new(field, value, format!("at most {max} bytes")))
}

/// By how much a notice is to be extended: some time, at most as long as any TTL.
pub(in crate::api) fn extension(wire: &v1::ExtendNoticeRequest) -> Result<Span, InvalidField> {
    let bounds = (Span::from_millis(1), TTL_MAX);
    let absent = || {
        let bound = format!("{} to {}", bounds.0, bounds.1);
        InvalidField::new("extension", "absent", bound)
    };
    span("extension", wire.extension.as_ref(), bounds)?.ok_or_else(absent)
}

pub(super) fn ask(wire: Option<&v1::Ask>) -> Result<Ask, InvalidField> {
    let Some(wire) = wire else { return Err(InvalidField::new("ask", "absent", ASK_FORMS)) };
    let share = match (wire.exclusive, wire.slots, wire.memory_bytes) {
        (true, None, None) => Share::Exclusive,
        (true, Some(_), _) => {
            return Err(InvalidField::new("ask", "exclusive with slots", ASK_FORMS));
        }
        (true, None, Some(_)) => {
            return Err(InvalidField::new("ask", "exclusive with memory_bytes", ASK_FORMS));
        }
        (false, slots, memory_bytes) => Share::Part { slots, memory_bytes },
    };
    Ok(Ask { devices: wire.devices.unwrap_or(1), share })
}

pub(super) fn priority(wire: i32) -> Result<Priority, InvalidField> {
    match v1::Priority::try_from(wire) {
        Ok(v1::Priority::Unspecified | v1::Priority::Normal) => Ok(Priority::Normal),
        Ok(v1::Priority::Background) => Ok(Priority::Background),
        Ok(v1::Priority::Immediate) => Ok(Priority::Immediate),
        Err(_) => {
            let allowed = "PRIORITY_BACKGROUND (1), PRIORITY_NORMAL (2) or PRIORITY_IMMEDIATE (3)";
            Err(InvalidField::new("priority", wire, allowed))
        }
    }
}

pub(super) fn constraints(wire: &v1::Constraints) -> Result<Constraints, InvalidField> {
    let list = |field, list: &[String]| texts(field, list, LIST_MAX);
    Ok(Constraints {
        vendor: optional(&wire.vendor, |text| known_text("constraints.vendor", text))?,
        models: list("constraints.models", &wire.models)?,
        compute_capability_min: wire.compute_capability_min.map(|least| (least.major, least.minor)),
        device_allow: list("constraints.device_allow", &wire.device_allow)?,
        device_deny: list("constraints.device_deny", &wire.device_deny)?,
        node_allow: list("constraints.node_allow", &wire.node_allow)?,
        node_deny: list("constraints.node_deny", &wire.node_deny)?,
        node_labels: labels(wire)?,
        preferred_device: optional(&wire.preferred_device, |text| {
            known_text("constraints.preferred_device", text)
        })?,
        same_node: wire.same_node,
        framework: optional(&wire.framework, |text| known_text("constraints.framework", text))?,
        affinity: wire.affinity.as_ref().map(affinity).transpose()?,
        host_cpu_millis: wire.host_cpu_millis,
        host_memory_bytes: wire.host_memory_bytes,
    })
}

fn labels(wire: &v1::Constraints) -> Result<BTreeMap<Name, Name>, InvalidField> {
    const FIELD: &str = "constraints.node_labels";
    at_most(FIELD, wire.node_labels.len(), LIST_MAX)?;
    let checked = wire.node_labels.iter().map(|(key, value)| {
        let value = optional(value, |value| known_text(FIELD, value))?;
        Ok((known_text(FIELD, key)?, value.unwrap_or_else(|| Name::new(""))))
    });
    checked.collect()
}
