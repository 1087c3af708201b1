//! Which backend serves: the simulation that was asked for, or none.
//!
//! It promises that devices are never invented: without `--simulate` and without a usable driver there are none.
//! Real drivers (NVML, amd) get their arm here.

use std::path::{Path, PathBuf};

use super::{
    Backend, BackendError, DeviceDefaults, Host, NoDriver, Running, Sink, pace,
    simulated::{Simulation, scenario, spec},
};

/// What a backend is made of.
#[derive(Clone, Debug, Default)]
pub struct BackendConfig {
    /// `--simulate`: a specification such as `2x24GiB`, or the path of a scenario file.
    pub simulate: Option<String>,
    /// The local host.
    pub host: Host,
    /// How much of a device may be granted, unless a scenario says otherwise.
    pub devices: DeviceDefaults,
}

/// Makes the backend that the configuration asks for.
///
/// # Errors
/// `Spec`, `ScenarioUnreadable` or `Scenario` for a simulation that cannot be; `Host` where the local host cannot be
/// described and is needed.
pub fn choose(config: &BackendConfig) -> Result<Box<dyn Backend>, BackendError> {
    let Some(simulate) = &config.simulate else {
        return Ok(Box::new(NoDriver::new(config.host.describe()?)));
    };
    let plan = match scenario_path(simulate) {
        Some(path) => scenario::read(&path, &config.devices)?,
        None => spec::parse(simulate, || config.host.describe(), &config.devices)?,
    };
    Ok(Box::new(Simulation::new(plan)))
}

/// Makes the backend that the configuration asks for, and runs it.
///
/// # Errors
/// As [`choose`], and `Thread`.
pub fn start(config: &BackendConfig, sink: Box<dyn Sink>) -> Result<Running, BackendError> {
    pace::run(choose(config)?, sink)
}

/// A specification has neither a slash nor that ending.
fn scenario_path(simulate: &str) -> Option<PathBuf> {
    let is_path = simulate.contains('/')
        || Path::new(simulate).extension().is_some_and(|extension| extension == "toml");
    is_path.then(|| PathBuf::from(simulate))
}

#[cfg(test)]
mod tests {
    use super::super::{Summary, host::tests::alpha};
    use super::*;

    fn check(simulate: Option<&str>, expected: Summary) {
        let (_root, host) = alpha();
        let config =
            BackendConfig { simulate: simulate.map(str::to_owned), host, ..Default::default() };
        assert_eq!(choose(&config).unwrap().summary(), expected);
    }

    #[test]
    fn nothing_simulated_is_a_node_without_devices() {
        check(None, Summary { name: "none", nodes: 1, devices: 0 });
    }

    #[test]
    fn a_specification_is_the_local_node_with_devices() {
        check(Some("2x24GiB"), Summary { name: "simulated", nodes: 1, devices: 2 });
    }

    #[test]
    fn a_path_is_a_scenario() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backend/simulated/example.toml");
        check(Some(path), Summary { name: "simulated", nodes: 3, devices: 11 });
    }

    #[test]
    fn a_scenario_that_is_not_there_is_named() {
        let config = BackendConfig { simulate: Some("gone.toml".into()), ..Default::default() };
        let message = choose(&config).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("gone.toml"), "{message}");
    }
}
