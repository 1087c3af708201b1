//! What the driver's thread does: one pass after another, over devices and processes.
//!
//! Promises: each figure of a pass is read after the pass began; memory and processes of one device come from one look
//! at it, repeated where memory moved meanwhile; a driver that went away is opened anew, ever less often, and
//! meanwhile processes are looked at all the same.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::time::{Duration, Instant};

use gpulease_core::{id::Name, input::ProcessUse, request::Process, time::Time};
use gpulease_nvml::{
    self as nvml, Driver, DriverError, Inventory, Memory, ProcessList, Remark, Sample, Trouble,
};

use super::tiers::Backoff;
use crate::backend::processes::Processes;

/// How often memory and processes of a device are read because memory moved between the first and the last call.
const LOOKS_MAX: usize = 3;

/// While a device is missing, every tenth inventory opens NVML anew: it learns of devices that came back when it
/// starts.
const INVENTORIES_PER_REBUILD: u32 = 10;

/// What a pass is to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// When it is asked for.
    pub(super) now: Time,
    /// Let NVML go, or take it up again, first.
    pub(super) quiesced: Option<bool>,
    /// Look for devices.
    pub(super) inventory: bool,
    /// Read the cheap figures of all devices.
    pub(super) samples: bool,
    /// Look at memory and processes together.
    pub(super) looks: Looks,
    /// Roots to follow from now on.
    pub(super) tracked: Vec<Process>,
}

/// At which devices.
#[derive(Clone, Debug, Default)]
pub(super) enum Looks {
    #[default]
    None,
    At(Vec<Name>),
    /// At all that are awake, and at these.
    All {
        and_asleep: Vec<Name>,
    },
}

/// What it found.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// What there is, if it was looked for.
    pub(super) inventory: Option<Inventory>,
    /// The devices that were read.
    pub(super) readings: Vec<Reading>,
    /// The tracked roots that may have a living member, if processes were looked at. All others have exited.
    pub(super) alive: Option<Vec<Process>>,
    /// Why the driver cannot be used.
    pub(super) out_of_order: Option<OutOfOrder>,
    /// How long each kind of pass took, if there was one.
    pub(super) took: Took,
    /// Figures that were found missing.
    pub(super) remarks: Vec<Remark>,
}

/// A driver that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OutOfOrder {
    pub(super) reason: String,
    /// There is none on this host.
    pub(super) absent: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Took {
    pub(super) inventory: Option<Duration>,
    pub(super) samples: Option<Duration>,
    pub(super) looks: Option<Duration>,
}

impl Took {
    /// Everything together.
    pub(super) fn all(&self) -> Duration {
        [self.inventory, self.samples, self.looks].into_iter().flatten().sum()
    }
}

/// One device.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) uuid: String,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// It sleeps: all is as it was.
    Asleep,
    /// It cannot be used.
    Unavailable(String),
    /// What was read.
    Read { sample: Option<Sample>, look: Option<Look> },
}

/// Memory and processes of one device, from one look at it.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) memory: Option<Memory>,
    pub(super) users: Users,
}

#[derive(Debug)]
pub(super) enum Users {
    /// As the driver tells of them, before anybody looked who they are.
    Unnamed(Vec<nvml::ProcessUse>),
    /// Not clear this time.
    Unknown,
    /// They cannot be told apart.
    Blind(Name),
    Known(Vec<ProcessUse>),
}

/// Driver and processes.
pub(super) struct Reader {
    driver: Driver,
    /// Why the driver must be opened anew, and when.
    trouble: Option<OutOfOrder>,
    backoff: Backoff,
    /// The devices of the last inventory, and all that were in any.
    devices: Vec<String>,
    known: BTreeSet<String>,
    /// Inventories in a row that missed a device.
    misses: u32,
    processes: Processes,
}

impl From<DriverError> for OutOfOrder {
    fn from(error: DriverError) -> Self {
        // A kernel module may be loaded at any time after the start of the host.
        let absent = matches!(error, DriverError::NoLibrary { .. });
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        Self { reason: format!("{error}{source}"), absent }
    }
}

impl Reader {
    pub(super) fn new(driver: Driver, processes: Processes) -> Self {
        Self {
            driver,
            trouble: None,
            backoff: Backoff::default(),
            devices: Vec::new(),
            known: BTreeSet::new(),
            misses: 0,
            processes,
        }
    }

    pub(super) fn pass(&mut self, wanted: &Wanted) -> Passed {
        let mut passed = Passed::default();
        wanted.tracked.iter().for_each(|root| self.processes.track(*root, wanted.now));
        if let Err(trouble) = self.read(wanted, &mut passed) {
            if self.backoff.is_over(wanted.now) {
                self.backoff.failed(wanted.now);
            }
            self.trouble = Some(trouble.clone());
            passed.out_of_order = Some(trouble);
            passed.readings.clear();
        }
        if !matches!(wanted.looks, Looks::None) || !wanted.tracked.is_empty() {
            let ((), took) = timed(|| self.look_at_processes(wanted.now, &mut passed));
            *passed.took.looks.get_or_insert_default() += took;
        }
        passed.remarks = self.driver.take_remarks();
        passed
    }

    /// Everything that the driver is asked.
    fn read(&mut self, wanted: &Wanted, passed: &mut Passed) -> Result<(), OutOfOrder> {
        self.quiesce(wanted.quiesced);
        let opened = self.open(wanted.now)?;
        if wanted.inventory || opened {
            let (inventory, took) = timed(|| self.take_inventory());
            passed.inventory = Some(inventory?);
            passed.took.inventory = Some(took);
        }
        self.read_devices(wanted, passed)
    }

    fn quiesce(&mut self, quiesced: Option<bool>) {
        match quiesced {
            Some(true) => self.driver.quiesce(),
            Some(false) => {
                // It is tried at once; what keeps it closed is told by the try that follows.
                self.backoff.succeeded();
                let _ = self.driver.resume();
            }
            None => {}
        }
    }

    /// Opens NVML if it is not open or failed, but not more often than it may be tried; answers whether it did.
    fn open(&mut self, now: Time) -> Result<bool, OutOfOrder> {
        if self.driver.is_open() && self.trouble.is_none() {
            return Ok(false);
        }
        if let Some(trouble) = self.trouble.as_ref().filter(|_| !self.backoff.is_over(now)) {
            return Err(trouble.clone());
        }
        self.driver.rebuild()?;
        self.trouble = None;
        Ok(true)
    }

    fn take_inventory(&mut self) -> Result<Inventory, OutOfOrder> {
        if self.misses >= INVENTORIES_PER_REBUILD {
            self.misses = 0;
            self.driver.rebuild()?;
        }
        let inventory = self.driver.inventory()?;
        self.backoff.succeeded();
        self.devices = inventory.devices.iter().map(|device| device.uuid.clone()).collect();
        self.known.extend(self.devices.iter().cloned());
        let here: BTreeSet<&String> = self.devices.iter().collect();
        let missing = self.known.iter().any(|uuid| !here.contains(uuid));
        self.misses = if missing { self.misses + 1 } else { 0 };
        Ok(inventory)
    }

    fn read_devices(&mut self, wanted: &Wanted, passed: &mut Passed) -> Result<(), OutOfOrder> {
        if wanted.samples {
            passed.took.samples = Some(Duration::ZERO);
        }
        if !matches!(wanted.looks, Looks::None) {
            passed.took.looks = Some(Duration::ZERO);
        }
        for uuid in self.devices.clone() {
            let look = wanted.looks.include(&self.driver, &uuid);
            if !(look || wanted.samples) {
                continue;
            }
            let outcome = match self.read_device(&uuid, look, wanted.samples, &mut passed.took) {
                Ok(outcome) => outcome,
                Err(Trouble::Asleep) => Outcome::Asleep,
                Err(Trouble::Driver(error)) => return Err(error.into()),
                Err(trouble) => Outcome::Unavailable(trouble.to_string()),
            };
            passed.readings.push(Reading { uuid, outcome });
        }
        Ok(())
    }

    /// Memory is read once, by the look where there is one.
    fn read_device(
        &mut self,
        uuid: &str,
        look: bool,
        sample: bool,
        took: &mut Took,
    ) -> Result<Outcome, Trouble> {
        let looked = look.then(|| timed(|| self.look(uuid)));
        let look = looked.map(|(look, time)| add(&mut took.looks, time, look)).transpose()?;
        let sampled =
            sample.then(|| {
                timed(|| {
                    if look.is_some() {
                        self.driver.sensors(uuid)
                    } else {
                        self.driver.sample(uuid)
                    }
                })
            });
        let sample =
            sampled.map(|(sample, time)| add(&mut took.samples, time, sample)).transpose()?;
        Ok(Outcome::Read { sample, look })
    }

    /// Memory first and last: where it moved, somebody came, went or grew in between.
    fn look(&mut self, uuid: &str) -> Result<Look, Trouble> {
        let mut memory = self.driver.memory(uuid)?;
        if let Some(blind) = self.processes.blind() {
            return Ok(Look { memory, users: Users::Blind(blind.clone()) });
        }
        let mut list = ProcessList::Unclear;
        for _ in 0..LOOKS_MAX {
            let Some(before) = memory else { break };
            list = self.driver.processes(uuid)?;
            memory = self.driver.memory(uuid)?;
            if memory.is_some_and(|memory| memory.used_bytes == before.used_bytes) {
                break;
            }
        }
        let users = match list {
            ProcessList::Known(list) => Users::Unnamed(list),
            ProcessList::Unclear => Users::Unknown,
            ProcessList::NotPermitted => {
                Users::Blind("the driver does not let this user see them".into())
            }
            ProcessList::Unsupported => Users::Blind("the driver does not tell who uses it".into()),
        };
        Ok(Look { memory, users })
    }

    /// Looks at the processes of the host, and tells those on the devices by what was seen.
    fn look_at_processes(&mut self, now: Time, passed: &mut Passed) {
        let blind = match self.processes.pass(now) {
            Ok(alive) => {
                passed.alive = alive;
                None
            }
            Err(blind) => Some(blind),
        };
        for reading in &mut passed.readings {
            if let Outcome::Read { look: Some(Look { users, .. }), .. } = &mut reading.outcome {
                let raw = std::mem::replace(users, Users::Unknown);
                *users = self.name(raw, blind.as_ref());
            }
        }
    }

    fn name(&mut self, users: Users, blind: Option<&Name>) -> Users {
        let Users::Unnamed(raw) = users else { return users };
        if let Some(blind) = blind {
            return Users::Blind(blind.clone());
        }
        let known: Option<Vec<_>> = raw.iter().map(|used| Some((used.pid, used.bytes?))).collect();
        match known {
            Some(known) => Users::Known(self.processes.name(known)),
            None => Users::Blind("the driver does not say how much each process uses".into()),
        }
    }
}

impl Looks {
    /// A sleeping device is woken only if somebody asks for this one.
    fn include(&self, driver: &Driver, uuid: &str) -> bool {
        match self {
            Self::None => false,
            Self::At(devices) => names(devices, uuid),
            Self::All { and_asleep } => names(and_asleep, uuid) || !driver.is_asleep(uuid),
        }
    }
}

fn names(devices: &[Name], uuid: &str) -> bool {
    devices.iter().any(|device| device.as_str() == uuid)
}

/// Adds to a time that is counted, and passes the rest on.
fn add<T>(sum: &mut Option<Duration>, time: Duration, outcome: T) -> T {
    *sum.get_or_insert_default() += time;
    outcome
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let outcome = work();
    (outcome, began.elapsed())
}
