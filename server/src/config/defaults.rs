//! What holds where nothing is said: the contract's table of defaults, by who runs the coordinator.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use gpulease_core::policy::Policy;

use super::{Attribution, Config, DeviceDriver, LogFormat};
use crate::journal::HistoryBound;

/// The contract's ports: gRPC, HTTP.
const PORTS: (u16, u16) = (7475, 7476);
/// The contract's memory reserve of each device.
const MEMORY_RESERVE_BYTES: u64 = 512 << 20;

/// The variables and the user that the coordinator runs with: a value, so that tests need not change the real ones.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    root: bool,
}

impl Environment {
    /// Those of this process. A variable that is no Unicode counts as not set.
    #[must_use]
    pub fn of_process() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            variables: std::env::vars_os().filter_map(unicode).collect(),
            root: rustix::process::geteuid().is_root(),
        }
    }

    /// Others.
    #[must_use]
    pub fn of(root: bool, variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Self { variables: owned.collect(), root }
    }

    /// A variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// Where a configuration file is looked for, in this order.
    pub(super) fn usual_files(&self) -> Vec<PathBuf> {
        let system = PathBuf::from("/etc/gpulease/gpulease.toml");
        let own = self
            .under("XDG_CONFIG_HOME", ".config")
            .map(|home| home.join("gpulease/gpulease.toml"));
        if self.root { vec![system] } else { own.into_iter().chain([system]).collect() }
    }

    /// The directory that a variable of the XDG specification names, or its default below the home directory.
    fn under(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        let named = self.variable(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        named.or_else(|| Some(PathBuf::from(self.variable("HOME")?).join(below_home)))
    }

    fn data(&self) -> PathBuf {
        if self.root {
            return "/var/lib/gpulease".into();
        }
        // Without a home there is no better place than here, and it is shown at the start.
        let home = self.under("XDG_STATE_HOME", ".local/state");
        home.unwrap_or_default().join("gpulease")
    }

    fn socket(&self) -> Option<PathBuf> {
        if self.root {
            return Some("/run/gpulease/gpulease.sock".into());
        }
        self.variable("XDG_RUNTIME_DIR").map(|runtime| PathBuf::from(runtime).join("gpulease.sock"))
    }
}

pub(super) fn config(environment: &Environment) -> Config {
    let loopback = |port| Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    let history = HistoryBound::DEFAULT;
    Config {
        listen: loopback(PORTS.0),
        http: loopback(PORTS.1),
        socket: environment.socket(),
        data: environment.data(),
        simulate: None,
        log_level: "info".to_owned(),
        log_format: LogFormat::Text,
        history_batches_max: usize::try_from(history.batches_max).unwrap_or(usize::MAX),
        history_bytes_max: history.bytes_max,
        device_driver: DeviceDriver::default(),
        nvml_library: None,
        attribution: Attribution::default(),
        device_slots: None,
        device_memory_reserve_bytes: MEMORY_RESERVE_BYTES,
        device_memory_limit_bytes: None,
        policy: Policy::default(),
    }
}
