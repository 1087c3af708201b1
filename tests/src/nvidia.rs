//! A host with NVIDIA devices that do not exist: the fake driver, a coordinator that reads it and serves a Unix socket,
//! and programs that really run, of which the driver is told what they use.
//!
//! It promises that what a test does to the driver holds for the coordinator's next look, and that programs end with
//! the test. It leaves to the test to say what programs use: they use nothing.

use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use gpulease::Client;
use gpulease_fake_nvml::{Device, FakeNvml, uuid};
use gpulease_proto::v1;
use tempfile::TempDir;

use crate::{
    coordinator::{Coordinator, Settings},
    deadline::until,
    wire::{Refusal, Wire, refusal, whole_devices},
};

/// What the driver keeps of each of its devices, which have 80 GiB.
pub const DRIVER_BYTES: u64 = 600 << 20;
/// What leases may have together of a device that nobody else uses: all but the driver's part and the reserve.
pub const FREE_BYTES: u64 = (80 << 30) - DRIVER_BYTES - (512 << 20);

/// A driver, and a coordinator that is still to be started on it.
#[derive(Debug)]
#[must_use = "nothing serves until start is called"]
pub struct Prepared {
    /// The driver.
    pub fake: FakeNvml,
    settings: Settings,
    folder: TempDir,
}

/// A coordinator at work on a fake driver.
#[derive(Debug)]
pub struct NvidiaHost {
    /// The coordinator.
    pub coordinator: Coordinator,
    /// Its socket.
    pub wire: Wire,
    /// The driver.
    pub fake: FakeNvml,
    folder: TempDir,
}

impl Prepared {
    /// A driver with so many devices of 80 GiB. Processes are attributed in whatever PID namespace the tests run: it
    /// is the driver's.
    ///
    /// # Errors
    /// The fake library is not there, or cannot be copied.
    pub fn with(devices: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the driver")?;
        let fake = FakeNvml::copy_to(folder.path()).context("copy the fake driver")?;
        for number in 0..devices {
            fake.add_device(Device::new(number)).context("add a device")?;
        }
        let library = fake.library().display().to_string();
        let settings = Coordinator::settings()
            .socket(folder.path().join("gpulease.sock"))
            .environment("GPULEASE_DEVICES_NVML_LIBRARY", library)
            .environment("GPULEASE_DEVICES_ATTRIBUTION", "on");
        Ok(Self { fake, settings, folder })
    }

    /// Another setting of the coordinator: a key of the configuration as `leases.lock_delay`, and its value.
    pub fn key(mut self, key: &str, value: &str) -> Self {
        let variable = format!("GPULEASE_{}", key.to_uppercase().replace('.', "_"));
        self.settings = self.settings.environment(variable, value);
        self
    }

    /// Serves HTTP too.
    pub fn http(mut self) -> Self {
        self.settings = self.settings.http();
        self
    }

    /// Starts the coordinator.
    ///
    /// # Errors
    /// As [`Settings::start`].
    pub async fn start(self) -> anyhow::Result<NvidiaHost> {
        let coordinator = self.settings.start().await?;
        let wire = Wire::connect(&endpoint(&self.folder)).await?;
        Ok(NvidiaHost { coordinator, wire, fake: self.fake, folder: self.folder })
    }
}

fn endpoint(folder: &TempDir) -> String {
    format!("unix://{}", folder.path().join("gpulease.sock").display())
}

impl NvidiaHost {
    /// One with so many devices and everything else by default.
    ///
    /// # Errors
    /// As [`Prepared::with`] and [`Prepared::start`].
    pub async fn with(devices: u32) -> anyhow::Result<Self> {
        Prepared::with(devices)?.start().await
    }

    /// The socket, as clients name it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        endpoint(&self.folder)
    }

    /// A holder on the socket.
    ///
    /// # Errors
    /// No coordinator.
    pub async fn client(&self, holder: &str) -> Result<Client, gpulease::Error> {
        Client::builder().endpoint(self.endpoint()).holder(holder).connect().await
    }

    /// A device as the coordinator shows it.
    ///
    /// # Errors
    /// The refusal.
    pub async fn device(&self, number: u32) -> anyhow::Result<v1::Device> {
        let request = v1::DeviceServiceGetRequest { uuid: uuid(number) };
        let answer = self.wire.devices().get(request).await?.into_inner();
        answer.device.context("an answer without its device")
    }

    /// Waits until a device is shown in a certain way; how it is then.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// When it does not come soon.
    pub async fn device_until(
        &self,
        number: u32,
        what: &str,
        accepts: impl Fn(&v1::Device) -> bool,
    ) -> anyhow::Result<v1::Device> {
        until(what, async || {
            let device = self.device(number).await?;
            Ok(if accepts(&device) { Ok(device) } else { Err(format!("{device:?}")) })
        })
        .await
    }

    /// The processes on all devices.
    ///
    /// # Errors
    /// The refusal.
    pub async fn processes(&self) -> anyhow::Result<Vec<v1::DeviceProcess>> {
        let request = v1::ListProcessesRequest::default();
        Ok(self.wire.devices().list_processes(request).await?.into_inner().processes)
    }

    /// Waits until a program is shown on a device in a certain way; how it is then.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// When it does not come soon.
    pub async fn process_until(
        &self,
        pid: u32,
        what: &str,
        accepts: impl Fn(&v1::DeviceProcess) -> bool,
    ) -> anyhow::Result<v1::DeviceProcess> {
        let is_it = |process: &v1::DeviceProcess| {
            process.process.as_ref().is_some_and(|process| process.pid == pid) && accepts(process)
        };
        until(what, async || {
            let processes = self.processes().await?;
            let shown = format!("{processes:?}");
            Ok(processes.into_iter().find(is_it).ok_or(shown))
        })
        .await
    }

    /// The refusal that somebody gets who wants a whole device now.
    ///
    /// # Panics
    /// When it is granted.
    pub async fn whole_refused(&self, name: &str) -> Refusal {
        let request = v1::AcquireRequest { wait: None, ..whole_devices(name, 1) };
        refusal(self.wire.leases().acquire(request).await)
    }

    /// Waits until a lease is in a state; how it is then.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Panics
    /// When it does not come soon.
    pub async fn lease_until(&self, id: u64, state: v1::LeaseState) -> anyhow::Result<v1::Lease> {
        until(state.as_str_name(), async || {
            let lease = self.wire.lease(id).await?;
            Ok(if lease.state() == state { Ok(lease) } else { Err(format!("{lease:?}")) })
        })
        .await
    }

    /// Ends a lease on an operator's word.
    ///
    /// # Errors
    /// The refusal.
    pub async fn revoke(&self, lease_id: u64) -> anyhow::Result<()> {
        let request = v1::RevokeRequest { lease_id, reason: "the test says so".to_owned() };
        self.wire.leases().revoke(request).await?;
        Ok(())
    }
}

/// A program that really runs, in a process group of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts one.
    ///
    /// # Errors
    /// There is no `sleep`.
    pub fn start() -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new("sleep");
        command.arg("600").process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self { child: command.spawn().context("start sleep")? })
    }

    /// Its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As a request declares it.
    #[must_use]
    pub fn declared(&self) -> Option<v1::Process> {
        Some(v1::Process { pid: self.pid(), started_ticks: None })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself, or have been looked at already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
