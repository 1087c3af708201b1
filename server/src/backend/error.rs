//! What can keep a backend from starting, told apart by what the operator does next.
//!
//! Once a backend runs it has no errors: what it cannot read is absent from its reports.

use std::io;
use std::path::PathBuf;

/// The accepted forms of a simulation, part of every message about a bad one.
pub(super) const SPEC_FORMS: &str = "write COUNTxSIZE such as 2x24GiB, COUNTxSIZE:MODEL such as 8x80GiB:H100, several \
     with commas such as 4x16GiB:T4,2x80GiB:H100, or the path of a scenario file that ends in .toml";

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The text after `--simulate` means nothing.
    #[error("cannot simulate {spec:?}: {problem}; {SPEC_FORMS}")]
    Spec {
        /// The text, cut to a readable length.
        spec: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The scenario file cannot be read.
    #[error("cannot read the scenario file {}: name a readable file", path.display())]
    ScenarioUnreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The scenario file says something that cannot be.
    #[error(
        "{}:{line}: {}{problem}", path.display(),
        key.as_ref().map(|key| format!("key `{key}`: ")).unwrap_or_default()
    )]
    Scenario {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key at fault, where one is.
        key: Option<String>,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The host does not say what it is.
    #[error("cannot describe this host: {attempted} failed for {}; is /proc mounted?", path.display())]
    Host {
        /// What was attempted.
        attempted: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The backend's thread could not be started.
    #[error("cannot start the thread of the {backend} backend: raise the limit on threads")]
    Thread {
        /// Which backend.
        backend: &'static str,
        /// The system's error.
        source: io::Error,
    },
}
