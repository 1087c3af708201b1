//! Explanations.

use gpulease::{BlockingLease, Explanation, Waiting};

use crate::view;

impl From<&Explanation> for view::Explanation {
    fn from(explanation: &Explanation) -> Self {
        Self {
            lease: (&explanation.lease).into(),
            waiting: explanation.waiting.as_ref().map(Into::into),
            granted: explanation.granted.as_ref().map(|granted| view::Granted {
                devices_fitting: granted.devices_fitting,
                reason: granted.reason.clone(),
            }),
            revision: explanation.revision,
        }
    }
}

impl From<&Waiting> for view::Waiting {
    fn from(waiting: &Waiting) -> Self {
        let exclusion = |excluded: &gpulease::Exclusion| view::Exclusion {
            what: excluded.what.clone(),
            devices: excluded.devices,
        };
        Self {
            queue_position: waiting.queue_position,
            devices_known: waiting.devices_known,
            devices_suitable: waiting.devices_suitable,
            devices_fitting: waiting.devices_fitting,
            excluded: waiting.excluded.iter().map(exclusion).collect(),
            blocking: waiting.blocking.iter().map(Into::into).collect(),
            forecast_seconds: waiting.forecast.map(|forecast| forecast.as_secs_f64()),
            forecast_basis: waiting.forecast_basis.clone(),
        }
    }
}

impl From<&BlockingLease> for view::Blocking {
    fn from(lease: &BlockingLease) -> Self {
        Self {
            lease_id: lease.lease_id.to_string(),
            state: lease.state.to_string(),
            service: lease.service.clone(),
            holder: lease.holder.clone(),
            priority: lease.priority.to_string(),
            device_uuid: lease.device_uuid.clone(),
            forecast_seconds: lease.forecast.map(|forecast| forecast.as_secs_f64()),
            preemption: lease.preemption.clone(),
        }
    }
}
