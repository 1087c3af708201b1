//! Reading one device: each figure by itself, so that what fails takes nothing else with it.

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;

use super::{Driver, Known, Marks, Remark, Trouble, UNCLEAR_MAX, closed};
use crate::{
    DeviceInfo, DriverError, Figure, Memory, MemorySize, ProcessList, Sample,
    error::{Class, classify},
    pci::{self, PciAddress},
    process::{Merged, ProcessKind},
    session::{Attached, Session},
};

/// Models whose memory is the host's. What is missing here and has no memory of its own stays unmeasured, for to take
/// a broken device for one of these would grant the host's memory.
const UNIFIED_MODELS: &[&str] = &["GB10", "Orin", "Thor"];

/// A device of the last inventory while it is read: everything that reading needs, borrowed apart.
struct Reader<'a> {
    session: &'a mut Session,
    attached: Attached,
    uuid: &'a str,
    marks: &'a mut Marks,
    remarks: &'a mut Vec<Remark>,
}

impl Driver {
    /// Measures a device: memory and sensors. A sleeping one is left asleep.
    ///
    /// # Errors
    /// [`Trouble`] says what follows.
    pub fn sample(&mut self, uuid: &str) -> Result<Sample, Trouble> {
        if self.is_asleep(uuid) {
            return Err(Trouble::Asleep);
        }
        let memory = self.memory(uuid)?;
        Ok(Sample { memory, ..self.sensors(uuid)? })
    }

    /// Reads a device's sensors: everything of a sample but memory.
    ///
    /// # Errors
    /// [`Trouble`] says what follows.
    pub fn sensors(&mut self, uuid: &str) -> Result<Sample, Trouble> {
        let mut reader = self.reader(uuid)?;
        Ok(Sample {
            memory: None,
            utilization_permille: reader
                .read(Figure::Utilization, |device| device.utilization_rates())?
                .map(|rates| rates.gpu.min(100) * 10),
            temperature_celsius: reader
                .read(Figure::Temperature, |device| device.temperature(TemperatureSensor::Gpu))?
                .and_then(|celsius| i32::try_from(celsius).ok()),
            power_draw_milliwatts: reader
                .read(Figure::Power, |device| device.power_usage())?
                .map(u64::from),
            clock_event_bits: reader
                .figure(Figure::ClockEvents, |session, at| session.clock_events(at))?,
        })
    }

    /// Measures a device's memory alone, sleeping or not.
    ///
    /// # Errors
    /// [`Trouble`] says what follows.
    pub fn memory(&mut self, uuid: &str) -> Result<Option<Memory>, Trouble> {
        let proc_root = self.options.proc_root.clone();
        let unified = self.known(uuid).is_some_and(|known| is_unified(&known.info.model));
        let memory = self.reader(uuid)?.memory()?;
        if memory.is_none() && unified {
            return Ok(host_memory(&proc_root));
        }
        Ok(memory)
    }

    /// The processes on a device. This is the expensive call, and wakes a sleeping device.
    ///
    /// # Errors
    /// [`Trouble`] says what follows.
    pub fn processes(&mut self, uuid: &str) -> Result<ProcessList, Trouble> {
        let lists = [
            (Figure::ComputeProcesses, ProcessKind::Compute),
            (Figure::GraphicsProcesses, ProcessKind::Graphics),
            (Figure::MpsProcesses, ProcessKind::Mps),
        ];
        let mut reader = self.reader(uuid)?;
        let mut merged = Merged::default();
        for (figure, kind) in lists {
            let list = reader
                .figure(figure, |session, at| session.processes(at, kind).map(<[_]>::to_vec))?;
            match list {
                Some(list) => merged.add(kind, &list),
                // A device that does not draw has no such list; one that cannot tell who computes tells nothing.
                None if reader.is_off(figure) => {
                    if figure == Figure::ComputeProcesses {
                        return Ok(ProcessList::Unsupported);
                    }
                }
                None if reader.is_closed(figure) => return Ok(ProcessList::NotPermitted),
                None => return Ok(ProcessList::Unclear),
            }
        }
        Ok(ProcessList::Known(merged.finish()))
    }

    /// Whether a device sleeps, by what the kernel says.
    #[must_use]
    pub fn is_asleep(&self, uuid: &str) -> bool {
        let address = self.known(uuid).and_then(|known| known.info.pci_address);
        address.is_some_and(|address| pci::asleep(&self.options.sysfs_root, address))
    }

    fn known(&self, uuid: &str) -> Option<&Known> {
        self.devices.iter().find(|known| known.info.uuid == uuid)
    }

    fn reader<'a>(&'a mut self, uuid: &'a str) -> Result<Reader<'a>, Trouble> {
        let quiesced = self.quiesced;
        let Some(session) = &mut self.session else {
            return Err(Trouble::Driver(closed(quiesced)));
        };
        let known = self.devices.iter_mut().find(|known| known.info.uuid == uuid);
        let Known { attached, marks, .. } = known.ok_or(Trouble::Unknown)?;
        let remarks = &mut self.remarks;
        Ok(Reader { session, attached: *attached, uuid, marks, remarks })
    }

    /// Reads what a device is.
    pub(super) fn describe(
        &mut self,
        index: u32,
        attached: Attached,
        uuid: String,
        before: Option<&Known>,
    ) -> Result<Known, Trouble> {
        let Some(session) = &mut self.session else { return Err(Trouble::Unknown) };
        let remarks = &mut self.remarks;
        let mut marks = before.map(|known| known.marks.clone()).unwrap_or_default();
        let mut reader = Reader { session, attached, uuid: &uuid, marks: &mut marks, remarks };
        let model = reader.figure(Figure::Model, |session, at| session.name(at))?;
        let model = model.unwrap_or_else(|| "unknown".to_owned());
        let measured = reader.memory_insisting()?;
        let measured = measured
            .or_else(|| is_unified(&model).then(|| host_memory(&self.options.proc_root)).flatten());
        let mut memory = measured.map(|memory| MemorySize {
            total_bytes: memory.total_bytes,
            reserved_bytes: memory.reserved_bytes,
            unified: memory.unified,
        });
        if memory.is_none() && reader.marks.unclear > 0 {
            memory = before.and_then(|known| known.info.memory);
            if memory.is_none() {
                return Err(Trouble::Unclear("its memory could not be read".to_owned()));
            }
        }
        let capability =
            reader.read(Figure::ComputeCapability, |device| device.cuda_compute_capability())?;
        let info = DeviceInfo {
            index,
            pci_address: reader.pci_address()?,
            model,
            compute_capability: capability.and_then(|capability| {
                Some((capability.major.try_into().ok()?, capability.minor.try_into().ok()?))
            }),
            memory,
            // NVML's own number for "enabled".
            mig_enabled: reader
                .read(Figure::Mig, |device| device.mig_mode())?
                .map(|mode| mode.current == 1),
            uuid: uuid.clone(),
        };
        Ok(Known { info, attached, marks })
    }
}

impl Reader<'_> {
    fn is_off(&self, figure: Figure) -> bool {
        self.marks.off.contains(&figure)
    }

    /// Whether the last try at a figure was not permitted.
    fn is_closed(&self, figure: Figure) -> bool {
        self.marks.closed.contains(&figure)
    }

    /// As [`Self::figure`], with one of the wrapper's calls.
    fn read<T>(
        &mut self,
        figure: Figure,
        read: impl FnOnce(&nvml_wrapper::Device<'_>) -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Trouble> {
        self.figure(figure, |session, at| session.device(at).and_then(|device| read(&device)))
    }

    /// Reads one figure; absent where it cannot be read and the device is none the worse.
    fn figure<T>(
        &mut self,
        figure: Figure,
        read: impl FnOnce(&mut Session, Attached) -> Result<T, NvmlError>,
    ) -> Result<Option<T>, Trouble> {
        if self.is_off(figure) {
            return Ok(None);
        }
        self.marks.closed.retain(|closed| *closed != figure);
        match read(self.session, self.attached) {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.judge(figure, error).map(|()| None),
        }
    }

    fn judge(&mut self, figure: Figure, error: NvmlError) -> Result<(), Trouble> {
        match classify(&error) {
            Class::Off => {
                self.marks.off.push(figure);
                self.remark(figure, &error, false);
                Ok(())
            }
            Class::NotPermitted => {
                self.marks.closed.push(figure);
                self.remark(figure, &error, true);
                Ok(())
            }
            Class::Unavailable => Err(Trouble::Unavailable(error.to_string())),
            Class::Rebuild => Err(Trouble::Driver(DriverError::of("reading a device", error))),
            Class::Unclear => Ok(()),
        }
    }

    fn remark(&mut self, figure: Figure, error: &NvmlError, not_permitted: bool) {
        if !self.marks.remarked.contains(&figure) {
            self.marks.remarked.push(figure);
            let (uuid, why) = (self.uuid.to_owned(), error.to_string());
            self.remarks.push(Remark { uuid, figure, why, not_permitted });
        }
    }

    /// Memory with the driver's own told apart, or as version 1 has it where the driver refuses that. It decides
    /// whether a device that answers strangely is well.
    fn memory(&mut self) -> Result<Option<Memory>, Trouble> {
        let mut unclear = None;
        let apart = self.figure(Figure::MemoryReserved, |session, at| {
            noting(&mut unclear, session.device(at).and_then(|device| device.memory_info()))
        })?;
        let mut memory = apart.map(|info| Memory {
            total_bytes: info.total,
            reserved_bytes: Some(info.reserved),
            used_bytes: info.used,
            unified: false,
        });
        // An unclear answer is no reason to count otherwise, for what is in use would seem to jump.
        if self.is_off(Figure::MemoryReserved) {
            let whole = self.figure(Figure::Memory, |session, at| {
                noting(&mut unclear, session.memory_v1(at))
            })?;
            memory = whole.map(|(total_bytes, used_bytes)| Memory {
                total_bytes,
                reserved_bytes: None,
                used_bytes,
                unified: false,
            });
        }
        self.count_unclear(unclear)?;
        Ok(memory)
    }

    /// Reads memory anew while the answer is unclear; all those together count as one.
    fn memory_insisting(&mut self) -> Result<Option<Memory>, Trouble> {
        let before = self.marks.unclear;
        let mut memory = self.memory()?;
        for _ in 1..UNCLEAR_MAX {
            if self.marks.unclear == 0 {
                break;
            }
            self.marks.unclear = before;
            memory = self.memory()?;
        }
        Ok(memory)
    }

    fn count_unclear(&mut self, unclear: Option<String>) -> Result<(), Trouble> {
        let Some(why) = unclear else {
            self.marks.unclear = 0;
            return Ok(());
        };
        self.marks.unclear = self.marks.unclear.saturating_add(1);
        if self.marks.unclear < UNCLEAR_MAX {
            return Ok(());
        }
        Err(Trouble::Unavailable(format!(
            "its memory could not be read {} times in a row: {why}",
            self.marks.unclear
        )))
    }

    fn pci_address(&mut self) -> Result<Option<PciAddress>, Trouble> {
        let address = self.read(Figure::PciAddress, |device| device.pci_info())?;
        Ok(address.and_then(|info| {
            let numbers = || {
                Some(PciAddress {
                    domain: info.domain,
                    bus: info.bus.try_into().ok()?,
                    device: info.device.try_into().ok()?,
                    function: 0,
                })
            };
            info.bus_id.parse().ok().or_else(numbers)
        }))
    }
}

/// Keeps the text of an error that says nothing clear.
fn noting<T>(unclear: &mut Option<String>, read: Result<T, NvmlError>) -> Result<T, NvmlError> {
    if let Err(error) = &read
        && classify(error) == Class::Unclear
    {
        *unclear = Some(error.to_string());
    }
    read
}

fn is_unified(model: &str) -> bool {
    let mut words = model.split(|next: char| !next.is_ascii_alphanumeric());
    words.any(|word| UNIFIED_MODELS.contains(&word))
}

/// The host's memory as a device's: what is not available is in use.
fn host_memory(proc_root: &std::path::Path) -> Option<Memory> {
    let text = std::fs::read_to_string(proc_root.join("meminfo")).ok()?;
    let bytes = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1_024)
    };
    let (total_bytes, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
    let used_bytes = total_bytes.saturating_sub(available);
    Some(Memory { total_bytes, reserved_bytes: None, used_bytes, unified: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unified_memory_is_said_of_known_models_alone() {
        for (model, expected) in [
            ("NVIDIA GB10", true),
            ("Orin (nvgpu)", true),
            ("NVIDIA Thor", true),
            ("NVIDIA GB100", false),
            ("NVIDIA H100 80GB HBM3", false),
            ("", false),
        ] {
            assert_eq!(is_unified(model), expected, "{model}");
        }
    }

    #[test]
    fn the_hosts_memory_is_read_as_a_devices() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(host_memory(root.path()), None);
        let text = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:   400 kB\n";
        std::fs::write(root.path().join("meminfo"), text).unwrap();
        let memory = host_memory(root.path()).unwrap();
        assert_eq!((memory.total_bytes, memory.used_bytes), (1_024_000, 614_400));
        assert!(memory.unified && memory.reserved_bytes.is_none());
    }
}
