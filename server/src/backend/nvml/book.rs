//! What is remembered of devices, and how it is told to the core.
//!
//! Promises: a device that was seen once is told for ever, lost while it does not answer, so that its failure is its
//! own; what is unknown is absent; the inventory is told anew only when something about it changed.

use std::{collections::BTreeMap, sync::Arc};

use gpulease_core::{
    id::Name,
    input::{DeviceReport, DeviceSample, MemoryReport, ProcessUse},
    inventory::DeviceFacts,
};
use gpulease_nvml::{DeviceFailure, DeviceInfo, Inventory, Sample};

use super::reader::{Look, Outcome, Reading, Users};
use crate::backend::{DEVICES_PER_NODE_MAX, DeviceDefaults, Measurement};

/// The devices of this host.
#[derive(Debug)]
pub(super) struct Book {
    defaults: DeviceDefaults,
    host_cpu_millis: u64,
    /// In order of their addresses.
    devices: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    info: DeviceInfo,
    lost: Option<Name>,
    /// What it used when it was last read.
    used_bytes: Option<u64>,
    /// Why the last look could not tell its users apart.
    blind: Option<Name>,
    /// It did not answer the last inventory, which proved nothing of it.
    undecided: bool,
}

/// What one reading tells.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) sample: Option<DeviceSample>,
    pub(super) measurement: Option<Measurement>,
}

impl Book {
    pub(super) fn new(defaults: DeviceDefaults, host_cpu_millis: u64) -> Self {
        Self { defaults, host_cpu_millis, devices: Vec::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// Takes what there is.
    pub(super) fn take_inventory(&mut self, inventory: &Inventory) {
        for entry in &mut self.devices {
            let failures = &inventory.failures;
            let failure = failures
                .iter()
                .find(|failure| failure.uuid.as_ref() == Some(&entry.info.uuid))
                // NVML opened anew does not know yet who it is that does not answer.
                .or_else(|| failures.iter().find(|one| one.uuid.is_none() && is_undecided(one)));
            let named = inventory.devices.iter().any(|info| info.uuid == entry.info.uuid);
            if let Some(failure) = failure.filter(|failure| !named && is_undecided(failure)) {
                entry.leave_undecided(failure);
                continue;
            }
            let reason = failure.map_or("the driver no longer names it", |failure| &failure.reason);
            entry.lost = Some(Name::new(reason));
        }
        for info in &inventory.devices {
            let position = self.devices.iter().position(|entry| entry.info.uuid == info.uuid);
            let position = position.or_else(|| self.add(info));
            if let Some(entry) = position.and_then(|position| self.devices.get_mut(position)) {
                entry.update(info);
            }
        }
        self.devices.sort_by_key(|entry| {
            let info = &entry.info;
            (info.pci_address.is_none(), info.pci_address, info.index)
        });
    }

    fn add(&mut self, info: &DeviceInfo) -> Option<usize> {
        if self.devices.len() >= DEVICES_PER_NODE_MAX {
            return None;
        }
        self.devices.push(Entry {
            info: info.clone(),
            lost: None,
            used_bytes: None,
            blind: None,
            undecided: false,
        });
        Some(self.devices.len() - 1)
    }

    /// Every device, as the core is told of it.
    pub(super) fn reports(&self) -> Vec<DeviceReport> {
        let slots = self.defaults.slots_of(self.host_cpu_millis, self.devices.len());
        let report = |(index, entry): (usize, &Entry)| DeviceReport {
            facts: Arc::new(self.facts(entry, u32::try_from(index).unwrap_or(u32::MAX), slots)),
            lost: entry.lost.clone(),
        };
        self.devices.iter().enumerate().map(report).collect()
    }

    fn facts(&self, entry: &Entry, index: u32, slots: u32) -> DeviceFacts {
        let info = &entry.info;
        let memory = info.memory;
        DeviceFacts {
            uuid: Name::new(&info.uuid),
            index,
            pci_address: info.pci_address.map(|address| Name::new(&address.to_string())),
            vendor: Name::new("nvidia"),
            model: Name::new(&info.model),
            compute_capability: info.compute_capability,
            frameworks: super::super::framework::frameworks_of("nvidia"),
            memory_total_bytes: memory.map_or(0, |memory| memory.total_bytes),
            memory_driver_bytes: memory.and_then(|memory| memory.reserved_bytes).unwrap_or(0),
            memory_limit_bytes: self.defaults.memory_limit_bytes,
            memory_reserve_bytes: self.defaults.memory_reserve_bytes,
            slots,
            answers_at_once: false,
        }
    }

    /// Takes what was read of a device; a look answers the newest check that was asked for before it.
    pub(super) fn take_reading(
        &mut self,
        reading: Reading,
        checks: &BTreeMap<Name, u64>,
        blind: Option<&Name>,
    ) -> Told {
        let entry = self.devices.iter_mut().find(|entry| entry.info.uuid == reading.uuid);
        let Some(entry) = entry else { return Told::default() };
        match reading.outcome {
            Outcome::Unavailable(reason) => {
                entry.lost = Some(Name::new(&reason));
                Told::default()
            }
            Outcome::Asleep if entry.lost.is_some() => Told::default(),
            Outcome::Asleep => entry.tell_asleep(blind),
            Outcome::Read { sample, look } => {
                entry.lost = unusable(&entry.info);
                if entry.lost.is_some() {
                    return Told::default();
                }
                let check = checks.get(reading.uuid.as_str()).copied().unwrap_or(0);
                entry.tell(sample, look, check, blind)
            }
        }
    }
}

impl Entry {
    /// It answers. How much memory it has is remembered where it does not say so this time.
    fn update(&mut self, info: &DeviceInfo) {
        let memory = info.memory.or(self.info.memory);
        self.info = DeviceInfo { memory, ..info.clone() };
        self.lost = unusable(&self.info);
        self.undecided = false;
    }

    /// It is not read, and so becomes stale; whether it is lost stays as it was, and with it the leases on it.
    fn leave_undecided(&mut self, failure: &DeviceFailure) {
        if !std::mem::replace(&mut self.undecided, true) {
            let (uuid, why) = (&self.info.uuid, &failure.reason);
            tracing::warn!(%uuid, %why, "a device cannot be read: its leases stay, and it becomes stale");
        }
    }

    fn tell(
        &mut self,
        sample: Option<Sample>,
        look: Option<Look>,
        check: u64,
        blind: Option<&Name>,
    ) -> Told {
        let memory = match &look {
            Some(look) => look.memory,
            None => sample.and_then(|sample| sample.memory),
        };
        self.used_bytes = memory.map(|memory| memory.used_bytes);
        let processes = match look.map(|look| look.users) {
            Some(Users::Known(processes)) => {
                self.blind = None;
                Some(processes)
            }
            Some(Users::Blind(reason)) => {
                self.blind = Some(reason);
                None
            }
            Some(Users::Unknown | Users::Unnamed(_)) | None => None,
        };
        let told = self.sample(processes, check, blind);
        Told { sample: Some(told), measurement: sample.map(|sample| self.measurement(&sample)) }
    }

    /// What it held when it fell asleep, it still holds.
    fn tell_asleep(&self, blind: Option<&Name>) -> Told {
        let measurement = Some(self.measurement(&Sample::default()));
        Told { sample: Some(self.sample(None, 0, blind)), measurement }
    }

    /// What it uses, with its processes where there was a look. That answers a check, and so does the sum where it is
    /// all that there is to look at.
    fn sample(
        &self,
        processes: Option<Vec<ProcessUse>>,
        check: u64,
        blind: Option<&Name>,
    ) -> DeviceSample {
        let blind = self.blind.as_ref().or(blind);
        let answers = self.used_bytes.is_some() && (processes.is_some() || blind.is_some());
        let memory = self.used_bytes.map(|used_bytes| match (processes, blind) {
            (Some(processes), _) => MemoryReport::Pass { used_bytes, processes },
            (None, Some(reason)) => {
                MemoryReport::Unattributed { used_bytes, reason: reason.clone() }
            }
            (None, None) => MemoryReport::Sum { used_bytes },
        });
        let check = if answers { check } else { 0 };
        DeviceSample { uuid: Name::new(&self.info.uuid), memory, check }
    }

    fn measurement(&self, sample: &Sample) -> Measurement {
        Measurement {
            device_uuid: Name::new(&self.info.uuid),
            memory_used_bytes: self.used_bytes,
            memory_foreign_bytes: None,
            utilization_permille: sample.utilization_permille,
            temperature_celsius: sample.temperature_celsius,
            power_draw_milliwatts: sample.power_draw_milliwatts,
        }
    }
}

/// It may be well: closed to this user, which is configuration, or without a clear answer so far.
fn is_undecided(failure: &DeviceFailure) -> bool {
    failure.not_permitted || failure.unclear
}

/// Why a device that answers cannot be granted.
fn unusable(info: &DeviceInfo) -> Option<Name> {
    if info.mig_enabled == Some(true) {
        return Some(Name::new("it is partitioned (MIG), which gpulease does not lease out"));
    }
    info.memory.is_none().then(|| Name::new("nothing says how much memory it has"))
}
