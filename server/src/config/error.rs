//! What can be wrong with a configuration, and where it stands.

use std::{fmt, io, path::PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A place in a file; line and column count from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
            Self::Flag(flag) => write!(f, "the flag {flag}"),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: this is no TOML: {what}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        what: String,
    },
    /// There is no such key.
    #[error("{origin}: unknown key `{key}`{}", nearest(*nearest_key))]
    UnknownKey {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// The valid key most like it.
        nearest_key: Option<&'static str>,
    },
    /// A value that would not do.
    #[error("{origin}: {key} is {value}; it must be {bound}")]
    BadValue {
        /// Where.
        origin: Origin,
        /// The key.
        key: String,
        /// The value, cut to a readable length.
        value: String,
        /// What would do.
        bound: String,
    },
}

fn nearest(key: Option<&str>) -> String {
    let all = "`gpulease serve --print-config` shows all keys";
    key.map_or_else(|| format!("; {all}"), |key| format!("; did you mean `{key}`? {all}"))
}
