//! Declared process trees: who belongs to which root, kept from pass to pass.
//!
//! A living process belongs to a root if it is the root, or by the first of these that holds:
//! 1. it belonged to it at an earlier pass, whoever its parent is now;
//! 2. its parent belongs to it, and is not younger than it is; the nearest root counts, so that trees can be nested;
//! 3. it is in the root's process group or session, as a child is whose parent ended between two passes;
//! 4. it is in the root's own cgroup (see `cgroup` for which is), while the root lives.
//!
//! What slips through all four (it left group and session, and its parent ended, between two passes) belongs to
//! nobody: its memory is foreign, which is the safe side. A process that has exited and was not looked at by its
//! parent no longer lives: its devices are closed.
//!
//! A root in another's tree is within that root, by the same rules. A tree lives while a member of it or of a root
//! within it does, for they were all started by the same lease's holder.

mod pass;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    cgroup::Cgroup,
    proc::{Proc, ProcessKey},
};

/// The most roots at a time: as many as a host has process ids by default, twice. 300 bytes each make 20 MiB.
pub const ROOTS_MAX: usize = 65_536;

/// There are [`ROOTS_MAX`] roots already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ROOTS_MAX} process trees are declared already: this one is not followed")]
pub struct TooManyRoots;

/// Why a pass saw nothing. What was known before stays known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// `/proc` cannot be listed.
    #[error("cannot list the processes of this host")]
    Unreadable(#[source] std::io::Error),
    /// A process is there and does not read, which says nothing of it.
    #[error("cannot read process {pid} of this host")]
    ProcessUnreadable {
        /// Which.
        pid: u32,
        /// Why: out of file descriptors or of memory, as a rule.
        source: std::io::Error,
    },
    /// Other users' processes are hidden.
    #[error("the processes of other users are hidden")]
    Hidden,
    /// More than [`crate::PROCESSES_MAX`].
    #[error("there are more than {} processes", crate::PROCESSES_MAX)]
    TooMany,
}

/// Declared roots and their living members.
#[derive(Debug)]
pub struct Trees {
    proc: Proc,
    roots: BTreeMap<ProcessKey, Root>,
    /// Which root each member belongs to, by the last pass.
    members: HashMap<ProcessKey, ProcessKey>,
    /// Who had which id, by the last pass.
    seen: HashMap<u32, u64>,
    coordinator: Option<Cgroup>,
}

#[derive(Clone, Debug, Default)]
struct Root {
    /// Whether a member, or one of a root within, lived at the last pass; `None`: none has looked yet.
    living: Option<bool>,
    /// The nearest root that it is within, kept from pass to pass as members are; never in a ring.
    outer: Option<ProcessKey>,
    /// Its process group had a member at every pass so far; else the number may be somebody else's by now.
    group_gone: bool,
    /// The same of its session.
    session_gone: bool,
    cgroup: RootCgroup,
}

#[derive(Clone, Debug, Default)]
enum RootCgroup {
    #[default]
    Unlooked,
    Shared,
    Own(Cgroup),
}

impl Trees {
    /// No trees yet, of the processes that are read there.
    #[must_use]
    pub fn new(proc: Proc) -> Self {
        Self {
            proc,
            roots: BTreeMap::new(),
            members: HashMap::new(),
            seen: HashMap::new(),
            coordinator: None,
        }
    }

    /// Follows the tree of this process from the next pass on. Declaring it again changes nothing.
    ///
    /// # Errors
    /// There are too many; it is not followed.
    pub fn declare(&mut self, root: ProcessKey) -> Result<(), TooManyRoots> {
        if self.roots.len() >= ROOTS_MAX && !self.roots.contains_key(&root) {
            return Err(TooManyRoots);
        }
        self.roots.entry(root).or_default();
        Ok(())
    }

    /// No longer follows the trees of these processes. Their members belong to nobody, or to a root further up if they
    /// still descend from it; the roots within them are within the next further up.
    pub fn forget(&mut self, roots: &BTreeSet<ProcessKey>) {
        let forgotten: BTreeMap<ProcessKey, Root> =
            roots.iter().filter_map(|root| self.roots.remove_entry(root)).collect();
        if forgotten.is_empty() {
            return;
        }
        self.members.retain(|_, of| !forgotten.contains_key(of));
        for root in self.roots.values_mut() {
            while let Some(outer) = root.outer.and_then(|outer| forgotten.get(&outer)) {
                root.outer = outer.outer;
            }
        }
    }

    /// How many roots are followed.
    #[must_use]
    pub fn root_count(&self) -> usize {
        self.roots.len()
    }

    /// The roots that are followed, in order.
    pub fn roots(&self) -> impl Iterator<Item = ProcessKey> {
        self.roots.keys().copied()
    }

    /// Whether any member of this root, or of a root within it, lived at the last pass; `None`: it is not followed, or
    /// no pass has begun since it was declared.
    #[must_use]
    pub fn lives(&self, root: ProcessKey) -> Option<bool> {
        self.roots.get(&root)?.living
    }

    /// The roots that lived at the last pass, as [`Self::lives`] has it, in order.
    pub fn living_roots(&self) -> impl Iterator<Item = ProcessKey> {
        self.roots.iter().filter(|(_, root)| root.living == Some(true)).map(|(key, _)| *key)
    }

    /// The root that a process belongs to, by the last pass.
    #[must_use]
    pub fn root_of(&self, process: ProcessKey) -> Option<ProcessKey> {
        self.members.get(&process).copied()
    }

    /// Who had this id, by the last pass.
    #[must_use]
    pub fn key_of(&self, pid: u32) -> Option<ProcessKey> {
        let started = *self.seen.get(&pid)?;
        Some(ProcessKey { pid, started })
    }

    /// Notes which root another is within, unless that closes a ring, as groups that were joined crosswise would.
    fn put_within(&mut self, key: ProcessKey, outer: ProcessKey) {
        if self.roots.get(&key).is_none_or(|root| root.outer == Some(outer)) {
            return;
        }
        let up = |at: &ProcessKey| self.roots.get(at).and_then(|root| root.outer);
        if std::iter::successors(Some(outer), up).any(|at| at == key) {
            return;
        }
        if let Some(root) = self.roots.get_mut(&key) {
            root.outer = Some(outer);
        }
    }

    /// A root lives, and so does every root that it is within.
    fn mark_living(&mut self, root: ProcessKey) {
        let mut next = self.roots.get_mut(&root);
        while let Some(root) = next.filter(|root| root.living != Some(true)) {
            root.living = Some(true);
            let outer = root.outer;
            next = outer.and_then(|outer| self.roots.get_mut(&outer));
        }
    }

    /// Where processes are read from.
    #[must_use]
    pub fn proc(&self) -> &Proc {
        &self.proc
    }
}

#[cfg(test)]
#[path = "trees_tests.rs"]
mod tests;
