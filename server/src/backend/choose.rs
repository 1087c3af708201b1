//! Which backend serves: the simulation that was asked for, this host's devices, or none.
//!
//! It promises that devices are never invented: without `--simulate` and without a usable driver there are none, and
//! the reason is said.

use std::path::{Path, PathBuf};

use super::{
    Backend, BackendError, DeviceDefaults, Found, Handle, Host, NoDriver, Nvml, NvmlConfig,
    Running, Sink, pace,
    simulated::{Simulation, scenario, spec},
};

/// What a backend is made of.
#[derive(Clone, Debug, Default)]
pub struct BackendConfig {
    /// `--simulate`: a specification such as `2x24GiB`, or the path of a scenario file.
    pub simulate: Option<String>,
    /// Which driver, where nothing is simulated.
    pub choice: Choice,
    /// How NVIDIA devices are read.
    pub nvml: NvmlConfig,
    /// The local host.
    pub host: Host,
    /// How much of a device may be granted, unless a scenario says otherwise.
    pub devices: DeviceDefaults,
}

/// Which driver serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The one that is there.
    #[default]
    Auto,
    /// NVIDIA's, even if it is not there yet: it is looked for again and again.
    Nvml,
    /// None.
    None,
}

/// A backend, not yet at work.
pub struct Chosen {
    /// Which.
    pub backend: Box<dyn Backend>,
    /// Why there are no devices, or not yet; for people.
    pub reason: Option<String>,
}

/// Makes the backend that the configuration asks for. A driver is waited for two seconds at most.
///
/// # Errors
/// `Spec`, `ScenarioUnreadable` or `Scenario` for a simulation that cannot be; `Host` where the local host cannot be
/// described and is needed; `Thread` if the system gives no thread for the driver.
pub fn choose(config: &BackendConfig) -> Result<Chosen, BackendError> {
    if let Some(simulate) = &config.simulate {
        let plan = match scenario_path(simulate) {
            Some(path) => scenario::read(&path, &config.devices)?,
            None => spec::parse(simulate, || config.host.describe(), &config.devices)?,
        };
        return Ok(Chosen { backend: Box::new(Simulation::new(plan)), reason: None });
    }
    let node = config.host.describe()?;
    let none = |reason: String| {
        let backend = Box::new(NoDriver::new(config.host.describe()?));
        Ok(Chosen { backend, reason: Some(reason) })
    };
    if config.choice == Choice::None {
        return none("devices are switched off in the configuration".to_owned());
    }
    let (nvml, found) = Nvml::open(node, config.nvml.clone(), config.devices.clone())?;
    let reason = match found {
        Found::Absent(reason) if config.choice == Choice::Auto => return none(reason),
        Found::Absent(reason) | Found::OutOfOrder(reason) => Some(reason),
        Found::Late => Some("the NVIDIA driver has not answered yet".to_owned()),
        Found::Devices => None,
    };
    Ok(Chosen { backend: Box::new(nvml), reason })
}

/// Puts a backend to work: it reports to the sink, and is asked through the handle.
///
/// # Errors
/// `Thread` if the system gives none.
pub fn start(
    backend: Box<dyn Backend>,
    sink: Box<dyn Sink>,
    handle: &Handle,
) -> Result<Running, BackendError> {
    pace::run(backend, sink, handle)
}

/// A specification has neither a slash nor that ending.
fn scenario_path(simulate: &str) -> Option<PathBuf> {
    let is_path = simulate.contains('/')
        || Path::new(simulate).extension().is_some_and(|extension| extension == "toml");
    is_path.then(|| PathBuf::from(simulate))
}

#[cfg(test)]
mod tests {
    use gpulease_fake_nvml::{Code, Device, FakeNvml};

    use super::super::{Summary, host::tests::alpha};
    use super::*;

    fn check(config: BackendConfig, expected: Summary) -> Option<String> {
        let (_root, host) = alpha();
        let Chosen { backend, reason } = choose(&BackendConfig { host, ..config }).unwrap();
        assert_eq!(backend.summary(), expected);
        reason
    }

    fn simulate(text: &str) -> BackendConfig {
        BackendConfig { simulate: Some(text.to_owned()), ..Default::default() }
    }

    fn driver(library: &Path, choice: Choice) -> BackendConfig {
        let mut config = BackendConfig { choice, ..Default::default() };
        config.nvml.driver.library = Some(library.to_owned());
        config
    }

    const NONE: Summary = Summary { name: "none", nodes: 1, devices: 0 };
    const NVML: Summary = Summary { name: "nvml", nodes: 1, devices: 0 };

    #[test]
    fn a_driver_that_is_there_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let fake = FakeNvml::copy_to(folder.path()).unwrap();
        (0..3).for_each(|number| fake.add_device(Device::new(number)).unwrap());
        let expected = Summary { devices: 3, ..NVML };
        assert_eq!(check(driver(fake.library(), Choice::Auto), expected), None);
        assert!(check(driver(fake.library(), Choice::None), NONE).is_some());
    }

    #[test]
    fn without_a_driver_there_is_a_node_without_devices_and_a_reason() {
        let reason = check(driver("there/is/none.so".as_ref(), Choice::Auto), NONE).unwrap();
        assert!(reason.contains("none.so"), "{reason}");
        check(driver("there/is/none.so".as_ref(), Choice::Nvml), NVML).unwrap();
    }

    #[test]
    fn a_driver_that_is_there_and_cannot_be_used_is_waited_for() {
        for (code, advice) in
            [(Code::VERSION_MISMATCH, "restart"), (Code::DRIVER_NOT_LOADED, "modprobe")]
        {
            let folder = tempfile::tempdir().unwrap();
            let fake = FakeNvml::copy_to(folder.path()).unwrap();
            fake.fail("nvmlInit_v2", code).unwrap();
            let reason = check(driver(fake.library(), Choice::Auto), NVML).unwrap();
            assert!(reason.contains(advice), "{reason}");
        }
    }

    #[test]
    fn a_specification_is_the_local_node_with_devices() {
        check(simulate("2x24GiB"), Summary { name: "simulated", nodes: 1, devices: 2 });
    }

    #[test]
    fn a_path_is_a_scenario() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backend/simulated/example.toml");
        check(simulate(path), Summary { name: "simulated", nodes: 3, devices: 11 });
    }

    #[test]
    fn a_scenario_that_is_not_there_is_named() {
        let message = choose(&simulate("gone.toml")).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("gone.toml"), "{message}");
    }
}
