//! Plans: from the wire with the path of every field, and assignments back.

use gpulease_core::{
    id::{Holder, Name},
    plan::{
        Assignment, Load, PIPELINES_MAX, PipelineFields, Plan, PlanFields, Planned, Reservation,
        STEPS_IN_ALL_MAX, STEPS_MAX, StepFields,
    },
    request::{
        AffinityScope, Constraints, DURATION_MAX, InvalidField, Share, TTL_DEFAULT, TTL_MAX,
        TTL_MIN,
    },
    time::Span,
};
use gpulease_proto::v1;

use super::{
    bounds::{at_most, known_text, label, optional},
    lease::{lease, leased_devices},
    request::{ask, constraints, preemptible, priority, span},
    time::Display,
};

/// Checks a plan.
///
/// # Errors
/// The first field that is out of bounds, by its path, such as `pipelines[3].steps[2].ask.slots`.
pub(in crate::api) fn plan(wire: &v1::PlanRequest) -> Result<Plan, InvalidField> {
    at_most("pipelines", wire.pipelines.len(), PIPELINES_MAX)?;
    let steps = wire.pipelines.iter().map(|pipeline| pipeline.steps.len()).sum();
    at_most("pipelines.steps", steps, STEPS_IN_ALL_MAX)?;
    let pipelines = wire.pipelines.iter().enumerate().map(|(index, wire)| {
        pipeline(wire).map_err(|invalid| invalid.within(&format!("pipelines[{index}]")))
    });
    let pipelines = pipelines.collect::<Result<Vec<_>, _>>()?;
    let reserve = wire.reserve.as_ref().map(reservation).transpose();
    let reserve = reserve.map_err(|invalid| invalid.within("reserve"))?;
    PlanFields { pipelines, reserve }.validate()
}

fn pipeline(wire: &v1::Pipeline) -> Result<PipelineFields, InvalidField> {
    at_most("steps", wire.steps.len(), STEPS_MAX)?;
    let steps = wire.steps.iter().enumerate().map(|(index, wire)| {
        step(wire).map_err(|invalid| invalid.within(&format!("steps[{index}]")))
    });
    Ok(PipelineFields {
        name: label("name", &wire.name)?,
        steps: steps.collect::<Result<Vec<_>, _>>()?,
        scope: scope(wire.scope)?,
        steps_overlap: wire.steps_overlap,
        constraints: wire
            .constraints
            .as_ref()
            .map_or_else(|| Ok(Constraints::default()), constraints)?,
    })
}

fn scope(wire: i32) -> Result<AffinityScope, InvalidField> {
    match v1::PipelineScope::try_from(wire) {
        Ok(v1::PipelineScope::Unspecified | v1::PipelineScope::Device) => Ok(AffinityScope::Device),
        Ok(v1::PipelineScope::Node) => Ok(AffinityScope::Node),
        Err(_) => {
            let allowed = "PIPELINE_SCOPE_DEVICE (1) or PIPELINE_SCOPE_NODE (2)";
            Err(InvalidField::new("scope", wire, allowed))
        }
    }
}

fn step(wire: &v1::PipelineStep) -> Result<StepFields, InvalidField> {
    let memory_type = |field, text: &str| {
        let named = optional(text, |text| known_text(field, text))?;
        Ok(named.unwrap_or_else(|| Name::new("")))
    };
    Ok(StepFields {
        name: label("name", &wire.name)?,
        input_memory_type: memory_type("input_memory_type", &wire.input_memory_type)?,
        output_memory_type: memory_type("output_memory_type", &wire.output_memory_type)?,
        ask: wire.ask.as_ref().map(|wire| ask(Some(wire))).transpose()?,
    })
}

fn reservation(wire: &v1::Reservation) -> Result<Reservation, InvalidField> {
    let expected = wire.expected_duration.as_ref();
    Ok(Reservation {
        holder: Holder {
            service: label("service", &wire.service)?,
            name: label("holder", &wire.holder)?,
        },
        request_id: label("request_id", &wire.request_id)?,
        affinity_key: optional(&wire.affinity_key, |key| label("affinity_key", key))?,
        priority: priority(wire.priority)?,
        ttl: span("ttl", wire.ttl.as_ref(), (TTL_MIN, TTL_MAX))?.unwrap_or(TTL_DEFAULT),
        expected_duration: span("expected_duration", expected, (Span::ZERO, DURATION_MAX))?,
        preemptible: preemptible(wire.preemptible)?,
    })
}

/// The answer to a plan.
pub(in crate::api) fn planned(
    wire: &v1::PlanRequest,
    planned: &Planned,
    display: &Display,
    revision: u64,
) -> v1::PlanResponse {
    let pipelines = wire.pipelines.iter().zip(&planned.assignments);
    v1::PlanResponse {
        assignments: pipelines.map(|(wire, it)| assignment(wire, it, display)).collect(),
        loads: planned.loads.iter().map(load).collect(),
        complete: planned.complete,
        reserved: planned.reserved,
        revision,
    }
}

fn assignment(wire: &v1::Pipeline, it: &Assignment, display: &Display) -> v1::PipelineAssignment {
    let uuid = |place: &usize| it.devices.get(*place).map(|device| device.facts.uuid.to_string());
    let steps = wire.steps.iter().enumerate().map(|(index, step)| v1::StepAssignment {
        step: step.name.clone(),
        device_uuids: it.steps.get(index).into_iter().flatten().filter_map(uuid).collect(),
    });
    let node = it.devices.first().map(|device| device.node.to_string());
    let share = it.share.unwrap_or(Share::Exclusive);
    let unassigned = it.unassigned.as_ref();
    v1::PipelineAssignment {
        pipeline: wire.name.clone(),
        node: node.unwrap_or_default(),
        devices: leased_devices(&it.devices, share),
        steps: steps.collect(),
        unassigned_reason: unassigned.map(|why| why.reason.clone()).unwrap_or_default(),
        lease: it.lease.as_ref().map(|view| lease(view, display)),
        affinity_key: it.affinity_key.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

fn load(load: &Load) -> v1::DeviceLoad {
    let permille = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    v1::DeviceLoad {
        node: load.device.node.to_string(),
        uuid: load.device.facts.uuid.to_string(),
        load_before_permille: permille(load.before_permille),
        load_after_permille: permille(load.after_permille),
        pipelines: load.pipelines,
    }
}
