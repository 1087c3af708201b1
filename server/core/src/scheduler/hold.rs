//! What a holder, or an operator, does to a lease that is there: renew, release, revoke (P17).

use std::sync::Arc;

use super::Scheduler;
use crate::{
    event::Event,
    id::{Holder, LeaseId, Token},
    lease::{EndReason, Lease, OpenCause, State as LeaseState},
    output::{Answer, Output, Rejection},
};

impl Scheduler {
    pub(super) fn renew(
        &mut self,
        id: LeaseId,
        token: Token,
        holder: Option<&Holder>,
    ) -> Result<Answer, Rejection> {
        let lease = self.owned(id, holder)?;
        match lease.state {
            LeaseState::Active => check_token(lease, Some(token))?,
            LeaseState::Queued => return Err(Rejection::LeaseNotActive { lease: id }),
            LeaseState::Reclaiming(reason) | LeaseState::Ended(reason) => {
                return Err(Rejection::LeaseEnded { lease: id, reason });
            }
        }
        let expiry = self.expiry_from_now(id);
        self.soft.expiries.insert(id, expiry);
        Ok(Answer::Renewed { lease: id, token, remaining: expiry.since(self.now()) })
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
                self.leave_queue(
                    id,
                    EndReason::Cancelled,
                    None,
                    Rejection::Cancelled { lease: id },
                    out,
                );
            }
            LeaseState::Active => {
                check_token(lease, token)?;
                self.end_active(id, EndReason::Released, None, out);
            }
            LeaseState::Reclaiming(_) => {
                check_token(lease, token)?;
                self.open_released_late(id, out);
            }
            LeaseState::Ended(EndReason::Released) => check_token(lease, token)?,
            LeaseState::Ended(EndReason::Cancelled) => {}
            LeaseState::Ended(reason) => return Err(Rejection::LeaseEnded { lease: id, reason }),
        }
        Ok(Answer::Released(Box::new(self.lease_view_of(id))))
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
            LeaseState::Active => self.reclaim(id, EndReason::Revoked, detail, out),
            LeaseState::Reclaiming(_) => {}
            LeaseState::Ended(reason) => return Err(Rejection::LeaseEnded { lease: id, reason }),
        }
        Ok(Answer::Revoked(Box::new(self.lease_view_of(id))))
    }

    /// A clean end of a lease that holds devices: on devices whose figures are exact all of it is free at once (P7).
    fn end_active(
        &mut self,
        id: LeaseId,
        reason: EndReason,
        detail: Option<Arc<str>>,
        out: &mut Output,
    ) {
        self.emit(Event::Ended { lease: id, reason, detail }, out);
        self.forget_expiry(id);
        self.soft.dirty = true;
    }

    /// A late release proves, on devices whose figures are exact, that nothing of the lease is left there (P6).
    fn open_released_late(&mut self, id: LeaseId, out: &mut Output) {
        let devices = self.state.lease(id).map(|lease| lease.devices.clone()).unwrap_or_default();
        for device in devices {
            let exact = self
                .state
                .inventory()
                .device(device)
                .is_some_and(|device| device.facts.answers_at_once);
            if exact {
                self.open(device, id, OpenCause::LateRelease, out);
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
}

fn check_token(lease: &Lease, given: Option<Token>) -> Result<(), Rejection> {
    if given == Some(lease.token) {
        return Ok(());
    }
    Err(Rejection::StaleToken { lease: lease.id, given })
}
