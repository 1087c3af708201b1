//! Who is at the other end of a connection, as far as the system vouches for it.
//!
//! Over the Unix socket the kernel tells user and process. A process may be declared (P6, P8) by root, and by the user
//! that runs it; what is not vouched for is refused rather than guessed. Over TCP nothing is known.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use gpulease_core::request::{InvalidField, Process};
use gpulease_proto::v1;
use tonic::{Extensions, transport::server::UdsConnectInfo};

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this user, over the Unix socket.
    Local {
        /// The user.
        uid: u32,
    },
    /// Somebody, over the network.
    Remote,
}

/// What of a process the system tells.
struct Known {
    uid: u32,
    started_ticks: u64,
}

impl Peer {
    /// Of a request, by what its connection brought along.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let local = extensions.get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        local.map_or(Self::Remote, |credentials| Self::Local { uid: credentials.uid() })
    }

    /// A process that this peer may declare, with its start time.
    pub(super) fn process(&self, wire: &v1::Process) -> Result<Process, InvalidField> {
        let Self::Local { uid } = *self else {
            let bound = "absent over TCP: a process can be declared over the Unix socket alone";
            return Err(InvalidField::new("process.pid", wire.pid, bound));
        };
        let known = look_up(Path::new("/proc"), wire.pid).map_err(|_| {
            InvalidField::new("process.pid", wire.pid, "a process that runs on this host")
        })?;
        if uid != 0 && uid != known.uid {
            let bound = format!("a process of your own user ({uid}), which this one is not");
            return Err(InvalidField::new("process.pid", wire.pid, bound));
        }
        let started_ticks = wire.started_ticks.unwrap_or(known.started_ticks);
        if started_ticks != known.started_ticks {
            let bound = format!("{}, when process {} started", known.started_ticks, wire.pid);
            return Err(InvalidField::new("process.started_ticks", started_ticks, bound));
        }
        Ok(Process { pid: wire.pid, started_ticks })
    }
}

fn look_up(proc: &Path, pid: u32) -> io::Result<Known> {
    let folder = proc.join(pid.to_string());
    let uid = fs::metadata(&folder)?.uid();
    let stat = fs::read_to_string(folder.join("stat"))?;
    // The command, in parentheses, may hold anything; the start time is the 20th field behind it.
    let behind = stat.rsplit_once(')').map_or("", |(_, behind)| behind);
    let started = behind.split_whitespace().nth(19).and_then(|ticks| ticks.parse().ok());
    let started_ticks = started.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Known { uid, started_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> v1::Process {
        v1::Process { pid: std::process::id(), started_ticks: None }
    }

    #[test]
    fn a_process_is_declared_by_root_and_by_its_own_user_alone() {
        let uid = fs::metadata("/proc/self").unwrap().uid();
        let declared = Peer::Local { uid }.process(&own()).unwrap();
        assert_eq!(Peer::Local { uid: 0 }.process(&own()).unwrap(), declared);
        let refused = Peer::Local { uid: uid + 1 }.process(&own()).unwrap_err();
        assert!(refused.to_string().contains("your own user"), "{refused}");
        let refused = Peer::Remote.process(&own()).unwrap_err();
        assert!(refused.to_string().contains("Unix socket"), "{refused}");
    }

    #[test]
    fn a_process_that_is_not_there_or_started_at_another_time_is_refused() {
        let root = Peer::Local { uid: 0 };
        let gone = v1::Process { pid: u32::MAX, started_ticks: None };
        assert_eq!(root.process(&gone).unwrap_err().field, "process.pid");
        let other = v1::Process { started_ticks: Some(1), ..own() };
        assert_eq!(root.process(&other).unwrap_err().field, "process.started_ticks");
    }
}
