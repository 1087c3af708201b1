//! Leases as tables and words.

use comfy_table::Cell;

use super::{Style, finished, painted, seconds, table};
use crate::format::{self, UNKNOWN};
use crate::output::Paint;
use crate::view::{Ask, DeviceShare, Fact, Lease, Notice};

/// How a lease is preemptible that is not.
pub(crate) const NEVER: &str = "NEVER";

/// The leases: state, holder, devices, time left.
pub(crate) fn leases(leases: &[Lease], style: Style) -> String {
    // The column is there where some lease may be preempted.
    let preempted = leases.iter().any(|lease| lease.preemptible != NEVER);
    let mut headings = vec!["ID", "STATE", "SERVICE", "HOLDER", "NAME", "PRIORITY"];
    headings.extend(preempted.then_some("PREEMPTIBLE"));
    headings.extend(["ASKS", "DEVICES", "LEFT"]);
    let mut table = table(&headings, style);
    for lease in leases {
        let mut row = vec![
            Cell::new(&lease.id),
            painted(&lease_state(lease), lease_paint(&lease.state), style),
            Cell::new(&lease.service),
            Cell::new(&lease.holder),
            Cell::new(lease.name.as_deref().unwrap_or(UNKNOWN)),
            Cell::new(lease.priority.to_lowercase()),
        ];
        row.extend(preempted.then(|| Cell::new(lease.preemptible.to_lowercase())));
        row.extend([ask(&lease.ask), device_places(lease), time_left(lease)].map(Cell::new));
        table.add_row(row);
    }
    finished(table)
}

/// A lease's history, oldest first.
pub(crate) fn history(facts: &[Fact], style: Style) -> String {
    let mut table = table(&["TIME", "REVISION", "STATE", "WHAT HAPPENED"], style);
    for fact in facts {
        table.add_row(vec![
            Cell::new(fact.time.map_or_else(|| UNKNOWN.to_owned(), format::time)),
            Cell::new(fact.revision.map_or_else(|| UNKNOWN.to_owned(), |it| it.to_string())),
            painted(&fact.state, lease_paint(&fact.state), style),
            Cell::new(&fact.description),
        ]);
    }
    finished(table)
}

/// What a lease asks for, in words: `2 × 8.0GiB`, `4 slots`, `whole device`.
pub(crate) fn ask(ask: &Ask) -> String {
    let mut parts = Vec::new();
    if ask.exclusive {
        parts.push("whole device".to_owned());
    }
    if let Some(slots) = ask.slots {
        parts.push(if slots == 1 { "1 slot".to_owned() } else { format!("{slots} slots") });
    }
    if let Some(bytes) = ask.memory_bytes {
        parts.push(format::size(bytes));
    }
    let part = if parts.is_empty() { UNKNOWN.to_owned() } else { parts.join(" + ") };
    if ask.devices > 1 { format!("{} × {part}", ask.devices) } else { part }
}

/// What a lease holds of a device, in words.
pub(crate) fn share(device: &DeviceShare) -> String {
    ask(&Ask {
        devices: 1,
        exclusive: device.exclusive,
        slots: device.slots,
        memory_bytes: device.memory_bytes,
    })
}

/// What a lease holds of a device, and where it is: place, model, share, UUID.
pub(crate) fn device_line(device: &DeviceShare) -> String {
    format!(
        "{}/{}  {}  {}  {}",
        device.node,
        device.index,
        device.model,
        share(device),
        device.uuid
    )
}

/// How long a lease still lives, or waits.
pub(crate) fn time_left(lease: &Lease) -> String {
    let left = lease.remaining_seconds.and_then(seconds);
    left.map_or_else(|| UNKNOWN.to_owned(), format::duration)
}

/// The state with what explains it: the place in the queue, the reason of the end, the time to answer a notice.
pub(crate) fn lease_state(lease: &Lease) -> String {
    let notice = lease.notice.as_ref().and_then(|notice| seconds(notice.remaining_seconds));
    match (&lease.queue_position, &lease.end_reason, notice) {
        (Some(position), ..) => format!("{} #{}", lease.state, position.saturating_add(1)),
        (None, Some(reason), _) => format!("{} {reason}", lease.state),
        (None, None, Some(left)) => format!("{} {}", lease.state, format::duration(left)),
        (None, None, None) => lease.state.clone(),
    }
}

/// A notice in words: its number, what is left of its time, and why.
pub(crate) fn notice(notice: &Notice) -> String {
    let left = seconds(notice.remaining_seconds).unwrap_or_default();
    let why = match notice.why() {
        why if why.is_empty() => "for no reason given".to_owned(),
        why => why,
    };
    format!("{}, {} left: {why}", notice.id, format::duration(left))
}

/// A lease's devices by place, `node/index`.
pub(crate) fn device_places(lease: &Lease) -> String {
    if lease.devices.is_empty() {
        return UNKNOWN.to_owned();
    }
    let place = |device: &DeviceShare| format!("{}/{}", device.node, device.index);
    lease.devices.iter().map(place).collect::<Vec<_>>().join(" ")
}

pub(super) fn lease_paint(state: &str) -> Paint {
    match state {
        "ACTIVE" => Paint::Good,
        "QUEUED" | "PAUSING" | "PAUSED" => Paint::Waiting,
        "ENDED" => Paint::Faint,
        _ => Paint::Bad,
    }
}
