//! After a restart or failover: soft state anew from the state, set to the worst case.
//!
//! Every lease has its full TTL again and every closed part its full lock delay; nothing is measured; every waiter is
//! expected back within the session grace, and nobody behind it is granted before (P4, P11).

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::At,
    id::{DeviceId, LeaseId, NodeId},
    lease::State as LeaseState,
    policy::Policy,
    queue::{OrderKey, Presence},
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
        scheduler.rearm_keeps();
        scheduler
    }

    /// A node that was not lost counts as heard of now: its silence begins here.
    fn expect_nodes(&mut self) {
        let now = self.now();
        let nodes: Vec<(NodeId, Time)> = (self.state.inventory().nodes())
            .map(|(id, node)| (id, if node.lost { node.seen_at } else { now }))
            .collect();
        for (node, heard) in nodes {
            self.soft.measured.heard(node, heard);
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
                LeaseState::Active => {
                    let expiry = self.expiry_from_now(id);
                    self.soft.expiries.insert(id, expiry);
                    self.soft.deadlines.set(expiry, Deadline::Expiry(id));
                }
                LeaseState::Queued => self.expect(id),
                LeaseState::Reclaiming(_) | LeaseState::Ended(_) => {}
            }
        }
    }

    fn expect(&mut self, id: LeaseId) {
        let Some(lease) = self.state.lease(id) else { return };
        let (request, requested_at) = (lease.request.clone(), lease.requested_at);
        let now = self.now();
        let until = now.after(self.policy.session_grace);
        let waits_until = requested_at.after(request.wait).max(until);
        let key =
            OrderKey::new(id, request.priority, now.since(requested_at), self.policy.aging_step);
        self.soft.queue.add(&request, key, Presence::Expected { until }, waits_until);
        self.soft.deadlines.set(until, Deadline::Away(id));
        self.remind_of_wait(id, waits_until);
        self.set_aging(key);
    }

    fn rearm_closed(&mut self) {
        let closed: Vec<(DeviceId, LeaseId)> = (self.state.inventory().devices())
            .flat_map(|(id, device)| device.closed.keys().map(move |lease| (id, *lease)))
            .collect();
        for (device, lease) in closed {
            self.close_for_lock_delay(device, lease);
        }
    }

    fn rearm_keeps(&mut self) {
        let keeps: Vec<(LeaseId, Time)> =
            self.state.keeps().values().map(|keep| (keep.lease, keep.lapses_at)).collect();
        for (lease, lapses_at) in keeps {
            self.soft.deadlines.set(lapses_at, Deadline::Keep(lease));
        }
        let barred = |lease: &&crate::lease::Lease| lease.state == LeaseState::Queued;
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
