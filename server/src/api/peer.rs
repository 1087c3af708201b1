//! Who is at the other end of a connection, as far as the system vouches for it.
//!
//! Over the Unix socket the kernel tells user and process. A process may be declared (P6, P8) by root, and by the user
//! that runs it; what is not vouched for is refused rather than guessed. A caller in a PID namespace of its own knows
//! other ids than this host: it can declare itself alone, without an id. Over TCP nothing is known.

use std::fs;

use gpulease_core::request::{InvalidField, Process};
use gpulease_process::{Proc, ProcessKey};
use gpulease_proto::v1;
use tonic::{Extensions, transport::server::UdsConnectInfo};

/// The other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this host, over the Unix socket.
    Local {
        /// Its user.
        uid: u32,
        /// Its id; `None`: the kernel does not tell, or it is in a namespace that cannot be seen from here.
        pid: Option<u32>,
    },
    /// Somebody, over the network.
    Remote,
}

impl Peer {
    /// Of a request, by what its connection brought along.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let local = extensions.get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        local.map_or(Self::Remote, |credentials| {
            let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok());
            Self::Local { uid: credentials.uid(), pid: pid.filter(|pid| *pid > 0) }
        })
    }

    /// A process that this peer may declare, with its start time.
    pub(super) fn process(&self, wire: &v1::Process) -> Result<Process, InvalidField> {
        let refuse = |bound: &str| Err(InvalidField::new("process.pid", wire.pid, bound));
        let Self::Local { uid, pid: own } = *self else {
            return refuse("absent over TCP: a process can be declared over the Unix socket alone");
        };
        let Some(pid) = Some(wire.pid).filter(|pid| *pid > 0).or(own) else {
            return refuse("the id of a process: the kernel does not tell the caller's own");
        };
        if wire.pid > 0 && own.is_some_and(in_another_namespace) {
            return refuse(
                "0, for the caller itself: it is in a PID namespace of its own, where ids mean others",
            );
        }
        let proc = Proc::default();
        let Some(key) = proc.key(pid).ok().flatten() else {
            return refuse("a process that runs on this host");
        };
        if uid != 0 && proc.owner(key) != Some(uid) {
            return refuse(&format!("a process of your own user ({uid}), which this one is not"));
        }
        let ProcessKey { pid, started: started_ticks } = key;
        match wire.started_ticks {
            Some(said) if said != started_ticks => {
                let bound = format!("{started_ticks}, when process {pid} started");
                Err(InvalidField::new("process.started_ticks", said, bound))
            }
            _ => Ok(Process { pid, started_ticks }),
        }
    }
}

/// Whether a process certainly sees other ids than this one does.
fn in_another_namespace(pid: u32) -> bool {
    let namespace = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/pid")).ok();
    match (namespace("self"), namespace(&pid.to_string())) {
        (Some(own), Some(other)) => own != other,
        // Where that may not be looked at, user and start time have to do.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const fn local(uid: u32) -> Peer {
        Peer::Local { uid, pid: None }
    }

    fn own() -> v1::Process {
        v1::Process { pid: std::process::id(), started_ticks: None }
    }

    #[test]
    fn a_process_is_declared_by_root_and_by_its_own_user_alone() {
        let uid = fs::metadata("/proc/self").unwrap().uid();
        let declared = local(uid).process(&own()).unwrap();
        assert_eq!(local(0).process(&own()).unwrap(), declared);
        let refused = local(uid + 1).process(&own()).unwrap_err();
        assert!(refused.to_string().contains("your own user"), "{refused}");
        let refused = Peer::Remote.process(&own()).unwrap_err();
        assert!(refused.to_string().contains("Unix socket"), "{refused}");
    }

    #[test]
    fn a_process_that_is_not_there_or_started_at_another_time_is_refused() {
        let root = local(0);
        for pid in [i32::MAX.unsigned_abs(), u32::MAX] {
            let gone = v1::Process { pid, started_ticks: None };
            assert_eq!(root.process(&gone).unwrap_err().field, "process.pid");
        }
        let other = v1::Process { started_ticks: Some(1), ..own() };
        assert_eq!(root.process(&other).unwrap_err().field, "process.started_ticks");
    }

    #[test]
    fn without_an_id_a_caller_declares_itself_as_the_kernel_knows_it() {
        let itself = v1::Process { pid: 0, started_ticks: None };
        let uid = fs::metadata("/proc/self").unwrap().uid();
        let peer = Peer::Local { uid, pid: Some(std::process::id()) };
        assert_eq!(peer.process(&itself).unwrap(), peer.process(&own()).unwrap());
        let refused = local(uid).process(&itself).unwrap_err();
        assert!(refused.bound.contains("does not tell"), "{refused}");
    }
}
