//! Work told with renewals, on its way from the edge to the totals: counted once the renewal succeeded, for every device
//! of the lease's newest grant.
//!
//! Whose devices a lease has is a question to the actor, one for all renewals of a message. Where too many questions
//! wait, the work goes uncounted: figures for display never hold up a renewal.

use gpulease_core::id::{LeaseId, Name};

use crate::{
    actor::{Handle, Reading},
    telemetry::operations::{Operations, Work},
};

/// Counts what holders did.
pub(super) async fn count(handle: &Handle, operations: &Operations, told: Vec<(LeaseId, Work)>) {
    if told.is_empty() {
        return;
    }
    let find = move |reading: &Reading<'_>| -> Vec<_> {
        let found = |(lease, work): (LeaseId, Work)| Some((whose(reading, lease)?, work));
        told.into_iter().filter_map(found).collect()
    };
    let Ok(found) = handle.query(find).await else {
        tracing::debug!("work told with a renewal goes uncounted: too many questions wait");
        return;
    };
    for ((service, devices), work) in found {
        devices.iter().for_each(|device| operations.add(device, &service, work));
    }
}

/// A lease's service, and the devices of its newest grant by UUID.
fn whose(reading: &Reading<'_>, lease: LeaseId) -> Option<(Name, Vec<Name>)> {
    let state = reading.scheduler.state();
    let lease = state.lease(lease)?;
    let devices = lease.devices.iter().filter_map(|id| state.inventory().device(*id));
    let uuids = devices.map(|device| device.facts.uuid.clone()).collect();
    Some((lease.request.holder.service.clone(), uuids))
}
