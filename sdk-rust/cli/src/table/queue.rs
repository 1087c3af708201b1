//! The queue and the services, as tables.

use comfy_table::{Cell, CellAlignment};

use super::{Style, ask, finished, painted, plan::percent, seconds, table};
use crate::format::{self, UNKNOWN};
use crate::output::Paint;
use crate::view::{Queue, QueueEntry, QuotaUse};

/// Who waits, in order.
pub(crate) fn queue(queue: &Queue, style: Style) -> String {
    let headings = [
        "#",
        "LEASE",
        "SERVICE",
        "HOLDER",
        "CLASS",
        "WAITED",
        "ASKS",
        "KEPT",
        "FORECAST",
        "HELD BACK",
    ];
    let mut table = table(&headings, style);
    for entry in &queue.entries {
        let lease = &entry.lease;
        let forecast = entry.forecast_seconds.and_then(seconds).map(format::duration);
        let waited = seconds(lease.waited_seconds).map(format::duration);
        let held_back = entry.held_back.as_deref().or(entry.away.then_some("its caller is away"));
        table.add_row(vec![
            Cell::new(entry.position.saturating_add(1)).set_alignment(CellAlignment::Right),
            Cell::new(&lease.id),
            Cell::new(&lease.service),
            Cell::new(&lease.holder),
            Cell::new(class(entry)),
            Cell::new(waited.unwrap_or_else(|| UNKNOWN.to_owned())),
            Cell::new(ask(&lease.ask)),
            Cell::new(if lease.kept_devices.is_empty() { UNKNOWN } else { "yes" }),
            Cell::new(forecast.unwrap_or_else(|| UNKNOWN.to_owned())),
            match held_back {
                Some(why) => painted(why, Paint::Waiting, style),
                None => Cell::new(UNKNOWN),
            },
        ]);
    }
    finished(table)
}

/// The class by which a request stands, and its own priority where waiting raised it.
fn class(entry: &QueueEntry) -> String {
    let class = entry.class.as_deref().unwrap_or(UNKNOWN).to_lowercase();
    let own = entry.lease.priority.to_lowercase();
    let raised = if class == own { String::new() } else { format!(" ({own})") };
    format!("{class}{raised}{}", if entry.resumed { ", resumes" } else { "" })
}

/// What the services use, and may use.
pub(crate) fn services(queue: &Queue, style: Style) -> String {
    let headings =
        ["SERVICE", "WEIGHT", "USED GiB·h", "OF ALL", "LEASES", "DEVICES", "MEMORY", "WAITING"];
    let mut table = table(&headings, style);
    let count = |value: u64| value.to_string();
    for share in &queue.services {
        let number = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.add_row(vec![
            Cell::new(&share.service),
            number(share.weight.to_string()),
            number(format!("{:.2}", share.usage_gib_hours)),
            number(percent(share.usage_permille)),
            number(of(share.leases, count)),
            number(of(share.devices, count)),
            number(of(share.memory_bytes, format::size)),
            number(of(share.waiting, count)),
        ]);
    }
    finished(table)
}

fn of(quota: QuotaUse, show: impl Fn(u64) -> String) -> String {
    let limit = quota.limit.map_or_else(String::new, |limit| format!(" of {}", show(limit)));
    format!("{}{limit}", show(quota.used))
}
