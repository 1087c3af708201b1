//! The latest sample of every device, and readers that never slow anyone (P21).
//!
//! A publisher replaces; it never waits for a reader. Each reader keeps the number of the last sample it saw of each
//! device, so what it missed is a subtraction. Memory is one sample for each device, whoever reads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use gpulease_core::{id::Name, inventory::DEVICES_KNOWN_MAX};
use tokio::sync::watch;

/// One set of measurements of one device. A field that is unknown is `None`, never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Which device, by UUID.
    pub device_uuid: Name,
    /// When it was measured, for display.
    pub time: SystemTime,
    /// The same, to tell its age by.
    pub measured_at: Instant,
    /// Memory in use, in bytes.
    pub memory_used_bytes: Option<u64>,
    /// Memory that no holding lease explains, in bytes.
    pub memory_foreign_bytes: Option<u64>,
    /// Share of the last period in which the device worked, in thousandths.
    pub utilization_permille: Option<u32>,
    /// Temperature, in degrees Celsius.
    pub temperature_celsius: Option<i32>,
    /// Power draw, in thousandths of a watt.
    pub power_draw_milliwatts: Option<u64>,
}

impl Sample {
    /// A sample of a device, taken now, of which nothing is known yet.
    #[must_use]
    pub fn unknown(device_uuid: Name) -> Self {
        Self {
            device_uuid,
            time: SystemTime::now(),
            measured_at: Instant::now(),
            memory_used_bytes: None,
            memory_foreign_bytes: None,
            utilization_permille: None,
            temperature_celsius: None,
            power_draw_milliwatts: None,
        }
    }
}

#[derive(Debug)]
struct Latest {
    sample: Arc<Sample>,
    /// How many samples of this device there have been.
    number: u64,
}

#[derive(Debug)]
struct Shared {
    latest: Mutex<BTreeMap<Name, Latest>>,
    published: watch::Sender<u64>,
}

impl Shared {
    /// Every write leaves the map whole, so what a panicked thread left is good.
    fn latest(&self) -> MutexGuard<'_, BTreeMap<Name, Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where samplers publish and everyone else reads. Clones share it.
#[derive(Clone, Debug)]
pub struct SampleHub(Arc<Shared>);

impl Default for SampleHub {
    fn default() -> Self {
        let latest = Mutex::default();
        Self(Arc::new(Shared { latest, published: watch::Sender::new(0) }))
    }
}

impl SampleHub {
    /// Makes these the latest samples of their devices. A device beyond [`DEVICES_KNOWN_MAX`] is left out, as the
    /// inventory leaves it out.
    pub fn publish(&self, samples: Vec<Sample>) {
        {
            let mut latest = self.0.latest();
            for sample in samples {
                if let Some(known) = latest.get_mut(&sample.device_uuid) {
                    known.number += 1;
                    known.sample = Arc::new(sample);
                } else if latest.len() < DEVICES_KNOWN_MAX {
                    let uuid = sample.device_uuid.clone();
                    latest.insert(uuid, Latest { sample: Arc::new(sample), number: 1 });
                }
            }
        }
        self.0.published.send_modify(|count| *count += 1);
    }

    /// The latest sample of each of these devices that was ever measured, or of all if none is named.
    #[must_use]
    pub fn latest(&self, devices: &[Name]) -> Vec<Arc<Sample>> {
        let latest = self.0.latest();
        if devices.is_empty() {
            return latest.values().map(|latest| Arc::clone(&latest.sample)).collect();
        }
        let found = devices.iter().filter_map(|uuid| latest.get(uuid));
        found.map(|latest| Arc::clone(&latest.sample)).collect()
    }

    /// A reader of these devices, or of all if none is named.
    #[must_use]
    pub fn subscribe(&self, devices: Vec<Name>) -> SampleReader {
        let mut published = self.0.published.subscribe();
        published.mark_changed();
        SampleReader { shared: Arc::clone(&self.0), published, devices, seen: HashMap::new() }
    }
}

/// What is new since the last look.
#[derive(Debug, Default)]
pub struct News {
    /// At most one sample for each device.
    pub samples: Vec<Arc<Sample>>,
    /// How many older ones were skipped.
    pub skipped: u64,
}

/// Reads at its own pace. The first look shows the latest sample of each device, and skips none.
#[derive(Debug)]
pub struct SampleReader {
    shared: Arc<Shared>,
    published: watch::Receiver<u64>,
    devices: Vec<Name>,
    seen: HashMap<Name, u64>,
}

impl SampleReader {
    /// Waits until there is news, and takes it. Given up while waiting, it loses none.
    pub async fn next(&mut self) -> News {
        loop {
            // It cannot fail: this reader keeps the hub, and with it the sender.
            let _ = self.published.changed().await;
            let news = self.take();
            if !news.samples.is_empty() {
                return news;
            }
        }
    }

    fn take(&mut self) -> News {
        let mut news = News::default();
        let latest = self.shared.latest();
        let mut look = |uuid: &Name, latest: &Latest| {
            let before = self.seen.insert(uuid.clone(), latest.number);
            if before == Some(latest.number) {
                return;
            }
            news.skipped += before.map_or(0, |before| latest.number - before - 1);
            news.samples.push(Arc::clone(&latest.sample));
        };
        if self.devices.is_empty() {
            latest.iter().for_each(|(uuid, latest)| look(uuid, latest));
        } else {
            let named = self.devices.iter().filter_map(|uuid| Some((uuid, latest.get(uuid)?)));
            named.for_each(|(uuid, latest)| look(uuid, latest));
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(uuid: &str, used: u64) -> Sample {
        Sample { memory_used_bytes: Some(used), ..Sample::unknown(uuid.into()) }
    }

    fn used(news: &News) -> Vec<Option<u64>> {
        news.samples.iter().map(|sample| sample.memory_used_bytes).collect()
    }

    #[tokio::test]
    async fn a_slow_reader_gets_the_latest_and_the_count_of_what_it_skipped() {
        let hub = SampleHub::default();
        hub.publish(vec![sample("A", 1), sample("B", 10)]);
        let mut reader = hub.subscribe(Vec::new());
        let first = reader.next().await;
        assert_eq!((used(&first), first.skipped), (vec![Some(1), Some(10)], 0));
        for used in 2..=5 {
            hub.publish(vec![sample("A", used)]);
        }
        let second = reader.next().await;
        assert_eq!((used(&second), second.skipped), (vec![Some(5)], 3));
    }

    #[tokio::test]
    async fn a_reader_of_one_device_is_not_woken_for_good_by_another() {
        let hub = SampleHub::default();
        let mut reader = hub.subscribe(vec!["A".into()]);
        hub.publish(vec![sample("B", 1)]);
        hub.publish(vec![sample("A", 7)]);
        assert_eq!(used(&reader.next().await), vec![Some(7)]);
        assert_eq!(hub.latest(&["B".into(), "C".into()]).len(), 1);
    }
}
