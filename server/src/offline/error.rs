//! How `gpulease journal` can fail, and with which exit code.

use std::{error::Error, io, path::PathBuf};

use gpulease_core::state::Defect;

use crate::{
    config::ConfigError,
    journal::{JournalError, codec::CodecError},
};

/// What is damaged or lost has this exit code, whether or not the verb did its work.
pub(super) const DAMAGED: u8 = 4;

#[derive(Debug, thiserror::Error)]
pub(super) enum OfflineError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot create {}: it is there already; name another file with --to", path.display())]
    Exists { path: PathBuf },
    #[error("cannot {attempted} {}", path.display())]
    File { attempted: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "cannot make a copy of the journal in {} to try a start on it; name a directory with room in TMPDIR",
        path.display()
    )]
    Copy { path: PathBuf, source: io::Error },
    #[error(
        "cannot import: no fencing token is left in the export, so the next one is counted from the system clock, and \
         that says {unix_seconds} s after 1970, which is before this gpulease was made; set the clock"
    )]
    Clock { unix_seconds: u64 },
    #[error("cannot import, which is a defect")]
    Inapplicable(#[from] Defect),
    #[error("cannot encode the import, which is a defect")]
    Codec(#[from] CodecError),
    #[error("cannot write to stdout")]
    Stdout(#[source] io::Error),
}

impl OfflineError {
    pub(super) fn file(
        attempted: &'static str,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> Self {
        Self::File { attempted, path: path.into(), source }
    }

    /// The exit code, as the help lists them.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Journal(JournalError::InUse { .. }) => 3,
            Self::Journal(
                JournalError::Corrupt { .. }
                | JournalError::UnknownFormat { .. }
                | JournalError::Import { .. },
            ) => DAMAGED,
            _ => 1,
        }
    }

    /// The message with its causes, each once.
    pub(super) fn text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }
}
