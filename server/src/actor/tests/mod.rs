//! The actor turned by hand: a journal in memory, a clock that a test moves, a node with devices.

mod errands;
mod feed;
mod gate;
mod order;
mod rebirth;

use std::{collections::BTreeMap, sync::Arc};

use gpulease_core::{
    id::{Caller, Holder, LeaseId, Name, Ticket, Token},
    input::{DeviceReport, DeviceSample, Input, MemoryReading, MemoryReport},
    inventory::{DeviceFacts, NodeFacts},
    lease::State,
    output::Answer,
    policy::Policy,
    request::{Ask, Constraints, Preemptible, Priority, RequestFields, Share},
    time::{Span, Time},
    view::LeaseView,
};
use tokio::sync::oneshot;

use super::{
    Errands, Handle, NoErrands, Reply, ReplyTo, SessionInbox, SessionMessage, Setup,
    batch::CommitError,
    recovery, run, session_channel,
    snapshot::SnapshotThread,
    turn::{Actor, Next},
};
use crate::{
    clock::FakeClock,
    journal::{HistoryBound, Journal, Opened, memory::Disk},
};

const GIB: u64 = 1 << 30;

/// A coordinator without threads.
struct Rig {
    clock: Arc<FakeClock>,
    handle: Handle,
    actor: Actor,
    _snapshots: SnapshotThread,
}

impl Rig {
    /// On what the disk holds, with one node of two devices of 24 GiB, measured.
    fn on(disk: &Disk) -> Self {
        Self::with(disk.open().unwrap())
    }

    fn with<J: Journal + 'static>(opened: Opened<J>) -> Self {
        Self::with_errands(opened, Arc::new(NoErrands))
    }

    fn with_errands<J: Journal + 'static>(opened: Opened<J>, errands: Arc<dyn Errands>) -> Self {
        Self::from(Setup { errands, ..setup(opened) })
    }

    /// Under another policy.
    fn under(policy: Policy, disk: &Disk) -> Self {
        let recovered = recovery::recover(disk.open().unwrap(), policy).unwrap();
        Self::from(Setup { recovered, ..setup(Disk::new().open().unwrap()) })
    }

    fn from(setup: Setup) -> Self {
        let clock = Arc::new(FakeClock::at(setup.recovered.scheduler().state().time()));
        let (handle, actor, snapshots) =
            run::assemble(Setup { clock: clock.clone(), ..setup }).unwrap();
        let mut rig = Self { clock, handle, actor, _snapshots: snapshots };
        rig.handle.tell(observed(2));
        rig.handle.tell(sampled(2));
        rig.settle().unwrap();
        rig
    }

    /// Turns until there is nothing to do at this moment.
    fn settle(&mut self) -> Result<Next, CommitError> {
        loop {
            match self.actor.turn()? {
                Next::Again => {}
                next => return Ok(next),
            }
        }
    }

    /// Lets time pass in steps no longer than a heartbeat.
    fn pass(&mut self, span: Span) {
        for _ in 0..span.as_millis() / 200 {
            self.clock.advance(Span::from_millis(200));
            self.handle.tell(sampled(2));
            self.settle().unwrap();
        }
    }

    fn call(&self, make: impl FnOnce(Caller, Ticket) -> Input) -> Answered {
        let (line, answered) = oneshot::channel();
        let caller = self.handle.caller_call();
        self.handle.submit(ReplyTo::Call(line), |ticket| make(caller, ticket)).unwrap();
        answered
    }

    fn acquire(&self, fields: RequestFields) -> Answered {
        let request = Arc::new(fields.validate().unwrap());
        self.call(|caller, ticket| Input::Acquire { caller, ticket, request })
    }

    /// A lease on memory that is free, granted.
    fn grant(&mut self, request_id: &str) -> LeaseView {
        let mut answered = self.acquire(request(request_id, GIB));
        self.settle().unwrap();
        lease_of(answered.try_recv().unwrap())
    }

    /// A whole life of a lease.
    fn grant_and_release(&mut self, request_id: &str) {
        let LeaseView { id: lease, token, .. } = self.grant(request_id);
        drop(self.call(|caller, ticket| Input::Release {
            caller,
            ticket,
            lease,
            token: Some(token),
            holder: None,
        }));
        self.settle().unwrap();
    }

    fn session(&mut self) -> Session {
        let (outbox, inbox) = session_channel();
        let caller = self.handle.caller_session(outbox);
        let session = Session { caller, inbox, handle: self.handle.clone() };
        session.send(0, |caller, ticket| Input::SessionOpened { caller, ticket, holder: holder() });
        session
    }
}

type Answered = oneshot::Receiver<Reply>;

struct Session {
    caller: Caller,
    inbox: SessionInbox,
    handle: Handle,
}

impl Session {
    fn send(&self, sequence: u64, make: impl FnOnce(Caller, Ticket) -> Input) {
        let reply_to = ReplyTo::Session { sequence };
        self.handle.submit(reply_to, |ticket| make(self.caller, ticket)).unwrap();
    }

    fn acquire(&self, sequence: u64, fields: RequestFields) {
        let request = Arc::new(fields.validate().unwrap());
        self.send(sequence, |caller, ticket| Input::Acquire { caller, ticket, request });
    }

    fn renew(&self, sequence: u64, lease: LeaseId, token: Token) {
        self.send(sequence, |caller, ticket| Input::Renew {
            caller,
            ticket,
            lease,
            token,
            holder: None,
        });
    }

    fn release(&self, sequence: u64, lease: LeaseId, token: Token) {
        self.send(sequence, |caller, ticket| Input::Release {
            caller,
            ticket,
            lease,
            token: Some(token),
            holder: None,
        });
    }

    /// What has arrived, without waiting: the sequence of each reply, in order.
    fn sequences(&mut self) -> Vec<u64> {
        let replies = self.messages().into_iter().filter_map(|message| match message {
            SessionMessage::Reply { sequence, .. } => Some(sequence),
            _ => None,
        });
        replies.collect()
    }

    fn messages(&mut self) -> Vec<SessionMessage> {
        let mut messages = Vec::new();
        {
            let received = std::pin::pin!(self.inbox.receive(&mut messages));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = received.poll(&mut context);
        }
        messages
    }
}

fn setup<J: Journal + 'static>(opened: Opened<J>) -> Setup {
    let recovered = recovery::recover(opened, Policy::default()).unwrap();
    Setup {
        recovered,
        clock: Arc::new(FakeClock::at(Time::ZERO)),
        history: HistoryBound::DEFAULT,
        data_directory: None,
        backend: "none".to_owned(),
        errands: Arc::new(NoErrands),
    }
}

fn holder() -> Holder {
    Holder { service: "trainer".into(), name: "ada".into() }
}

fn request(request_id: &str, memory_bytes: u64) -> RequestFields {
    RequestFields {
        holder: holder(),
        request_id: request_id.into(),
        name: None,
        ask: Ask {
            devices: 1,
            share: Share::Part { slots: None, memory_bytes: Some(memory_bytes) },
        },
        constraints: Constraints::default(),
        priority: Priority::Normal,
        ttl: Span::from_secs(10),
        wait: Span::from_secs(60),
        expected_duration: None,
        lifetime_max: None,
        preemptible: Preemptible::Never,
        minimum_hold: Span::ZERO,
        process: None,
        placement: None,
        pause_cost: None,
    }
}

fn observed(devices: u32) -> Input {
    let node = NodeFacts {
        name: "alpha".into(),
        boot_id: "first".into(),
        labels: BTreeMap::new(),
        host_cpu_millis: 8_000,
        host_memory_bytes: 64 * GIB,
    };
    let report = |index| DeviceReport { facts: Arc::new(facts(index)), lost: None };
    Input::Observed { node: Arc::new(node), devices: (0..devices).map(report).collect() }
}

fn facts(index: u32) -> DeviceFacts {
    DeviceFacts {
        uuid: Name::new(&format!("SIM-{index}")),
        index,
        pci_address: None,
        vendor: "simulated".into(),
        model: "SIM".into(),
        compute_capability: None,
        frameworks: Vec::new(),
        memory_total_bytes: 24 * GIB,
        memory_driver_bytes: 0,
        memory_limit_bytes: None,
        memory_reserve_bytes: 0,
        slots: 4,
        answers_at_once: true,
    }
}

fn sampled(devices: u32) -> Input {
    let sample = |index| DeviceSample {
        uuid: Name::new(&format!("SIM-{index}")),
        memory: Some(MemoryReport::Exact(MemoryReading::default())),
        check: 0,
    };
    Input::Sampled {
        node: "alpha".into(),
        samples: (0..devices).map(sample).collect(),
        trees: None,
    }
}

fn lease_of(reply: Reply) -> LeaseView {
    match reply.outcome {
        Ok(Answer::Lease(lease) | Answer::Queued(lease) | Answer::Released(lease)) => *lease,
        other => panic!("{other:?}"),
    }
}

fn is_active(rig: &Rig, id: LeaseId) -> bool {
    let state = rig.actor.scheduler().state().lease(id).map(|lease| lease.state);
    state == Some(State::Active)
}
