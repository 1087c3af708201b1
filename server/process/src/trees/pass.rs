//! One pass over `/proc`: everybody is read once, then each is given to a root.
//!
//! A pass is not a moment: processes start and end while it reads. What is read of a process is true at some time
//! after the pass began; ids that change hands meanwhile are told apart by their starts.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;

use super::{PassError, Root, RootCgroup, Trees};
use crate::{
    cgroup::Cgroup,
    proc::{Proc, ProcessKey},
    stat::Stat,
};

/// The most steps from a process up to its root. The kernel has no such bound; a chain of a thousand parents is none
/// that anybody made on purpose.
const DEPTH_MAX: usize = 1_024;

/// The process that always lives: without it, others are hidden as well.
const FIRST: u32 = 1;

/// Everybody, as the pass read them.
struct Everybody<'a> {
    proc: &'a Proc,
    by_pid: HashMap<u32, Stat>,
    /// Read when first asked for.
    cgroups: HashMap<u32, Option<Cgroup>>,
}

/// Who belongs where, by this pass.
#[derive(Default)]
struct Found {
    /// The root of each process that has one.
    members: HashMap<ProcessKey, ProcessKey>,
    /// Of each living root within another the nearest such.
    outers: HashMap<ProcessKey, ProcessKey>,
}

impl Trees {
    /// Reads all processes once, and brings every answer up to date.
    ///
    /// # Errors
    /// Nothing can be told; all answers stay as they were.
    pub fn pass(&mut self) -> Result<(), PassError> {
        let by_pid = read_all(&self.proc)?;
        let proc = self.proc.clone();
        let mut everybody = Everybody { proc: &proc, by_pid, cgroups: HashMap::new() };
        let descended = self.descended(&everybody);
        self.look_at_cgroups(&mut everybody);
        let mut found = Found::default();
        for (pid, stat) in &everybody.by_pid {
            let key = ProcessKey { pid: *pid, started: stat.started };
            let root = descended.get(pid).copied().flatten();
            if let Some(root) = root.or_else(|| self.grouped(key, stat, &everybody)) {
                found.members.insert(key, root);
            }
            if root == Some(key)
                && let Some(outer) = self.outer(key, stat, &descended, &everybody)
            {
                found.outers.insert(key, outer);
            }
        }
        self.add_cgroup_members(&mut everybody, &mut found);
        self.settle(found, &everybody);
        Ok(())
    }

    /// Rules 1 and 2: everybody's root by what was known before and by living parents.
    fn descended(&self, everybody: &Everybody<'_>) -> HashMap<u32, Option<ProcessKey>> {
        let mut roots = HashMap::with_capacity(everybody.by_pid.len());
        let mut path = Vec::new();
        for pid in everybody.by_pid.keys() {
            let mut next = Some(*pid);
            while let Some(pid) = next.filter(|pid| !roots.contains_key(pid)) {
                path.push(pid);
                next = everybody.parent(pid).filter(|_| path.len() < DEPTH_MAX);
            }
            let mut root = next.and_then(|pid| roots.get(&pid).copied().flatten());
            while let Some(pid) = path.pop() {
                root = everybody.key(pid).and_then(|key| self.step_down(key, root));
                roots.insert(pid, root);
            }
        }
        roots
    }

    /// A process's root, given its parent's. A root that is new takes its part of an older tree.
    fn step_down(&self, key: ProcessKey, above: Option<ProcessKey>) -> Option<ProcessKey> {
        if self.roots.contains_key(&key) {
            return Some(key);
        }
        let known = self.members.get(&key).copied();
        known.filter(|_| !self.is_new(above)).or(above)
    }

    /// Rules 1 to 3 for a root: the nearest other root that it is within.
    fn outer(
        &self,
        key: ProcessKey,
        stat: &Stat,
        descended: &HashMap<u32, Option<ProcessKey>>,
        everybody: &Everybody<'_>,
    ) -> Option<ProcessKey> {
        let parent = everybody.parent(key.pid);
        let above = parent.and_then(|parent| descended.get(&parent).copied().flatten());
        let above = above.filter(|above| *above != key);
        // As a root, or as a member before it was declared one.
        let known = self.roots.get(&key).and_then(|root| root.outer);
        let known = known.or_else(|| self.members.get(&key).copied().filter(|of| *of != key));
        let descends = known.filter(|_| !self.is_new(above)).or(above);
        // A group can be joined by one's elders; who started whom cannot be so.
        let grouped = || self.grouped(key, stat, everybody);
        descends.or_else(|| grouped().filter(|outer| outer.started <= key.started))
    }

    /// No pass has looked at this root yet.
    fn is_new(&self, root: Option<ProcessKey>) -> bool {
        root.and_then(|root| self.roots.get(&root)).is_some_and(|root| root.living.is_none())
    }

    /// Rule 3.
    fn grouped(
        &self,
        process: ProcessKey,
        stat: &Stat,
        everybody: &Everybody<'_>,
    ) -> Option<ProcessKey> {
        let of = |number: u32, gone: fn(&Root) -> bool| {
            // Whoever has the number as an id now is whose group it is.
            let owner = everybody.by_pid.get(&number).map(|owner| owner.started);
            let from = ProcessKey { pid: number, started: 0 };
            let to = ProcessKey { pid: number, started: owner.unwrap_or(stat.started) };
            let (key, root) = self.roots.range(from..=to).next_back()?;
            let same = owner.is_none_or(|started| started == key.started);
            (same && *key != process && !gone(root)).then_some(*key)
        };
        of(stat.group, |root| root.group_gone)
            .or_else(|| of(stat.session, |root| root.session_gone))
    }

    /// Finds out which new roots have a cgroup of their own.
    fn look_at_cgroups(&mut self, everybody: &mut Everybody<'_>) {
        let unlooked = |root: &Root| matches!(root.cgroup, RootCgroup::Unlooked);
        let new = self.roots.iter().filter(|(_, root)| unlooked(root)).map(|(key, _)| *key);
        for key in new.collect::<Vec<_>>() {
            let stat = everybody.by_pid.get(&key.pid).filter(|stat| stat.started == key.started);
            let Some(stat) = stat.copied() else { continue };
            let coordinator = self.coordinator.get_or_insert_with(|| {
                // Unknown, it is taken for the topmost, which is in nobody's.
                Cgroup::of(everybody.proc, std::process::id()).unwrap_or_else(|| "/".into())
            });
            let own = everybody.own_cgroup(key, stat, coordinator);
            if let Some(root) = self.roots.get_mut(&key) {
                root.cgroup = own.map_or(RootCgroup::Shared, RootCgroup::Own);
            }
        }
    }

    /// Rule 4. Costs one more file for everybody who belongs to nobody and for every root that is within none, and
    /// nothing while no root has an own cgroup.
    fn add_cgroup_members(&self, everybody: &mut Everybody<'_>, found: &mut Found) {
        let owned: Vec<(ProcessKey, &Cgroup)> = self
            .roots
            .iter()
            .filter(|(key, _)| everybody.has(**key))
            .filter_map(|(key, root)| match &root.cgroup {
                RootCgroup::Own(cgroup) => Some((*key, cgroup)),
                _ => None,
            })
            .collect();
        if owned.is_empty() {
            return;
        }
        let all = everybody
            .by_pid
            .iter()
            .map(|(pid, stat)| ProcessKey { pid: *pid, started: stat.started });
        let others: Vec<_> = all.filter(|key| self.is_nowhere(*key, found)).collect();
        for key in others {
            let Some(cgroup) = everybody.cgroup(key.pid) else { continue };
            // The deepest is the nearest.
            let within = owned.iter().filter(|(root, own)| *root != key && cgroup.is_within(own));
            if let Some((root, _)) = within.reduce(|a, b| if b.1.is_within(a.1) { b } else { a }) {
                let is_root = self.roots.contains_key(&key);
                let to = if is_root { &mut found.outers } else { &mut found.members };
                to.insert(key, *root);
            }
        }
    }

    /// It belongs to nobody, or is a root within none.
    fn is_nowhere(&self, key: ProcessKey, found: &Found) -> bool {
        let found = if self.roots.contains_key(&key) { &found.outers } else { &found.members };
        !found.contains_key(&key)
    }

    /// Finds out who lives, and keeps the outcome.
    fn settle(&mut self, found: Found, everybody: &Everybody<'_>) {
        let groups: HashSet<u32> = everybody.by_pid.values().map(|stat| stat.group).collect();
        let sessions: HashSet<u32> = everybody.by_pid.values().map(|stat| stat.session).collect();
        for (key, root) in &mut self.roots {
            root.living = Some(false);
            let owner = everybody.by_pid.get(&key.pid).map(|stat| stat.started);
            let lives = owner == Some(key.started);
            let theirs = |numbers: &HashSet<u32>| owner.is_none() && numbers.contains(&key.pid);
            root.group_gone |= !lives && !theirs(&groups);
            root.session_gone |= !lives && !theirs(&sessions);
        }
        for (key, outer) in found.outers {
            self.put_within(key, outer);
        }
        for root in found.members.values() {
            self.mark_living(*root);
        }
        self.members = found.members;
        self.seen = everybody.by_pid.iter().map(|(pid, stat)| (*pid, stat.started)).collect();
    }
}

impl Everybody<'_> {
    fn has(&self, key: ProcessKey) -> bool {
        self.by_pid.get(&key.pid).is_some_and(|stat| stat.started == key.started)
    }

    fn key(&self, pid: u32) -> Option<ProcessKey> {
        self.by_pid.get(&pid).map(|stat| ProcessKey { pid, started: stat.started })
    }

    /// The parent of a process, if it is there. One that is younger than its child is somebody else of the same id.
    fn parent(&self, pid: u32) -> Option<u32> {
        let stat = self.by_pid.get(&pid)?;
        let parent = self.by_pid.get(&stat.parent)?;
        (parent.started <= stat.started && stat.parent != pid).then_some(stat.parent)
    }

    fn cgroup(&mut self, pid: u32) -> Option<&Cgroup> {
        let read = || Cgroup::of(self.proc, pid);
        self.cgroups.entry(pid).or_insert_with(read).as_ref()
    }

    /// The root's cgroup, if it was made for the root.
    fn own_cgroup(&mut self, root: ProcessKey, stat: Stat, coordinator: &Cgroup) -> Option<Cgroup> {
        let own = self.cgroup(root.pid)?.clone();
        if !own.may_be_own(coordinator) {
            return None;
        }
        let older: Vec<u32> = self
            .by_pid
            .iter()
            .filter(|(_, other)| other.started < stat.started)
            .map(|(pid, _)| *pid)
            .chain([stat.parent])
            .collect();
        // Whose cgroup cannot be read may be in this one.
        let is_outside = |pid: u32| self.cgroup(pid).is_some_and(|other| !other.is_within(&own));
        older.into_iter().all(is_outside).then_some(own)
    }
}

fn read_all(proc: &Proc) -> Result<HashMap<u32, Stat>, PassError> {
    let pids = proc.pids().map_err(PassError::Unreadable)?.ok_or(PassError::TooMany)?;
    let mut by_pid = HashMap::with_capacity(pids.len());
    for pid in pids {
        match proc.stat(pid) {
            Ok(stat) => by_pid.extend(stat.filter(|stat| !stat.exited).map(|stat| (pid, stat))),
            // Whoever may not be looked at, while the first process may, is nobody's member.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            // Without file descriptors or memory a living process does not read: to leave it out would end its tree.
            Err(source) => return Err(PassError::ProcessUnreadable { pid, source }),
        }
    }
    if !by_pid.contains_key(&FIRST) {
        return Err(PassError::Hidden);
    }
    Ok(by_pid)
}
