//! What is remembered of leases that ended: request ids (P16) and records (P17), within stated bounds.
//!
//! A record stays while either keeps it. Forgetting happens at the end of a batch, by the batch's time, so that
//! replay forgets the same.

use super::State;
use crate::{
    id::LeaseId,
    lease::Lease,
    time::{Span, Time},
};

/// The newest ended leases whose records are kept: 100,000 × about 500 bytes are 50 MB.
pub const RECORDS_MAX: usize = 100_000;
/// How long a record is kept.
pub const RECORD_AGE_MAX: Span = Span::from_minutes(60);
/// The newest request ids remembered of a service.
pub const REMEMBERED_PER_SERVICE_MAX: usize = 65_536;
/// The newest request ids remembered in all: 524,288 × about 500 bytes are 260 MB.
pub const REMEMBERED_MAX: usize = 524_288;
/// How long a request id outlives its lease.
pub const REMEMBERED_AGE_MAX: Span = Span::from_minutes(10);

impl State {
    /// Files an ended lease. One that was never granted gives its request id back at once; a service over its bound
    /// forgets its oldest.
    pub(super) fn file(&mut self, id: LeaseId, granted: bool, now: Time) {
        self.recorded.push_back(id);
        if !granted {
            self.forget_request(id, now);
            return;
        }
        self.remembered.push_back(id);
        let Some(service) = self.service_of(id) else { return };
        service.remembered.push_back(id);
        let over = service.remembered.len() > REMEMBERED_PER_SERVICE_MAX;
        if let Some(oldest) = over.then(|| service.remembered.front().copied()).flatten() {
            self.forget_request(oldest, now);
        }
    }

    /// Forgets what is too old or too much.
    pub(super) fn forget(&mut self, now: Time) {
        let is_old = |lease: Option<&Lease>, age: Span| {
            lease.and_then(|lease| lease.ended_at).is_none_or(|ended| now.since(ended) > age)
        };
        self.forget_use(now);
        while let Some(id) = self.remembered.front().copied() {
            let full = self.remembered.len() > REMEMBERED_MAX;
            if !full && !is_old(self.leases.get(&id), REMEMBERED_AGE_MAX) {
                break;
            }
            self.remembered.pop_front();
            self.forget_request(id, now);
        }
        while let Some(id) = self.recorded.front().copied() {
            let full = self.recorded.len() > RECORDS_MAX;
            if !full && !is_old(self.leases.get(&id), RECORD_AGE_MAX) {
                break;
            }
            self.recorded.pop_front();
            self.change_record(id, |lease| lease.recorded = false);
        }
    }

    /// Makes the request id of a lease mean nothing any more.
    fn forget_request(&mut self, id: LeaseId, now: Time) {
        let Some(request) = self.leases.get(&id).map(|lease| lease.request.clone()) else { return };
        if let Some(service) = self.services.get_mut(&request.holder.service) {
            if service.requests.get(&request.request_id) == Some(&id) {
                service.requests.remove(&request.request_id);
            }
            // Both orders are those of the ends, so that what is forgotten stands in front, or was forgotten before.
            if service.remembered.front() == Some(&id) {
                service.remembered.pop_front();
            }
        }
        self.tidy_service(id, now);
        self.change_record(id, |lease| lease.remembered = false);
    }

    /// Drops a service of which nothing is left, its use included.
    fn tidy_service(&mut self, id: LeaseId, now: Time) {
        let Some(name) = self.leases.get(&id).map(|lease| lease.request.holder.service.clone())
        else {
            return;
        };
        let empty = self.services.get(&name).is_some_and(|service| {
            let kept = [service.holders.len(), service.names.len(), service.requests.len()];
            service.forgotten_at.is_none() && kept == [0; 3]
        });
        if empty {
            self.leave_use(&name, now);
        }
    }

    fn change_record(&mut self, id: LeaseId, change: impl FnOnce(&mut Lease)) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        change(lease);
        if !lease.remembered && !lease.recorded && !lease.state.live() {
            self.leases.remove(&id);
        }
    }
}
