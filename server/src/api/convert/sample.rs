//! Measurements and work done, between the wire and telemetry.

use gpulease_core::request::{DURATION_MAX, InvalidField};
use gpulease_core::time::Span;
use gpulease_proto::v1;

use super::time::{exact_duration, timestamp};
use crate::{
    api::limits::OPERATIONS_MAX,
    telemetry::{
        hub::Sample,
        operations::{ServiceWork, Work},
    },
};

/// Work that a holder tells of with a renewal; `None`: it tells of none.
///
/// # Errors
/// The first field that is out of bounds.
pub(in crate::api) fn work(wire: &v1::RenewRequest) -> Result<Option<Work>, InvalidField> {
    let Some(wire) = &wire.operations else { return Ok(None) };
    if wire.count > OPERATIONS_MAX {
        let bound = format!("0 to {OPERATIONS_MAX}");
        return Err(InvalidField::new("operations.count", wire.count, bound));
    }
    let exact = |busy| exact_duration("operations.busy", busy, (Span::ZERO, DURATION_MAX));
    let busy = wire.busy.as_ref().map(exact).transpose()?.unwrap_or_default();
    Ok(Some(Work { count: wire.count, busy }))
}

/// What a service did on a device.
pub(in crate::api) fn operations(work: &ServiceWork) -> v1::DeviceOperations {
    v1::DeviceOperations {
        device_uuid: work.device_uuid.to_string(),
        service: work.service.to_string(),
        operations_total: work.total.count,
        // Only a sum beyond 292 billion years does not fit.
        busy_total: work.total.busy.try_into().ok(),
    }
}

/// A sample with its age as of now.
pub(in crate::api) fn sample(sample: &Sample) -> v1::Sample {
    v1::Sample {
        device_uuid: sample.device_uuid.as_str().to_owned(),
        time: Some(timestamp(sample.time)),
        // Only an age beyond 292 billion years does not fit.
        age: sample.measured_at.elapsed().try_into().ok(),
        memory_used_bytes: sample.memory_used_bytes,
        memory_foreign_bytes: sample.memory_foreign_bytes,
        utilization_permille: sample.utilization_permille,
        temperature_celsius: sample.temperature_celsius,
        power_draw_milliwatts: sample.power_draw_milliwatts,
    }
}
