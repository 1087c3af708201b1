//! Tables for people.
//!
//! Promises: no borders, two spaces between columns, no trailing blanks, so that a table reads well and
//! also survives `awk`; on a terminal it fits the width, elsewhere no line is ever broken.
//! Leaves to others: where the rows come from (`view`) and which colours are wanted (`output`).

use std::time::Duration;

use comfy_table::{Cell, ContentArrangement, Table, presets};

use crate::format::{self, UNKNOWN};
use crate::output::{Output, Paint};
use crate::view::{Ask, Device, DeviceShare, Fact, Lease};

/// How a table is fitted and painted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// The width to fit in columns; none: as wide as it is.
    pub(crate) width: Option<u16>,
    pub(crate) color: bool,
}

impl Style {
    pub(crate) fn of(output: &Output) -> Self {
        Self { width: output.width(), color: output.color }
    }
}

/// The devices: what there is, what is held, by whom.
pub(crate) fn devices(devices: &[Device], style: Style) -> String {
    let mut table = table(
        &[
            "NODE", "INDEX", "PCI", "MODEL", "TOTAL", "LEASED", "FOREIGN", "FREE", "SLOTS",
            "STATE", "LEASES",
        ],
        style,
    );
    for device in devices {
        table.add_row(vec![
            Cell::new(&device.node),
            Cell::new(device.index),
            Cell::new(device.pci_address.as_deref().unwrap_or(UNKNOWN)),
            Cell::new(&device.model),
            Cell::new(format::size(device.memory_total_bytes)),
            Cell::new(leased_memory(device)),
            Cell::new(format::size_or_unknown(device.memory_foreign_bytes)),
            Cell::new(format::size_or_unknown(device.memory_free_bytes)),
            Cell::new(format!("{}/{}", device.slots_leased, device.slots)),
            painted(&device.state, device_paint(&device.state), style),
            Cell::new(device_leases(device)),
        ]);
    }
    finished(table)
}

/// The leases: state, holder, devices, time left.
pub(crate) fn leases(leases: &[Lease], style: Style) -> String {
    let mut table = table(
        &["ID", "STATE", "SERVICE", "HOLDER", "NAME", "PRIORITY", "ASKS", "DEVICES", "LEFT"],
        style,
    );
    for lease in leases {
        table.add_row(vec![
            Cell::new(&lease.id),
            painted(&lease_state(lease), lease_paint(&lease.state), style),
            Cell::new(&lease.service),
            Cell::new(&lease.holder),
            Cell::new(lease.name.as_deref().unwrap_or(UNKNOWN)),
            Cell::new(lease.priority.to_lowercase()),
            Cell::new(ask(&lease.ask)),
            Cell::new(device_places(lease)),
            Cell::new(time_left(lease)),
        ]);
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

/// Names and values, one pair a line.
pub(crate) fn pairs(pairs: &[(&str, String)], style: Style) -> String {
    let mut table = bare(style);
    for (name, value) in pairs {
        table.add_row(vec![painted(name, Paint::Heading, style), Cell::new(value)]);
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
    let left = lease.remaining_seconds.and_then(|left| Duration::try_from_secs_f64(left).ok());
    left.map_or_else(|| UNKNOWN.to_owned(), format::duration)
}

/// The state with what explains it: the place in the queue, the reason of the end.
pub(crate) fn lease_state(lease: &Lease) -> String {
    match (&lease.queue_position, &lease.end_reason) {
        (Some(position), _) => format!("{} #{}", lease.state, position.saturating_add(1)),
        (None, Some(reason)) => format!("{} {reason}", lease.state),
        (None, None) => lease.state.clone(),
    }
}

/// A lease's devices by place, `node/index`.
pub(crate) fn device_places(lease: &Lease) -> String {
    if lease.devices.is_empty() {
        return UNKNOWN.to_owned();
    }
    let place = |device: &DeviceShare| format!("{}/{}", device.node, device.index);
    lease.devices.iter().map(place).collect::<Vec<_>>().join(" ")
}

/// A device held whole has no bytes leased one by one, and yet nothing of it is free.
fn leased_memory(device: &Device) -> String {
    if device.exclusive { "whole".to_owned() } else { format::size(device.memory_leased_bytes) }
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
        "STALE" | "UNREACHABLE" => Paint::Waiting,
        _ => Paint::Bad,
    }
}

fn lease_paint(state: &str) -> Paint {
    match state {
        "ACTIVE" => Paint::Good,
        "QUEUED" | "PAUSING" | "PAUSED" => Paint::Waiting,
        "ENDED" => Paint::Faint,
        _ => Paint::Bad,
    }
}

fn table(headings: &[&str], style: Style) -> Table {
    let mut table = bare(style);
    let cells: Vec<Cell> =
        headings.iter().map(|heading| painted(heading, Paint::Heading, style)).collect();
    table.set_header(cells);
    table
}

fn bare(style: Style) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    match style.width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if style.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

fn painted(text: &str, paint: Paint, style: Style) -> Cell {
    let mut cell = Cell::new(text);
    if style.color {
        if let Some(color) = paint.color() {
            cell = cell.fg(color);
        }
        if let Some(attribute) = paint.attribute() {
            cell = cell.add_attribute(attribute);
        }
    }
    cell
}

/// Two blanks between columns, none at the left.
fn pad(table: &mut Table) {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
}

/// The table as text: without the blanks that would pad each line to the full width.
fn finished(mut table: Table) -> String {
    pad(&mut table);
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const PLAIN: Style = Style { width: None, color: false };

    /// A lease that other tests show as well.
    pub(crate) fn active_lease() -> Lease {
        Lease {
            id: "17".to_owned(),
            state: "ACTIVE".to_owned(),
            fencing_token: 42,
            devices: vec![DeviceShare {
                uuid: "GPU-1".to_owned(),
                node: "box".to_owned(),
                index: 0,
                pci_address: None,
                vendor: "nvidia".to_owned(),
                model: "H100".to_owned(),
                exclusive: false,
                slots: None,
                memory_bytes: Some(8 << 30),
            }],
            service: "train".to_owned(),
            holder: "box-1".to_owned(),
            name: Some("nightly".to_owned()),
            request_id: "r-1".to_owned(),
            priority: "NORMAL".to_owned(),
            ask: Ask { devices: 1, memory_bytes: Some(8 << 30), ..Ask::default() },
            ttl_seconds: 30.0,
            remaining_seconds: Some(29.5),
            waited_seconds: 1.0,
            requested_at: None,
            granted_at: Some(std::time::UNIX_EPOCH),
            expires_at: None,
            ended_at: None,
            end_reason: None,
            end_detail: None,
            queue_position: None,
            kept_devices: Vec::new(),
            closed_devices: Vec::new(),
            environment: None,
        }
    }

    fn queued_lease() -> Lease {
        Lease {
            id: "18".to_owned(),
            state: "QUEUED".to_owned(),
            devices: Vec::new(),
            name: None,
            priority: "BACKGROUND".to_owned(),
            ask: Ask { devices: 2, exclusive: true, ..Ask::default() },
            remaining_seconds: Some(599.0),
            queue_position: Some(0),
            ..active_lease()
        }
    }

    fn device(index: u32) -> Device {
        Device {
            node: "box".to_owned(),
            index,
            uuid: format!("GPU-{index}"),
            pci_address: Some("0000:3b:00.0".to_owned()),
            vendor: "nvidia".to_owned(),
            model: "H100".to_owned(),
            compute_capability: None,
            state: "AVAILABLE".to_owned(),
            memory_total_bytes: 24 << 30,
            memory_reserved_bytes: 0,
            memory_used_bytes: None,
            memory_leased_bytes: 8 << 30,
            memory_foreign_bytes: Some(0),
            memory_closed_bytes: 0,
            memory_free_bytes: Some(16 << 30),
            slots: 4,
            slots_leased: 1,
            exclusive: false,
            lease_ids: vec!["17".to_owned()],
            closed_by: Vec::new(),
            kept_for: None,
            sample_age_seconds: None,
        }
    }

    fn check(table: &str, expected: &str) {
        assert_eq!(table, expected.trim_start_matches('\n'), "\n{table}");
    }

    #[test]
    fn devices_stand_in_columns() {
        let whole = Device {
            pci_address: None,
            exclusive: true,
            memory_foreign_bytes: None,
            memory_free_bytes: None,
            slots_leased: 0,
            closed_by: vec!["9".to_owned()],
            kept_for: Some("20".to_owned()),
            state: "STALE".to_owned(),
            ..device(1)
        };
        check(
            &devices(&[device(0), whole], PLAIN),
            "
NODE  INDEX  PCI           MODEL  TOTAL    LEASED  FOREIGN  FREE     SLOTS  STATE      LEASES
box   0      0000:3b:00.0  H100   24.0GiB  8.0GiB  0B       16.0GiB  1/4    AVAILABLE  17
box   1      -             H100   24.0GiB  whole   -        -        0/4    STALE      17 closed:9 kept:20",
        );
    }

    #[test]
    fn leases_stand_in_columns() {
        check(
            &leases(&[active_lease(), queued_lease()], PLAIN),
            "
ID  STATE      SERVICE  HOLDER  NAME     PRIORITY    ASKS              DEVICES  LEFT
17  ACTIVE     train    box-1   nightly  normal      8.0GiB            box/0    29s
18  QUEUED #1  train    box-1   -        background  2 × whole device  -        9m59s",
        );
    }

    #[test]
    fn an_empty_table_still_has_its_headings() {
        check(
            &leases(&[], PLAIN),
            "ID  STATE  SERVICE  HOLDER  NAME  PRIORITY  ASKS  DEVICES  LEFT",
        );
    }

    #[test]
    fn a_narrow_terminal_wraps_cells_and_no_line_is_longer() {
        let narrow = Style { width: Some(60), color: false };
        let text = leases(&[active_lease(), queued_lease()], narrow);
        assert!(text.lines().count() > 3, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn colour_is_there_when_it_is_wanted() {
        let colored = Style { width: None, color: true };
        assert!(leases(&[active_lease()], colored).contains("\u{1b}[38;5;10mACTIVE"));
        assert!(!leases(&[active_lease()], PLAIN).contains('\u{1b}'));
    }

    #[test]
    fn what_is_asked_is_said_in_words() {
        let rows = [
            (Ask { devices: 1, exclusive: true, ..Ask::default() }, "whole device"),
            (Ask { devices: 4, slots: Some(1), ..Ask::default() }, "4 × 1 slot"),
            (
                Ask { devices: 1, slots: Some(3), memory_bytes: Some(1 << 30), ..Ask::default() },
                "3 slots + 1.0GiB",
            ),
            (Ask::default(), "-"),
        ];
        for (asked, expected) in rows {
            assert_eq!(ask(&asked), expected);
        }
    }
}
