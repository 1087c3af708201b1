//! Processes on devices, and leases in the way of others, as tables.

use comfy_table::Cell;

use super::{Style, finished, lease, painted, seconds, table};
use crate::format::{self, UNKNOWN};
use crate::output::Paint;
use crate::view::{Blocking, DeviceProcess};

/// The processes that use devices.
pub(crate) fn processes(processes: &[DeviceProcess], style: Style) -> String {
    let mut table = table(&["DEVICE", "PID", "USER", "MEMORY", "LEASE", "COMMAND"], style);
    for process in processes {
        let place = process.index.map_or_else(
            || process.device_uuid.clone(),
            |index| format!("{}/{index}", process.node),
        );
        let lease = match &process.lease_id {
            Some(id) => Cell::new(id),
            None => painted("foreign", Paint::Waiting, style),
        };
        table.add_row(vec![
            Cell::new(place),
            Cell::new(process.pid),
            Cell::new(user(process)),
            Cell::new(format::size(process.memory_bytes)),
            lease,
            Cell::new(process.command.as_deref().unwrap_or(UNKNOWN)),
        ]);
    }
    finished(table)
}

/// The leases in the way of a waiting one.
pub(crate) fn blocking(leases: &[Blocking], style: Style) -> String {
    let headings = ["LEASE", "STATE", "SERVICE", "PRIORITY", "DEVICE", "GONE IN", "PREEMPTION"];
    let mut table = table(&headings, style);
    for blocking in leases {
        let gone = blocking.forecast_seconds.and_then(seconds);
        table.add_row(vec![
            Cell::new(&blocking.lease_id),
            painted(&blocking.state, lease::lease_paint(&blocking.state), style),
            Cell::new(&blocking.service),
            Cell::new(blocking.priority.to_lowercase()),
            Cell::new(&blocking.device_uuid),
            Cell::new(gone.map_or_else(|| UNKNOWN.to_owned(), format::duration)),
            Cell::new(&blocking.preemption),
        ]);
    }
    finished(table)
}

/// The user's name, or the number where no name is known.
fn user(process: &DeviceProcess) -> String {
    let number = || process.uid.map_or_else(|| UNKNOWN.to_owned(), |uid| uid.to_string());
    process.user.clone().unwrap_or_else(number)
}
