//! What callers do to leases that are there, and operators to devices, in a random life.

use std::sync::Arc;

use gpulease_core::{
    id::{Caller, LeaseId, Name, NoticeId, Ticket, Token},
    input::{Input, TargetName},
    lease::Lease,
    time::Span,
};

use super::{Op, Place, Which};
use crate::{Life, NODES, pick_of, place};

impl Life {
    /// A call on a lease, which is answered at once. Half of those whose holder has a session come through it.
    pub(crate) fn hold(&mut self, op: &Op) {
        let (Op::Renew(pick) | Op::RenewPrevious(pick) | Op::Release(pick)) = op else {
            return self.answer(op);
        };
        let Some((lease, token, session)) = self.picked(*pick) else { return };
        let ticket = Ticket(self.world.number());
        let caller = session.unwrap_or(Caller::Call(ticket.0));
        let holder = None;
        let input = match op {
            Op::Renew(_) => Input::Renew { caller, ticket, lease, token, holder },
            Op::Release(_) => {
                self.asked.released.insert(lease);
                Input::Release { caller, ticket, lease, token: Some(token), holder }
            }
            _ => {
                let believed = self.model.leases.get(&lease);
                let Some(believed) = believed.filter(|it| it.previous > Token(0)) else { return };
                let (previous, adopted) = (believed.previous, believed.adopted);
                self.with_previous.insert(ticket, (lease, adopted));
                Input::Renew { caller, ticket, lease, token: previous, holder }
            }
        };
        self.call(caller, ticket, input);
    }

    fn answer(&mut self, op: &Op) {
        let (Op::ReleaseStale(pick)
        | Op::Acknowledge(pick, _)
        | Op::Extend(pick, ..)
        | Op::Revoke(pick)) = op
        else {
            return;
        };
        let Some((lease, token, session)) = self.picked(*pick) else { return };
        let ticket = Ticket(self.world.number());
        let caller = session.unwrap_or(Caller::Call(ticket.0));
        let holder = None;
        let before = Token(token.0.wrapping_sub(1));
        let known = self.world.scheduler.state().lease(lease).and_then(|it| it.notice.as_ref());
        let newest = known.map_or(NoticeId(0), |notice| notice.id);
        let named = |which: &Which| match which {
            Which::Newest => (token, newest),
            Which::NoticeBefore => (token, NoticeId(newest.0.wrapping_sub(1))),
            Which::TokenBefore => (before, newest),
        };
        if let Op::Acknowledge(_, which) | Op::Extend(_, which, _) = op
            && !matches!(which, Which::TokenBefore)
        {
            self.with_newest.insert(ticket);
        }
        let input = match op {
            Op::Acknowledge(_, which) => {
                let (token, notice) = named(which);
                if matches!(which, Which::Newest) {
                    self.asked.acknowledged.insert(lease);
                }
                Input::Acknowledge { caller, ticket, lease, token, notice, holder }
            }
            Op::Extend(_, which, secs) => {
                let (token, notice) = named(which);
                self.asked.extended.insert(lease);
                let extension = Span::from_secs(*secs);
                Input::ExtendNotice { caller, ticket, lease, token, notice, extension, holder }
            }
            Op::Revoke(_) => {
                self.asked.revoked.insert(lease);
                Input::Revoke { ticket, lease, detail: Arc::from("test") }
            }
            _ => {
                let believed = self.model.leases.get(&lease);
                // After a resume the token before serves a release until the new one was used (P17).
                if believed.is_some_and(|it| it.previous == before && it.adopted != Some(true)) {
                    self.asked.released.insert(lease);
                }
                Input::Release { caller, ticket, lease, token: Some(before), holder }
            }
        };
        self.call(caller, ticket, input);
    }

    /// A lease, its token, and the session of its holder.
    fn picked(&self, pick: usize) -> Option<(LeaseId, Token, Option<Caller>)> {
        let leases: Vec<&Lease> = self.world.scheduler.state().leases().values().collect();
        // Those that live are picked more often than records.
        let live: Vec<&Lease> = leases.iter().filter(|it| it.state.live()).copied().collect();
        let of = if pick.is_multiple_of(4) { &leases } else { &live };
        let lease = pick_of(of, pick / 4)?;
        let session = self.sessions.get(&lease.request.holder).copied();
        Some((lease.id, lease.token, session.filter(|_| pick % 8 < 4)))
    }

    fn call(&mut self, caller: Caller, ticket: Ticket, input: Input) {
        self.owed.insert(ticket, caller);
        self.feed(input);
        let answered = self.batch.is_some() || !self.owed.contains_key(&ticket);
        assert!(answered, "a call on a lease is answered at once");
    }

    pub(crate) fn cordon(&mut self, at: Place, drain: Option<bool>) {
        let target = match at {
            Place::Device(device) => {
                let (node, index) = place(device);
                TargetName::Device(Name::new(&format!("{node}/{index}")))
            }
            Place::Node(node) => TargetName::Node(NODES[usize::from(node)].0.into()),
        };
        let ticket = Ticket(self.world.number());
        let input = match drain {
            Some(drain) => Input::Cordon { ticket, target, drain, reason: Arc::from("test") },
            None => Input::Uncordon { ticket, target },
        };
        self.call(Caller::Call(ticket.0), ticket, input);
    }
}
