//! What notices and pauses do to the state.

use std::sync::Arc;

use super::{State, apply::Fit};
use crate::{
    event::{At, Event},
    id::{LeaseId, NoticeId},
    inventory::ClosedUntil,
    lease::{FactKind, Lease, State as LeaseState},
    notice::{Cause, Notice},
    time::Time,
};

impl State {
    /// A notice is given, changed or withdrawn.
    pub(super) fn notice(&mut self, at: At, event: &Event) -> Fit {
        match event {
            Event::Noticed { lease, notice, causes, deadline } => {
                self.noticed(at, *lease, *notice, (causes, *deadline))
            }
            Event::NoticeChanged { lease, notice: id, causes, deadline, extended } => {
                let notice = self.standing_notice(*lease, *id)?;
                (notice.causes, notice.deadline) = (causes.clone(), *deadline);
                notice.extended = *extended;
                self.lease_mut(*lease)?.record(at, FactKind::NoticeChanged(*id));
                Ok(())
            }
            Event::NoticeWithdrawn { lease, notice: id } => {
                self.standing_notice(*lease, *id)?.causes.clear();
                let lease = self.enter(*lease, LeaseState::Active, &[LeaseState::Pausing])?;
                lease.record(at, FactKind::NoticeWithdrawn(*id));
                Ok(())
            }
            _ => Err("it is no event of a notice".to_owned()),
        }
    }

    fn noticed(
        &mut self,
        at: At,
        lease: LeaseId,
        id: NoticeId,
        (causes, deadline): (&[Cause], Time),
    ) -> Fit {
        if id <= self.last_notice {
            return Err(format!("notice {id} was given before"));
        }
        self.last_notice = id;
        let lease = self.enter(lease, LeaseState::Pausing, &[LeaseState::Active])?;
        let causes = causes.to_vec();
        lease.notice = Some(Notice { id, causes, given_at: at.time, deadline, extended: false });
        lease.record(at, FactKind::Noticed(id));
        Ok(())
    }

    /// A lease gives its devices back on its notice, or loses one of them.
    pub(super) fn paused(&mut self, at: At, id: LeaseId, lost: Option<&Arc<str>>) -> Fit {
        // A loss is nobody's preemption.
        if lost.is_none() {
            self.end_notice(at, id, true)?;
        }
        self.give_back(at, id, lost.map(|_| ClosedUntil::Proven))?;
        let from = [LeaseState::Active, LeaseState::Pausing];
        let lease = self.enter(id, LeaseState::Paused, &from)?;
        let took = if lost.is_none() { lease.pause_took } else { None };
        lease.paused_at = Some(at.time);
        lease.detail = lost.cloned();
        lease.record(at, FactKind::Paused(took));
        Ok(())
    }

    /// A notice comes to its end with what it was given for: how long the answer took is kept, and whether it was a
    /// preemption.
    pub(super) fn end_notice(&mut self, at: At, id: LeaseId, answered: bool) -> Fit {
        let lease: &mut Lease = self.lease_mut(id)?;
        if lease.state != LeaseState::Pausing {
            return Ok(());
        }
        let Some(notice) = &lease.notice else { return Ok(()) };
        if answered {
            lease.pause_took = Some(at.time.since(notice.given_at));
        }
        if notice.preempts() {
            lease.book_preemption(at.time);
        }
        Ok(())
    }

    fn standing_notice(&mut self, id: LeaseId, notice: NoticeId) -> Fit<&mut Notice> {
        let lease = self.lease_mut(id)?;
        if lease.state != LeaseState::Pausing {
            return Err(format!("lease {id} is {:?} and has no notice", lease.state));
        }
        let standing = lease.notice.as_mut().filter(|standing| standing.id == notice);
        standing.ok_or_else(|| format!("lease {id} does not have notice {notice}"))
    }
}
