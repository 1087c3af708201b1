//! Plans as tables.

use comfy_table::{Cell, CellAlignment};

use super::{Style, finished, painted, share, table};
use crate::format::UNKNOWN;
use crate::output::Paint;
use crate::view::{DeviceShare, Plan, PlanAssignment};

/// Where the pipelines go.
pub(crate) fn assignments(plan: &Plan, style: Style) -> String {
    let mut headings = vec!["PIPELINE", "DEVICES", "TAKES OF EACH"];
    if plan.reserved {
        headings.extend(["LEASE", "AFFINITY KEY"]);
    }
    let mut table = table(&headings, style);
    for assignment in &plan.assignments {
        let mut row = vec![
            Cell::new(&assignment.pipeline),
            places(assignment, style),
            Cell::new(assignment.devices.first().map_or_else(|| UNKNOWN.to_owned(), share)),
        ];
        if plan.reserved {
            let lease = assignment.lease.as_ref();
            row.push(Cell::new(lease.map_or(UNKNOWN, |lease| lease.id.as_str())));
            row.push(Cell::new(assignment.affinity_key.as_deref().unwrap_or(UNKNOWN)));
        }
        table.add_row(row);
    }
    finished(table)
}

fn places(assignment: &PlanAssignment, style: Style) -> Cell {
    if assignment.unassigned_reason.is_some() {
        return painted("does not fit", Paint::Waiting, style);
    }
    if assignment.devices.is_empty() {
        return painted("needs none", Paint::Faint, style);
    }
    let place = |device: &DeviceShare| format!("{}/{}", device.node, device.index);
    Cell::new(assignment.devices.iter().map(place).collect::<Vec<_>>().join(" "))
}

/// How full the devices of a plan are.
pub(crate) fn loads(plan: &Plan, style: Style) -> String {
    let mut table = table(&["DEVICE", "UUID", "LOAD NOW", "WITH PLAN", "PIPELINES"], style);
    for load in &plan.loads {
        let index = plan.assignments.iter().flat_map(|it| &it.devices);
        let index = index.into_iter().find(|device| device.uuid == load.uuid);
        let place = index.map(|device| format!("{}/{}", device.node, device.index));
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row(vec![
            Cell::new(place.unwrap_or_else(|| load.node.clone())),
            Cell::new(&load.uuid),
            number(percent(load.load_before_permille)),
            number(percent(load.load_after_permille)),
            number(load.pipelines.to_string()),
        ]);
    }
    finished(table)
}

/// Thousandths as a percentage.
pub(super) fn percent(permille: u32) -> String {
    format!("{}.{}%", permille / 10, permille % 10)
}
