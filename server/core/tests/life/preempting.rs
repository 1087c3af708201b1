//! Whoever may preempt does (P14): a look at the leases alone, without any of the core's own rules.

use gpulease_core::{
    id::DeviceId,
    lease::State as LeaseState,
    notice::Cause,
    order::Class,
    policy::Policy,
    request::{Preemptible, Priority, Share},
    scheduler::Scheduler,
    time::Time,
    view::{DeviceCondition, DeviceView, LeaseView},
};

/// The only urgent request that waits, for one whole device, has somebody given notice if somebody may be.
pub(crate) fn whoever_may_preempt_does(scheduler: &Scheduler, policy: &Policy, now: Time) {
    let state = scheduler.state();
    let urgent = |view: &&LeaseView| {
        view.request.priority == Priority::Immediate && scheduler.is_present(view.id)
    };
    let waiting =
        scheduler.leases(gpulease_core::id::LeaseId(0), usize::MAX, |it| it.state.waits());
    let [request] = waiting.leases.iter().filter(urgent).collect::<Vec<_>>()[..] else { return };
    let lease = state.lease(request.id).expect("it waits");
    let ask = request.request.ask;
    let simple = ask.devices == 1
        && ask.share == Share::Exclusive
        && request.request.constraints.host_cpu_millis == 0
        && scheduler.may_be_granted(request.id)
        && !super::free::at_its_quota(scheduler, request)
        && lease.keep_barred_until <= now
        && now.since(request.requested_at) < policy.aging_step;
    // What is closed may be about to open.
    let closed = state.inventory().devices().any(|(_, device)| !device.closed.is_empty());
    if !simple || closed {
        return;
    }
    let may_go = |id: DeviceId, view: &DeviceView| {
        view.condition == DeviceCondition::Available
            && view.device.facts.answers_at_once
            && view.memory_foreign_bytes.is_some_and(|foreign| foreign <= 1 << 30)
            && view.device.kept_for.is_none_or(|kept| kept == request.id)
            && view.device.holding.keys().all(|holder| {
                let holder = state.lease(*holder).expect("it holds");
                let granted = holder.granted_at.expect("it holds");
                let held = granted.after(holder.request.minimum_hold) <= now;
                let node = state.inventory().node(view.device.node).expect("it has a node");
                let owner = policy.owner_of(&view.device.facts, &node.facts);
                let borrowed = owner == Some(&request.request.holder.service)
                    && holder.request.holder.service != request.request.holder.service;
                holder.request.preemptible != Preemptible::Never
                    && (holder.granted_class < Class::Immediate || borrowed)
                    && held
                    && holder.shielded_until <= now
                    && state.inventory().device(id).is_some()
            })
    };
    let devices = scheduler.devices(None, usize::MAX, None);
    let Some((device, _)) = devices.iter().find(|(id, view)| may_go(*id, view)) else { return };
    let noticed = state.leases().values().any(|lease| {
        let causes = lease.notice.iter().flat_map(|notice| notice.causes.iter());
        lease.state == LeaseState::Pausing
            && causes.into_iter().any(|cause| *cause == Cause::Preemption(request.id))
    });
    assert!(
        noticed,
        "lease {} could have {device:?}, and nobody was given notice: {:?}",
        request.id,
        scheduler.explain(request.id)
    );
}
