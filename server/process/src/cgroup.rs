//! Control groups: which one a process is in, and whether one belongs to a root alone.
//!
//! **The rule.** A cgroup is a root's own if it was made for it: the root's parent is in another one, and nobody in it
//! is older than the root. So it is with the first process of a container and with the main process of a service; it
//! is not with one program of several in a container, in a service that starts other people's programs, or in a
//! terminal. It is never the topmost one, a user's session, nor one that holds the coordinator too.
//! Processes below an own cgroup are in it.

use crate::proc::Proc;

/// The most of `/proc/PID/cgroup` that is read: a dozen lines, each with a path of at most 4 KiB.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// A cgroup's path as the reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup(String);

impl Cgroup {
    /// The one that a process is in; `None`: unknown.
    pub(crate) fn of(proc: &Proc, pid: u32) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&proc.text(pid, "cgroup", TEXT_BYTES_MAX)?))
    }

    /// The unified hierarchy's path, or where that is not in use the first of those that container runtimes and
    /// systemd always fill.
    fn parse(text: &str) -> Option<Self> {
        let path_of = |wanted: &str| {
            text.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                let is_wanted = controllers.split(',').any(|controller| controller == wanted);
                (is_wanted && path != "/").then(|| Self(path.to_owned()))
            })
        };
        let named = ["", "name=systemd", "pids", "memory"].iter().find_map(|name| path_of(name));
        named.or_else(|| (!text.is_empty()).then(|| Self("/".to_owned())))
    }

    /// Whether it is the other or below it.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(&other.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || other.0 == "/")
    }

    /// Whether it could be anybody's own, with the coordinator in this one.
    pub(crate) fn may_be_own(&self, coordinator: &Self) -> bool {
        let name = self.0.rsplit('/').next().unwrap_or_default();
        let is_session = name.starts_with("session-") && name.ends_with(".scope")
            || name.starts_with("user@") && name.ends_with(".service")
            || name == "init.scope";
        self.0 != "/" && !is_session && !coordinator.is_within(self)
    }
}

impl From<&str> for Cgroup {
    fn from(path: &str) -> Self {
        Self(path.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, expected: Option<&str>) {
        assert_eq!(Cgroup::parse(text).map(|cgroup| cgroup.0).as_deref(), expected, "{text}");
    }

    #[test]
    fn both_versions_are_read() {
        parsed("0::/system.slice/a.service\n", Some("/system.slice/a.service"));
        parsed("12:pids:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n", Some("/docker/abc"));
        parsed("5:cpu,memory:/kubepods/pod1/x:y\n", Some("/kubepods/pod1/x:y"));
        parsed("0::/\n", Some("/"));
        parsed("", None);
    }

    #[test]
    fn what_is_below_is_within_and_a_neighbour_of_a_like_name_is_not() {
        let within = |path: &str, other: &str| Cgroup::from(path).is_within(&other.into());
        assert!(within("/a/b", "/a") && within("/a", "/a") && within("/a", "/"));
        assert!(!within("/ab", "/a") && !within("/a", "/a/b"));
    }

    #[test]
    fn sessions_and_whatever_holds_the_coordinator_are_nobodys_own() {
        let coordinator = Cgroup::from("/system.slice/gpulease.service");
        let own = |path: &str| Cgroup::from(path).may_be_own(&coordinator);
        for path in ["/system.slice/train.service", "/system.slice/docker-0a.scope", "/docker/0a"] {
            assert!(own(path), "{path}");
        }
        assert!(own("/user.slice/user-1000.slice/user@1000.service/app.slice/run-r1.scope"));
        for path in [
            "/",
            "/init.scope",
            "/system.slice",
            "/system.slice/gpulease.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service",
        ] {
            assert!(!own(path), "{path}");
        }
    }
}
