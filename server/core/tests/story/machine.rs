//! Nodes with a driver in a story: their processes, what the driver tells of them, and when.

use super::{
    Story,
    words::{Words, bytes, node_of},
};

impl Story {
    pub(super) fn machine(&mut self, words: &Words<'_>) {
        let target = words.word(1);
        match words.word(0) {
            "process" => self.process(words),
            "exit" => self.exit(target.parse().expect("a process id")),
            "unexplained" => self.model(target).unexplained_bytes = bytes(words.word(2)),
            "unattributed" => self.model(target).unattributed = !words.has("off"),
            "sums" => self.node_model(target).sums_only = !words.has("off"),
            "sample" => self.sample(target, words),
            _ => self.processes(target),
        }
    }

    /// The node's driver is read, or a reading comes in that was begun when an earlier check was the newest.
    fn sample(&mut self, name: &str, words: &Words<'_>) {
        let asked = self.checks(name);
        if let Some(check) = words.number("check") {
            self.node_model(name).devices.iter_mut().for_each(|device| device.check = check);
        }
        let seen = self.world.sample(name);
        let devices = self.node_model(name).devices.iter_mut();
        devices.zip(asked).for_each(|(device, check)| device.check = device.check.max(check));
        self.tell(seen);
    }

    fn checks(&mut self, name: &str) -> Vec<u64> {
        self.node_model(name).devices.iter().map(|device| device.check).collect()
    }

    /// A declared process lives, be it that it uses no device yet.
    pub(super) fn started_process(&mut self, pid: u32) {
        for node in self.world.nodes.values_mut() {
            if node.devices.iter().any(|device| !device.facts.answers_at_once) {
                node.alive.insert(pid);
            }
        }
    }

    fn process(&mut self, words: &Words<'_>) {
        let (uuid, used) = (words.word(1), bytes(words.word(2)));
        let id = |key| words.number(key).map(|pid| u32::try_from(pid).expect("a process id"));
        let (pid, root) = (id("pid").expect("a process has an id"), id("root"));
        let device = self.model(uuid);
        device.processes.retain(|(other, _, _)| *other != pid);
        device.processes.push((pid, root, used));
        self.node_model(&node_of(uuid)).alive.extend(root);
    }

    /// A process is gone from every device. Its tree lives on while anything of it uses one.
    fn exit(&mut self, pid: u32) {
        self.exited.insert(pid);
        for node in self.world.nodes.values_mut() {
            for device in &mut node.devices {
                device.processes.retain(|(other, _, _)| *other != pid);
            }
            let uses = node.devices.iter().flat_map(|device| device.processes.iter());
            let left: Vec<u32> = uses.filter_map(|(_, root, _)| *root).collect();
            node.alive.retain(|root| !self.exited.contains(root) || left.contains(root));
        }
    }

    fn processes(&mut self, uuid: &str) {
        let id = self.world.scheduler.state().inventory().device_with(uuid);
        let seen = id.map(|id| self.world.scheduler.processes(id)).unwrap_or_default();
        for used in seen {
            let whose = used.lease.map_or_else(|| "foreign".to_owned(), |lease| self.name(lease));
            let (pid, mib) = (used.process.pid, used.bytes >> 20);
            self.say(&format!("  process {pid} uses {mib}MiB: {whose}"));
        }
    }
}
