//! What a holder, or an operator, does to a lease that is there: renew, release, acknowledge, revoke (P17).

use std::sync::Arc;

use super::Scheduler;
use crate::{
    event::Event,
    id::{Caller, Holder, LeaseId, NoticeId, Token},
    lease::{EndReason, Lease, State as LeaseState},
    output::{Answer, Output, Rejection},
    time::Span,
};

impl Scheduler {
    pub(super) fn renew(
        &mut self,
        caller: Caller,
        id: LeaseId,
        token: Token,
        holder: Option<&Holder>,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let lease = self.owned(id, holder)?;
        match lease.state {
            LeaseState::Active | LeaseState::Pausing | LeaseState::Paused => {
                self.check_token_or_previous(lease, Some(token))?;
            }
            LeaseState::Queued => return Err(Rejection::LeaseNotActive { lease: id }),
            LeaseState::Reclaiming(reason) | LeaseState::Ended(reason) => {
                return Err(Rejection::LeaseEnded { lease: id, reason });
            }
        }
        let (state, newest) = (lease.state, lease.token);
        let expiry = self.expiry_from_now(id);
        self.soft.expiries.insert(id, expiry);
        self.heard_from(id, caller, token, out);
        let resumed = (token != newest).then(|| Box::new(self.lease_view_of(id)));
        let notice = self.state.lease(id).and_then(|lease| self.notice_view(lease));
        Ok(Answer::Renewed {
            lease: id,
            token: newest,
            remaining: expiry.since(self.now()),
            state,
            notice: notice.map(Box::new),
            resumed,
        })
    }

    pub(super) fn release(
        &mut self,
        id: LeaseId,
        token: Option<Token>,
        holder: Option<&Holder>,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let lease = self.owned(id, holder)?;
        match lease.state {
            LeaseState::Queued => {
                let rejection = Rejection::Cancelled { lease: id };
                self.leave_queue(id, EndReason::Cancelled, None, rejection, out);
            }
            LeaseState::Active | LeaseState::Pausing => {
                self.check_token_or_previous(lease, token)?;
                self.end_holding(id, EndReason::Released, None, out);
            }
            LeaseState::Paused => {
                self.check_token_or_previous(lease, token)?;
                self.end_paused(id, EndReason::Released, None, out);
                // It may have been paused by a loss, which closed parts.
                self.released_late(id, out);
            }
            LeaseState::Reclaiming(_) => {
                self.check_token_or_previous(lease, token)?;
                self.released_late(id, out);
            }
            LeaseState::Ended(EndReason::Released) => self.check_token_or_previous(lease, token)?,
            LeaseState::Ended(EndReason::Cancelled) => {}
            LeaseState::Ended(reason) => return Err(Rejection::LeaseEnded { lease: id, reason }),
        }
        Ok(Answer::Released(Box::new(self.lease_view_of(id))))
    }

    /// The holder has stopped. An answer to a notice that is not there any more changes nothing and tells how the
    /// lease is; so does the repetition of the answer that ended it.
    pub(super) fn acknowledge(
        &mut self,
        caller: Caller,
        (id, token, notice): (LeaseId, Token, NoticeId),
        holder: Option<&Holder>,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let lease = self.owned(id, holder)?;
        let newest = lease.notice.as_ref().map(|notice| notice.id);
        match lease.state {
            LeaseState::Queued => return Err(Rejection::LeaseNotActive { lease: id }),
            LeaseState::Ended(EndReason::Revoked) if newest == Some(notice) => {
                check_token(lease, Some(token))?;
            }
            LeaseState::Reclaiming(reason) | LeaseState::Ended(reason) => {
                return Err(Rejection::LeaseEnded { lease: id, reason });
            }
            LeaseState::Active | LeaseState::Pausing | LeaseState::Paused => {
                let (current, pauses) = (newest == Some(notice), lease.pauses());
                let answers = current && lease.state == LeaseState::Pausing;
                // A repeated answer may be from before a resume that its holder has not heard of.
                if answers {
                    check_token(lease, Some(token))?;
                } else {
                    self.check_token_or_previous(lease, Some(token))?;
                }
                self.heard_from(id, caller, token, out);
                if answers && pauses {
                    self.pause(id, None, out);
                } else if answers {
                    let detail = Some(Arc::from("its holder answered a notice"));
                    self.end_holding(id, EndReason::Revoked, detail, out);
                }
                self.tell_of_call(id, caller, out);
            }
        }
        Ok(Answer::Acknowledged(Box::new(self.lease_view_of(id))))
    }

    /// More time to answer, once for each notice: at most doubling it, never past `notice_max` from its start.
    pub(super) fn extend_notice(
        &mut self,
        caller: Caller,
        (id, token, notice): (LeaseId, Token, NoticeId),
        extension: Span,
        holder: Option<&Holder>,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let lease = self.owned(id, holder)?;
        if let LeaseState::Reclaiming(reason) | LeaseState::Ended(reason) = lease.state {
            return Err(Rejection::LeaseEnded { lease: id, reason });
        }
        check_token(lease, Some(token))?;
        let standing = lease.notice.as_ref().filter(|standing| standing.id == notice);
        let standing = standing.filter(|_| lease.state == LeaseState::Pausing);
        let standing = standing.ok_or(Rejection::NoticeOver { lease: id })?;
        let (over, max) = (self.notice_over(id, standing), self.policy.notice_max);
        let bound = self.extends_to(id, standing, over);
        let bound = bound.ok_or(Rejection::NoticeAtBound { lease: id, max })?;
        self.heard_from(id, caller, token, out);
        self.extend_to(id, over.after(extension).min(bound), out);
        self.tell_of_call(id, caller, out);
        Ok(Answer::NoticeExtended(Box::new(self.lease_view_of(id))))
    }

    pub(super) fn revoke(
        &mut self,
        id: LeaseId,
        detail: Arc<str>,
        out: &mut Output,
    ) -> Result<Answer, Rejection> {
        let detail = (!detail.is_empty()).then_some(detail);
        match self.owned(id, None)?.state {
            LeaseState::Queued => {
                let rejection = Rejection::Revoked { lease: id, detail: detail.clone() };
                self.leave_queue(id, EndReason::Revoked, detail, rejection, out);
            }
            LeaseState::Active | LeaseState::Pausing => {
                self.reclaim(id, EndReason::Revoked, detail, out);
            }
            LeaseState::Paused => {
                self.end_paused(id, EndReason::Revoked, detail, out);
                self.tell(id, out);
            }
            LeaseState::Reclaiming(_) => {}
            LeaseState::Ended(reason) => return Err(Rejection::LeaseEnded { lease: id, reason }),
        }
        Ok(Answer::Revoked(Box::new(self.lease_view_of(id))))
    }

    /// A clean end of a lease that holds devices: they are free at once where figures are exact, else once a pass
    /// shows it (P7).
    pub(super) fn end_holding(
        &mut self,
        id: LeaseId,
        reason: EndReason,
        detail: Option<Arc<str>>,
        out: &mut Output,
    ) {
        self.note_preempted(id);
        self.emit(Event::Ended { lease: id, reason, detail }, out);
        self.forget_holding(id);
        self.begin_closing(id, out);
        self.soft.dirty = true;
    }

    /// PAUSED → ENDED.
    pub(super) fn end_paused(
        &mut self,
        id: LeaseId,
        reason: EndReason,
        detail: Option<Arc<str>>,
        out: &mut Output,
    ) {
        self.drop_cause_of(id, out);
        self.unqueue(id);
        self.emit(Event::Ended { lease: id, reason, detail }, out);
        self.forget_live(id);
        self.soft.dirty = true;
    }

    /// A lease is over: nothing of what is known of its holder means anything any more.
    pub(super) fn forget_live(&mut self, id: LeaseId) {
        self.forget_expiry(id);
        self.soft.unary.remove(&id);
        self.soft.adopted.remove(&id);
    }

    /// What a unary call did, say by a script beside the holder, its session hears too.
    fn tell_of_call(&self, id: LeaseId, caller: Caller, out: &mut Output) {
        if matches!(caller, Caller::Call(_)) {
            self.tell(id, out);
        }
    }

    /// A holder spoke of its lease: by which way, and whether it knows its newest token (P17).
    fn heard_from(&mut self, id: LeaseId, caller: Caller, token: Token, out: &mut Output) {
        let Some(lease) = self.state.lease(id) else { return };
        if token == lease.token && lease.previous_token > Token(0) {
            self.soft.adopted.insert(id);
        }
        let paused = lease.state == LeaseState::Paused;
        match caller {
            Caller::Call(_) => {
                if self.soft.unary.insert(id) && paused {
                    self.set_holder_presence(id, out);
                }
            }
            Caller::Session(_) => {
                if self.soft.unary.remove(&id) && paused {
                    self.set_holder_presence(id, out);
                }
            }
        }
    }

    fn owned(&self, id: LeaseId, holder: Option<&Holder>) -> Result<&Lease, Rejection> {
        let lease = self.state.lease(id).ok_or(Rejection::LeaseNotFound { lease: id })?;
        if holder.is_some_and(|holder| *holder != lease.request.holder) {
            return Err(Rejection::NotTheHolder { lease: id });
        }
        Ok(lease)
    }

    /// The newest token, or after a resume the one before, until the new one is used (P17).
    fn check_token_or_previous(
        &self,
        lease: &Lease,
        given: Option<Token>,
    ) -> Result<(), Rejection> {
        let previous = lease.previous_token > Token(0)
            && given == Some(lease.previous_token)
            && !self.soft.adopted.contains(&lease.id);
        if previous { Ok(()) } else { check_token(lease, given) }
    }
}

/// The newest token alone: an answer to a notice is one to what its grant holds.
fn check_token(lease: &Lease, given: Option<Token>) -> Result<(), Rejection> {
    if given == Some(lease.token) {
        return Ok(());
    }
    Err(Rejection::StaleToken { lease: lease.id, given })
}
