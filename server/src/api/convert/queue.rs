//! The queue, from the core's views to the wire.

use gpulease_core::{
    order::Class,
    view::{QueueEntryView, QueueView, QuotaUse, ServiceShare},
};
use gpulease_proto::v1;

use super::{
    lease::lease,
    time::{Display, from_span},
};

/// Byte-seconds of a GiB-hour.
const GIB_HOUR: f64 = 3_600.0 * (1u64 << 30) as f64;

/// The queue.
pub(in crate::api) fn queue(
    view: &QueueView,
    display: &Display,
    revision: u64,
) -> v1::QueueResponse {
    v1::QueueResponse {
        entries: view.entries.iter().map(|it| entry(it, display)).collect(),
        waiting: view.waiting as u64,
        services: view.services.iter().map(service).collect(),
        revision,
    }
}

fn entry(view: &QueueEntryView, display: &Display) -> v1::QueueEntry {
    v1::QueueEntry {
        lease: Some(lease(&view.lease, display)),
        position: view.position,
        class: class(view.class).into(),
        resumed: view.resumed,
        fair_share_usage: gib_hours(view.share_byte_seconds),
        away: view.away,
        held_back: view.held_back.clone().unwrap_or_default(),
        forecast: view.forecast.map(from_span),
    }
}

const fn class(class: Class) -> v1::OrderClass {
    match class {
        Class::Background => v1::OrderClass::Background,
        Class::Normal => v1::OrderClass::Normal,
        Class::Immediate => v1::OrderClass::Immediate,
        Class::Aged => v1::OrderClass::Aged,
        Class::Owner => v1::OrderClass::Owner,
    }
}

fn service(share: &ServiceShare) -> v1::ServiceShare {
    v1::ServiceShare {
        service: share.service.to_string(),
        weight: share.weight,
        usage: gib_hours(share.used_byte_seconds),
        usage_permille: share.used_permille,
        leases: Some(quota(share.leases)),
        devices: Some(quota(share.devices)),
        memory_bytes: Some(quota(share.memory_bytes)),
        waiting: Some(quota(share.waiting)),
    }
}

const fn quota(quota: QuotaUse) -> v1::QuotaUse {
    v1::QuotaUse { used: quota.in_use, limit: quota.limit }
}

#[allow(clippy::cast_precision_loss, reason = "a figure to be read: 53 bits are plenty")]
fn gib_hours(byte_seconds: u128) -> f64 {
    byte_seconds as f64 / GIB_HOUR
}
