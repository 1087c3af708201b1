//! The processes of the local host as a backend tells of them: whose they are, and which declared roots live on.
//!
//! Promises: where processes cannot be told apart, it says why and attributes none; a root that no pass has seen alive
//! is never called exited, for after a restart its orphans are nobody's, and who never saw it live knows nothing of
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gpulease_core::{
    id::Name,
    input::{PROCESSES_MAX, ProcessUse},
    request::Process,
    time::{Span, Time},
};
use gpulease_process::{Description, Proc, ProcessKey, Trees, can_attribute};

/// The most descriptions of processes that are kept: of 300 bytes each, 1.2 MiB.
const DESCRIPTIONS_MAX: usize = 4_096;

/// A root that was not seen alive for so long is forgotten: twice the longest lock delay, after which nobody waits
/// for its exit.
const UNSEEN_MAX: Span = Span::from_secs(2 * 3_600);

/// Whether the memory of devices is attributed to processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attribution {
    /// Where the host's processes can be seen.
    #[default]
    Auto,
    /// Even in a PID namespace of its own: whoever says so knows that it is the driver's.
    On,
    /// Not at all.
    Off,
}

/// The processes of this host.
#[derive(Debug)]
pub(super) struct Processes {
    trees: Trees,
    /// Why processes are not attributed.
    blind: Option<Name>,
    /// Roots that no pass has seen alive, and since when they are followed.
    unseen: BTreeMap<ProcessKey, Time>,
    /// There were too many roots once: exits prove nothing any more.
    roots_left_out: bool,
    /// Of the living, so that nobody's command line is read twice.
    descriptions: HashMap<ProcessKey, Description>,
}

impl Processes {
    pub(super) fn new(proc: Proc, attribution: Attribution) -> Self {
        let blind = match attribution {
            Attribution::On => None,
            Attribution::Off => Some(Name::new("it is off in the configuration")),
            Attribution::Auto => can_attribute(&proc).err().map(|why| Name::new(&why.to_string())),
        };
        Self {
            trees: Trees::new(proc),
            blind,
            unseen: BTreeMap::new(),
            roots_left_out: false,
            descriptions: HashMap::new(),
        }
    }

    /// Why processes are not attributed; `None`: they are.
    pub(super) fn blind(&self) -> Option<&Name> {
        self.blind.as_ref()
    }

    /// Follows the tree of a process from the next pass on.
    pub(super) fn track(&mut self, root: Process, now: Time) {
        let root = key(root);
        match self.trees.declare(root) {
            Ok(()) => {
                self.unseen.entry(root).or_insert(now);
            }
            Err(error) => {
                if !std::mem::replace(&mut self.roots_left_out, true) {
                    tracing::warn!(%error, "until a restart, no exit of a process tree is believed");
                }
            }
        }
    }

    /// Looks at all processes. Answers the roots that may have a living member, where exits prove anything.
    ///
    /// # Errors
    /// Why processes cannot be told apart this time.
    pub(super) fn pass(&mut self, now: Time) -> Result<Option<Vec<Process>>, Name> {
        if let Some(blind) = &self.blind {
            return Err(blind.clone());
        }
        if self.trees.root_count() > 0 {
            self.trees.pass().map_err(|error| Name::new(&error.to_string()))?;
        }
        let living: Vec<ProcessKey> = self.trees.living_roots().collect();
        self.unseen.retain(|root, since| {
            living.binary_search(root).is_err() && now.since(*since) < UNSEEN_MAX
        });
        let is_over = |root: &ProcessKey| {
            living.binary_search(root).is_err() && !self.unseen.contains_key(root)
        };
        let over: BTreeSet<ProcessKey> = self.trees.roots().filter(is_over).collect();
        self.trees.forget(&over);
        let alive = living.iter().chain(self.unseen.keys()).map(|root| process(*root)).collect();
        Ok((!self.roots_left_out).then_some(alive))
    }

    /// Tells whose the memory is that the driver tells of: ids of the host with bytes, each once. Whoever has gone
    /// meanwhile is left out, and what it used is nobody's. Of too many, those that use the most are told.
    pub(super) fn name(&mut self, mut uses: Vec<(u32, u64)>) -> Vec<ProcessUse> {
        uses.sort_by_key(|(pid, bytes)| (std::cmp::Reverse(*bytes), *pid));
        uses.truncate(PROCESSES_MAX);
        if self.descriptions.len() > DESCRIPTIONS_MAX {
            self.descriptions.clear();
        }
        uses.into_iter().filter_map(|(pid, bytes)| self.name_one(pid, bytes)).collect()
    }

    fn name_one(&mut self, pid: u32, bytes: u64) -> Option<ProcessUse> {
        // Read anew where there was no pass, or the process came after it.
        let read = || self.trees.proc().key(pid).ok().flatten();
        let key = self.trees.key_of(pid).filter(|_| self.trees.root_count() > 0).or_else(read)?;
        let known = self.descriptions.get(&key).cloned();
        let description = known.or_else(|| self.trees.proc().describe(key));
        let told = ProcessUse {
            process: process(key),
            root: self.trees.root_of(key).map(process),
            bytes,
            uid: description.as_ref().map(|description| description.user_id),
            command: Name::new(description.as_ref().map_or("", |told| &told.command)),
        };
        if let Some(description) = description {
            self.descriptions.insert(key, description);
        }
        Some(told)
    }
}

fn key(process: Process) -> ProcessKey {
    ProcessKey { pid: process.pid, started: process.started_ticks }
}

fn process(key: ProcessKey) -> Process {
    Process { pid: key.pid, started_ticks: key.started }
}
