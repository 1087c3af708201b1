//! The queue as it is, from its front: who waits, in which order, and what holds it back.
//!
//! Bounds of its cost: at most [`ENTRIES_MAX`] entries of some 3 µs each, and the services once over. The place of a
//! request is counted against every service that waits, so that fewer entries are told where very many do: [`COUNTS_MAX`]
//! such counts.

use std::{cell::OnceCell, cmp::Reverse, collections::BTreeSet};

use super::Scheduler;
use crate::{
    id::{LeaseId, Name},
    order::{Lane, OrderKey},
    preemption::Answers,
    queue::{Places, Presence},
    state::SERVICES_MAX,
    time::{Span, Time},
    view::{QueueEntryView, QueueView, ServiceShare},
};

/// The most entries told: 1,000 × some 1.5 KiB are 1.5 MB of an answer.
const ENTRIES_MAX: usize = 1_000;
/// All texts of their constraints, beside the 1.5 KiB: the page ends before it has more.
const CONSTRAINT_BYTES_MAX: usize = 1 << 20;
/// The most services told: 1,000 × some 300 bytes are 300 KB.
const SERVICES_TOLD_MAX: usize = 1_000;
/// See the head of this file: at some 100 ns each 20 ms.
const COUNTS_MAX: usize = 200_000;

impl Scheduler {
    /// At most `limit` requests from the front of the queue, of one service or of all.
    #[must_use]
    pub fn queue(&self, limit: usize, service: Option<&Name>) -> QueueView {
        let counts = COUNTS_MAX.checked_div(self.soft.queue.services().max(1)).unwrap_or(1);
        let limit = limit.min(ENTRIES_MAX).min(counts.max(1));
        let (shares, places) = (self.shares(), OnceCell::new());
        let mut held_back: BTreeSet<Name> = BTreeSet::new();
        let keys = self.soft.queue.first_in_order(shares, service, limit);
        let entry = |(index, key): (usize, OrderKey)| {
            let position = if service.is_some() {
                places.get_or_init(|| self.places()).before(key)
            } else {
                index
            };
            self.queue_entry(key, position, (&mut held_back, &places))
        };
        let mut text_bytes = 0usize;
        let within = |told: &QueueEntryView| {
            text_bytes = text_bytes.saturating_add(told.lease.request.constraints.text_bytes());
            text_bytes <= CONSTRAINT_BYTES_MAX
        };
        let entries = keys.into_iter().enumerate().filter_map(entry).take_while(within).collect();
        let tally = self.state.tally();
        let waiting = tally.queued.saturating_add(tally.paused);
        QueueView { entries, waiting, services: self.services_by_use(service) }
    }

    fn queue_entry<'a>(
        &'a self,
        key: OrderKey,
        position: usize,
        (held_back, places): (&mut BTreeSet<Name>, &OnceCell<Places<'a>>),
    ) -> Option<QueueEntryView> {
        let lease = self.state.lease(key.lease)?;
        let waiter = self.soft.queue.waiter(key.lease)?;
        let service = &lease.request.holder.service;
        // Nobody of a service goes before one that its quota holds back.
        let behind = held_back.contains(service);
        let own = if behind { None } else { self.quota_reached(&lease.request, key.rank()) };
        if own.is_some() {
            held_back.insert(service.clone());
        }
        let why = own.map(|reached| reached.to_string());
        let why = why.or_else(|| {
            behind.then(|| "a quota holds back a request of its service before it".to_owned())
        });
        let mut view = self.lease_view(lease, places);
        view.queue_position = position as u64;
        Some(QueueEntryView {
            lease: view,
            position: position as u64,
            class: key.class(),
            resumed: lease.first_granted_at.is_some(),
            share_byte_seconds: key.share / 1_000,
            away: matches!(waiter.presence, Presence::Expected { .. }),
            held_back: why,
            forecast: self.kept_forecast(key.lease),
        })
    }

    /// When what is in the way on the devices kept for a request should be gone.
    fn kept_forecast(&self, id: LeaseId) -> Option<Span> {
        let lease = self.state.lease(id)?;
        let (lane, keep): (&Lane, _) = self.state.keep_of(id)?;
        let site = self.site();
        let at = self
            .preemptor(&site, lane, id, &lease.request)
            .start(&keep.devices, Answers::InTime)
            .at;
        (at < Time::NEVER).then(|| at.since(self.now()))
    }

    fn services_by_use(&self, service: Option<&Name>) -> Vec<ServiceShare> {
        let mut all = self.service_shares(None, SERVICES_MAX);
        all.retain(|share| {
            let counts = [share.leases, share.devices, share.waiting];
            let used = share.used_byte_seconds > 0 || counts.iter().any(|it| it.in_use > 0);
            used && service.is_none_or(|only| *only == share.service)
        });
        all.sort_by_key(|share| Reverse(share.used_byte_seconds));
        all.truncate(SERVICES_TOLD_MAX);
        all
    }
}
