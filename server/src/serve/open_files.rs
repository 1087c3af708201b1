//! The limit on open files: connections are files, and the usual soft limit of 1,024 is there for programs that count
//! them in a small array, which this one does not.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Where that is refused, fewer connections are let in.
pub(super) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
}
