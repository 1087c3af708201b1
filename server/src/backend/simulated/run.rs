//! Playing a plan: a pure function of the plan and the times of its steps.
//!
//! It promises one sample of every device that answers, each second, all devices of a node in one input; nodes take
//! turns within the second, so that a thousand of them are no burst. Whatever a script changes is reported at once.
//! Silent nodes report nothing, and come back with their whole inventory.

use std::sync::Arc;

use gpulease_core::{
    id::Name,
    input::Input,
    inventory::NodeFacts,
    time::{Span, Time},
};

use super::super::{Backend, SAMPLE_PERIOD, Sink, Summary};
use super::device::Device;
use super::plan::{Act, DeviceAt, Event, NodePlan, Plan};

/// Nodes are spread over so many turns a second: 20 wake-ups are cheap, and 16,384 nodes make turns of 820.
const TURNS: u64 = 20;

/// A plan at play.
#[derive(Debug)]
pub struct Simulation {
    nodes: Vec<Node>,
    events: Vec<Event>,
    /// How many of the events are over.
    played: usize,
    started: bool,
}

#[derive(Debug)]
struct Node {
    facts: Arc<NodeFacts>,
    devices: Vec<Device>,
    first_boot_id: Name,
    reboots: u32,
    silent: bool,
    next_sample: Time,
}

impl Simulation {
    /// Of this plan.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let (seed, random) = (plan.seed, plan.random_utilization);
        let nodes = plan.nodes.into_iter().map(|node| Node::new(node, seed, random)).collect();
        Self { nodes, events: plan.events, played: 0, started: false }
    }

    fn start(&mut self, now: Time, sink: &mut dyn Sink) {
        self.started = true;
        for (node, turn) in self.nodes.iter_mut().zip((0..TURNS).cycle()) {
            node.tell_all(now, sink);
            // The first node's turn is a whole period away, the others' are earlier: nobody waits longer than that.
            let earlier = Span::from_millis(SAMPLE_PERIOD.as_millis() / TURNS * turn);
            node.next_sample = now.after(SAMPLE_PERIOD).before(earlier);
        }
    }

    fn play(&mut self, act: &Act, now: Time, sink: &mut dyn Sink) {
        if let Some(node) = self.nodes.get_mut(act.node()) {
            let inventory_changed = node.play(act);
            if inventory_changed {
                node.tell_all(now, sink);
            } else {
                node.tell_sample(now, sink);
            }
        }
    }
}

impl Backend for Simulation {
    fn summary(&self) -> Summary {
        let devices = self.nodes.iter().map(|node| node.devices.len()).sum();
        Summary { name: "simulated", nodes: self.nodes.len(), devices }
    }

    fn step(&mut self, now: Time, sink: &mut dyn Sink) {
        if !self.started {
            self.start(now, sink);
        }
        while let Some(event) = self.events.get(self.played).filter(|event| event.at <= now) {
            let act = event.act.clone();
            self.played += 1;
            self.play(&act, now, sink);
        }
        for node in self.nodes.iter_mut().filter(|node| node.next_sample <= now) {
            node.tell_sample(now, sink);
            let missed = now.since(node.next_sample).whole(SAMPLE_PERIOD);
            node.next_sample = node.next_sample.after(SAMPLE_PERIOD.times(missed + 1));
        }
    }

    fn due_at(&self) -> Time {
        if !self.started {
            return Time::ZERO;
        }
        let sample = self.nodes.iter().map(|node| node.next_sample).min();
        let event = self.events.get(self.played).map(|event| event.at);
        sample.into_iter().chain(event).min().unwrap_or(Time::NEVER)
    }
}

impl Act {
    /// The position of the node that it happens on.
    fn node(&self) -> usize {
        match self {
            Act::ForeignMemory(DeviceAt { node, .. }, _)
            | Act::Load(DeviceAt { node, .. }, _)
            | Act::DeviceLost(DeviceAt { node, .. }, _)
            | Act::DeviceSilent(DeviceAt { node, .. })
            | Act::DeviceBack(DeviceAt { node, .. })
            | Act::MemoryUnknown(DeviceAt { node, .. })
            | Act::MemoryKnown(DeviceAt { node, .. })
            | Act::NodeSilent(node)
            | Act::NodeBack(node)
            | Act::Reboot(node) => *node,
        }
    }
}

impl Node {
    fn new(plan: NodePlan, seed: u64, random_utilization: bool) -> Self {
        let device = |plan| Device::new(plan, seed, random_utilization);
        Self {
            first_boot_id: plan.facts.boot_id.clone(),
            facts: Arc::new(plan.facts),
            devices: plan.devices.into_iter().map(device).collect(),
            reboots: 0,
            silent: false,
            next_sample: Time::ZERO,
        }
    }

    /// Answers whether its inventory must be told anew.
    fn play(&mut self, act: &Act) -> bool {
        match act {
            Act::ForeignMemory(at, bytes) => {
                self.change(at, |device| device.foreign_bytes = *bytes);
            }
            Act::Load(at, load) => self.change(at, |device| device.load(load)),
            Act::DeviceSilent(at) => self.change(at, |device| device.silent = true),
            Act::MemoryUnknown(at) => self.change(at, |device| device.memory_unknown = true),
            Act::MemoryKnown(at) => self.change(at, |device| device.memory_unknown = false),
            Act::NodeSilent(_) => self.silent = true,
            Act::DeviceLost(at, reason) => {
                self.change(at, |device| device.lost = Some(reason.clone()));
                return true;
            }
            Act::DeviceBack(at) => {
                self.change(at, |device| (device.lost, device.silent) = (None, false));
                return true;
            }
            Act::NodeBack(_) => {
                self.silent = false;
                return true;
            }
            Act::Reboot(_) => {
                self.reboot();
                return true;
            }
        }
        false
    }

    fn change(&mut self, at: &DeviceAt, change: impl FnOnce(&mut Device)) {
        if let Some(device) = self.devices.get_mut(at.device) {
            change(device);
        }
    }

    fn reboot(&mut self) {
        self.reboots += 1;
        let boot_id = format!("{}-reboot-{}", self.first_boot_id, self.reboots);
        let facts = NodeFacts { boot_id: Name::new(&boot_id), ..(*self.facts).clone() };
        self.facts = Arc::new(facts);
        self.silent = false;
        self.devices.iter_mut().for_each(Device::restart);
    }

    /// Its whole inventory, then what it measures.
    fn tell_all(&self, now: Time, sink: &mut dyn Sink) {
        if self.silent {
            return;
        }
        let devices = self.devices.iter().map(Device::report).collect();
        sink.report(Input::Observed { node: self.facts.clone(), devices });
        self.tell_sample(now, sink);
    }

    fn tell_sample(&self, now: Time, sink: &mut dyn Sink) {
        if self.silent {
            return;
        }
        let (samples, measurements): (Vec<_>, Vec<_>) =
            self.devices.iter().filter_map(|device| device.measure(now)).unzip();
        sink.report(Input::Sampled { node: self.facts.name.clone(), samples, trees: None });
        if !measurements.is_empty() {
            sink.measured(measurements);
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
