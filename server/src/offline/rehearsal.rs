//! Whether a coordinator would start on a journal: found out on a copy, since opening the store changes files.

use std::{fs, io, panic, path::Path};

use gpulease_core::policy::Policy;

use super::error::OfflineError;
use crate::{
    actor::recovery::{self, RecoveryError},
    journal::sled,
};

/// Why a coordinator does not start on the journal at this path; `None`: it does. The journal must be held meanwhile.
pub(super) fn refusal(journal: &Path) -> Result<Option<RecoveryError>, OfflineError> {
    let parent = std::env::temp_dir();
    let failed = |source| OfflineError::Copy { path: parent.clone(), source };
    // Tokens are in there: the directory is its owner's alone.
    let place = tempfile::Builder::new().prefix("gpulease-check-").tempdir_in(&parent);
    let place = place.map_err(failed)?;
    copy(journal, &place.path().join("journal")).map_err(failed)?;
    // sled panics where it meets damage that it does not expect. The store makes errors of that, and they are told.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let started = sled::refuse_damage(place.path(), recovery::revision_of)
        .and_then(|()| sled::open(place.path()))
        .map_err(RecoveryError::from)
        .and_then(|opened| recovery::recover(opened, Policy::default()).map(drop));
    panic::set_hook(hook);
    Ok(started.err())
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
