//! Plans: what is asked and answered, and leases of a reserved plan held like any others.

use super::Scene;
use crate::{Client, ErrorKind, LeaseStatus, OrderClass, Pipeline, Reservation, Step};

fn pipelines() -> [Pipeline; 2] {
    let step = Step::new("infer").input("numpy").output("torch").memory(2 << 30);
    ["well-1", "well-2"].map(|name| Pipeline::new(name).step(step.clone()))
}

#[tokio::test]
async fn a_plan_is_plain_values_and_holds_nothing() {
    let scene = Scene::new().await;
    let plan = scene.client.plan(pipelines()).await.unwrap();
    assert!(plan.complete && !plan.reserved);
    let first = &plan.assignments[0];
    assert_eq!((first.pipeline.as_str(), first.node.as_deref()), ("well-1", Some("node-a")));
    assert_eq!((first.devices[0].uuid.as_str(), &first.lease), ("GPU-1", &None));
}

#[tokio::test]
async fn leases_of_a_reserved_plan_are_kept_alive_and_released_by_the_session() {
    let mut scene = Scene::new().await;
    let reserved = scene.client.reserve(pipelines(), Reservation::new("plate-1")).await.unwrap();
    assert_eq!(reserved.leases.len(), 2);
    let lease = reserved.lease("well-2").unwrap();
    assert_eq!(
        (lease.id(), lease.fencing_token(), lease.status()),
        (101, 101, LeaseStatus::Active)
    );
    // Nothing was asked over the session yet: it opens for them, and renews them.
    let mut session = scene.coordinator.welcome(vec![]).await;
    let (_, renewals) = session.renewal().await;
    let mut renewed: Vec<u64> = renewals.iter().map(|renewal| renewal.lease_id).collect();
    renewed.sort_unstable();
    assert_eq!(renewed, [100, 101]);
    drop(reserved);
    let mut released = [session.release().await.1.lease_id, session.release().await.1.lease_id];
    released.sort_unstable();
    assert_eq!(released, [100, 101]);
}

#[tokio::test]
async fn a_reservation_whose_leases_are_over_is_no_success() {
    let scene = Scene::new().await;
    let step = Step::new("infer").input("numpy").output("torch");
    let named = |names: [&str; 2]| names.map(|name| Pipeline::new(name).step(step.clone()));
    let all = scene.client.reserve(named(["over-1", "over-2"]), Reservation::new("plate-1")).await;
    let refused = all.unwrap_err();
    assert_eq!((refused.kind(), refused.reason()), (ErrorKind::LeaseEnded, "LEASE_ENDED"));
    let some = scene.client.reserve(named(["over-1", "well-2"]), Reservation::new("plate-2")).await;
    let some = some.unwrap();
    assert!(some.lease("over-1").is_none() && some.lease("well-2").is_some());
}

#[tokio::test]
async fn the_queue_is_plain_values() {
    let scene = Scene::new().await;
    let queue = scene.client.queue(0, Some("wells")).await.unwrap();
    let entry = &queue.entries[0];
    assert_eq!((entry.lease.id, entry.position, entry.class), (3, 7, Some(OrderClass::Aged)));
    assert_eq!((queue.waiting, queue.services[0].service.as_str()), (9, "wells"));
    assert_eq!(queue.services[0].leases.limit, None);
}

#[tokio::test]
async fn where_gpus_are_disabled_nothing_is_reserved() {
    let scene = Scene::new().await;
    let client = Client::builder()
        .endpoint(scene.coordinator.endpoint())
        .enabled(false)
        .connect()
        .await
        .unwrap();
    let refused = client.reserve(pipelines(), Reservation::new("plate-1")).await.unwrap_err();
    assert_eq!(refused.reason(), "DISABLED");
}
