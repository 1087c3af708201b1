//! A world for tests: the scheduler with a clock that is a variable, a journal that is a list, and aliases for what
//! the tests talk about. After every step all invariants are checked, and a restart replays the journal.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test binary uses a part of it")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gpulease_core::{
    event::{Batch, Event},
    id::{Caller, Holder, LeaseId, Name, Revision, Ticket, Token},
    import::Import,
    input::{DeviceReport, DeviceSample, Input, MemoryReading, MemoryReport, ProcessUse, TreePass},
    invariant,
    inventory::{DeviceFacts, NodeFacts},
    output::{Effect, Output},
    policy::Policy,
    request::{
        Ask, Constraints, Preemptible, Priority, Process, Request, RequestFields, Share,
        TTL_DEFAULT,
    },
    scheduler::Scheduler,
    state::State,
    time::{Span, Time},
};

/// One simulated device of the world.
pub struct DeviceModel {
    pub facts: Arc<DeviceFacts>,
    pub lost: Option<Name>,
    pub foreign_bytes: u64,
    pub attributed: Vec<(LeaseId, u64)>,
    pub measured: bool,
    /// Of a device with a driver: who uses how much, and the declared process in whose tree it is.
    pub processes: Vec<(u32, Option<u32>, u64)>,
    /// Of a device with a driver: bytes that belong to no process it tells.
    pub unexplained_bytes: u64,
    /// Of a device with a driver: processes cannot be told apart.
    pub unattributed: bool,
    /// The newest check that its backend was asked for.
    pub check: u64,
}

/// One simulated node of the world.
pub struct NodeModel {
    pub facts: Arc<NodeFacts>,
    pub devices: Vec<DeviceModel>,
    pub silent: bool,
    /// Declared processes of which something lives.
    pub alive: BTreeSet<u32>,
    /// A driver that is slow: asked for or not, it reads nothing but the sum.
    pub sums_only: bool,
}

/// See the head of this file.
pub struct World {
    pub scheduler: Scheduler,
    pub policy: Policy,
    pub now: Time,
    pub journal: Vec<Batch>,
    /// An older state with the batches behind it, as a snapshot would leave them.
    pub snapshot: State,
    pub nodes: BTreeMap<String, NodeModel>,
    next_number: u64,
}

impl World {
    pub fn new(policy: Policy) -> Self {
        Self {
            scheduler: Scheduler::recover(State::default(), policy.clone(), Time::ZERO),
            policy,
            now: Time::ZERO,
            journal: Vec::new(),
            snapshot: State::default(),
            nodes: BTreeMap::new(),
            next_number: 0,
        }
    }

    pub fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Feeds one input as a batch of its own.
    pub fn feed(&mut self, input: Input) -> (Vec<Event>, Vec<Effect>) {
        self.feed_all(vec![input])
    }

    /// Feeds inputs as one batch, and then, as the actor does, what a full batch leaves; acquires wait for that.
    pub fn feed_all(&mut self, inputs: Vec<Input>) -> (Vec<Event>, Vec<Effect>) {
        let mut seen = (Vec::new(), Vec::new());
        let mut out = Output::default();
        self.scheduler.begin(self.now);
        for input in inputs {
            if matches!(input, Input::Acquire { .. }) && self.scheduler.has_rest() {
                self.commit(&mut out, &mut seen);
                self.finish_rest(&mut seen);
                self.scheduler.begin(self.now);
            }
            self.scheduler.step(input, &mut out);
        }
        self.commit(&mut out, &mut seen);
        self.finish_rest(&mut seen);
        seen
    }

    fn finish_rest(&mut self, seen: &mut (Vec<Event>, Vec<Effect>)) {
        for portions in 0.. {
            if !self.scheduler.has_rest() {
                break;
            }
            assert!(portions < 1_000, "it never ends: {:?}", self.scheduler);
            self.portion(seen);
        }
    }

    /// Goes on with what a full batch left: one more.
    pub fn portion(&mut self, seen: &mut (Vec<Event>, Vec<Effect>)) {
        let at_once = self.scheduler.next_deadline().is_some_and(|due| due <= self.now);
        assert!(at_once, "it goes on at once");
        let mut out = Output::default();
        self.scheduler.begin(self.now);
        self.scheduler.step(Input::Tick, &mut out);
        self.commit(&mut out, seen);
    }

    /// Ends a batch, keeps it, and checks all invariants.
    pub fn commit(&mut self, out: &mut Output, seen: &mut (Vec<Event>, Vec<Effect>)) {
        seen.0.extend(out.events.iter().cloned());
        if let Some(batch) = self.scheduler.finish(out) {
            self.journal.push(batch);
        }
        if let Err(violation) = invariant::check(self.scheduler.state()) {
            panic!("at {}: {violation}", self.now);
        }
        // A look at everything takes as long as all other checks together: now and then is enough.
        let look = self.journal.len().is_multiple_of(4);
        if look && let Err(difference) = self.scheduler.verify_placement() {
            panic!("at {}: placement remembers what is not so: {difference}", self.now);
        }
        self.reminders_go_with_what_they_are_for();
        for effect in &out.effects {
            if let Effect::Check { node, device, number } = effect {
                let nodes = self.nodes.get_mut(node.as_str());
                let mut devices = nodes.into_iter().flat_map(|node| node.devices.iter_mut());
                let asked = devices.find(|model| model.facts.uuid == *device);
                asked.expect("a check is of a device that is there").check = *number;
            }
        }
        seen.1.append(&mut out.effects);
    }

    /// A waiter has at most five deadlines; a lease that holds devices has three, a paused one two besides its place in
    /// the queue, a closed part two, a closed device and a node one each.
    fn reminders_go_with_what_they_are_for(&self) {
        let state = self.scheduler.state();
        let closed = state.inventory().devices().map(|(_, device)| device.closed.len());
        let max = state.inventory().nodes().len()
            + state.tally().queued * 5
            + state.tally().active * 3
            + state.tally().pausing * 3
            + state.tally().paused * 7
            + closed.sum::<usize>() * 2
            + state.inventory().devices().filter(|(_, it)| it.closed_until.is_some()).count();
        let set = self.scheduler.reminders();
        assert!(set <= max, "at {}: {set} deadlines are set for {max} things", self.now);
    }

    /// Makes the present state the snapshot, so that the journal stays short.
    pub fn take_snapshot(&mut self) {
        let bytes = postcard::to_stdvec(self.scheduler.state()).expect("a state encodes");
        self.snapshot = postcard::from_bytes(&bytes).expect("a state decodes");
        self.journal.clear();
    }

    /// Stops and starts again after so long: the replayed state must be the live one, through the codec.
    pub fn restart(&mut self, down: Span) {
        let bytes = postcard::to_stdvec(&self.journal).expect("batches encode");
        let journal: Vec<Batch> = postcard::from_bytes(&bytes).expect("batches decode");
        let mut state = self.snapshot.clone();
        for batch in &journal {
            state.apply_batch(batch).expect("the journal applies");
        }
        assert_eq!(&state, self.scheduler.state(), "replay and live run differ");
        // The shell's clock goes on from the last batch; the time down is not seen.
        let _ = down;
        self.now = state.time();
        self.scheduler = Scheduler::recover(state, self.policy.clone(), self.now);
    }

    /// Loses the last batches, imports what is left, and starts on that.
    pub fn import(&mut self, lost: usize, closed_for: Span) {
        self.journal.truncate(self.journal.len().saturating_sub(lost));
        let mut state = self.snapshot.clone();
        for batch in &self.journal {
            state.apply_batch(batch).expect("the journal applies");
        }
        let revision = Revision(self.scheduler.revision().0 + 1);
        let import = Import { revision, token_found: Token(0), closed_for };
        state.import(import).expect("an import fits every state");
        (self.snapshot, self.journal) = (state.clone(), Vec::new());
        self.now = state.time();
        self.scheduler = Scheduler::recover(state, self.policy.clone(), self.now);
    }

    /// Reports every node that is not silent, with its inventory.
    pub fn observe(&mut self, name: &str) -> (Vec<Event>, Vec<Effect>) {
        let node = &self.nodes[name];
        let devices = node.devices.iter();
        let report = |device: &DeviceModel| DeviceReport {
            facts: device.facts.clone(),
            lost: device.lost.clone(),
        };
        let input =
            Input::Observed { node: node.facts.clone(), devices: devices.map(report).collect() };
        self.feed(input)
    }

    /// Samples one node.
    pub fn sample(&mut self, name: &str) -> (Vec<Event>, Vec<Effect>) {
        let node = &self.nodes[name];
        let present = node.devices.iter().filter(|device| device.lost.is_none());
        let sample = |device: &DeviceModel| DeviceSample {
            uuid: device.facts.uuid.clone(),
            memory: device.measured.then(|| device.report(node.sums_only)),
            check: device.check,
        };
        let check = node.devices.iter().map(|device| device.check).max().unwrap_or(0);
        let alive = node.alive.iter().map(|pid| process(*pid)).collect();
        let real = node.devices.iter().any(|device| !device.facts.answers_at_once);
        let input = Input::Sampled {
            node: node.facts.name.clone(),
            samples: present.map(sample).collect(),
            trees: (real && !node.sums_only).then_some(TreePass { check, alive }),
        };
        self.feed(input)
    }

    /// Samples every node that is not silent.
    pub fn sample_all(&mut self) -> Vec<(Time, Vec<Event>, Vec<Effect>)> {
        let names: Vec<String> = self
            .nodes
            .iter()
            .filter(|(_, node)| !node.silent)
            .map(|(name, _)| name.clone())
            .collect();
        names
            .iter()
            .map(|name| (self.now, self.sample(name)))
            .map(|(at, (e, f))| (at, e, f))
            .collect()
    }

    /// Lets time pass: ticks at every deadline, samples once a second.
    pub fn pass(&mut self, span: Span) -> Vec<(Time, Vec<Event>, Vec<Effect>)> {
        let end = self.now.after(span);
        let mut seen = Vec::new();
        let mut next_sample = self.now.after(Span::from_secs(1));
        while self.now < end {
            let due = self.scheduler.next_deadline().unwrap_or(end).max(self.now);
            let next = due.min(end).min(next_sample);
            self.now = next;
            if next == next_sample {
                seen.extend(self.sample_all());
                next_sample = self.now.after(Span::from_secs(1));
            }
            let (events, effects) = self.feed(Input::Tick);
            seen.push((self.now, events, effects));
            if self.scheduler.next_deadline().is_some_and(|due| due <= self.now) {
                // More is due than one tick takes.
                let (events, effects) = self.feed(Input::Tick);
                seen.push((self.now, events, effects));
            }
        }
        seen
    }

    pub fn acquire(
        &mut self,
        caller: Caller,
        request: Request,
    ) -> (Ticket, Vec<Event>, Vec<Effect>) {
        let ticket = Ticket(self.number());
        let (events, effects) =
            self.feed(Input::Acquire { caller, ticket, request: Arc::new(request) });
        (ticket, events, effects)
    }

    pub fn renew(
        &mut self,
        caller: Caller,
        lease: LeaseId,
        token: Token,
        holder: Option<Holder>,
    ) -> Vec<Effect> {
        let ticket = Ticket(self.number());
        self.feed(Input::Renew { caller, ticket, lease, token, holder }).1
    }
}

/// A device with plain figures.
pub fn device(node: &str, index: u32, memory_bytes: u64, slots: u32, model: &str) -> DeviceModel {
    let facts = DeviceFacts {
        uuid: Name::new(&format!("{node}/{index}")),
        index,
        pci_address: None,
        vendor: "simulated".into(),
        model: model.into(),
        compute_capability: None,
        frameworks: ["cupy", "jax", "tensorflow", "torch"].map(Name::new).to_vec(),
        memory_total_bytes: memory_bytes,
        memory_driver_bytes: 0,
        memory_limit_bytes: None,
        memory_reserve_bytes: 0,
        slots,
        answers_at_once: true,
    };
    DeviceModel {
        facts: Arc::new(facts),
        lost: None,
        foreign_bytes: 0,
        attributed: Vec::new(),
        measured: true,
        processes: Vec::new(),
        unexplained_bytes: 0,
        unattributed: false,
        check: 0,
    }
}

/// A process by its id; all of them started at the same time.
pub fn process(pid: u32) -> Process {
    Process { pid, started_ticks: 1 }
}

impl DeviceModel {
    fn report(&self, sums_only: bool) -> MemoryReport {
        if self.facts.answers_at_once {
            return MemoryReport::Exact(MemoryReading {
                used_bytes: self.foreign_bytes,
                foreign_bytes: self.foreign_bytes,
                attributed: self.attributed.clone(),
            });
        }
        let in_use: u64 = self.processes.iter().map(|(_, _, bytes)| bytes).sum();
        let used_bytes = in_use + self.unexplained_bytes;
        if sums_only {
            return MemoryReport::Sum { used_bytes };
        }
        if self.unattributed {
            let reason = "processes cannot be told apart".into();
            return MemoryReport::Unattributed { used_bytes, reason };
        }
        let used = |(pid, root, bytes): &(u32, Option<u32>, u64)| ProcessUse {
            process: process(*pid),
            root: root.map(process),
            bytes: *bytes,
            uid: None,
            command: "".into(),
        };
        MemoryReport::Pass { used_bytes, processes: self.processes.iter().map(used).collect() }
    }
}

/// A node with plain figures.
pub fn node(name: &str, devices: Vec<DeviceModel>) -> NodeModel {
    let facts = NodeFacts {
        name: name.into(),
        boot_id: "boot-1".into(),
        labels: BTreeMap::new(),
        host_cpu_millis: 64_000,
        host_memory_bytes: 256 << 30,
    };
    let (silent, alive, sums_only) = (false, BTreeSet::new(), false);
    NodeModel { facts: Arc::new(facts), devices, silent, alive, sums_only }
}

/// A request of one slot that may not wait.
pub fn request(holder: &Holder, id: &str) -> RequestFields {
    RequestFields {
        holder: holder.clone(),
        request_id: id.into(),
        name: None,
        ask: Ask { devices: 1, share: Share::Part { slots: Some(1), memory_bytes: None } },
        constraints: Constraints::default(),
        priority: Priority::Normal,
        ttl: TTL_DEFAULT,
        wait: Span::ZERO,
        expected_duration: None,
        lifetime_max: None,
        preemptible: Preemptible::Never,
        minimum_hold: Span::ZERO,
        process: None,
        placement: None,
        pause_cost: None,
    }
}
