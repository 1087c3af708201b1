//! What the devices of the fake are and say.
//!
//! Every method here is one change, and fails when there is no such device or the state cannot be written.
#![allow(clippy::missing_errors_doc, reason = "the head says it for all of them")]

use std::io;

use super::{FakeNvml, find};
use crate::device::{Device, Growth, Presence, Process, ProcessKind};
use crate::state::FieldValue;

impl FakeNvml {
    /// Adds a device behind the others. A known UUID that left comes back as a device with a new handle.
    pub fn add_device(&self, device: Device) -> io::Result<()> {
        self.try_edit(|state| {
            if state.device(&device.uuid).is_some() {
                let why = format!("the fake NVML library already has a device {}", device.uuid);
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            let handle = state.number();
            state.devices.push(Device { handle, ..device });
            Ok(())
        })
    }

    /// Takes a device away: it is no longer counted, later indices move up, its handles point to nothing.
    pub fn remove_device(&self, uuid: &str) -> io::Result<()> {
        self.edit(|state| state.devices.retain(|device| device.uuid != uuid))
    }

    /// Lets a device fall off the bus: it is counted, and every call about it answers `GPU_IS_LOST`.
    pub fn lose(&self, uuid: &str) -> io::Result<()> {
        self.set_presence(uuid, Presence::Lost)
    }

    /// Makes every call about a device answer `RESET_REQUIRED`.
    pub fn require_reset(&self, uuid: &str) -> io::Result<()> {
        self.set_presence(uuid, Presence::ResetRequired)
    }

    /// Lets a device answer again, through the handles that were there before.
    pub fn restore(&self, uuid: &str) -> io::Result<()> {
        self.set_presence(uuid, Presence::Present)
    }

    fn set_presence(&self, uuid: &str, presence: Presence) -> io::Result<()> {
        self.edit_device(uuid, |device| device.presence = presence)
    }

    /// Bytes in use, besides what the driver keeps.
    pub fn set_memory_used(&self, uuid: &str, used_bytes: u64) -> io::Result<()> {
        self.edit_device(uuid, |device| {
            device.memory.get_or_insert_default().used_bytes = used_bytes;
        })
    }

    /// Bytes that the driver keeps.
    pub fn set_memory_reserved(&self, uuid: &str, reserved_bytes: u64) -> io::Result<()> {
        self.edit_device(uuid, |device| {
            device.memory.get_or_insert_default().reserved_bytes = reserved_bytes;
        })
    }

    /// Who is in one of the lists of processes: pid, and the bytes if the driver can tell. Memory stays as it is.
    pub fn set_processes(
        &self,
        uuid: &str,
        kind: ProcessKind,
        processes: &[(u32, Option<u64>)],
    ) -> io::Result<()> {
        self.edit_device(uuid, |device| {
            device.processes.retain(|process| process.kind != kind);
            device.processes.extend(
                processes.iter().map(|&(pid, bytes)| Process { kind, ..Process::new(pid, bytes) }),
            );
        })
    }

    /// A computing process begins, or uses other memory than before; the memory in use goes along.
    pub fn run_process(&self, uuid: &str, pid: u32, bytes: u64) -> io::Result<()> {
        self.edit_device(uuid, |device| {
            end(device, pid);
            device.processes.push(Process::new(pid, Some(bytes)));
            device.memory.get_or_insert_default().used_bytes += bytes;
        })
    }

    /// A process ends, and its memory is free.
    pub fn end_process(&self, uuid: &str, pid: u32) -> io::Result<()> {
        self.edit_device(uuid, |device| end(device, pid))
    }

    /// Processes appear right after a call that only asked how many there are, once in each process that loaded the
    /// library. nvml-wrapper leaves room for 5, so it takes 6 to make its second call fail. May be said several times:
    /// each such call then lets the next ones appear.
    pub fn grow_processes_between_calls(
        &self,
        uuid: &str,
        processes: Vec<Process>,
    ) -> io::Result<()> {
        self.try_edit(|state| {
            let number = state.number();
            find(state, uuid)?.growths.push(Growth { number, processes });
            Ok(())
        })
    }

    /// Busy time in percent, compute and memory; not supported if absent, as with MIG.
    pub fn set_utilization(&self, uuid: &str, percent: Option<(u32, u32)>) -> io::Result<()> {
        self.edit_device(uuid, |device| device.utilization_percent = percent)
    }

    /// What the temperature sensor says.
    pub fn set_temperature(&self, uuid: &str, celsius: Option<i32>) -> io::Result<()> {
        self.edit_device(uuid, |device| device.temperature_celsius = celsius)
    }

    /// What the device draws; not supported if absent.
    pub fn set_power(&self, uuid: &str, draw_milliwatts: Option<u32>) -> io::Result<()> {
        self.edit_device(uuid, |device| match draw_milliwatts {
            Some(draw) => device.power.get_or_insert_default().draw_milliwatts = draw,
            None => device.power = None,
        })
    }

    /// The bits that say why clocks are low.
    pub fn set_clock_events(&self, uuid: &str, bits: Option<u64>) -> io::Result<()> {
        self.edit_device(uuid, |device| device.clock_event_bits = bits)
    }

    /// The value of a field, by its number before driver 580.82.
    pub fn set_field(&self, uuid: &str, field: u32, value: FieldValue) -> io::Result<()> {
        self.edit_device(uuid, |device| {
            device.fields.insert(field, value);
        })
    }

    /// A name that is not UTF-8.
    pub fn set_name_bytes(&self, uuid: &str, name: &[u8]) -> io::Result<()> {
        self.edit_device(uuid, |device| device.name_bytes = Some(name.to_vec()))
    }

    /// What a reload of the driver does: energy, violations, replays and the volatile error counts begin at 0 again.
    pub fn reset_counters(&self, uuid: &str) -> io::Result<()> {
        self.edit_device(uuid, |device| {
            if let Some(energy) =
                device.power.as_mut().and_then(|it| it.energy_millijoules.as_mut())
            {
                *energy = 0;
            }
            device.health.violation_nanoseconds.values_mut().for_each(|time| *time = 0);
            if let Some(pcie) = &mut device.health.pcie {
                pcie.replays = 0;
            }
            if let Some(ecc) = &mut device.health.ecc {
                (ecc.corrected, ecc.uncorrected) = (0, 0);
            }
        })
    }
}

fn end(device: &mut Device, pid: u32) {
    let bytes: u64 = device
        .processes
        .iter()
        .filter(|process| process.pid == pid)
        .filter_map(|process| process.memory_used_bytes)
        .sum();
    device.processes.retain(|process| process.pid != pid);
    if let Some(memory) = &mut device.memory {
        memory.used_bytes = memory.used_bytes.saturating_sub(bytes);
    }
}
