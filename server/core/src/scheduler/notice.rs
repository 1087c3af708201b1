//! Notices: given, changed, withdrawn and over (P14).

use std::collections::{BTreeMap, BTreeSet};

use super::Scheduler;
use crate::{
    deadline::Deadline,
    event::Event,
    id::{LeaseId, NoticeId},
    lease::{EndReason, Lease, State as LeaseState},
    notice::{CAUSES_MAX, Cause, Notice, Target},
    output::Output,
    time::Time,
    view::{CauseView, NoticeView},
};

impl Scheduler {
    /// Gives a lease notice for a cause, or adds the cause to its notice.
    pub(super) fn give_notice(&mut self, id: LeaseId, cause: Cause, out: &mut Output) {
        // Notices of this cause that were still to be withdrawn stand.
        self.soft.rest.withdrawn.remove(&cause);
        let Some(lease) = self.state.lease(id) else { return };
        let over = self.now().after(self.policy.notice);
        match (lease.state, &lease.notice) {
            (LeaseState::Active, _) => {
                let notice = NoticeId(self.state.last_notice().0.saturating_add(1));
                let causes = vec![cause];
                self.emit(Event::Noticed { lease: id, notice, causes, deadline: over }, out);
            }
            (LeaseState::Pausing, Some(notice)) => {
                if notice.causes.contains(&cause) || notice.causes.len() >= CAUSES_MAX {
                    return;
                }
                let mut causes = notice.causes.clone();
                causes.push(cause);
                causes.sort_unstable();
                let deadline = self.notice_over(id, notice).min(over);
                let (notice, extended) = (notice.id, notice.extended);
                let event = Event::NoticeChanged { lease: id, notice, causes, deadline, extended };
                self.emit(event, out);
            }
            _ => return,
        }
        self.soft.noticed_for.entry(cause).or_default().insert(id, over);
        self.rearm_notice(id);
        self.tell(id, out);
    }

    /// When a standing notice is over.
    pub(super) fn notice_over(&self, id: LeaseId, notice: &Notice) -> Time {
        self.soft.notices.get(&id).copied().unwrap_or(notice.deadline)
    }

    /// The holder has its extension: no cause takes the devices before.
    pub(super) fn extend_to(&mut self, id: LeaseId, deadline: Time, out: &mut Output) {
        let Some(notice) = self.state.lease(id).and_then(|lease| lease.notice.as_ref()) else {
            return;
        };
        let (notice, causes) = (notice.id, notice.causes.clone());
        for cause in &causes {
            let noticed = self.soft.noticed_for.get_mut(cause);
            if let Some(over) = noticed.and_then(|noticed| noticed.get_mut(&id)) {
                *over = deadline.max(*over);
            }
        }
        let extended = true;
        self.emit(Event::NoticeChanged { lease: id, notice, causes, deadline, extended }, out);
        self.rearm_notice(id);
    }

    /// The leases that have notice for a cause.
    pub(super) fn noticed_for(&self, cause: Cause) -> BTreeSet<LeaseId> {
        let noticed = self.soft.noticed_for.get(&cause);
        noticed.into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    /// A cause is gone: notices that have no other are withdrawn, and their holders go on.
    pub(super) fn drop_cause(&mut self, cause: Cause, out: &mut Output) {
        for id in self.noticed_for(cause) {
            if self.full(out) {
                self.soft.rest.withdrawn.insert(cause);
                return;
            }
            self.drop_cause_on(id, cause, out);
        }
    }

    /// A request is no longer in need of what others hold.
    pub(super) fn drop_cause_of(&mut self, request: LeaseId, out: &mut Output) {
        self.drop_cause(Cause::Preemption(request), out);
    }

    /// One notice loses one cause. Its deadline is then the earliest of those that are left.
    pub(super) fn drop_cause_on(&mut self, id: LeaseId, cause: Cause, out: &mut Output) {
        self.unbook_cause(id, cause);
        let Some(lease) = self.state.lease(id) else { return };
        let Some(notice) = lease.notice.as_ref().filter(|_| lease.state == LeaseState::Pausing)
        else {
            return;
        };
        let mut causes = notice.causes.clone();
        causes.retain(|other| *other != cause);
        if causes.len() == notice.causes.len() {
            return;
        }
        let (over, extended) = (self.notice_over(id, notice), notice.extended);
        let notice = notice.id;
        if causes.is_empty() {
            self.emit(Event::NoticeWithdrawn { lease: id, notice }, out);
            self.forget_notice(id);
        } else {
            let left = causes.iter().filter_map(|it| self.soft.noticed_for.get(it)?.get(&id));
            let deadline = left.min().copied().unwrap_or(over).max(over);
            self.emit(Event::NoticeChanged { lease: id, notice, causes, deadline, extended }, out);
            self.rearm_notice(id);
        }
        self.soft.dirty = true;
        self.tell(id, out);
    }

    fn unbook_cause(&mut self, id: LeaseId, cause: Cause) {
        if let Some(noticed) = self.soft.noticed_for.get_mut(&cause) {
            noticed.remove(&id);
            if noticed.is_empty() {
                self.soft.noticed_for.remove(&cause);
            }
        }
    }

    /// Arms the deadline of a standing notice, as the state says it.
    pub(super) fn rearm_notice(&mut self, id: LeaseId) {
        let Some(notice) = self.state.lease(id).and_then(|lease| lease.notice.as_ref()) else {
            return;
        };
        self.arm_notice(id, notice.deadline);
    }

    pub(super) fn arm_notice(&mut self, id: LeaseId, deadline: Time) {
        self.soft.notices.insert(id, deadline);
        self.soft.deadlines.set(deadline, Deadline::Notice(id));
    }

    /// A notice stands no longer.
    pub(super) fn forget_notice(&mut self, id: LeaseId) {
        self.soft.notices.remove(&id);
        self.soft.deadlines.clear(Deadline::Notice(id));
        let causes = self.state.lease(id).and_then(|lease| lease.notice.as_ref());
        let causes = causes.map(|notice| notice.causes.clone()).unwrap_or_default();
        for cause in causes {
            self.unbook_cause(id, cause);
        }
    }

    /// A notice may be over. After a gap, answers that waited it out come first (P4).
    pub(super) fn notice_due(&mut self, id: LeaseId, out: &mut Output) {
        let Some(deadline) = self.soft.notices.get(&id).copied() else { return };
        let due = deadline.max(self.soft.clock.quiet_until);
        if due > self.now() {
            return self.soft.deadlines.set(due, Deadline::Notice(id));
        }
        let Some(notice) = self.state.lease(id).and_then(|lease| lease.notice.as_ref()) else {
            return;
        };
        let time = deadline.since(notice.given_at);
        let detail = format!("notice {} was not answered within {time}", notice.id);
        self.reclaim(id, EndReason::Revoked, Some(detail.into()), out);
    }

    /// For whom a lease gives way: told to whoever asks why they got its devices.
    pub(super) fn note_preempted(&mut self, id: LeaseId) {
        let Some(lease) = self.state.lease(id).filter(|lease| lease.state == LeaseState::Pausing)
        else {
            return;
        };
        let causes = lease.notice.iter().flat_map(|notice| notice.causes.iter());
        let requests = causes.filter_map(|cause| match cause {
            Cause::Preemption(request) => Some(*request),
            Cause::Drain(_) => None,
        });
        let waiting: Vec<LeaseId> =
            requests.filter(|request| self.soft.queue.waiter(*request).is_some()).collect();
        self.soft.served_by_notice.extend(waiting);
    }

    /// The standing notice of a lease as its holder sees it.
    pub(super) fn notice_view(&self, lease: &Lease) -> Option<NoticeView> {
        let notice = lease.notice.as_ref().filter(|_| lease.state == LeaseState::Pausing)?;
        let over = self.notice_over(lease.id, notice);
        let extends_to = self.extends_to(lease.id, notice, over);
        Some(NoticeView {
            id: notice.id,
            remaining: over.since(self.now()),
            causes: notice.causes.iter().filter_map(|cause| self.cause_view(*cause)).collect(),
            extension_max: extends_to.map(|bound| bound.since(over)),
        })
    }

    /// Up to when the holder may extend a notice that is `over` then.
    pub(super) fn extends_to(&self, id: LeaseId, notice: &Notice, over: Time) -> Option<Time> {
        let bound = notice.extends_to(over, self.policy.notice_max)?;
        Some(bound.min(self.guest_until(id))).filter(|bound| *bound > over)
    }

    fn cause_view(&self, cause: Cause) -> Option<CauseView> {
        Some(match cause {
            Cause::Preemption(request) => CauseView::Preemption(request),
            Cause::Drain(Target::Device(device)) => {
                let named = self.device_name(device)?;
                CauseView::DrainDevice { node: named.node, uuid: named.facts.uuid.clone() }
            }
            Cause::Drain(Target::Node(node)) => {
                CauseView::DrainNode(self.state.inventory().node(node)?.facts.name.clone())
            }
        })
    }
}
