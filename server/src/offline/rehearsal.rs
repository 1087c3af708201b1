//! Whether a coordinator would start on a journal: found out on a copy, since opening the store changes files.

use std::{fs, io, panic, path::Path};

use gpulease_core::policy::Policy;

use super::error::OfflineError;
use crate::{
    actor::recovery::{self, RecoveryError},
    journal::{JournalError, sled},
};

/// Why a coordinator does not start on the journal of a data directory; `None`: it does. The directory must be held.
pub(super) fn refusal(data: &Path) -> Result<Option<String>, OfflineError> {
    let parent = std::env::temp_dir();
    let failed = |source| OfflineError::Copy { path: parent.clone(), source };
    // Tokens are in there: the directory is its owner's alone.
    let place = tempfile::Builder::new().prefix("gpulease-check-").tempdir_in(&parent);
    let place = place.map_err(failed)?;
    copy(&data.join("journal"), &place.path().join("journal")).map_err(failed)?;
    // sled panics where it meets damage that it does not expect. The store makes errors of that, and they are told.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let started = sled::open(place.path())
        .map_err(RecoveryError::from)
        .and_then(|opened| recovery::recover(opened, Policy::default()).map(drop));
    panic::set_hook(hook);
    let refusal = started.err().map(|error| match error {
        // The way out is what the check tells.
        RecoveryError::Journal(JournalError::Corrupt { what }) => what,
        other => other.to_string(),
    });
    let scratch = place.path().to_string_lossy().into_owned();
    Ok(refusal.map(|why| why.replace(&scratch, &data.to_string_lossy())))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
