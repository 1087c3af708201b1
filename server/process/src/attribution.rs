//! Whether process ids mean here what they mean to a driver.
//!
//! A driver names processes by their ids on the host. In another namespace such an id matches nothing, or a wrong
//! process; where other users' processes are hidden, a living one looks as if it had exited.

use crate::proc::Proc;

/// The kernel's fixed number of its first PID namespace.
const HOST_NAMESPACE: &str = "pid:[4026531836]";

/// Why processes cannot be told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Blind {
    /// This process sees ids of its own namespace.
    #[error(
        "it runs in a PID namespace of its own, where the driver's process ids match nothing: give it the host's (--pid=host, hostPID: true)"
    )]
    ForeignNamespace,
    /// The kernel does not say in which namespace it runs.
    #[error("the kernel does not say in which PID namespace it runs; is /proc mounted?")]
    UnknownNamespace,
    /// Other users' processes are hidden.
    #[error(
        "the processes of other users are hidden from it: mount /proc without hidepid, or run it as root"
    )]
    Hidden,
}

/// Whether processes can be attributed from here.
///
/// # Errors
/// Why not.
pub fn can_attribute(proc: &Proc) -> Result<(), Blind> {
    let namespace = std::fs::read_link(proc.root().join("self/ns/pid"));
    let namespace = namespace.map_err(|_| Blind::UnknownNamespace)?;
    if namespace.as_os_str() != HOST_NAMESPACE {
        return Err(Blind::ForeignNamespace);
    }
    if !sees_everybody(proc) {
        return Err(Blind::Hidden);
    }
    Ok(())
}

/// The first process is always there, and never this user's own unless everything is visible to it.
pub(crate) fn sees_everybody(proc: &Proc) -> bool {
    matches!(proc.stat(1), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn check(namespace: Option<&str>, first: bool, expected: Result<(), Blind>) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("self/ns")).unwrap();
        if let Some(namespace) = namespace {
            symlink(namespace, root.path().join("self/ns/pid")).unwrap();
        }
        if first {
            std::fs::create_dir(root.path().join("1")).unwrap();
            let stat = "1 (init) S 0 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 2 0";
            std::fs::write(root.path().join("1/stat"), stat).unwrap();
        }
        assert_eq!(can_attribute(&Proc::at(root.path())), expected);
    }

    #[test]
    fn processes_are_attributed_only_where_all_of_the_hosts_are_seen() {
        check(Some("pid:[4026531836]"), true, Ok(()));
        check(Some("pid:[4026531836]"), false, Err(Blind::Hidden));
        check(Some("pid:[4026532758]"), true, Err(Blind::ForeignNamespace));
        check(None, true, Err(Blind::UnknownNamespace));
    }
}
