//! After a restart or failover: soft state anew from the state, set to the worst case.
//!
//! Every lease has its full TTL again and every closed part its full lock delay; nothing is measured; every waiter is
//! expected back within the session grace, and nobody behind it is granted before (P4, P11).

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::At,
    id::{DeviceId, LeaseId, NodeId},
    inventory::{Closed, ClosedUntil},
    lease::{Fact, FactKind, Lease, State as LeaseState},
    output::{Effect, Output},
    policy::Policy,
    queue::{NewWaiter, Presence},
    soft::{Clock, Soft},
    state::State,
    time::Time,
};

impl Scheduler {
    /// Takes up a state at the shell's `now`, which must not be before [`State::time`].
    #[must_use]
    pub fn recover(state: State, policy: Policy, now: Time) -> Self {
        let now = now.max(state.time());
        let at = At { revision: state.revision(), time: now };
        let soft = Soft { clock: Clock::start(now), ..Soft::default() };
        let mut scheduler = Self { state, soft, policy, at };
        scheduler.expect_nodes();
        scheduler.rearm_leases();
        scheduler.rearm_closed();
        scheduler.rearm_import();
        scheduler.rearm_lingering();
        scheduler.rearm_keeps();
        scheduler.rearm_lost();
        scheduler.rearm_drained();
        scheduler.soft.rest.impossible = scheduler.bounded_waiters();
        scheduler
    }

    /// What the backend has to know of the state before its first pass: the declared processes of all leases that hold
    /// devices or may still use them. To be let out once, at the start; checks of closed parts follow by themselves.
    #[must_use]
    pub fn declared(&self) -> Vec<Effect> {
        let closed = (self.state.inventory().devices())
            .flat_map(|(_, device)| device.closed.values().filter_map(|closed| closed.process));
        let live = self.state.leases().values().filter(|lease| lease.state.live());
        let lingering = self.soft.lingering.values().flatten().copied();
        let mut all: Vec<_> =
            live.filter_map(|lease| lease.request.process).chain(closed).chain(lingering).collect();
        all.sort_unstable();
        all.dedup();
        all.into_iter().map(|process| Effect::Track { process }).collect()
    }

    /// A node that was not lost counts as heard of now: its silence begins here.
    fn expect_nodes(&mut self) {
        let now = self.now();
        let nodes: Vec<(NodeId, Time)> = (self.state.inventory().nodes())
            .map(|(id, node)| (id, if node.lost { node.seen_at } else { now }))
            .collect();
        for (node, heard) in nodes {
            self.soft.measured.expect(node, heard);
            self.soft
                .deadlines
                .set(heard.after(self.policy.node_silent_max), Deadline::Silence(node));
        }
    }

    fn rearm_leases(&mut self) {
        let live: Vec<(LeaseId, LeaseState)> = (self.state.leases().values())
            .filter(|lease| lease.state.live())
            .map(|lease| (lease.id, lease.state))
            .collect();
        for (id, state) in live {
            match state {
                LeaseState::Active => self.rearm_expiry(id),
                LeaseState::Pausing => {
                    self.rearm_expiry(id);
                    self.rearm_standing_notice(id);
                }
                LeaseState::Paused => {
                    self.rearm_expiry(id);
                    let until = self.now().after(self.policy.session_grace);
                    self.queue_paused(id, Presence::Expected { until });
                    self.soft.deadlines.set(until, Deadline::Away(id));
                }
                LeaseState::Queued => self.expect(id),
                LeaseState::Reclaiming(_) | LeaseState::Ended(_) => {}
            }
        }
    }

    fn rearm_expiry(&mut self, id: LeaseId) {
        let expiry = self.expiry_from_now(id);
        self.soft.expiries.insert(id, expiry);
        self.soft.deadlines.set(expiry, Deadline::Expiry(id));
        self.remind_of_minimum_hold(id);
        self.book_guest(id);
    }

    /// A holder has all of its notice again: its answer may have been on its way.
    fn rearm_standing_notice(&mut self, id: LeaseId) {
        let notice = self.state.lease(id).and_then(|lease| lease.notice.clone());
        let Some(notice) = notice else { return };
        let whole = notice.deadline.since(notice.given_at);
        let over = notice.deadline.max(self.now().after(whole));
        for cause in &notice.causes {
            self.soft.noticed_for.entry(*cause).or_default().insert(id, over);
        }
        self.arm_notice(id, over);
    }

    fn expect(&mut self, id: LeaseId) {
        let Some(lease) = self.state.lease(id) else { return };
        let (request, requested_at) = (lease.request.clone(), lease.requested_at);
        let now = self.now();
        let until = now.after(self.policy.session_grace);
        let waits_until = requested_at.after(request.wait).max(until);
        let rank = self.rank(lease);
        let presence = Presence::Expected { until };
        let owner = self.owns_enough(&request);
        let brevity = self.brevity(&request);
        self.soft.queue.add(&request, NewWaiter { rank, presence, waits_until, owner, brevity });
        self.soft.deadlines.set(until, Deadline::Away(id));
        self.remind_of_wait(id, waits_until);
        self.set_aging(rank);
    }

    fn rearm_closed(&mut self) {
        let closed: Vec<(DeviceId, LeaseId)> = (self.state.inventory().devices())
            .flat_map(|(id, device)| device.closed.keys().map(move |lease| (id, *lease)))
            .collect();
        // The checks asked for here are lost with the output; each is asked for again by its deadline.
        let mut lost = Output::default();
        for (device, lease) in closed {
            self.close(device, lease, &mut lost);
        }
    }

    /// Trees of unclean ends, and of leases paused by a loss, may have outlived the lock delay before the restart; the
    /// first pass tells. What was given back was checked, and is foreign where it is left (P7).
    fn rearm_lingering(&mut self) {
        let ended: Vec<(LeaseId, Box<[DeviceId]>)> = (self.state.leases().values())
            .filter(|lease| lease.request.process.is_some() && ended_uncleanly(lease))
            .map(|lease| (lease.id, lease.devices.clone()))
            .collect();
        for (id, devices) in ended {
            let Some(lease) = self.state.lease(id) else { continue };
            let (share, process) = (lease.request.ask.share, lease.request.process);
            for device in devices {
                self.linger(device, Closed { share, until: ClosedUntil::Proven, process });
            }
        }
    }

    fn rearm_keeps(&mut self) {
        let keeps: Vec<(LeaseId, Time)> =
            self.state.keeps().values().map(|keep| (keep.lease, keep.lapses_at)).collect();
        for (lease, lapses_at) in keeps {
            self.soft.deadlines.set(lapses_at, Deadline::Keep(lease));
        }
        let barred = |lease: &&crate::lease::Lease| lease.state.waits();
        let bars: Vec<(LeaseId, Time)> = (self.state.leases().values())
            .filter(barred)
            .map(|lease| (lease.id, lease.keep_barred_until))
            .filter(|(_, until)| *until > self.at.time)
            .collect();
        for (lease, until) in bars {
            self.soft.deadlines.set(until, Deadline::Keep(lease));
        }
    }
}

/// Whether a lease lost its devices rather than gave them back, by the last that happened to it.
fn ended_uncleanly(lease: &Lease) -> bool {
    let by_fact = |fact: &Fact| match fact.what {
        FactKind::Reclaiming(_) | FactKind::Paused(None) => Some(true),
        FactKind::Paused(Some(_)) | FactKind::Granted(_) | FactKind::Resumed(_) => Some(false),
        _ => None,
    };
    let last = lease.history.iter().rev().find_map(by_fact);
    !lease.state.holds() && last.unwrap_or(false)
}
