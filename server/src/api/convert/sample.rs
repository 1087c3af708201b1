//! Samples, from the hub to the wire.

use gpulease_proto::v1;

use super::time::timestamp;
use crate::telemetry::hub::Sample;

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
