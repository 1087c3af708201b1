//! Commands of hosts and cards that move: what is where in the world, without a word to the scheduler.

use std::sync::Arc;

use gpulease_core::id::Name;

use super::{Story, words::Words};

impl Story {
    /// `rename NODE NAME [boot=]`: a host has another name, and says so.
    pub(crate) fn rename(&mut self, words: &Words<'_>) {
        let (before, name) = (words.word(1), words.word(2));
        let mut node = self.world.nodes.remove(before).expect("a node");
        node.silent = false;
        let facts = Arc::make_mut(&mut node.facts);
        facts.name = name.into();
        facts.boot_id = words.value("boot").map_or(facts.boot_id.clone(), Name::new);
        self.world.nodes.insert(name.to_owned(), node);
        let seen = self.world.observe(name);
        self.tell(seen);
        let seen = self.world.sample(name);
        self.tell(seen);
    }

    /// `carry DEVICE NODE`: a card is put into another host; nobody says anything yet.
    pub(crate) fn carry(&mut self, words: &Words<'_>) {
        let uuid = words.word(1);
        let home = self.home_of(uuid);
        let devices = &mut self.node_model(&home).devices;
        let place = devices.iter().position(|device| device.facts.uuid.as_str() == uuid);
        let device = devices.remove(place.expect("a device"));
        self.node_model(words.word(2)).devices.push(device);
    }

    /// The name of the node that has a device; of a node, its own.
    pub(crate) fn home_of(&self, target: &str) -> String {
        let has = |node: &crate::world::NodeModel| {
            node.devices.iter().any(|device| device.facts.uuid.as_str() == target)
        };
        let home = self.world.nodes.iter().find(|(_, node)| has(node));
        home.map_or_else(|| super::words::node_of(target), |(name, _)| name.clone())
    }
}
