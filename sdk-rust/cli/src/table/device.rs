//! The devices as a table, and below it what is to be said of some of them in words.

use std::time::Duration;

use comfy_table::Cell;

use super::{Style, finished, painted, seconds, table};
use crate::format::{self, UNKNOWN};
use crate::output::Paint;
use crate::view::Device;

/// The devices: what there is, what is held, by whom.
pub(crate) fn devices(devices: &[Device], style: Style) -> String {
    // Most installations have no owners: the column is there where it says something.
    let owned = devices.iter().any(|device| device.owner.is_some());
    let mut table = table(&headings(owned), style);
    for device in devices {
        let mut row = vec![
            Cell::new(&device.node),
            Cell::new(device.index),
            Cell::new(device.pci_address.as_deref().unwrap_or(UNKNOWN)),
            Cell::new(&device.model),
            Cell::new(format::size(device.memory_total_bytes)),
            Cell::new(leased_memory(device)),
            Cell::new(foreign_memory(device)),
            Cell::new(format::size_or_unknown(device.memory_free_bytes)),
            Cell::new(format!("{}/{}", device.slots_leased, device.slots)),
        ];
        row.extend(owned.then(|| Cell::new(device.owner.as_deref().unwrap_or(UNKNOWN))));
        row.push(painted(&device_state(device), device_paint(&device.state), style));
        row.push(Cell::new(device_leases(device)));
        table.add_row(row);
    }
    let remarks: Vec<String> = devices.iter().flat_map(remarks).collect();
    let mut text = finished(table);
    if !remarks.is_empty() {
        text += &format!("\n\n{}", remarks.join("\n"));
    }
    text
}

/// Why the memory of some devices cannot be attributed to processes, a line each.
pub(crate) fn attribution_off(devices: &[Device]) -> Vec<String> {
    devices.iter().filter_map(unattributed).collect()
}

fn headings(owned: bool) -> Vec<&'static str> {
    let mut headings =
        vec!["NODE", "INDEX", "PCI", "MODEL", "TOTAL", "LEASED", "FOREIGN", "FREE", "SLOTS"];
    headings.extend(owned.then_some("OWNER"));
    headings.extend(["STATE", "LEASES"]);
    headings
}

/// What no column has room for.
fn remarks(device: &Device) -> Vec<String> {
    let cordoned = device.cordon.as_ref().map(|cordon| {
        let what = if cordon.drain { "drained" } else { "cordoned" };
        let whole = if cordon.node { " with its whole node" } else { "" };
        let why = if cordon.reason.is_empty() { "no reason given" } else { &cordon.reason };
        format!("{}: {what}{whole}: {why}", place(device))
    });
    cordoned.into_iter().chain(unattributed(device)).collect()
}

fn unattributed(device: &Device) -> Option<String> {
    let why = device.attribution_off.as_ref()?;
    Some(format!("{}: memory is not attributed to processes: {why}", place(device)))
}

fn place(device: &Device) -> String {
    format!("{}/{}", device.node, device.index)
}

/// The state with what explains it: that holders were asked to go, how long it stays closed.
fn device_state(device: &Device) -> String {
    let closed = device.closed_remaining_seconds.and_then(seconds);
    let draining = device.cordon.as_ref().is_some_and(|cordon| cordon.drain);
    match (device.state.as_str(), closed) {
        ("CORDONED", _) if draining => "DRAINING".to_owned(),
        ("CLOSED", Some(left)) if left > Duration::ZERO => {
            format!("CLOSED {}", format::duration(left))
        }
        (state, _) => state.to_owned(),
    }
}

/// A device held whole has no bytes leased one by one, and yet nothing of it is free.
fn leased_memory(device: &Device) -> String {
    if device.exclusive { "whole".to_owned() } else { format::size(device.memory_leased_bytes) }
}

/// Without attribution it may be more: what a lease has room for is charged to that.
fn foreign_memory(device: &Device) -> String {
    let size = format::size_or_unknown(device.memory_foreign_bytes);
    let at_least = device.attribution_off.is_some() && device.memory_foreign_bytes.is_some();
    if at_least { format!("≥{size}") } else { size }
}

fn device_leases(device: &Device) -> String {
    let mut words = device.lease_ids.clone();
    words.extend(device.closed_by.iter().map(|id| format!("closed:{id}")));
    words.extend(device.kept_for.iter().map(|id| format!("kept:{id}")));
    if words.is_empty() { UNKNOWN.to_owned() } else { words.join(" ") }
}

fn device_paint(state: &str) -> Paint {
    match state {
        "AVAILABLE" => Paint::Good,
        "STALE" | "UNREACHABLE" | "CORDONED" => Paint::Waiting,
        _ => Paint::Bad,
    }
}
