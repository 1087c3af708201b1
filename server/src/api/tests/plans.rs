//! Plans over the wire: what they answer, and how they are refused.

use gpulease_proto::v1;
use tonic::Code;

use super::harness::{Coordinator, GIB, check};

fn step(name: &str, input: &str, output: &str, memory_gib: u64) -> v1::PipelineStep {
    let ask = v1::Ask { memory_bytes: Some(memory_gib * GIB), ..v1::Ask::default() };
    v1::PipelineStep {
        name: name.to_owned(),
        input_memory_type: input.to_owned(),
        output_memory_type: output.to_owned(),
        ask: (memory_gib > 0).then_some(ask),
    }
}

fn pipeline(name: &str, memory_gib: u64) -> v1::Pipeline {
    v1::Pipeline {
        name: name.to_owned(),
        steps: vec![
            step("read", "numpy", "numpy", 0),
            step("infer", "numpy", "torch", memory_gib),
            step("write", "torch", "cpu", 1),
        ],
        ..v1::Pipeline::default()
    }
}

fn plan(pipelines: &[(&str, u64)], request_id: Option<&str>) -> v1::PlanRequest {
    v1::PlanRequest {
        pipelines: pipelines.iter().map(|(name, gib)| pipeline(name, *gib)).collect(),
        reserve: request_id.map(|request_id| v1::Reservation {
            service: "wells".to_owned(),
            holder: "worker-1".to_owned(),
            request_id: request_id.to_owned(),
            ..v1::Reservation::default()
        }),
    }
}

#[tokio::test]
async fn a_plan_names_devices_for_every_step_and_changes_nothing() {
    let coordinator = Coordinator::start().await;
    let mut leases = coordinator.leases();
    let planned = leases.plan(plan(&[("a", 4), ("b", 12), ("c", 6)], None)).await.unwrap();
    let planned = planned.into_inner();
    assert!(planned.complete && !planned.reserved);
    let devices: Vec<&str> =
        planned.assignments.iter().map(|it| it.devices[0].uuid.as_str()).collect();
    assert_eq!(devices, ["SIM-node-0-1", "SIM-node-0-0", "SIM-node-0-1"]);
    let steps: Vec<_> = planned.assignments[0].steps.iter().map(|it| &it.device_uuids).collect();
    assert_eq!(steps, [&vec![], &vec![devices[0].to_owned()], &vec![devices[0].to_owned()]]);
    let loads: Vec<_> =
        planned.loads.iter().map(|it| (it.load_after_permille, it.pipelines)).collect();
    assert_eq!(loads, [(500, 1), (417, 2)]);
    let listed = leases.list(v1::LeaseServiceListRequest::default()).await.unwrap();
    assert!(listed.into_inner().leases.is_empty());
}

#[tokio::test]
async fn a_reserved_plan_is_granted_together_and_once() {
    let coordinator = Coordinator::start().await;
    let mut leases = coordinator.leases();
    let asked = plan(&[("a", 20), ("b", 12)], Some("batch-7"));
    let reserved = leases.plan(asked.clone()).await.unwrap().into_inner();
    assert!(reserved.complete && reserved.reserved);
    let first: Vec<u64> =
        reserved.assignments.iter().map(|it| it.lease.as_ref().unwrap().id).collect();
    assert_eq!(reserved.assignments[1].affinity_key, "batch-7/b");
    let again = leases.plan(asked).await.unwrap().into_inner();
    let second: Vec<u64> =
        again.assignments.iter().map(|it| it.lease.as_ref().unwrap().id).collect();
    assert_eq!(first, second, "repeating a reservation is safe (P16)");
    // They arrive like any leases of the holder.
    let lease = coordinator.lease(first[0]).await;
    assert_eq!((lease.state(), lease.request_id.as_str()), (v1::LeaseState::Active, "batch-7/a"));

    let status = leases.plan(plan(&[("a", 19), ("b", 12)], Some("batch-7"))).await.unwrap_err();
    check(&status, Code::InvalidArgument, "REQUEST_ID_REUSED", "request_id");
    let status = leases.plan(plan(&[("x", 1), ("y", 14)], Some("other"))).await.unwrap_err();
    check(&status, Code::ResourceExhausted, "PLAN_INCOMPLETE", "pipelines[1]");
    assert!(status.message().starts_with("cannot reserve a plan: 1 of its pipelines"), "{status}");
    let status = leases.plan(plan(&[("x", 25)], Some("other"))).await.unwrap_err();
    check(&status, Code::FailedPrecondition, "UNSATISFIABLE", "pipelines[0]");
}

#[tokio::test]
async fn a_refused_plan_names_the_field_by_its_path() {
    let coordinator = Coordinator::start().await;
    let mut leases = coordinator.leases();
    let mut asked = plan(&[("a", 1), ("b", 1)], None);
    asked.pipelines[1].steps[2].input_memory_type = "tensorrt".to_owned();
    let status = leases.plan(asked.clone()).await.unwrap_err();
    check(
        &status,
        Code::InvalidArgument,
        "INVALID_FIELD",
        "pipelines[1].steps[2].input_memory_type",
    );
    asked.pipelines[1].steps[2].input_memory_type = "torch".to_owned();
    asked.pipelines[1].steps[2].ask = Some(v1::Ask::default());
    let status = leases.plan(asked.clone()).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "pipelines[1].steps[2].ask");
    asked.pipelines[1].steps[2].ask = None;
    asked.pipelines[1].constraints =
        Some(v1::Constraints { models: vec![String::new()], ..v1::Constraints::default() });
    let status = leases.plan(asked.clone()).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "pipelines[1].constraints.models");
    asked.pipelines.clear();
    let status = leases.plan(asked).await.unwrap_err();
    check(&status, Code::InvalidArgument, "INVALID_FIELD", "pipelines");
}
