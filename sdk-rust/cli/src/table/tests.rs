//! What the tables look like, to the blank.

use super::*;
use crate::view::{Ask, Cause, Cordon, Device, DeviceProcess, DeviceShare, Lease, Notice};

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
        preemptible: "NEVER".to_owned(),
        minimum_hold_seconds: 0.0,
        notice: None,
        process: None,
        preemptions: 0,
        pause_took_seconds: None,
        pause_cost_seconds: None,
        placement: None,
        affinity: None,
        environment: None,
    }
}

/// A notice that other tests show as well.
pub(crate) fn standing_notice() -> Notice {
    let description = "lease 20 needs the devices".to_owned();
    let cause = Cause { kind: "PREEMPTION", description, ..Cause::default() };
    Notice {
        id: "3".to_owned(),
        remaining_seconds: 12.5,
        extension_max_seconds: None,
        causes: vec![cause],
    }
}

pub(crate) fn queued_lease() -> Lease {
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
        frameworks: Vec::new(),
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
        cordon: None,
        owner: None,
        attribution_off: None,
        closed_remaining_seconds: None,
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
fn devices_are_shown_with_owners_cordons_and_what_is_not_known() {
    let drained = Device {
        state: "CORDONED".to_owned(),
        owner: Some("asr".to_owned()),
        cordon: Some(Cordon { node: true, drain: true, reason: "new riser".to_owned() }),
        ..device(0)
    };
    let closed = Device {
        state: "CLOSED".to_owned(),
        closed_remaining_seconds: Some(65.0),
        attribution_off: Some("another PID namespace".to_owned()),
        lease_ids: Vec::new(),
        ..device(1)
    };
    check(
        &devices(&[drained, closed], PLAIN),
        "
NODE  INDEX  PCI           MODEL  TOTAL    LEASED  FOREIGN  FREE     SLOTS  OWNER  STATE         LEASES
box   0      0000:3b:00.0  H100   24.0GiB  8.0GiB  0B       16.0GiB  1/4    asr    DRAINING      17
box   1      0000:3b:00.0  H100   24.0GiB  8.0GiB  ≥0B      16.0GiB  1/4    -      CLOSED 1m05s  -

box/0: drained with its whole node: new riser
box/1: memory is not attributed to processes: another PID namespace",
    );
}

#[test]
fn processes_stand_in_columns() {
    let known = DeviceProcess {
        pid: 4711,
        started_ticks: Some(1),
        uid: Some(1000),
        user: Some("ada".to_owned()),
        command: Some("python train.py".to_owned()),
        memory_bytes: 3 << 30,
        node: "box".to_owned(),
        index: Some(0),
        device_uuid: "GPU-0".to_owned(),
        lease_id: Some("17".to_owned()),
        root_pid: Some(4700),
    };
    let foreign = DeviceProcess {
        pid: 12,
        user: None,
        command: None,
        index: None,
        lease_id: None,
        ..known.clone()
    };
    check(
        &processes(&[known, foreign], PLAIN),
        "
DEVICE  PID   USER  MEMORY  LEASE    COMMAND
box/0   4711  ada   3.0GiB  17       python train.py
GPU-0   12    1000  3.0GiB  foreign  -",
    );
}

#[test]
fn leases_stand_in_columns() {
    let pausing = Lease {
        state: "PAUSING".to_owned(),
        preemptible: "PAUSE".to_owned(),
        notice: Some(standing_notice()),
        ..active_lease()
    };
    check(
        &leases(&[active_lease(), queued_lease()], PLAIN),
        "
ID  STATE      SERVICE  HOLDER  NAME     PRIORITY    ASKS              DEVICES  LEFT
17  ACTIVE     train    box-1   nightly  normal      8.0GiB            box/0    29s
18  QUEUED #1  train    box-1   -        background  2 × whole device  -        9m59s",
    );
    check(
        &leases(&[active_lease(), pausing], PLAIN),
        "
ID  STATE        SERVICE  HOLDER  NAME     PRIORITY  PREEMPTIBLE  ASKS    DEVICES  LEFT
17  ACTIVE       train    box-1   nightly  normal    never        8.0GiB  box/0    29s
17  PAUSING 12s  train    box-1   nightly  normal    pause        8.0GiB  box/0    29s",
    );
}

#[test]
fn an_empty_table_still_has_its_headings() {
    check(&leases(&[], PLAIN), "ID  STATE  SERVICE  HOLDER  NAME  PRIORITY  ASKS  DEVICES  LEFT");
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
