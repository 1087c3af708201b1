//! The queue.

use gpulease::{OrderClass, Queue, QueueEntry, ServiceShare};

use crate::view;

impl From<&Queue> for view::Queue {
    fn from(queue: &Queue) -> Self {
        Self {
            entries: queue.entries.iter().map(Into::into).collect(),
            waiting: queue.waiting,
            services: queue.services.iter().map(Into::into).collect(),
            revision: queue.revision,
        }
    }
}

impl From<&QueueEntry> for view::QueueEntry {
    fn from(entry: &QueueEntry) -> Self {
        Self {
            position: entry.position,
            class: entry.class.map(OrderClass::name).map(str::to_owned),
            resumed: entry.resumed,
            fair_share_usage_gib_hours: entry.fair_share_usage,
            away: entry.away,
            held_back: entry.held_back.clone(),
            forecast_seconds: entry.forecast.map(|forecast| forecast.as_secs_f64()),
            lease: (&entry.lease).into(),
        }
    }
}

impl From<&ServiceShare> for view::ServiceShare {
    fn from(share: &ServiceShare) -> Self {
        let quota =
            |quota: gpulease::QuotaUse| view::QuotaUse { used: quota.used, limit: quota.limit };
        Self {
            service: share.service.clone(),
            weight: share.weight,
            usage_gib_hours: share.usage,
            usage_permille: share.usage_permille,
            leases: quota(share.leases),
            devices: quota(share.devices),
            memory_bytes: quota(share.memory_bytes),
            waiting: quota(share.waiting),
        }
    }
}
