//! The way into the actor: one queue under a short lock, bounded by permits, with one wake-up for whatever waits.
//!
//! Promises: what one thread puts in comes out in that order; putting in never blocks; an ordinary input (acquire)
//! never takes the room of an urgent one (renew, release, revoke, session). The order of work is `lanes`' matter.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::Thread,
};

use gpulease_core::{
    id::{Caller, Name, Ticket},
    input::{DeviceSample, Input, MemoryReport, TreePass},
};

use super::{health::SubmitError, message::ReplyTo, outbox::SessionOutbox, query::BoxedQuery};

/// The most acquires that wait for the actor: at 20,000 a second that is 0.8 s of work, within every client's
/// patience; at about 1 KiB each 16 MiB.
pub const ORDINARY_INPUTS_MAX: usize = 16_384;
/// The most renewals, releases and the like that wait: 100,000 leases renewed at once after a restart come over at
/// most 4,096 requests in flight a session, so 16 such sessions; at about 250 bytes each 16 MiB.
pub const URGENT_INPUTS_MAX: usize = 65_536;

/// The most questions that wait: at 2 ms for the longest (a page of leases whose filter keeps none) 8 s of work at the
/// very worst, mostly far under one; at about 500 bytes each 2 MiB.
pub(super) const QUERIES_MAX: usize = 4_096;

/// Which permits an input needs, and when it is stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// An acquire, or the reservation of a plan.
    Ordinary,
    /// A renewal, a release, the answer to a notice, what operators do, the opening of a session.
    Urgent,
    /// An observation, or the end of a caller: never refused.
    Told,
}

impl Class {
    pub(super) fn of(input: &Input) -> Self {
        match input {
            Input::Acquire { .. } | Input::Reserve { .. } => Self::Ordinary,
            Input::Renew { .. }
            | Input::Release { .. }
            | Input::Acknowledge { .. }
            | Input::ExtendNotice { .. }
            | Input::Cordon { .. }
            | Input::Uncordon { .. }
            | Input::Quiesce { .. }
            | Input::Revoke { .. }
            | Input::OpenDevice { .. }
            | Input::SessionOpened { .. } => Self::Urgent,
            Input::CallerGone { .. }
            | Input::Observed { .. }
            | Input::Sampled { .. }
            | Input::Tick => Self::Told,
        }
    }
}

/// Something for the actor.
pub(super) enum Message {
    /// A request with the way back.
    Request { ticket: Ticket, reply_to: ReplyTo, input: Input },
    /// An input nobody waits for.
    Told(Input),
    /// A session to be told of changes.
    Session { caller: Caller, outbox: SessionOutbox },
    /// A question about committed state.
    Query(BoxedQuery),
    /// The end, on request.
    Stop,
}

/// The queue and its permits.
#[derive(Default)]
pub(super) struct Intake {
    waiting: Mutex<Waiting>,
    ordinary: AtomicUsize,
    urgent: AtomicUsize,
    actor: OnceLock<Thread>,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    /// The newest report of each node that is not taken yet; whole, so that it stands for all before it.
    observed: BTreeMap<Name, Input>,
    /// The newest measurements of each node, likewise.
    sampled: BTreeMap<Name, Sampled>,
    /// The actor is gone: nothing is taken any more.
    closed: bool,
}

/// What the actor took out at once.
#[derive(Default)]
pub(super) struct Taken {
    /// In order of arrival.
    pub(super) messages: Vec<Message>,
    /// Observations, then samples; the newest of each node.
    pub(super) observations: Vec<Input>,
}

impl Intake {
    /// Names the thread to wake.
    pub(super) fn serve_from(&self, thread: Thread) {
        // Set once, by the one actor of this intake.
        let _ = self.actor.set(thread);
    }

    /// Takes a permit for an input of `class`.
    pub(super) fn admit(&self, class: Class) -> Result<(), SubmitError> {
        let (taken, max) = match class {
            Class::Ordinary => (&self.ordinary, ORDINARY_INPUTS_MAX),
            Class::Urgent => (&self.urgent, URGENT_INPUTS_MAX),
            Class::Told => return Ok(()),
        };
        if taken.fetch_add(1, Ordering::Relaxed) < max {
            return Ok(());
        }
        taken.fetch_sub(1, Ordering::Relaxed);
        Err(SubmitError::Overloaded)
    }

    /// Gives permits back.
    pub(super) fn readmit(&self, ordinary: usize, urgent: usize) {
        self.ordinary.fetch_sub(ordinary, Ordering::Relaxed);
        self.urgent.fetch_sub(urgent, Ordering::Relaxed);
    }

    /// Puts a message in; answers false where the actor is gone.
    pub(super) fn put(&self, message: Message) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        waiting.put(message);
        drop(waiting);
        // Costs a system call only if the actor sleeps.
        if let Some(actor) = self.actor.get() {
            actor.unpark();
        }
        true
    }

    /// Takes all there is; the buffers of `into`, which are empty, are used again.
    pub(super) fn take(&self, into: &mut Taken) {
        let mut waiting = self.lock();
        std::mem::swap(&mut waiting.messages, &mut into.messages);
        if !waiting.observed.is_empty() || !waiting.sampled.is_empty() {
            into.observations.extend(std::mem::take(&mut waiting.observed).into_values());
            let sampled = std::mem::take(&mut waiting.sampled).into_iter();
            into.observations.extend(sampled.map(|(node, sampled)| sampled.into_input(node)));
        }
    }

    /// Takes nothing any more; what waits is dropped, and with it its way back.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        let dropped = std::mem::take(&mut waiting.messages);
        drop(waiting);
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change under the lock is whole, even after a panic elsewhere.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples of one node that wait: the newest of each device. A full pass is not given up for a newer sum, for a check
/// may wait for it; it is for a device that can no longer be read.
#[derive(Default)]
struct Sampled {
    devices: BTreeMap<Name, DeviceSample>,
    trees: Option<TreePass>,
}

impl Sampled {
    fn add(&mut self, samples: Vec<DeviceSample>, trees: Option<TreePass>) {
        for sample in samples {
            let sum = matches!(sample.memory, Some(MemoryReport::Sum { .. }));
            let before = self.devices.get(&sample.uuid).and_then(|before| before.memory.as_ref());
            let whole = matches!(
                before,
                Some(MemoryReport::Pass { .. } | MemoryReport::Unattributed { .. })
            );
            if !(sum && whole) {
                self.devices.insert(sample.uuid.clone(), sample);
            }
        }
        self.trees = trees.or(self.trees.take());
    }

    fn into_input(self, node: Name) -> Input {
        let samples = self.devices.into_values().collect();
        Input::Sampled { node, samples, trees: self.trees }
    }
}

impl Waiting {
    fn put(&mut self, message: Message) {
        match message {
            Message::Told(Input::Observed { node, devices }) => {
                self.observed.insert(node.name.clone(), Input::Observed { node, devices });
            }
            Message::Told(Input::Sampled { node, samples, trees }) => {
                self.sampled.entry(node).or_default().add(samples, trees);
            }
            other => self.messages.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use gpulease_core::request::Process;

    use super::*;

    fn sample(uuid: &str, memory: Option<MemoryReport>, check: u64) -> DeviceSample {
        DeviceSample { uuid: uuid.into(), memory, check }
    }

    fn sum(used_bytes: u64) -> Option<MemoryReport> {
        Some(MemoryReport::Sum { used_bytes })
    }

    fn pass(used_bytes: u64) -> Option<MemoryReport> {
        Some(MemoryReport::Pass { used_bytes, processes: Vec::new() })
    }

    fn blind(used_bytes: u64) -> Option<MemoryReport> {
        Some(MemoryReport::Unattributed { used_bytes, reason: "hidden".into() })
    }

    /// What the actor takes of samples that one node told one after the other: of each device what was in use, and which
    /// check that answers.
    fn check(told: Vec<DeviceSample>, expected: &[(&str, Option<u64>, u64)]) {
        let intake = Intake::default();
        for sample in told {
            let input = Input::Sampled { node: "n".into(), samples: vec![sample], trees: None };
            intake.put(Message::Told(input));
        }
        let [Input::Sampled { samples, .. }] = &taken(&intake)[..] else {
            panic!("one for a node")
        };
        let used = |memory: &Option<MemoryReport>| memory.as_ref().map(MemoryReport::used_bytes);
        let found: Vec<_> =
            samples.iter().map(|it| (it.uuid.as_str(), used(&it.memory), it.check)).collect();
        assert_eq!(found, expected);
    }

    fn taken(intake: &Intake) -> Vec<Input> {
        let mut taken = Taken::default();
        intake.take(&mut taken);
        assert!(taken.messages.is_empty());
        taken.observations
    }

    #[test]
    fn a_pass_that_a_check_waits_for_is_not_given_up_for_a_newer_sum() {
        check(
            vec![sample("A", sum(1), 0), sample("A", pass(2), 5), sample("A", sum(3), 5)],
            &[("A", Some(2), 5)],
        );
        check(vec![sample("A", blind(2), 5), sample("A", sum(3), 5)], &[("A", Some(2), 5)]);
    }

    #[test]
    fn a_newer_pass_stands_for_an_older_one_and_a_sum_for_a_sum() {
        check(vec![sample("A", pass(2), 5), sample("A", pass(3), 7)], &[("A", Some(3), 7)]);
        check(vec![sample("A", sum(2), 0), sample("A", sum(3), 0)], &[("A", Some(3), 0)]);
        check(vec![sample("A", pass(2), 5), sample("A", blind(4), 6)], &[("A", Some(4), 6)]);
    }

    #[test]
    fn a_device_that_can_no_longer_be_read_is_told_as_such() {
        check(vec![sample("A", pass(2), 5), sample("A", None, 5)], &[("A", None, 5)]);
    }

    #[test]
    fn devices_of_a_node_that_are_told_apart_come_together() {
        check(
            vec![sample("B", sum(1), 0), sample("A", pass(2), 1), sample("B", sum(3), 0)],
            &[("A", Some(2), 1), ("B", Some(3), 0)],
        );
    }

    #[test]
    fn of_passes_over_all_processes_the_newest_stands_whatever_came_after_it() {
        let intake = Intake::default();
        let alive = vec![Process { pid: 7, started_ticks: 1 }];
        let told = |check, alive| Some(TreePass { check, alive });
        for trees in [told(1, alive.clone()), told(2, Vec::new()), None] {
            let input = Input::Sampled { node: "n".into(), samples: Vec::new(), trees };
            intake.put(Message::Told(input));
        }
        let [Input::Sampled { trees, .. }] = &taken(&intake)[..] else { panic!("one for a node") };
        assert_eq!(*trees, told(2, Vec::new()));
        assert!(taken(&intake).is_empty(), "each is taken once");
    }
}
