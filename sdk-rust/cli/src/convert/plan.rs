//! Plans.

use gpulease::{Assignment, Plan};

use crate::view;

impl From<&Plan> for view::Plan {
    fn from(plan: &Plan) -> Self {
        let load = |load: &gpulease::DeviceLoad| view::DeviceLoad {
            node: load.node.clone(),
            uuid: load.uuid.clone(),
            load_before_permille: load.before_permille,
            load_after_permille: load.after_permille,
            pipelines: load.pipelines,
        };
        Self {
            assignments: plan.assignments.iter().map(Into::into).collect(),
            loads: plan.loads.iter().map(load).collect(),
            complete: plan.complete,
            reserved: plan.reserved,
            revision: plan.revision,
        }
    }
}

impl From<&Assignment> for view::PlanAssignment {
    fn from(assignment: &Assignment) -> Self {
        let step = |step: &gpulease::StepAssignment| view::PlanStep {
            step: step.step.clone(),
            device_uuids: step.device_uuids.clone(),
        };
        Self {
            pipeline: assignment.pipeline.clone(),
            node: assignment.node.clone(),
            devices: assignment.devices.iter().map(Into::into).collect(),
            steps: assignment.steps.iter().map(step).collect(),
            unassigned_reason: assignment.unassigned_reason.clone(),
            lease: assignment.lease.as_ref().map(Into::into),
            affinity_key: assignment.affinity_key.clone(),
        }
    }
}
