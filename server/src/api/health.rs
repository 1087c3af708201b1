//! Health as the standard service tells it: overall under the empty name, and each service by its own.

use tonic_health::{ServingStatus, server::HealthReporter};

use crate::actor::{Handle, Health};

/// Says that every service serves: before the first call is taken, or an early caller would hear that there is none.
pub(super) async fn begin(reporter: &mut HealthReporter, services: &'static [&'static str]) {
    for name in services.iter().copied().chain([""]) {
        reporter.set_service_status(name, ServingStatus::Serving).await;
    }
}

/// Follows the actor's health from [`begin`] to its end, then ends every stream that watches it.
pub(super) async fn report(
    handle: Handle,
    mut reporter: HealthReporter,
    services: &'static [&'static str],
) {
    let mut health = handle.health();
    let names = || services.iter().copied().chain([""]);
    // An error means that the actor is gone, which is no health either.
    let _ = health.wait_for(|health| *health != Health::Serving).await;
    for name in names() {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
    handle_end(&mut reporter, names()).await;
}

/// A cleared name ends its watches, after they were told of the last change.
async fn handle_end(reporter: &mut HealthReporter, names: impl Iterator<Item = &'static str>) {
    tokio::time::sleep(super::limits::HEALTH_TOLD_AFTER).await;
    for name in names {
        reporter.clear_service_status(name).await;
    }
}
