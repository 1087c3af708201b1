//! The configuration of the coordinator: raw texts in, valid values out, defaults and units in one place.
//!
//! Precedence: flag, then environment, then file, then default. Every key stands once, in the table of [`keys`]; the
//! file, the environment (`GPULEASE_` and the key in capitals, dots as underscores) and `--print-config` come from it.
//! Promises: an unknown key or a bad value is an error that names where it stands, the key, the value and what would
//! do; what is valid here needs no further check. It opens no data directory and no socket.

mod args;
mod defaults;
mod error;
mod file;
mod keys;
mod owners;
mod print;
mod services;
mod value;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use gpulease_core::policy::Policy;

pub use args::ServeArgs;
pub use defaults::Environment;
pub use error::ConfigError;

use error::Origin;
use keys::Key;
use value::Raw;

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where gRPC listens.
    pub listen: Option<SocketAddr>,
    /// Where HTTP listens: health and status.
    pub http: Option<SocketAddr>,
    /// Where gRPC listens on this host.
    pub socket: Option<PathBuf>,
    /// Where the journal is.
    pub data: PathBuf,
    /// Devices to simulate, or the path of a scenario.
    pub simulate: Option<String>,
    /// What is logged: a level, or a list of targets with levels.
    pub log_level: String,
    /// How.
    pub log_format: LogFormat,
    /// The most batches kept behind the newest snapshot.
    pub history_batches_max: usize,
    /// The most bytes of batches kept behind the newest snapshot.
    pub history_bytes_max: u64,
    /// Which driver serves.
    pub device_driver: DeviceDriver,
    /// NVIDIA's library; `None`: the one that the system finds.
    pub nvml_library: Option<PathBuf>,
    /// Whether device memory is attributed to processes.
    pub attribution: Attribution,
    /// Slots of each device; `None`: by the host's CPUs.
    pub device_slots: Option<u64>,
    /// Memory kept back from leases on each device, in bytes.
    pub device_memory_reserve_bytes: u64,
    /// The most memory in use on each device, in bytes.
    pub device_memory_limit_bytes: Option<u64>,
    /// How the scheduler decides.
    pub policy: Policy,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which driver serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceDriver {
    /// The one that is there.
    #[default]
    Auto,
    /// NVIDIA's.
    Nvml,
    /// None.
    None,
}

/// Whether device memory is attributed to processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribution {
    /// Where the host's processes can be seen.
    #[default]
    Auto,
    /// Even where they cannot.
    On,
    /// Not at all.
    Off,
}

impl Config {
    /// Puts the configuration together from flags, environment and file.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML, a key is unknown, or a value is out of bounds.
    pub fn load(args: &ServeArgs, environment: &Environment) -> Result<Self, ConfigError> {
        let mut config = defaults::config(environment);
        if let Some((path, text)) = find_file(args, environment)? {
            file::apply(&mut config, &path, &text)?;
        }
        for key in keys::ALL {
            let variable = key.variable();
            if let Some(text) = environment.variable(&variable) {
                set(&mut config, key, &Raw::Text(text), || Origin::Variable(variable))?;
            }
        }
        for (flag, name, text) in args.values() {
            let key = keys::find(name).expect("every flag names a key, and a test looks");
            set(&mut config, key, &Raw::Text(text.to_owned()), || Origin::Flag(flag))?;
        }
        Ok(config)
    }

    /// All of it as a commented configuration file.
    #[must_use]
    pub fn to_toml(&self, environment: &Environment) -> String {
        print::toml(self, &defaults::config(environment))
    }
}

fn set(
    config: &mut Config,
    key: &Key,
    raw: &Raw,
    origin: impl FnOnce() -> Origin,
) -> Result<(), ConfigError> {
    key.kind.set(config, raw).map_err(|bound| ConfigError::BadValue {
        origin: origin(),
        key: key.name.to_owned(),
        value: raw.to_string(),
        bound,
    })
}

/// The file that was named, or the first of the usual ones that is there.
fn find_file(
    args: &ServeArgs,
    environment: &Environment,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let named =
        args.config.clone().or_else(|| environment.variable("GPULEASE_CONFIG").map(Into::into));
    if let Some(path) = named {
        return read(&path).map(|text| Some((path, text)));
    }
    for path in environment.usual_files() {
        match read(&path) {
            Ok(text) => return Ok(Some((path, text))),
            Err(ConfigError::Unreadable { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests;
