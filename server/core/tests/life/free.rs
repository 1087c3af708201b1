//! What a naive reader of the devices sees: nobody waits for what is free, be it queued or paused, nor has more than its
//! service's quota.

use std::collections::BTreeMap;

use gpulease_core::{
    id::{LeaseId, Name},
    lease::Lease,
    request::Share,
    scheduler::Scheduler,
    view::{DeviceCondition, LeaseView},
};

/// This service has a quota …
pub(crate) const BOUNDED: &str = "s2";
/// … of so many leases that hold devices.
pub(crate) const LEASES_MAX: u64 = 2;

/// A request's service may not be granted another lease: it holds, others of it keep, and one before it wants, as many as
/// it may.
pub(crate) fn at_its_quota(scheduler: &Scheduler, view: &LeaseView) -> bool {
    if view.request.holder.service.as_str() != BOUNDED {
        return false;
    }
    let keeps = |id: LeaseId| scheduler.state().keep_of(id).is_some();
    let others =
        |lease: &Lease| lease.request.holder.service.as_str() == BOUNDED && lease.id != view.id;
    let counts = |lease: &&Lease| {
        others(lease) && (lease.state.holds() || (lease.state.waits() && keeps(lease.id)))
    };
    let counted = scheduler.state().leases().values().filter(counts).count() as u64;
    let waiting =
        scheduler.leases(LeaseId(0), usize::MAX, |lease| lease.state.waits() && others(lease));
    let wants = |other: &LeaseView| {
        scheduler.is_present(other.id)
            && !keeps(other.id)
            && other.queue_position <= view.queue_position
    };
    counted + u64::from(waiting.leases.iter().any(wants)) >= LEASES_MAX
}

/// No service holds more leases than it may.
pub(crate) fn quotas_are_kept(scheduler: &Scheduler) {
    let bounded = |lease: &&Lease| lease.request.holder.service.as_str() == BOUNDED;
    let leases = scheduler.state().leases().values().filter(bounded);
    let held = leases.filter(|lease| lease.state.holds()).count() as u64;
    assert!(held <= LEASES_MAX, "{BOUNDED} holds {held} leases");
}

/// Whoever is present and may be granted does not fit on what is neither held, closed nor kept.
pub(crate) fn nobody_waits_for_what_is_free(scheduler: &Scheduler) {
    let free: Vec<_> = scheduler.devices(None, usize::MAX, None);
    let waiting = scheduler.leases(LeaseId(0), usize::MAX, |lease| lease.state.waits());
    for view in waiting.leases {
        if !scheduler.may_be_granted(view.id)
            || view.request.constraints.host_cpu_millis > 0
            || at_its_quota(scheduler, &view)
        {
            continue;
        }
        let mut fitting: BTreeMap<&Name, u32> = BTreeMap::new();
        for (_, device) in &free {
            let kept = device.device.kept_for.is_some_and(|lease| lease != view.id);
            // A paused lease never gets a device of which it still closes a part.
            let kept = kept || device.device.closed.contains_key(&view.id);
            // On a node with a driver, trees of former leases keep whole-device grants away.
            let lingering = !device.device.facts.answers_at_once;
            let bytes = device.memory_free_bytes.unwrap_or(0);
            let measured = device.memory_free_bytes.is_some();
            let taken = device.device.slots_used + device.device.slots_closed();
            let fits = match view.request.ask.share {
                Share::Exclusive => {
                    device.device.idle()
                        && !lingering
                        && device.memory_foreign_bytes.is_some_and(|foreign| foreign <= 1 << 30)
                }
                Share::Part { slots, memory_bytes } => {
                    device.device.exclusive == 0
                        && slots.is_none_or(|n| {
                            u64::from(n) + taken <= u64::from(device.device.facts.slots)
                        })
                        && memory_bytes.is_none_or(|n| n <= bytes)
                }
            };
            if fits && measured && !kept && device.condition == DeviceCondition::Available {
                *fitting.entry(&device.node).or_default() += 1;
            }
        }
        let wanted = view.request.ask.devices;
        let most = if view.request.constraints.same_node {
            fitting.values().copied().max().unwrap_or(0)
        } else {
            fitting.values().sum()
        };
        assert!(
            most < wanted,
            "lease {} waits for {wanted} devices, {fitting:?} are free",
            view.id
        );
    }
}
