//! One simulated device: what a script did to it, and the figures that follow.
//!
//! It promises that memory adds up: foreign + loads = used ≤ total − driver's own, foreign memory first where a script
//! asks for more than there is. Temperature and power follow utilization, with a little noise by the seed.

use std::collections::BTreeMap;

use gpulease_core::{
    id::{LeaseId, Name},
    input::{DeviceReport, DeviceSample, MemoryReading, MemoryReport},
    time::Time,
};

use super::super::Measurement;
use super::noise::Noise;
use super::plan::{DevicePlan, Load};

/// How long one level of random work lasts, in milliseconds: about as long as a batch of inference.
const WORK_MILLIS: u64 = 10_000;
/// An idle device in a cool room, in degrees Celsius.
const IDLE_CELSIUS: u32 = 30;
/// How much warmer full load makes it: 75 °C is the upper end of the contract's NORMAL.
const LOAD_CELSIUS: u32 = 45;
/// An idle device draws a tenth of its most, as data-centre parts do.
const IDLE_POWER_DIVISOR: u64 = 10;

/// A device and what was done to it.
#[derive(Debug)]
pub(super) struct Device {
    plan: DevicePlan,
    noise: Noise,
    random_utilization: bool,
    pub(super) lost: Option<Name>,
    pub(super) silent: bool,
    pub(super) memory_unknown: bool,
    pub(super) foreign_bytes: u64,
    loads: BTreeMap<Option<LeaseId>, u64>,
    utilization_permille: Option<u32>,
}

impl Device {
    pub(super) fn new(plan: DevicePlan, seed: u64, random_utilization: bool) -> Self {
        Self {
            noise: Noise::new(seed, plan.facts.uuid.as_str()),
            plan,
            random_utilization,
            lost: None,
            silent: false,
            memory_unknown: false,
            foreign_bytes: 0,
            loads: BTreeMap::new(),
            utilization_permille: None,
        }
    }

    pub(super) fn load(&mut self, load: &Load) {
        match load.memory_bytes {
            0 => self.loads.remove(&load.lease),
            bytes => self.loads.insert(load.lease, bytes),
        };
        if load.utilization_permille.is_some() {
            self.utilization_permille = load.utilization_permille;
        }
    }

    /// Nothing runs on it any more.
    pub(super) fn restart(&mut self) {
        self.foreign_bytes = 0;
        self.loads.clear();
        self.utilization_permille = None;
    }

    pub(super) fn report(&self) -> DeviceReport {
        DeviceReport { facts: self.plan.facts.clone(), lost: self.lost.clone() }
    }

    /// What it uses and how it does, from one pass; nothing while it is lost or silent.
    pub(super) fn measure(&self, now: Time) -> Option<(DeviceSample, Measurement)> {
        if self.lost.is_some() || self.silent {
            return None;
        }
        let uuid = &self.plan.facts.uuid;
        let memory = (!self.memory_unknown).then(|| self.memory());
        let utilization = self.plan.sensors.then(|| self.utilization(now));
        let measurement = Measurement {
            device_uuid: uuid.clone(),
            memory_used_bytes: memory.as_ref().map(|memory| memory.used_bytes),
            memory_foreign_bytes: memory.as_ref().map(|memory| memory.foreign_bytes),
            utilization_permille: utilization,
            temperature_celsius: utilization.map(|permille| self.temperature(permille, now)),
            power_draw_milliwatts: utilization.map(|permille| self.power(permille, now)),
        };
        let memory = memory.map(MemoryReport::Exact);
        Some((DeviceSample { uuid: uuid.clone(), memory, check: 0 }, measurement))
    }

    fn memory(&self) -> MemoryReading {
        let facts = &self.plan.facts;
        let mut free = facts.memory_total_bytes.saturating_sub(facts.memory_driver_bytes);
        let mut take = |wanted: u64| {
            let taken = wanted.min(free);
            free -= taken;
            taken
        };
        let mut reading =
            MemoryReading { foreign_bytes: take(self.foreign_bytes), ..Default::default() };
        reading.used_bytes = reading.foreign_bytes;
        for (lease, wanted) in &self.loads {
            let bytes = take(*wanted);
            reading.used_bytes += bytes;
            if let (Some(lease), 1..) = (lease, bytes) {
                reading.attributed.push((*lease, bytes));
            }
        }
        reading
    }

    fn utilization(&self, now: Time) -> u32 {
        match self.utilization_permille {
            Some(permille) => permille,
            None if self.random_utilization => {
                self.noise.below(1_001, 1, now.as_millis() / WORK_MILLIS)
            }
            None => 0,
        }
    }

    fn temperature(&self, utilization_permille: u32, now: Time) -> i32 {
        let warmer = LOAD_CELSIUS * utilization_permille / 1_000;
        let noise = self.noise.below(3, 2, now.as_millis());
        // Utilization is at most 1,000, so this is at most 77.
        i32::try_from(IDLE_CELSIUS + warmer + noise).unwrap_or(i32::MAX)
    }

    fn power(&self, utilization_permille: u32, now: Time) -> u64 {
        let max = u64::from(self.plan.power_max_watts) * 1_000;
        let idle = max / IDLE_POWER_DIVISOR;
        let working = (max - idle) * u64::from(utilization_permille) / 1_000;
        // Up to 1 % less: a watt meter never stands still.
        let noise = self.noise.below(self.plan.power_max_watts * 10, 3, now.as_millis());
        (idle + working).saturating_sub(u64::from(noise))
    }
}
