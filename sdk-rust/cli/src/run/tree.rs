//! The processes below this one.
//!
//! An orphan becomes a child of the nearest ancestor that asked for orphans: `run` asks, so that whatever its command
//! starts stays in its tree, however often it forks. The tree is what the coordinator takes for the lease's
//! processes, and what is stopped at the end.
//!
//! Promises: children that this program waits for itself are never reaped here.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process, set_child_subreaper, waitid,
};

/// The children of this program. By default these are nobody's business but that of whoever started them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Children {
    adopts: bool,
    /// Those that this program started and waits for itself: the command, hooks, helpers. A handful.
    own: Arc<Mutex<HashSet<Pid>>>,
}

impl Children {
    /// Orphans below this process become its children from now on. Where the kernel has no such thing they go to the
    /// system's first process, as ever.
    pub(crate) fn adopting_orphans() -> Self {
        let adopts = set_child_subreaper(Some(getpid())).is_ok();
        Self { adopts, own: Arc::default() }
    }

    pub(crate) fn add(&self, id: Option<Pid>) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).extend(id);
    }

    pub(crate) fn remove(&self, id: Option<Pid>) {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        id.map(|id| own.remove(&id));
    }

    fn has(&self, id: Pid) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }

    /// Takes leave of ended orphans, so that their ids do not stay taken.
    pub(crate) fn reap_orphans(&self) {
        if !self.adopts {
            return;
        }
        let here = getpid();
        for process in processes() {
            if process.ended && process.parent == Some(here) && !self.has(process.id) {
                let _ =
                    waitid(WaitId::Pid(process.id), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            }
        }
    }

    /// The running processes of a group; of a program that adopts orphans also all below it, without the trees of
    /// some.
    pub(crate) fn running(&self, group: Pid, spared: &[Pid]) -> Vec<Pid> {
        self.found(spared, |process, is_below| is_below || process.group == Some(group))
    }

    /// Those of them that are not in the group.
    pub(crate) fn outside(&self, group: Pid, spared: &[Pid]) -> Vec<Pid> {
        self.found(spared, |process, is_below| is_below && process.group != Some(group))
    }

    fn found(&self, spared: &[Pid], is_meant: impl Fn(&Process, bool) -> bool) -> Vec<Pid> {
        let processes = processes();
        let below = if self.adopts { below(&processes, getpid(), spared) } else { HashSet::new() };
        let running = processes.iter().filter(|process| !process.ended);
        let meant = running.filter(|process| is_meant(process, below.contains(&process.id)));
        meant.map(|process| process.id).collect()
    }
}

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    id: Pid,
    /// It has ended and waits for its parent's attention: in a container nobody may ever pay it.
    ended: bool,
    parent: Option<Pid>,
    group: Option<Pid>,
}

/// Sends a signal to each.
pub(crate) fn signal(ids: &[Pid], signal: Signal) {
    for id in ids {
        // One that is gone needs no signal.
        let _ = kill_process(*id, signal);
    }
}

/// Kills each; returns those that this program may not kill: another user's.
pub(crate) fn kill(ids: &[Pid]) -> Vec<Pid> {
    let refused = |id: &&Pid| kill_process(**id, Signal::KILL) == Err(Errno::PERM);
    ids.iter().filter(refused).copied().collect()
}

fn below(processes: &[Process], root: Pid, spared: &[Pid]) -> HashSet<Pid> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for process in processes {
        if let Some(parent) = process.parent {
            children.entry(parent).or_default().push(process.id);
        }
    }
    let mut found = HashSet::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            if !spared.contains(child) && found.insert(*child) {
                open.push(*child);
            }
        }
    }
    found
}

/// All processes that `/proc` shows now. A process that starts or ends meanwhile may be missing.
fn processes() -> Vec<Process> {
    let Ok(folder) = fs::read_dir("/proc") else { return Vec::new() };
    let stat = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("stat")).ok();
    folder.flatten().filter_map(|entry| parse(&stat(entry)?)).collect()
}

/// A line of `/proc/PID/stat`: the id, the name in parentheses, which may hold anything, the state, the parent, the
/// group.
fn parse(stat: &str) -> Option<Process> {
    let (front, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let pid = |text: Option<&str>| text.and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    Some(Process {
        id: pid(front.split_whitespace().next())?,
        ended: fields.next().is_some_and(|state| matches!(state, "Z" | "X")),
        parent: pid(fields.next()),
        group: pid(fields.next()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(id: i32) -> Pid {
        Pid::from_raw(id).expect("a positive id")
    }

    fn process(id: i32, parent: i32) -> Process {
        Process { id: pid(id), ended: false, parent: Some(pid(parent)), group: None }
    }

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let (parent, group) = (Some(pid(2)), Some(pid(77)));
        for (stat, expected) in [
            ("80 (sleep) S 2 77 77 0", Some((false, parent, group))),
            ("80 (a) b) R 2 77 77 0", Some((false, parent, group))),
            ("80 (sleep) Z 2 77 77 0", Some((true, parent, group))),
            ("80 (kthread) S 0 0 0 0", Some((false, None, None))),
            ("", None),
        ] {
            let read = parse(stat).map(|process| (process.ended, process.parent, process.group));
            assert_eq!(read, expected, "{stat}");
        }
    }

    #[test]
    fn a_tree_leaves_out_what_is_spared_with_all_below_it() {
        let processes = [process(2, 1), process(3, 2), process(4, 1), process(5, 4), process(9, 8)];
        let found = below(&processes, pid(1), &[pid(4)]);
        assert_eq!(found, HashSet::from([pid(2), pid(3)]));
    }
}
