//! What each service used of late, and has of its quotas: for those who ask why another goes first.

use std::ops::Bound;

use super::Scheduler;
use crate::{
    id::Name,
    view::{QuotaUse, ServiceShare},
};

impl Scheduler {
    /// At most `limit` services behind `after`, in order of name. All that are known are added up for it, at some 100 ns
    /// each.
    #[must_use]
    pub fn service_shares(&self, after: Option<&Name>, limit: usize) -> Vec<ServiceShare> {
        let (now, half_life) = (self.now(), self.state.half_life());
        let services = self.state.services();
        let used = services.values().map(|service| service.usage.at(now, half_life));
        let all = used.fold(0, u128::saturating_add);
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = services.range::<Name, _>((behind, Bound::Unbounded)).take(limit);
        page.map(|(name, service)| {
            let policy = self.policy.service(name);
            let used = service.usage.at(now, half_life);
            let permille = used.saturating_mul(1_000).checked_div(all).unwrap_or(0);
            let of = |in_use, limit| QuotaUse { in_use, limit };
            ServiceShare {
                service: name.clone(),
                weight: policy.weight,
                used_byte_seconds: used / 1_000,
                used_permille: u32::try_from(permille).unwrap_or(1_000),
                leases: of(service.held.leases, policy.leases_max),
                devices: of(service.held.devices, policy.devices_max),
                memory_bytes: of(service.usage.held_bytes(), policy.memory_max_bytes),
                waiting: of(service.held.queued, policy.waiting_max),
            }
        })
        .collect()
    }
}
