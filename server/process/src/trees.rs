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

mod pass;

use std::collections::{BTreeMap, HashMap};

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
    /// How many members lived at the last pass; `None`: none has looked yet.
    living: Option<usize>,
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

    /// No longer follows the tree of this process. Its members belong to nobody, or to a root further up if they
    /// still descend from it.
    pub fn forget(&mut self, root: ProcessKey) {
        if self.roots.remove(&root).is_some() {
            self.members.retain(|_, of| *of != root);
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

    /// Whether any member of this root lived at the last pass; `None`: it is not followed, or no pass has begun since
    /// it was declared.
    #[must_use]
    pub fn lives(&self, root: ProcessKey) -> Option<bool> {
        self.roots.get(&root)?.living.map(|living| living > 0)
    }

    /// The roots of which a member lived at the last pass, in order.
    pub fn living_roots(&self) -> impl Iterator<Item = ProcessKey> {
        let living =
            |(key, root): (&ProcessKey, &Root)| root.living.is_some_and(|n| n > 0).then_some(*key);
        self.roots.iter().filter_map(living)
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

    /// Where processes are read from.
    #[must_use]
    pub fn proc(&self) -> &Proc {
        &self.proc
    }
}

#[cfg(test)]
#[path = "trees_tests.rs"]
mod tests;
