//! Counts of changes by node, so that whoever remembers something of a node knows when to look again.
//!
//! They are no part of what is counted: two things that differ in nothing else are equal, and they are not written.

use crate::id::NodeId;

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    all: u64,
    nodes: Vec<u64>,
    facts: u64,
}

impl Changes {
    /// Something of a node changed, or may have.
    pub(crate) fn touch(&mut self, node: NodeId) {
        let index = node.0 as usize;
        if self.nodes.len() <= index {
            self.nodes.resize(index.saturating_add(1), 0);
        }
        if let Some(count) = self.nodes.get_mut(index) {
            *count = count.wrapping_add(1);
        }
        self.all = self.all.wrapping_add(1);
    }

    /// A device or a node is new, elsewhere, or something else than it was.
    pub(crate) const fn touch_facts(&mut self) {
        self.facts = self.facts.wrapping_add(1);
    }

    /// How often that was so.
    pub(crate) const fn facts(&self) -> u64 {
        self.facts
    }

    /// All changes of all nodes.
    pub(crate) const fn all(&self) -> u64 {
        self.all
    }

    /// Those of one node.
    pub(crate) fn of(&self, node: NodeId) -> u64 {
        self.nodes.get(node.0 as usize).copied().unwrap_or(0)
    }
}

impl PartialEq for Changes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Changes {}
