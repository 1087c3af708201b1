//! Notices as plain Rust values: what is asked of a holder, by when, and why; and how a lease may be preempted.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use gpulease_proto::v1;

use crate::{
    convert,
    info::{ParseNameError, named_enum},
};

named_enum! {
    /// How a lease may be taken back before its holder is done.
    ///
    /// ```
    /// use gpulease::Preemptible;
    /// assert_eq!("pause".parse(), Ok(Preemptible::Pause));
    /// ```
    Preemptible {
        /// Not at all. The default.
        Never = "NEVER",
        /// By a notice: the holder stops, gives the devices back and keeps the lease, which resumes by itself.
        Pause = "PAUSE",
        /// By a notice: the holder stops, and the lease ends.
        End = "END",
    }
}

/// A numbered promise to take the devices at a deadline, unless the holder gives them first or it is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// Its number, never used again.
    pub id: u64,
    /// How long the holder had left when this value was made: the figure to obey.
    pub remaining: Duration,
    /// When that will be over, for display.
    pub deadline_at: Option<SystemTime>,
    /// Why. The notice is withdrawn when its last cause is gone.
    pub causes: Vec<NoticeCause>,
    /// By how much the holder may still extend it, once; `None`: it has done so, or there is nothing to extend.
    pub extension_max: Option<Duration>,
}

impl From<v1::Notice> for Notice {
    fn from(wire: v1::Notice) -> Self {
        Self {
            id: wire.id,
            remaining: wire.remaining.and_then(convert::duration).unwrap_or_default(),
            deadline_at: wire.deadline_time.and_then(convert::time),
            causes: wire.causes.into_iter().map(NoticeCause::from).collect(),
            extension_max: wire.extension_max.and_then(convert::duration),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "notice {}, {:.1} s left", self.id, self.remaining.as_secs_f64())?;
        for (index, cause) in self.causes.iter().enumerate() {
            write!(formatter, "{}{cause}", if index == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// One cause of a notice.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoticeCause {
    /// Another request needs the devices.
    Preemption {
        /// That request.
        lease_id: u64,
    },
    /// An operator drains a device or a whole node.
    Drain {
        /// The node, by name.
        node: String,
        /// The device, by UUID; `None`: the whole node.
        device_uuid: Option<String>,
    },
    /// Something that this release does not know.
    Other,
}

impl From<v1::NoticeCause> for NoticeCause {
    fn from(wire: v1::NoticeCause) -> Self {
        match wire.kind() {
            v1::NoticeCauseKind::Preemption => Self::Preemption { lease_id: wire.lease_id },
            v1::NoticeCauseKind::Drain => {
                Self::Drain { node: wire.node, device_uuid: convert::text(wire.device_uuid) }
            }
            v1::NoticeCauseKind::Unspecified => Self::Other,
        }
    }
}

impl fmt::Display for NoticeCause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preemption { lease_id } => {
                write!(formatter, "lease {lease_id} needs the devices")
            }
            Self::Drain { node, device_uuid: None } => write!(formatter, "node {node} is drained"),
            Self::Drain { device_uuid: Some(uuid), .. } => {
                write!(formatter, "device {uuid} is drained")
            }
            Self::Other => formatter.write_str("a cause that this release does not know"),
        }
    }
}

/// A process on the coordinator's host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Process {
    /// Its id, as the coordinator sees it.
    pub pid: u32,
    /// When it started, in clock ticks since boot. Together with the id it never means another process.
    pub started_ticks: Option<u64>,
}

impl From<v1::Process> for Process {
    fn from(wire: v1::Process) -> Self {
        Self { pid: wire.pid, started_ticks: wire.started_ticks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_how_long_and_why() {
        let cause = |kind: v1::NoticeCauseKind, device_uuid: &str| v1::NoticeCause {
            kind: kind as i32,
            lease_id: 7,
            device_uuid: device_uuid.to_owned(),
            node: "node-a".to_owned(),
        };
        let notice = Notice::from(v1::Notice {
            id: 3,
            remaining: Some(prost_types::Duration { seconds: 2, nanos: 500_000_000 }),
            causes: vec![
                cause(v1::NoticeCauseKind::Preemption, ""),
                cause(v1::NoticeCauseKind::Drain, ""),
                cause(v1::NoticeCauseKind::Drain, "GPU-1"),
                cause(v1::NoticeCauseKind::Unspecified, ""),
            ],
            ..v1::Notice::default()
        });
        let expected = "notice 3, 2.5 s left: lease 7 needs the devices, node node-a is drained, \
                        device GPU-1 is drained, a cause that this release does not know";
        assert_eq!(notice.to_string(), expected);
    }
}
