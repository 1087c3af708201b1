//! Work that holders tell of with their renewals, added up by device and service since the start.
//!
//! It decides nothing and survives nothing: no rule reads it, and no journal holds it. Each device has at most
//! [`SERVICES_PER_DEVICE_MAX`] services; one more takes the place of the one that told nothing for the longest, whose
//! totals are gone. The lock is held for a few map look-ups at a time, and never across an await.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gpulease_core::{id::Name, inventory::DEVICES_KNOWN_MAX};

/// The most services told of one device. Memory: 16 × some 100 bytes are 1.6 KB a device, 13 MB for 8,192 devices and
/// 210 MB for the most devices there may be.
pub const SERVICES_PER_DEVICE_MAX: usize = 16;

/// Work done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// How many operations.
    pub count: u64,
    /// How long they took together.
    pub busy: Duration,
}

/// What one service did on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceWork {
    /// The device, by UUID.
    pub device_uuid: Name,
    /// The service.
    pub service: Name,
    /// All of it.
    pub total: Work,
}

/// See the head of this file. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Operations(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    devices: BTreeMap<Name, BTreeMap<Name, Entry>>,
    /// Counts what was told, to know what is oldest.
    told: u64,
}

#[derive(Debug, Default)]
struct Entry {
    total: Work,
    told: u64,
}

impl Operations {
    /// Adds what a service did on a device.
    pub fn add(&self, device: &Name, service: &Name, work: Work) {
        let mut book = self.book();
        book.told += 1;
        let told = book.told;
        if !book.devices.contains_key(device) && book.devices.len() >= DEVICES_KNOWN_MAX {
            return;
        }
        let services = book.devices.entry(device.clone()).or_default();
        if !services.contains_key(service) && services.len() >= SERVICES_PER_DEVICE_MAX {
            let oldest = services.iter().min_by_key(|(_, entry)| entry.told);
            if let Some(oldest) = oldest.map(|(service, _)| service.clone()) {
                services.remove(&oldest);
            }
        }
        let entry = services.entry(service.clone()).or_default();
        entry.told = told;
        entry.total.count = entry.total.count.saturating_add(work.count);
        entry.total.busy = entry.total.busy.saturating_add(work.busy);
    }

    /// What was told of these devices, or of all if none is named: at most `max`, in order of device and service.
    #[must_use]
    pub fn totals(&self, devices: &[Name], max: usize) -> Vec<ServiceWork> {
        let book = self.book();
        let of = |device: &Name, services: &BTreeMap<Name, Entry>| {
            let work = |(service, entry): (&Name, &Entry)| ServiceWork {
                device_uuid: device.clone(),
                service: service.clone(),
                total: entry.total,
            };
            services.iter().map(work).collect::<Vec<_>>()
        };
        if devices.is_empty() {
            return book.devices.iter().flat_map(|(it, told)| of(it, told)).take(max).collect();
        }
        let named = devices.iter().filter_map(|it| Some((it, book.devices.get(it)?)));
        named.flat_map(|(it, told)| of(it, told)).take(max).collect()
    }

    /// Every change is whole, so what a panicked thread left is good.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(count: u64) -> Work {
        Work { count, busy: Duration::from_millis(count) }
    }

    fn counts(operations: &Operations, devices: &[Name]) -> Vec<(String, String, u64)> {
        let totals = operations.totals(devices, usize::MAX);
        let told = totals.into_iter().map(|it| {
            assert_eq!(it.total.busy, Duration::from_millis(it.total.count));
            (it.device_uuid.to_string(), it.service.to_string(), it.total.count)
        });
        told.collect()
    }

    #[test]
    fn work_adds_up_by_device_and_service() {
        let operations = Operations::default();
        operations.add(&"A".into(), &"training".into(), work(3));
        operations.add(&"A".into(), &"training".into(), work(4));
        operations.add(&"A".into(), &"serving".into(), work(1));
        operations.add(&"B".into(), &"training".into(), work(5));
        let all = [("A", "serving", 1), ("A", "training", 7), ("B", "training", 5)];
        let all = all.map(|(device, service, count)| (device.into(), service.into(), count));
        assert_eq!(counts(&operations, &[]), all);
        assert_eq!(counts(&operations, &["B".into(), "C".into()]), all[2..]);
        assert_eq!(operations.totals(&[], 2).len(), 2);
    }

    #[test]
    fn of_too_many_services_the_one_that_told_nothing_for_the_longest_goes() {
        let operations = Operations::default();
        let service = |number: usize| Name::new(&format!("service-{number:02}"));
        for number in 0..SERVICES_PER_DEVICE_MAX {
            operations.add(&"A".into(), &service(number), work(1));
        }
        operations.add(&"A".into(), &service(0), work(1));
        operations.add(&"A".into(), &service(99), work(1));
        let told = counts(&operations, &[]);
        assert_eq!(told.len(), SERVICES_PER_DEVICE_MAX);
        let has = |name: &str, count| told.iter().any(|(_, it, of)| it == name && *of == count);
        assert!(has("service-00", 2) && has("service-99", 1));
        assert!(!told.iter().any(|(_, name, _)| name == "service-01"), "{told:?}");
    }

    #[test]
    fn totals_stay_at_their_bound() {
        let operations = Operations::default();
        let most = Work { count: u64::MAX, busy: Duration::MAX };
        operations.add(&"A".into(), &"s".into(), most);
        operations.add(&"A".into(), &"s".into(), most);
        assert_eq!(operations.totals(&[], 9)[0].total, most);
    }
}
