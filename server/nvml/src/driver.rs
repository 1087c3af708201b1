//! The driver as gpulease sees it: opened, let go and opened again; its devices read one by one.
//!
//! Each opening begins a *generation*: what a device cannot do is found out once in each, and its handles and marks
//! end with it. The table of `error` says what follows from each error of NVML.

mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nvml_wrapper::error::NvmlError;

use crate::{
    DeviceFailure, DeviceInfo, DriverError, Figure, Inventory,
    error::{Class, classify},
    pci,
    session::{Attached, LIBRARY, Session},
};

/// The most devices of one host: far over the 16 of the largest, and a bound on an inventory.
pub const DEVICES_MAX: u32 = 1_024;

/// So many samples in a row with an unclear answer about a device's memory, or inventories in which it said nothing
/// clear, make it unavailable. One is nothing; at a sample a second, three are within the 3 s after which the device
/// would be stale anyway, and so it is while inventories wait for a clear answer.
pub const UNCLEAR_MAX: u32 = 3;

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The library; `None`: the one that the system's loader finds.
    pub library: Option<PathBuf>,
    /// Usually `/sys`.
    pub sysfs_root: PathBuf,
    /// Usually `/proc`.
    pub proc_root: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { library: None, sysfs_root: "/sys".into(), proc_root: "/proc".into() }
    }
}

/// NVML and its devices.
pub struct Driver {
    options: Options,
    session: Option<Session>,
    devices: Vec<Known>,
    /// The devices that ever answered in this generation, by NVML's number: what a lost one was.
    uuids: BTreeMap<u32, String>,
    /// In how many inventories in a row a device said nothing clear, by NVML's number: at most one for each device.
    unclear: BTreeMap<u32, u32>,
    generation: u64,
    quiesced: bool,
    remarks: Vec<Remark>,
}

/// Why a device gives no figures now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Trouble {
    /// The last inventory had no such device.
    #[error("the driver has no such device")]
    Unknown,
    /// It is there for others, and closed to this user: configuration, no fault of the device.
    #[error("closed to this user: give it access to the device's file, /dev/nvidia0 for the first")]
    NotPermitted,
    /// It sleeps, and is not woken: what it held when it fell asleep, it still holds.
    #[error("the device sleeps")]
    Asleep,
    /// It cannot be used.
    #[error("{0}")]
    Unavailable(String),
    /// It said nothing clear this time.
    #[error("{0}")]
    Unclear(String),
    /// No device can be read before [`Driver::rebuild`] succeeds.
    #[error("the NVIDIA driver cannot be used")]
    Driver(#[source] DriverError),
}

/// A figure that a device does not give, told once in each generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Which device.
    pub uuid: String,
    /// Which figure.
    pub figure: Figure,
    /// Why.
    pub why: String,
    /// It is a matter of permissions, and tried again at every turn.
    pub not_permitted: bool,
}

/// A device of the last inventory.
struct Known {
    info: DeviceInfo,
    attached: Attached,
    marks: Marks,
}

/// What was found out about a device in this generation.
#[derive(Clone, Default)]
struct Marks {
    off: Vec<Figure>,
    closed: Vec<Figure>,
    remarked: Vec<Figure>,
    /// Unclear answers in a row.
    unclear: u32,
}

impl Driver {
    /// Loads the library and initializes it. That may take seconds, and may hang.
    ///
    /// # Errors
    /// There is no library, or no driver behind it.
    pub fn open(options: Options) -> Result<Self, DriverError> {
        let mut driver = Self::closed(options);
        driver.rebuild()?;
        Ok(driver)
    }

    /// A driver that is still to be opened with [`Self::rebuild`].
    #[must_use]
    pub fn closed(options: Options) -> Self {
        Self {
            options,
            session: None,
            devices: Vec::new(),
            uuids: BTreeMap::new(),
            unclear: BTreeMap::new(),
            generation: 0,
            quiesced: false,
            remarks: Vec::new(),
        }
    }

    /// Closes NVML if it is open, and opens it.
    ///
    /// # Errors
    /// As [`Self::open`]; `Quiesced` between [`Self::quiesce`] and [`Self::resume`].
    pub fn rebuild(&mut self) -> Result<(), DriverError> {
        if self.quiesced {
            return Err(DriverError::Quiesced);
        }
        self.close();
        let library = self.options.library.as_deref();
        let path = || library.unwrap_or(Path::new(LIBRARY)).to_owned();
        let session = Session::open(library).map_err(|source| match source {
            NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound => {
                DriverError::NoLibrary { path: path(), source }
            }
            source => DriverError::of("initializing NVML", source),
        })?;
        self.session = Some(session);
        self.generation += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.devices.clear();
        self.uuids.clear();
        self.unclear.clear();
        self.session = None;
    }

    /// Lets NVML and every handle go: open ones block a device reset, a change of partitions, and unloading the
    /// kernel module.
    pub fn quiesce(&mut self) {
        self.quiesced = true;
        self.close();
    }

    /// Opens NVML again after [`Self::quiesce`].
    ///
    /// # Errors
    /// As [`Self::open`]; it is no longer quiesced even then.
    pub fn resume(&mut self) -> Result<(), DriverError> {
        self.quiesced = false;
        self.rebuild()
    }

    /// Whether NVML is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.session.is_some()
    }

    /// How often NVML was opened; counters of the driver begin anew with each.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The figures that were found missing since the last call. At most one for each figure of each device.
    pub fn take_remarks(&mut self) -> Vec<Remark> {
        std::mem::take(&mut self.remarks)
    }

    /// Looks at all devices anew. Devices that sleep are told as they were.
    ///
    /// # Errors
    /// No device can be read before [`Self::rebuild`] succeeds.
    pub fn inventory(&mut self) -> Result<Inventory, DriverError> {
        let quiesced = self.quiesced;
        let Some(session) = &mut self.session else { return Err(closed(quiesced)) };
        let before = std::mem::take(&mut self.devices);
        session.detach_all();
        let count = session
            .nvml()
            .device_count()
            .map_err(|error| DriverError::of("counting the devices", error))?;
        let mut inventory = Inventory {
            driver_version: session.nvml().sys_driver_version().ok(),
            nvml_version: session.nvml().sys_nvml_version().ok(),
            ..Inventory::default()
        };
        for index in 0..count.min(DEVICES_MAX) {
            let known = before.iter().find(|known| known.info.index == index);
            match self.look_at(index, known) {
                Ok(device) => {
                    self.uuids.insert(index, device.info.uuid.clone());
                    self.unclear.remove(&index);
                    self.devices.push(device);
                }
                Err(Trouble::Driver(error)) => return Err(error),
                Err(trouble) => inventory.failures.push(self.failure(index, &trouble)),
            }
        }
        self.devices.sort_by_key(|known| {
            let address = known.info.pci_address;
            (address.is_none(), address, known.info.index)
        });
        inventory.devices = self.devices.iter().map(|known| known.info.clone()).collect();
        Ok(inventory)
    }

    fn failure(&mut self, index: u32, trouble: &Trouble) -> DeviceFailure {
        let mut reason = trouble.to_string();
        let mut unclear = matches!(trouble, Trouble::Unclear(_));
        if unclear {
            let times = self.unclear.entry(index).or_default();
            *times = times.saturating_add(1);
            unclear = *times < UNCLEAR_MAX;
            reason = format!("{reason}, {times} times in a row");
        } else {
            self.unclear.remove(&index);
        }
        let not_permitted = matches!(trouble, Trouble::NotPermitted);
        DeviceFailure {
            index,
            uuid: self.uuids.get(&index).cloned(),
            reason,
            not_permitted,
            unclear,
        }
    }

    /// Attaches to one device, and reads what it is unless it sleeps.
    fn look_at(&mut self, index: u32, before: Option<&Known>) -> Result<Known, Trouble> {
        let asleep = before.and_then(|known| known.info.pci_address);
        let asleep = asleep.is_some_and(|address| pci::asleep(&self.options.sysfs_root, address));
        let session = self.session.as_mut().ok_or(Trouble::Unknown)?;
        let attached = insist(|| session.attach(index))
            .map_err(|error| refused("attaching to a device", error))?;
        if let Some(Known { info, marks, .. }) = before.filter(|_| asleep) {
            return Ok(Known { info: info.clone(), attached, marks: marks.clone() });
        }
        let uuid = insist(|| session.device(attached).and_then(|device| device.uuid()))
            .map_err(|error| refused("reading the UUID of a device", error))?;
        let before = before.filter(|known| known.info.uuid == uuid);
        self.describe(index, attached, uuid, before)
    }
}

/// Asks again while the answer is unclear, for a moment's trouble is not worth to miss a device until the next
/// inventory.
fn insist<T>(mut ask: impl FnMut() -> Result<T, NvmlError>) -> Result<T, NvmlError> {
    for _ in 1..UNCLEAR_MAX {
        match ask() {
            Err(error) if classify(&error) == Class::Unclear => {}
            clear => return clear,
        }
    }
    ask()
}

fn closed(quiesced: bool) -> DriverError {
    if quiesced {
        return DriverError::Quiesced;
    }
    DriverError::of("reading devices", NvmlError::Uninitialized)
}

/// What follows where a device does not even say who it is.
fn refused(attempted: &'static str, error: NvmlError) -> Trouble {
    match classify(&error) {
        Class::Rebuild => Trouble::Driver(DriverError::of(attempted, error)),
        Class::NotPermitted => Trouble::NotPermitted,
        Class::Unclear => Trouble::Unclear(format!("{attempted} failed: {error}")),
        Class::Off | Class::Unavailable => {
            Trouble::Unavailable(format!("{attempted} failed: {error}"))
        }
    }
}
