//! The backend's own thread: says when which pass is due, asks the driver's thread for it, and tells the core.
//!
//! Promises: one pass at a time, waited for with a bound; while one is late the node is told to be there all the same;
//! figures of a pass that took so long that they are old are not told as new.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use gpulease_core::{
    id::Name,
    input::{DeviceReport, Input, TreePass},
    inventory::NodeFacts,
    request::Process,
    time::{Span, Time},
};
use gpulease_nvml::{Driver, Remark};
use gpulease_process::Proc;

use super::{
    NvmlConfig,
    book::Book,
    checks::{Checks, Newest},
    reader::{Looks, OutOfOrder, Outcome, Passed, Reader, Took, Wanted},
    tiers::Tier,
    worker::{Answer, Worker},
};
use crate::backend::{
    Asked, Backend, BackendError, DeviceDefaults, SAMPLE_PERIOD, Sink, Summary, TRACKED_MAX,
    processes::Processes,
};

/// How long a step waits for its pass: some hundred times as long as one takes, and half of the second that a stop
/// waits for a step.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// The same once a pass is late: long enough that an answer that is just coming is told in this step.
const LATE_ANSWER_MAX: Duration = Duration::from_millis(10);
/// How often a late pass is looked for.
const LATE_PERIOD: Span = Span::from_millis(250);
/// How long the start waits to learn what there is. Opening NVML takes seconds where nothing keeps the devices
/// initialized; then the devices come later.
const OPEN_MAX: Duration = Duration::from_secs(2);
/// Figures of a pass that took longer are as old as makes a device stale.
const AGE_MAX: Duration = Duration::from_secs(3);
/// A node whose first inventory takes longer is told to be there without it: the core may know it from before.
const FIRST_MAX: Span = Span::from_secs(3);

/// The backend.
#[derive(Debug)]
pub struct Nvml {
    node: Arc<NodeFacts>,
    /// Why no process can be told apart.
    blind: Option<Name>,
    book: Book,
    worker: Worker,
    samples: Tier,
    looks: Tier,
    inventory: Tier,
    checks: Checks,
    /// Processes that are tracked, and of these those that the driver's thread was not told of yet.
    known: BTreeSet<Process>,
    tracked: BTreeSet<Process>,
    /// Processes were to be tracked and are not: no exit proves anything any more.
    unproven: bool,
    quiesced: Option<bool>,
    /// The pass at hand.
    order: Option<Order>,
    /// It did not come in time.
    late: bool,
    /// How the devices were told last.
    told: Option<Vec<DeviceReport>>,
    /// When the node is told to be there, if nothing else tells it until then; `None`: before the first step.
    sign_at: Option<Time>,
    /// When to look for a late pass.
    look_at: Time,
    out_of_order: Option<OutOfOrder>,
}

/// A pass that was asked for.
#[derive(Debug)]
struct Order {
    now: Time,
    newest: Newest,
    /// Of which tiers it is: samples, looks, inventory.
    tiers: [bool; 3],
}

/// What the driver said at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It has devices, perhaps none.
    Devices,
    /// There is no driver, for this reason.
    Absent(String),
    /// It cannot be used for now, for this reason.
    OutOfOrder(String),
    /// Nothing yet.
    Late,
}

impl Nvml {
    /// Opens the driver, and says what it said within two seconds. Whatever that was, the backend goes on trying.
    ///
    /// # Errors
    /// `Thread` if the system gives none.
    pub fn open(
        node: NodeFacts,
        config: NvmlConfig,
        defaults: DeviceDefaults,
    ) -> Result<(Self, Found), BackendError> {
        Self::open_within(node, config, defaults, OPEN_MAX)
    }

    pub(super) fn open_within(
        node: NodeFacts,
        config: NvmlConfig,
        defaults: DeviceDefaults,
        wait: Duration,
    ) -> Result<(Self, Found), BackendError> {
        let proc = Proc::at(&config.driver.proc_root);
        let processes = Processes::new(proc, config.attribution);
        let blind = processes.blind().cloned();
        if let Some(why) = &blind {
            tracing::info!(%why, "device memory is not attributed to processes");
        }
        let reader = Reader::new(Driver::closed(config.driver), processes);
        let mut nvml = Self {
            book: Book::new(defaults, node.host_cpu_millis),
            node: Arc::new(node),
            blind,
            worker: Worker::start(reader)?,
            samples: Tier::samples(),
            looks: Tier::processes(),
            inventory: Tier::inventory(),
            checks: Checks::default(),
            known: BTreeSet::new(),
            tracked: BTreeSet::new(),
            unproven: false,
            quiesced: None,
            order: None,
            late: false,
            told: None,
            sign_at: None,
            look_at: Time::ZERO,
            out_of_order: None,
        };
        let found = nvml.look_around(wait);
        Ok((nvml, found))
    }

    /// The first inventory, for whoever wants to know what there is before the first step.
    fn look_around(&mut self, wait: Duration) -> Found {
        self.order = Some(Order { now: Time::ZERO, newest: Newest::default(), tiers: [false; 3] });
        self.worker.ask(Wanted { inventory: true, ..Wanted::default() });
        let Answer::Passed(passed) = self.worker.answer(wait) else {
            self.late = true;
            return Found::Late;
        };
        self.order = None;
        if let Some(inventory) = &passed.inventory {
            self.book.take_inventory(inventory);
        }
        log_remarks(&passed.remarks);
        self.note_order(passed.out_of_order.clone());
        match passed.out_of_order {
            Some(OutOfOrder { reason, absent: true }) => Found::Absent(reason),
            Some(OutOfOrder { reason, absent: false }) => Found::OutOfOrder(reason),
            None => Found::Devices,
        }
    }

    /// Takes the answer of the pass at hand, if it comes now.
    fn collect(&mut self, now: Time, sink: &mut dyn Sink) {
        let wait = if self.late { LATE_ANSWER_MAX } else { ANSWER_MAX };
        match self.worker.answer(wait) {
            Answer::Passed(passed) => {
                if mem::take(&mut self.late) {
                    tracing::info!("the NVIDIA driver answers again");
                }
                if let Some(order) = self.order.take() {
                    self.tell(*passed, &order, now, sink);
                }
            }
            answer @ (Answer::Late | Answer::Gone) => {
                if !mem::replace(&mut self.late, true) {
                    let gone = matches!(answer, Answer::Gone);
                    tracing::warn!(
                        gone,
                        "the NVIDIA driver does not answer: its devices become stale"
                    );
                }
                self.look_at = now.after(LATE_PERIOD);
            }
        }
    }

    /// When to look for checks and for processes to track, where there are any.
    fn look_due_at(&self) -> Option<Time> {
        let any = self.checks.any_waits() || !self.tracked.is_empty();
        any.then_some(self.checks.next_at())
    }

    fn is_due(&self, now: Time) -> bool {
        let tiers = [self.samples, self.looks, self.inventory];
        tiers.iter().any(|tier| tier.is_due(now))
            || self.look_due_at().is_some_and(|due| due <= now)
            || self.quiesced.is_some()
    }

    /// Asks for everything that is due.
    fn order(&mut self, now: Time) {
        let all = self.looks.is_due(now);
        let check = self.look_due_at().is_some_and(|due| due <= now);
        let devices = if check || all { self.checks.take_waiting() } else { Vec::new() };
        let tracked = if check || all { mem::take(&mut self.tracked) } else { BTreeSet::new() };
        let looks = match (all, devices.is_empty()) {
            (true, _) => Looks::All { and_asleep: devices },
            (false, false) => Looks::At(devices),
            (false, true) => Looks::None,
        };
        let (inventory, samples) = (self.inventory.is_due(now), self.samples.is_due(now));
        let tiers = [samples, all, inventory];
        self.order = Some(Order { now, newest: self.checks.newest().clone(), tiers });
        let quiesced = self.quiesced.take();
        let tracked = tracked.into_iter().collect();
        self.worker.ask(Wanted { now, quiesced, inventory, samples, looks, tracked });
    }

    /// Tells what a pass found.
    fn tell(&mut self, mut passed: Passed, order: &Order, now: Time, sink: &mut dyn Sink) {
        log_remarks(&passed.remarks);
        self.note_order(passed.out_of_order);
        self.set_tiers(order, &passed.took);
        if passed.took.all() > AGE_MAX {
            passed.readings.retain(|reading| matches!(reading.outcome, Outcome::Unavailable(_)));
        }
        if let Some(inventory) = &passed.inventory {
            self.book.take_inventory(inventory);
        }
        let (mut samples, mut measurements) = (Vec::new(), Vec::new());
        for reading in passed.readings {
            let told =
                self.book.take_reading(reading, &order.newest.of_device, self.blind.as_ref());
            samples.extend(told.sample);
            measurements.extend(told.measurement);
        }
        self.tell_inventory(passed.inventory.is_some(), sink);
        if self.told.is_none() {
            return;
        }
        if let Some(alive) = &passed.alive {
            self.known = alive.iter().chain(&self.tracked).copied().collect();
        }
        let trees = passed.alive.filter(|_| !self.unproven);
        let trees = trees.map(|alive| TreePass { check: order.newest.of_all, alive });
        sink.report(Input::Sampled { node: self.node.name.clone(), samples, trees });
        self.sign_at = Some(now.after(SAMPLE_PERIOD));
        if !measurements.is_empty() {
            sink.measured(measurements);
        }
    }

    /// Tells the inventory if anything about it changed; never before there was one, for what it does not name is
    /// lost.
    fn tell_inventory(&mut self, taken: bool, sink: &mut dyn Sink) {
        if !taken && self.told.is_none() {
            return;
        }
        let reports = self.book.reports();
        let same = |told: &Vec<DeviceReport>| {
            let parts = |report: &DeviceReport| (report.facts.clone(), report.lost.clone());
            told.iter().map(parts).eq(reports.iter().map(parts))
        };
        if !self.told.as_ref().is_some_and(same) {
            sink.report(Input::Observed { node: self.node.clone(), devices: reports.clone() });
            self.told = Some(reports);
        }
    }

    fn set_tiers(&mut self, order: &Order, took: &Took) {
        let tiers = [&mut self.samples, &mut self.looks, &mut self.inventory];
        let times = [took.samples, took.looks, took.inventory];
        for ((tier, ordered), time) in tiers.into_iter().zip(order.tiers).zip(times) {
            // What the driver refused is not tried sooner for that; when it opens, it is looked through in any case.
            if ordered {
                tier.took(order.now, time.unwrap_or_default());
            }
        }
        if let Some(looks) = took.looks {
            self.checks.took(order.now, looks);
        }
    }

    /// Who was dropped is not told again, so that this lasts.
    fn lose_proof(&mut self) {
        if !mem::replace(&mut self.unproven, true) {
            tracing::warn!(
                "too many processes are to be tracked: until a restart, no exit of a process tree is believed"
            );
        }
    }

    fn note_order(&mut self, out_of_order: Option<OutOfOrder>) {
        match (&self.out_of_order, &out_of_order) {
            (old, Some(new)) if old.as_ref() != Some(new) => {
                tracing::warn!(why = %new.reason, "the NVIDIA driver cannot be used");
            }
            (Some(_), None) => tracing::info!("the NVIDIA driver can be used"),
            _ => {}
        }
        self.out_of_order = out_of_order;
    }
}

impl Backend for Nvml {
    fn summary(&self) -> Summary {
        Summary { name: "nvml", nodes: 1, devices: self.book.len() }
    }

    fn ask(&mut self, asked: Asked) {
        for (device, number) in asked.checks {
            self.checks.ask(device, number);
        }
        if asked.tracked_dropped {
            self.lose_proof();
        }
        // Who holds many leases is tracked once. Too many are forgotten, and told anew when they come again.
        if self.known.len() >= TRACKED_MAX {
            self.known.clone_from(&self.tracked);
        }
        let new = asked.tracked.into_iter().filter(|process| self.known.insert(*process));
        self.tracked.extend(new);
        if self.tracked.len() > TRACKED_MAX {
            self.tracked.clear();
            self.lose_proof();
        }
        for (node, quiesced) in asked.quiesced {
            if node == self.node.name {
                self.quiesced = Some(quiesced);
            } else {
                tracing::warn!(%node, quiesced, "the node's driver is not this coordinator's to quiesce or resume");
            }
        }
    }

    fn step(&mut self, now: Time, sink: &mut dyn Sink) {
        self.sign_at.get_or_insert(now.after(FIRST_MAX));
        if self.worker.is_busy() {
            self.collect(now, sink);
        }
        if !self.worker.is_busy() && self.is_due(now) {
            self.order(now);
            self.collect(now, sink);
        }
        if self.sign_at.is_some_and(|at| at <= now) {
            let node = self.node.name.clone();
            sink.report(Input::Sampled { node, samples: Vec::new(), trees: None });
            self.sign_at = Some(now.after(SAMPLE_PERIOD));
        }
    }

    fn due_at(&self) -> Time {
        let Some(sign_at) = self.sign_at else { return Time::ZERO };
        if self.worker.is_busy() {
            return self.look_at.min(sign_at);
        }
        let tiers = [self.samples, self.looks, self.inventory].map(|tier| tier.due_at());
        tiers.into_iter().chain(self.look_due_at()).fold(sign_at, Time::min)
    }
}

/// Says once what a device does not tell.
fn log_remarks(remarks: &[Remark]) {
    for Remark { uuid, figure, why, not_permitted } in remarks {
        if *not_permitted {
            tracing::warn!(%uuid, ?figure, %why, "no permission to read a figure of a device");
        } else {
            tracing::debug!(%uuid, ?figure, %why, "a device does not have a figure");
        }
    }
}
